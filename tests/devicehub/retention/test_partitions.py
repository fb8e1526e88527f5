"""Partitions of a table of readings, on PostgreSQL: conversion, extension, pruning by month."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import StringIO

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections, models, transaction
from django.utils import timezone

from devicehub.db import statements
from devicehub.db.batches import Pace, Stopped
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.retention import partition_sql, partitions
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.hub import database_url
from rig.telemetry import DAYS, HOUR, figures, measure, prune, sql


def table_of_readings():
    """What the database says about the table: indexes, constraints, sequence."""
    table = WeatherStationReading._meta.db_table
    indexes = sql(
        "SELECT relname, indkey::text FROM pg_index JOIN pg_class ON oid = indexrelid"
        f" WHERE indrelid = '{table}'::regclass AND NOT indisprimary"
    )
    keys = sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        f" WHERE conrelid = '{table}'::regclass AND contype = 'f'"
    )
    return sorted(indexes), sorted(keys), sql(f"SELECT pg_get_serial_sequence('{table}', 'id')")


@pytest.mark.sqlite_only
def test_sqlite_has_no_partitions(db):
    with pytest.raises(CommandError, match="Partitions need PostgreSQL; this database is SQLite"):
        call_command("partition_readings", "weatherstation", "--yes")


@pytest.mark.postgresql_only
class TestPartitions:
    def convert(self, *arguments):
        call_command("partition_readings", "weatherstation", "--yes", *arguments, stdout=StringIO())

    def test_everything_but_the_primary_key_stays_as_it_was(self, months_of_readings):
        before = table_of_readings(), list(WeatherStationReading.objects.values_list())

        self.convert("--batch", "7")

        assert (table_of_readings(), list(WeatherStationReading.objects.values_list())) == before
        found = partitions.partitions_of("fleet_weatherstationreading")
        assert found[-1].start is None
        assert {(p.start.day, p.end.day) for p in found[:-1]} == {(1, 1)}
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {found[-1].name}")
            assert cursor.fetchone() == (1,)  # the one of the future
        made = measure(months_of_readings, (timezone.now(), 5.0))[0]
        assert made.pk == max(row[0] for row in before[1]) + 1
        with pytest.raises(Exception, match="is not present in table"), transaction.atomic():
            measure(WeatherStationDevice(pk=10**9), (timezone.now(), 1.0))

    def test_what_is_written_meanwhile_is_there_afterwards(self, months_of_readings, kind):
        """Inserted, changed and deleted while rows are copied, before and behind the place of the copy."""
        rows = list(WeatherStationReading.objects.order_by("pk"))
        done = []

        def somebody_writes(_):
            with psycopg.connect(database_url()) as other:
                number = len(done)
                for sql, row in (
                    ("DELETE FROM fleet_weatherstationreading WHERE id = %s", rows[number]),
                    ("DELETE FROM fleet_weatherstationreading WHERE id = %s", rows[-2 - number]),
                    (
                        "UPDATE fleet_weatherstationreading SET temperature = -77 WHERE id = %s",
                        rows[20 + number],
                    ),
                    ("UPDATE fleet_weatherstationreading SET temperature = -78 WHERE id = %s", rows[50]),
                ):
                    other.execute(sql, [row.pk])
                other.execute(
                    "INSERT INTO fleet_weatherstationreading (device_id, timestamp, received_at, temperature)"
                    " VALUES (%s, now(), now(), -99)",
                    [months_of_readings.pk],
                )
            done.append(number)

        partitions.convert(partitions.plan(kind, "week"), Pace(rows=20, report=somebody_writes))

        found = list(WeatherStationReading.objects.all())
        assert len(done) > 3
        assert len([r for r in found if r.temperature == -99]) == len(done)
        assert len([r for r in found if r.temperature == -77]) == len(done)
        assert len([r for r in found if r.temperature == -78]) == 1
        gone = {rows[n].pk for n in done} | {rows[-2 - n].pk for n in done}
        assert {r.pk for r in found if r.temperature != -99} == {r.pk for r in rows} - gone

    def test_a_conversion_that_was_stopped_leaves_the_table_as_it_was(self, months_of_readings, kind):
        before = table_of_readings(), list(WeatherStationReading.objects.values_list())
        pace = Pace(rows=20)
        pace.report = lambda _: pace.stop.set()

        with pytest.raises(Stopped):
            partitions.convert(partitions.plan(kind, "month"), pace)

        assert (table_of_readings(), list(WeatherStationReading.objects.values_list())) == before
        assert not sql("SELECT 1 FROM pg_trigger WHERE tgname LIKE 'mirror%'")
        self.convert()
        assert WeatherStationReading.objects.count() == 101

    def test_ingest_copies_into_it(self, months_of_readings):
        self.convert()
        pipeline(
            [Message("things/weatherstation/STATION-001/data", b'{"temperature": 7.5}', timezone.now())],
            acknowledge=lambda: None,
        )

        assert WeatherStationReading.objects.filter(temperature=7.5, device=months_of_readings).count() == 1

    def test_pruning_drops_whole_partitions_and_makes_new_ones(self, months_of_readings):
        self.convert()
        names = {p.name for p in partitions.partitions_of("fleet_weatherstationreading")}
        newest = max(p.end for p in partitions.partitions_of("fleet_weatherstationreading")[:-1])
        sql(f"DROP TABLE fleet_weatherstationreading_{newest - timedelta(days=20):%Y_%m}_01")

        report = prune("--older-than", "40d")

        left = partitions.partitions_of("fleet_weatherstationreading")
        assert report["readings"]["partitions"] >= 2
        assert len(names - {p.name for p in left}) == report["readings"]["partitions"]
        assert max(p.end for p in left[:-1]) == newest
        assert (
            WeatherStationReading.objects.filter(timestamp__lt=timezone.now() - timedelta(days=41)).count()
            == 0
        )
        assert sum(count for *_, count in figures(DAYS).values()) == 101

    def test_rows_that_wait_in_the_rest_move_into_their_partition(self, months_of_readings, kind):
        self.convert("--by", "week")
        last = partitions.partitions_of("fleet_weatherstationreading")[-2]
        sql(f"DROP TABLE {last.name}")
        measure(months_of_readings, (last.start + HOUR, 55.0))

        assert partitions.extend(kind) == 1

        assert sql(f"SELECT temperature FROM {last.name}") == [(55.0,)]
        assert WeatherStationReading.objects.count() == 102

    def test_a_later_migration_adds_a_column(self, months_of_readings):
        self.convert()
        field = models.FloatField(null=True)
        field.set_attributes_from_name("pressure")
        with connection.schema_editor() as editor:
            editor.add_field(WeatherStationReading, field)
            editor.add_index(
                WeatherStationReading, models.Index(fields=["temperature"], name="of_a_later_migration")
            )

        sql("UPDATE fleet_weatherstationreading SET pressure = 1")
        assert sql("SELECT count(*) FROM fleet_weatherstationreading WHERE pressure = 1") == [(101,)]

    def test_what_would_be_lost_is_refused(self, months_of_readings):
        sql("CREATE VIEW warm AS SELECT * FROM fleet_weatherstationreading WHERE temperature > 20; SELECT 1")

        with pytest.raises(CommandError, match="has views, which would be lost: warm"):
            self.convert()

    def test_it_is_done_once(self, months_of_readings):
        self.convert()

        with pytest.raises(CommandError, match="is partitioned already"):
            self.convert()

    def test_without_yes_and_without_a_terminal_nothing_is_done(self, months_of_readings):
        out = StringIO()
        call_command("partition_readings", "weatherstation", "--dry-run", stdout=out)
        assert "partitions by month" in out.getvalue()

        with pytest.raises(CommandError, match="--yes does it without asking"):
            call_command("partition_readings", "weatherstation")

        assert not partitions.partitions_of("fleet_weatherstationreading")


READINGS = "fleet_weatherstationreading"


def longest_insert(device, moment, stop):
    """Store readings of *moment* until *stop*; the seconds that the slowest of them took."""
    longest = 0.0
    with psycopg.connect(database_url(), autocommit=True) as other:
        while not stop.is_set():
            began = time.monotonic()
            other.execute(
                f"INSERT INTO {READINGS} (device_id, timestamp, received_at, temperature)"
                " VALUES (%s, %s, now(), -5)",
                [device.pk, moment],
            )
            longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.postgresql_only
class TestPartitionsThatGoOn:
    def convert(self):
        call_command("partition_readings", "weatherstation", "--yes", stdout=StringIO())

    def without_the_last(self):
        """Take away the last partition, as if nothing had run for long; it."""
        last = partitions.partitions_of(READINGS)[-2]
        sql(f"DROP TABLE {last.name}")
        return last

    def test_where_nothing_is_to_do_it_is_one_question(self, months_of_readings, django_assert_num_queries):
        self.convert()

        with django_assert_num_queries(1):
            assert partitions.extend_all() == 0

    def test_many_rows_leave_the_rest_while_others_write(self, months_of_readings):
        self.convert()
        last = self.without_the_last()
        sql(
            f"INSERT INTO {READINGS} (device_id, timestamp, received_at, temperature)"
            f" SELECT {months_of_readings.pk}, '{last.start.isoformat()}'::timestamptz + n * interval '1 s', now(), 1"
            " FROM generate_series(1, 50000) AS n"
        )
        stop = threading.Event()
        with ThreadPoolExecutor() as pool:
            writer = pool.submit(longest_insert, months_of_readings, last.start + HOUR, stop)
            try:
                made = partitions.extend_all()
            finally:
                stop.set()
            longest = writer.result()

        assert made == 1
        assert longest < 1.0
        assert sql(f"SELECT count(*) FROM {last.name} WHERE temperature = 1") == [(50_000,)]
        (written,) = sql(f"SELECT count(*), count(DISTINCT id) FROM {READINGS} WHERE temperature = -5")
        assert sql(f"SELECT count(*) FROM {last.name} WHERE temperature = -5") == [(written[0],)]
        assert written[0] == written[1] > 0
        assert sql(f"SELECT count(*) FROM {READINGS}_rest") == [(1,)]

    def test_changes_of_waiting_rows_are_not_lost(self, months_of_readings, monkeypatch):
        """A row is changed, one deleted, and one gets a time that is in the partition, behind the copy."""
        self.convert()
        last = self.without_the_last()
        rows = measure(months_of_readings, *[(last.start + n * HOUR, float(n)) for n in range(30)])
        outside = WeatherStationReading.objects.get(temperature=-1.0)
        statements = [
            f"UPDATE {READINGS} SET temperature = -77 WHERE id = {rows[3].pk}",
            f"DELETE FROM {READINGS} WHERE id = {rows[4].pk}",
            f"UPDATE {READINGS} SET timestamp = '{(last.start + HOUR).isoformat()}' WHERE id = {outside.pk}",
            f"DELETE FROM {READINGS} WHERE id = {rows[29].pk}",
        ]

        class Meddling(Pace):
            def check(self):
                if statements and sql(f"SELECT count(*) FROM {last.name}")[0][0] >= 10:
                    with psycopg.connect(database_url()) as other:
                        while statements:
                            other.execute(statements.pop())

        monkeypatch.setattr(partitions, "Pace", lambda stop, **_: Meddling(rows=10, stop=stop))
        assert partitions.extend_all(Pace()) == 1

        assert not statements
        found = dict(sql(f"SELECT id, temperature FROM {last.name}"))
        assert found == {row.pk: row.temperature for row in rows if row.temperature not in (4, 29)} | {
            rows[3].pk: -77.0,
            outside.pk: -1.0,
        }
        assert WeatherStationReading.objects.count() == 100 + 28 + 1

    def test_two_workers_make_each_partition_once(self, months_of_readings):
        self.convert()
        self.without_the_last()

        def extend(_):
            try:
                return partitions.extend_all()
            finally:
                connections.close_all()

        with ThreadPoolExecutor() as pool:
            assert sum(pool.map(extend, range(2))) == 1

    def test_a_table_of_somebody_else_stays(self, months_of_readings):
        sql(f"CREATE TABLE {READINGS}_partitioned AS SELECT 1 AS precious")
        try:
            with pytest.raises(CommandError, match="which is not ours to drop"):
                self.convert()

            assert partitions.extend_all() == 0
            assert sql(f"SELECT precious FROM {READINGS}_partitioned") == [(1,)]
        finally:
            sql(f"DROP TABLE {READINGS}_partitioned")

    def test_rows_with_ids_below_one_are_copied(self, months_of_readings):
        WeatherStationReading.objects.bulk_create(
            WeatherStationReading(
                id=pk, device=months_of_readings, timestamp=timezone.now(), received_at=timezone.now()
            )
            for pk in (-5, 0)
        )
        self.convert()

        assert WeatherStationReading.objects.filter(pk__lt=1).count() == 2

    def test_owner_options_and_comment_stay(self, months_of_readings):
        """The owner is a role that whoever converts belongs to: here the one of the database's owner."""
        sql(f"ALTER TABLE {READINGS} OWNER TO pg_database_owner")
        sql(f"ALTER TABLE {READINGS} SET (autovacuum_vacuum_scale_factor = 0.01, fillfactor = 90)")
        sql(f"COMMENT ON TABLE {READINGS} IS 'Of the roof'")

        self.convert()
        self.without_the_last()
        partitions.extend_all()

        options = ["autovacuum_vacuum_scale_factor=0.01", "fillfactor=90"]
        found = {
            name: what
            for name, *what in sql(
                "SELECT relname, relowner::regrole::text, reloptions, obj_description(oid, 'pg_class')"
                f" FROM pg_class WHERE relname LIKE '{READINGS}%' AND relkind IN ('r', 'p')"
            )
        }
        assert found.pop(READINGS) == ["pg_database_owner", None, "Of the roof"]
        assert set(found) == {one.name for one in partitions.partitions_of(READINGS)}
        assert all(what == ["pg_database_owner", options, None] for what in found.values())

    @pytest.mark.parametrize(
        ("make", "undo", "refused"),
        [
            (
                f"CREATE PUBLICATION roof FOR TABLE {READINGS}",
                "DROP PUBLICATION roof",
                "has publications, which would be lost: roof",
            ),
            (
                f"GRANT SELECT (temperature) ON {READINGS} TO PUBLIC",
                f"REVOKE SELECT (temperature) ON {READINGS} FROM PUBLIC",
                "has columns that were granted, which would be lost: temperature",
            ),
        ],
    )
    def test_what_cannot_be_kept_is_refused(self, months_of_readings, make, undo, refused):
        sql(make)
        try:
            with pytest.raises(CommandError, match=refused):
                self.convert()
        finally:
            sql(undo)

    def test_what_a_killed_conversion_left_goes(self, months_of_readings, kind):
        """The mirror would break the next migration; a conversion that runs is left alone."""
        made = partitions.plan(kind, "month")
        partitions._build(made)
        partition_sql.mirror(made.table, made.beside)
        with partition_sql.alone(READINGS), ThreadPoolExecutor() as pool:
            pool.submit(lambda: (partitions.extend_all(), connections.close_all())).result()
            assert sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mirror%'") == [(2,)]

        partitions.extend_all()

        assert sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'mirror%'") == [(0,)]
        assert sql(f"SELECT to_regclass('{made.beside}')") == [(None,)]

    def test_a_table_that_is_not_analyzed_is_converted(self, months_of_readings, monkeypatch, caplog):
        def execute(statement, parameters=None):
            if statement.startswith("ANALYZE"):
                raise OperationalError("canceling statement due to statement timeout")
            return statements.execute(statement, parameters)

        monkeypatch.setattr(partitions, "execute", execute)

        self.convert()

        assert partitions.partitions_of(READINGS)
        assert "partitions.not_analyzed" in caplog.text
