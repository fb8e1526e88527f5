"""Partitions of a table of readings, on PostgreSQL: extension, pruning by month, and the effect on other writers."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from django.db import connection, connections, models
from django.utils import timezone

from devicehub.db.batches import Pace, Stopped
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.retention import division, partitions
from fleet.models import WeatherStationReading
from rig.hub import database_url
from rig.telemetry import DAYS, HOUR, figures, measure, prune, sql

pytestmark = pytest.mark.postgresql_only
READINGS = "fleet_weatherstationreading"


@pytest.fixture
def divided(months_of_readings, kind):
    """Divide the table of months_of_readings by months; return the station."""
    division.convert(division.plan(kind, "month"), Pace())
    return months_of_readings


def without_the_last():
    """Drop the last partition, as if no worker had run for long; return it."""
    last = partitions.partitions_of(READINGS)[-2]
    sql(f"DROP TABLE {last.name}")
    return last


def longest_insert(device, moment, stop):
    """Store readings of *moment* until *stop*; return the seconds that the slowest insert took."""
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


class TestPruning:
    def test_a_month_that_is_too_old_is_dropped_whole(self, divided_long_ago):
        partitions.extend_all()
        before = partitions.partitions_of(READINGS)

        report = prune("--older-than", "40d")

        left = partitions.partitions_of(READINGS)
        assert before[0].start is None
        assert before[0].name not in {one.name for one in left}
        assert len(before) - len(left) == report["readings"]["partitions"] >= 5
        limit = timezone.now() - timedelta(days=41)
        assert not WeatherStationReading.objects.filter(timestamp__lt=limit).exists()
        assert sum(count for *_, count in figures(DAYS).values()) == 300

    def test_rows_leave_the_first_partition_before_it_can_be_dropped(self, divided):
        report = prune("--older-than", "40d")

        assert report["readings"]["partitions"] == 0
        assert report["readings"]["deleted"] > 50
        assert partitions.partitions_of(READINGS)[0].start is None
        limit = timezone.now() - timedelta(days=41)
        assert not WeatherStationReading.objects.filter(timestamp__lt=limit).exists()

    def test_a_late_row_is_stored_after_its_month_was_dropped(self, divided_long_ago):
        partitions.extend_all()
        prune("--older-than", "40d")

        measure(divided_long_ago, (timezone.now() - timedelta(days=250), -7.0))

        assert sql(f"SELECT temperature FROM {READINGS}_rest") == [(-7.0,)]
        assert prune("--older-than", "40d")["readings"]["deleted"] == 1

    def test_it_makes_new_ones(self, divided):
        last = without_the_last()

        prune("--older-than", "400d")

        assert partitions.partitions_of(READINGS)[-2] == last


class TestExtension:
    def test_with_nothing_to_do_it_is_one_query(self, divided, django_assert_num_queries):
        with django_assert_num_queries(1):
            assert partitions.extend_all() == 0

    def test_months_that_passed_get_their_partitions_and_their_rows(self, divided_long_ago, kind):
        waiting = sql(f"SELECT count(*) FROM {READINGS}_rest")[0][0]

        assert partitions.extend(kind) > 3

        assert waiting > 50
        assert sql(f"SELECT count(*) FROM {READINGS}_rest") == [(0,)]
        found = partitions.partitions_of(READINGS)
        assert [one.start for one in found[1:-1]] == [one.end for one in found[:-2]]
        assert found[-2].end > timezone.now() + timedelta(days=80)
        for one in found[1:-1]:
            (held,) = sql(f"SELECT count(*) FROM {one.name}")
            days = [row.timestamp for row in WeatherStationReading.objects.all()]
            assert held == (len([moment for moment in days if one.start <= moment < one.end]),)
        assert WeatherStationReading.objects.count() == 300

    def test_a_new_partition_is_like_the_others(self, divided):
        without_the_last()
        partitions.extend_all()

        parts = [one.name for one in partitions.partitions_of(READINGS)]
        indexes = {
            tuple(
                sql(
                    f"SELECT indkey::text, indisunique, indisprimary FROM pg_index WHERE indrelid = '{name}'::regclass"
                    " ORDER BY 1"
                )
            )
            for name in parts
        }
        keys = {
            tuple(
                sql(
                    "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
                    f" WHERE conrelid = '{name}'::regclass ORDER BY 1"
                )
            )
            for name in parts
        }
        assert len(indexes) == len(keys) == 1

    def test_partitions_keep_their_names_when_a_migration_renames_the_table(self, divided):
        without_the_last()
        sql(f"ALTER TABLE {READINGS}_rest RENAME TO fleet_former_rest")

        assert partitions.extend_all() == 1
        assert partitions.partitions_of(READINGS)[-1].name == "fleet_former_rest"

    def test_a_row_of_no_partition_stays_in_the_rest(self, divided):
        measure(divided, (timezone.now() + timedelta(days=400), -1.0))
        without_the_last()

        assert partitions.extend_all() == 1

        assert sql(f"SELECT temperature FROM {READINGS}_rest") == [(-1.0,)]

    def test_many_rows_leave_the_rest_while_others_write(self, divided):
        last = without_the_last()
        sql(
            f"INSERT INTO {READINGS} (device_id, timestamp, received_at, temperature)"
            f" SELECT {divided.pk}, '{last.start.isoformat()}'::timestamptz + n * interval '1 s', now(), 1"
            " FROM generate_series(1, 50000) AS n"
        )
        stop = threading.Event()
        with ThreadPoolExecutor() as pool:
            writer = pool.submit(longest_insert, divided, last.start + HOUR, stop)
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
        assert sql(f"SELECT count(*) FROM {READINGS}_rest") == [(0,)]

    def test_a_change_of_a_waiting_row_is_not_lost(self, divided):
        """The process that makes the partition waits for an open transaction, and sees its changes."""
        last = without_the_last()
        rows = measure(divided, *[(last.start + n * HOUR, float(n)) for n in range(5)])
        with ThreadPoolExecutor() as pool, psycopg.connect(database_url()) as other:
            other.execute(f"UPDATE {READINGS} SET temperature = -77 WHERE id = {rows[3].pk}")
            other.execute(f"DELETE FROM {READINGS} WHERE id = {rows[4].pk}")
            extending = pool.submit(lambda: (partitions.extend_all(), connections.close_all())[0])
            time.sleep(0.6)  # This is longer than the time-out of a lock.
            assert not extending.done()
            other.commit()

            assert extending.result() == 1

        found = dict(sql(f"SELECT id, temperature FROM {last.name}"))
        assert found == {**{row.pk: row.temperature for row in rows[:3]}, rows[3].pk: -77.0}

    def test_two_workers_make_each_partition_once(self, divided):
        without_the_last()

        def extend(_):
            try:
                return partitions.extend_all()
            finally:
                connections.close_all()

        with ThreadPoolExecutor() as pool:
            assert sum(pool.map(extend, range(2))) == 1

    def test_it_stops_between_two_partitions(self, divided_long_ago):
        pace = Pace()
        pace.stop.set()

        with pytest.raises(Stopped):
            partitions.extend_all(pace)

        assert WeatherStationReading.objects.count() == 300

    def test_a_table_that_cannot_be_extended_is_logged(self, divided, caplog):
        last = without_the_last()
        sql(f"CREATE TABLE {last.name} AS SELECT 1 AS precious")
        try:
            assert partitions.extend_all() == 0
            assert sql(f"SELECT precious FROM {last.name}") == [(1,)]
        finally:
            sql(f"DROP TABLE {last.name}")
        assert "partitions.not_extended" in caplog.text


def test_ingest_copies_into_it(divided):
    pipeline(
        [Message("things/weatherstation/STATION-001/data", b'{"temperature": 7.5}', timezone.now())],
        acknowledge=lambda: None,
    )

    assert WeatherStationReading.objects.filter(temperature=7.5, device=divided).count() == 1


def test_a_later_migration_adds_a_column(divided):
    field = models.FloatField(null=True)
    field.set_attributes_from_name("pressure")
    with connection.schema_editor() as editor:
        editor.add_field(WeatherStationReading, field)
        editor.add_index(
            WeatherStationReading, models.Index(fields=["temperature"], name="of_a_later_migration")
        )

    sql(f"UPDATE {READINGS} SET pressure = 1")
    assert sql(f"SELECT count(*) FROM {READINGS} WHERE pressure = 1") == [(100,)]
    last = without_the_last()
    assert partitions.extend_all() == 1
    measure(divided, (last.start + HOUR, 1.0))
    assert sql(f"SELECT pressure FROM {last.name}") == [(None,)]
