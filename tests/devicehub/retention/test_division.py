"""Division of a table of readings in place, on PostgreSQL: unchanged parts, refusals, and the effect of a stop."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from devicehub.db import statements
from devicehub.db.batches import Pace, Stopped
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.retention import division, partition_sql, partitions
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.hub import ROOT, database_url, environment, eventually
from rig.telemetry import measure, sql

READINGS = "fleet_weatherstationreading"


@pytest.mark.sqlite_only
def test_sqlite_has_no_partitions(db):
    with pytest.raises(CommandError, match="Partitions need PostgreSQL; this database is SQLite"):
        call_command("partition_readings", "weatherstation", "--yes")


def convert(*arguments):
    """Run `partition_readings` for weather stations; return the printed text."""
    out = StringIO()
    call_command("partition_readings", "weatherstation", "--yes", *arguments, stdout=out)
    return out.getvalue()


def belongings():
    """Return indexes, constraints, sequence and all rows of the table."""
    indexes = sql(
        "SELECT relname, indkey::text FROM pg_index JOIN pg_class ON oid = indexrelid"
        f" WHERE indrelid = '{READINGS}'::regclass AND NOT indisprimary"
    )
    keys = sql(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        f" WHERE conrelid = '{READINGS}'::regclass AND contype <> 'p'"
    )
    sequence = sql(f"SELECT pg_get_serial_sequence('{READINGS}', 'id')")
    return sorted(indexes), sorted(keys), sequence, sorted(WeatherStationReading.objects.values_list())


def file_of(table):
    """Return the file that holds the rows of *table*."""
    return sql(f"SELECT pg_relation_filenode('{table}')")


@contextmanager
def held_up():
    """Open a transaction that has written to the table: no index can be made until it ends."""
    with psycopg.connect(database_url()) as other:
        other.execute(
            f"UPDATE {READINGS} SET temperature = temperature WHERE id = (SELECT min(id) FROM {READINGS})"
        )
        yield other
        other.rollback()


def index_is_being_made():
    return sql(f"SELECT 1 FROM pg_class WHERE relname = '{partition_sql.new_key(READINGS)}'")


@pytest.mark.postgresql_only
class TestDivision:
    @pytest.mark.parametrize("by", ["month", "week"])
    def test_everything_but_the_primary_key_stays_as_it_was(self, months_of_readings, by):
        before, file = belongings(), file_of(READINGS)

        printed = convert("--by", by)

        assert belongings() == before
        assert file_of(f"{READINGS}_first") == file  # No row was copied.
        first, *periods, rest = partitions.partitions_of(READINGS)
        assert (first.start, rest.start, rest.end) == (None, None, None)
        assert first.end == periods[0].start > timezone.now() + timedelta(days=2)
        assert [one.end for one in periods[:-1]] == [one.start for one in periods[1:]]
        lengths = {(one.end - one.start).days for one in periods}
        assert lengths == {7} if by == "week" else lengths <= {28, 29, 30, 31}
        until = f"{periods[-1].end:%Y-%m-%d}"
        assert f"{len(periods)} partitions by {by} from then until {until}, and" in printed
        made = measure(months_of_readings, (timezone.now(), 5.0))[0]
        assert made.pk == max(row[0] for row in before[-1]) + 1
        with pytest.raises(Exception, match="is not present in table"), transaction.atomic():
            measure(WeatherStationDevice(pk=10**9), (timezone.now(), 1.0))

    def test_the_table_is_ready_for_those_that_write_and_delete(self, months_of_readings):
        convert()
        row = WeatherStationReading.objects.order_by("pk")[0]

        row.temperature = -77.0
        row.save()
        WeatherStationReading.objects.filter(pk=row.pk + 1).delete()
        ahead = measure(months_of_readings, (partitions.partitions_of(READINGS)[1].start, 3.0))[0]

        assert WeatherStationReading.objects.get(pk=row.pk).temperature == -77.0
        assert WeatherStationReading.objects.in_bulk([row.pk, row.pk + 1, ahead.pk]).keys() == {
            row.pk,
            ahead.pk,
        }
        months_of_readings.delete()
        assert not WeatherStationReading.objects.exists()

    def test_a_table_without_rows_is_divided(self, table):
        with connection.cursor() as cursor:
            cursor.execute("SELECT nextval(pg_get_serial_sequence(%s, 'id'))", [table])
            [last] = cursor.fetchone()
        convert()

        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        assert measure(station, (timezone.now(), 1.0))[0].pk == last + 1

    def test_what_is_written_meanwhile_is_there_afterwards(self, months_of_readings, kind):
        """A worker stores messages, and others insert, change and delete rows; none waits for long."""
        stop, waits = threading.Event(), []
        rows = list(WeatherStationReading.objects.order_by("pk"))
        topic = "things/weatherstation/STATION-001/data"

        def ingest():
            number = 0
            try:
                while not stop.is_set():
                    began = time.monotonic()
                    body = b'{"temperature": 50, "humidity": %d}' % (number % 100)
                    pipeline([Message(topic, body, timezone.now())], acknowledge=lambda: None)
                    waits.append(time.monotonic() - began)
                    number += 1
                return number
            finally:
                connections.close_all()

        def change():
            number = 0
            with psycopg.connect(database_url(), autocommit=True) as other:
                while not stop.is_set() and number < 45:
                    began = time.monotonic()
                    other.execute(f"DELETE FROM {READINGS} WHERE id = %s", [rows[number].pk])
                    other.execute(
                        f"UPDATE {READINGS} SET temperature = -77 WHERE id = %s", [rows[50 + number].pk]
                    )
                    other.execute(
                        f"INSERT INTO {READINGS} (device_id, timestamp, received_at, temperature)"
                        " VALUES (%s, now(), now(), -99)",
                        [months_of_readings.pk],
                    )
                    waits.append(time.monotonic() - began)
                    number += 1
                    time.sleep(0.01)
            return number

        with ThreadPoolExecutor() as pool:
            ingested, changed = pool.submit(ingest), pool.submit(change)
            try:
                eventually(lambda: len(waits) > 10)
                division.convert(division.plan(kind, "month"), Pace())
                eventually(lambda: changed.done() or len(waits) > 100)
            finally:
                stop.set()

        found = list(WeatherStationReading.objects.all())
        assert len([r for r in found if r.temperature == 50]) == ingested.result() > 10
        assert len([r for r in found if r.temperature == -99]) == changed.result() > 10
        assert len([r for r in found if r.temperature == -77]) == changed.result()
        assert not {r.pk for r in rows[: changed.result()]} & {r.pk for r in found}
        assert len({r.pk for r in found}) == len(found)
        assert max(waits) < 1.0

    def test_it_gives_way_to_a_reader_that_takes_long(self, months_of_readings, kind):
        """Statements after the reader do not wait for it: the lock is requested again and again, for a short time."""
        made = division.plan(kind, "month")
        division._prepare(made)

        def divide():
            try:
                partition_sql.patiently(lambda: division._divide(made))
            finally:
                connections.close_all()

        with ThreadPoolExecutor() as pool, psycopg.connect(database_url()) as reader:
            reader.execute(f"SELECT count(*) FROM {READINGS}")
            dividing = pool.submit(
                lambda: (partition_sql.patiently(lambda: division._divide(made)), connections.close_all())
            )
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                began = time.monotonic()
                measure(months_of_readings, (timezone.now(), -5.0))
                assert time.monotonic() - began < 1.0
            assert not dividing.done()
            reader.rollback()
            dividing.result()

        assert partitions.partitions_of(READINGS)

    def test_without_yes_and_without_a_terminal_nothing_is_done(self, months_of_readings):
        before, out = belongings(), StringIO()
        call_command("partition_readings", "weatherstation", "--dry-run", stdout=out)
        assert "partitions by month" in out.getvalue()

        with pytest.raises(CommandError, match="--yes divides without confirmation"):
            call_command("partition_readings", "weatherstation")

        assert belongings() == before
        assert not partitions.partitions_of(READINGS)

    def test_owner_options_and_comment_stay(self, months_of_readings):
        """The owner is a role of which the dividing user is a member: here pg_database_owner."""
        sql(f"ALTER TABLE {READINGS} OWNER TO pg_database_owner")
        sql(f"ALTER TABLE {READINGS} SET (autovacuum_vacuum_scale_factor = 0.01, fillfactor = 90)")
        sql(f"COMMENT ON TABLE {READINGS} IS 'Of the roof'")

        convert()
        sql(f"DROP TABLE {partitions.partitions_of(READINGS)[-2].name}")
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

    def test_a_role_that_may_write_may_still_do_so(self, months_of_readings):
        sql(f"GRANT SELECT, INSERT ON {READINGS} TO pg_monitor")

        convert()

        (sequence,) = sql(f"SELECT pg_get_serial_sequence('{READINGS}', 'id')")[0]
        granted = sql(
            f"SELECT has_table_privilege('pg_monitor', '{READINGS}', 'INSERT'),"
            f" has_table_privilege('pg_monitor', '{READINGS}', 'SELECT'),"
            f" has_table_privilege('pg_monitor', '{READINGS}', 'DELETE'),"
            f" has_sequence_privilege('pg_monitor', '{sequence}', 'USAGE')"
        )
        assert granted == [(True, True, False, True)]

    def test_a_table_that_is_not_analyzed_is_divided(self, months_of_readings, monkeypatch, caplog):
        def execute(statement, parameters=None):
            if statement.startswith("ANALYZE"):
                raise OperationalError("canceling statement due to statement timeout")
            return statements.execute(statement, parameters)

        monkeypatch.setattr(division, "execute", execute)

        convert()

        assert partitions.partitions_of(READINGS)
        assert "partitions.not_analyzed" in caplog.text


@pytest.mark.postgresql_only
class TestRefusal:
    @pytest.mark.parametrize(
        ("make", "undo", "refused"),
        [
            (
                f"CREATE VIEW warm AS SELECT * FROM {READINGS} WHERE temperature > 20",
                "DROP VIEW warm",
                "has views, which would be lost: warm",
            ),
            (
                f"CREATE TABLE remark (reading bigint REFERENCES {READINGS})",
                "DROP TABLE remark",
                "has foreign keys of other tables, which would be lost: remark",
            ),
            (
                f"CREATE TRIGGER seen BEFORE UPDATE ON {READINGS} FOR EACH ROW"
                " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                f"DROP TRIGGER seen ON {READINGS}",
                "has triggers, which would be lost: seen",
            ),
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
            (
                f"CREATE POLICY ours ON {READINGS}",
                f"DROP POLICY ours ON {READINGS}",
                "has policies, which would be lost: ours",
            ),
            (
                f"CREATE UNIQUE INDEX once ON {READINGS} (device_id, received_at, id)",
                "DROP INDEX once",
                "has unique indexes without the timestamp, which would be lost: once",
            ),
            (
                f"CREATE TABLE heir () INHERITS ({READINGS})",
                "DROP TABLE heir",
                "has tables that inherit, which would be lost: heir",
            ),
        ],
    )
    def test_what_cannot_be_kept_is_refused(self, months_of_readings, make, undo, refused):
        sql(make)
        try:
            with pytest.raises(CommandError, match=refused):
                convert()
        finally:
            sql(undo)

    def test_rows_of_a_clock_that_was_wrong_are_refused(self, months_of_readings):
        measure(months_of_readings, (timezone.now() + timedelta(days=400), -1.0))

        with pytest.raises(
            CommandError, match=r"has 1 row with a time from .* on: correct or delete it first"
        ):
            convert()

    def test_it_is_done_once(self, months_of_readings):
        convert()

        with pytest.raises(CommandError, match="is partitioned already"):
            convert()

    def test_two_do_not_divide_at_once(self, months_of_readings, kind):
        made = division.plan(kind, "month")

        def second():
            try:
                division.convert(made, Pace())
            finally:
                connections.close_all()

        already = f"Another process is dividing {READINGS} already"
        with (
            partition_sql.alone(READINGS),
            ThreadPoolExecutor() as pool,
            pytest.raises(partition_sql.NotPartitioned, match=already),
        ):
            pool.submit(second).result()

    def test_a_table_of_somebody_else_stays(self, months_of_readings):
        before = belongings()
        sql(f"CREATE TABLE {READINGS}_first AS SELECT 1 AS precious")
        try:
            with pytest.raises(
                CommandError, match=f"There is another table {READINGS}_first already: rename it first"
            ):
                convert()

            assert sql(f"SELECT precious FROM {READINGS}_first") == [(1,)]
            assert belongings() == before
            assert not index_is_being_made()
        finally:
            sql(f"DROP TABLE {READINGS}_first")


@pytest.mark.postgresql_only
class TestStop:
    """A division that does not finish leaves the table unchanged, and its remains are removed soon."""

    @contextmanager
    def running(self):
        """Run the command in another process, which waits for a transaction while it makes its index."""
        command = [sys.executable, "manage.py", "partition_readings", "weatherstation", "--yes"]
        variables = environment(SECRET_KEY="only for this test, and long enough to be taken")
        with (
            held_up(),
            subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True) as run,
        ):
            try:
                eventually(index_is_being_made, 30)
                yield run
            finally:
                run.kill()

    def test_a_stop_while_the_index_is_made(self, months_of_readings, kind):
        before, pace = belongings(), Pace()

        def stop(other):
            try:
                eventually(index_is_being_made)
                pace.stop.set()
                other.rollback()
            finally:
                connections.close_all()

        with held_up() as other, ThreadPoolExecutor() as pool:
            stopping = pool.submit(stop, other)
            with pytest.raises(Stopped):
                division.convert(division.plan(kind, "month"), pace)
            stopping.result()

        assert belongings() == before
        assert not index_is_being_made()
        convert()
        assert WeatherStationReading.objects.count() == 100

    @pytest.mark.servers
    def test_the_command_ends_on_sigterm(self, months_of_readings):
        """Also while another transaction locks the table, so that the next extension removes its index."""
        before = belongings()
        with self.running() as run:
            run.send_signal(signal.SIGTERM)
            _, printed = run.communicate(timeout=30)
            assert (run.returncode, "Stopped; the table is unchanged" in printed) == (1, True), printed
            measure(months_of_readings, (timezone.now(), -5.0))
        partitions.extend_all()

        WeatherStationReading.objects.filter(temperature=-5.0).delete()
        assert belongings() == before
        assert not index_is_being_made()

    @pytest.mark.servers
    def test_a_killed_one_leaves_the_table_whole(self, months_of_readings):
        before = belongings()
        with self.running() as run:
            run.kill()
            run.wait()
            assert belongings()[1:] == before[1:]
            measure(months_of_readings, (timezone.now(), -5.0))
        # Its server process notices the end after the statement, and releases its lock.
        eventually(lambda: (partitions.extend_all(), not index_is_being_made())[1], 30)

        WeatherStationReading.objects.filter(temperature=-5.0).delete()
        assert belongings() == before

    def test_what_a_killed_one_left_goes_and_one_that_runs_is_left_alone(self, months_of_readings, kind):
        """The constraint would refuse rows of the next month."""
        before = belongings()
        division._prepare(division.plan(kind, "month"))
        assert belongings() != before

        with partition_sql.alone(READINGS), ThreadPoolExecutor() as pool:
            pool.submit(lambda: (partitions.extend_all(), connections.close_all())).result()
            assert index_is_being_made()

        partitions.extend_all()

        assert belongings() == before

    def test_the_next_one_begins_anew(self, months_of_readings, kind):
        division._prepare(division.plan(kind, "month"))

        convert()

        assert partitions.partitions_of(READINGS)
        assert not index_is_being_made()

    def test_an_index_that_took_until_the_next_period_divides_nothing(
        self, months_of_readings, kind, monkeypatch
    ):
        made, before = division.plan(kind, "month"), belongings()
        monkeypatch.setattr(division, "MARGIN", made.starts[0] - timezone.now() + timedelta(days=99))

        with pytest.raises(partition_sql.NotPartitioned, match="run it again"):
            division.convert(made, Pace())

        assert belongings() == before
