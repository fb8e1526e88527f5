"""Rollups: the figures of hours and days, in which each reading counts once."""

import math
import random
import threading
from datetime import timedelta

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from devicehub.history import rollup_sql, rollups
from devicehub.models import RolledUp, Rollup
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.hub import database_url
from rig.telemetry import DAY, DAYS, HOUR, HOURS, figures, measure, prune, roll_up


class TestRollups:
    def test_an_hour_and_a_day_have_lowest_highest_mean_and_number(self, station):
        measure(station, (DAY, 1.0), (DAY + HOUR / 2, 4.0), (DAY + HOUR, 10.0), (DAY + 2 * HOUR, None))

        assert rollups.roll_up() == 4
        assert figures() == {DAY: (1.0, 4.0, 2.5, 2), DAY + HOUR: (10.0, 10.0, 10.0, 1)}
        assert figures(DAYS) == {DAY: (1.0, 10.0, 5.0, 3)}
        assert rollups.roll_up() == 0

    def test_a_second_before_the_hour_and_one_on_it_are_in_different_hours(self, station):
        measure(station, (DAY + HOUR - timedelta(microseconds=1), 1.0), (DAY + HOUR, 2.0))
        roll_up()

        assert list(figures()) == [DAY, DAY + HOUR]

    def test_late_and_unordered_rows_count_where_they_belong(self, station, neighbour):
        """The figures are those of all rows together, in whatever order and steps the rows are rolled up."""
        draw = random.Random(7)
        points = [
            (DAY + timedelta(seconds=draw.randrange(3 * 86_400)), draw.randrange(100)) for _ in range(400)
        ]
        for begin in range(0, 400, 80):
            measure(station, *points[begin : begin + 80])
            measure(neighbour, (DAY, float(begin)))
            rollups.roll_up(limit=draw.randrange(1, 60))
        roll_up()

        for period, width in ((HOURS, HOUR), (DAYS, timedelta(days=1))):
            expected = {}
            for moment, value in points:
                expected.setdefault(DAY + (moment - DAY) // width * width, []).append(value)
            assert figures(period) == {
                start: (min(values), max(values), sum(values) / len(values), len(values))
                for start, values in expected.items()
            }

    def test_a_row_that_comes_after_its_hour_was_pruned_is_added_to_its_rollup(self, station):
        now = timezone.now()
        old = (now - timedelta(days=60)).replace(minute=0, second=0, microsecond=0)
        measure(station, (old, 1.0), (old + HOUR / 4, 3.0))
        assert prune("--older-than", "30d")["readings"]["deleted"] == 2

        measure(station, (old + HOUR / 2, 11.0))
        roll_up()

        assert figures() == {old: (1.0, 11.0, 5.0, 3)}
        assert list(figures(DAYS).values()) == [(1.0, 11.0, 5.0, 3)]

    def test_a_day_whose_hours_are_gone_still_takes_what_comes_late(self, station, keeps):
        keeps(readings="10d", hours="20d")
        old = (timezone.now() - timedelta(days=60)).replace(hour=0, minute=0, second=0, microsecond=0)
        measure(station, (old, 1.0), (old + 3 * HOUR, 3.0))
        report = prune()
        assert (report["readings"]["deleted"], report["hours"]["deleted"]) == (2, 6 // 3)

        measure(station, (old + 4 * HOUR, 4.0), (old + 5 * HOUR, 8.0))
        roll_up()

        assert figures() == {}
        assert figures(DAYS) == {old: (1.0, 8.0, 4.0, 4)}

    def test_without_its_hours_a_day_is_the_same(self, station, keeps):
        """The figures of a day do not depend on the pruning of its hours before the rows are rolled up."""
        old = (timezone.now() - timedelta(days=60)).replace(hour=0, minute=0, second=0, microsecond=0)
        keeps(hours="20d")
        prune()
        WeatherStationReading.objects.bulk_create(
            WeatherStationReading(
                device=station, timestamp=old + n * HOUR, temperature=n, humidity=None if n % 3 else 50
            )
            for n in range(48)
        )
        roll_up()

        assert figures() == {}
        assert figures(DAYS) == {
            old: (0.0, 23.0, 11.5, 24),
            old + timedelta(days=1): (24.0, 47.0, 35.5, 24),
        }
        assert [row[3] for row in figures(DAYS, "humidity").values()] == [8, 8]

    def test_nothing_of_a_device_that_was_deleted_meanwhile_is_written(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0))
        write = rollups._write

        def after_deletion(*arguments):
            station.delete()
            return write(*arguments)

        monkeypatch.setattr(rollups, "_write", after_deletion)
        roll_up()

        assert not Rollup.objects.exists()

    def test_rows_that_another_process_rolled_up_meanwhile_count_once(self, station, kind, monkeypatch):
        measure(station, (DAY, 1.0), (DAY, 3.0))
        write = rollups._write

        def after_another(*arguments):
            monkeypatch.setattr(rollups, "_write", write)
            rollups.roll_up(limit=1)
            return write(*arguments)

        monkeypatch.setattr(rollups, "_write", after_another)
        roll_up()

        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}
        assert (
            RolledUp.objects.get(kind="weatherstation").last_id
            == WeatherStationReading.objects.order_by("-pk")[0].pk
        )

    @pytest.mark.postgresql_only
    @pytest.mark.django_db(transaction=True)
    def test_a_row_with_a_lower_id_that_is_committed_later_is_not_missed(self, monkeypatch):
        """PostgreSQL assigns ids before the commit; on SQLite there is one writer at a time."""
        monkeypatch.setattr(rollups, "SETTLE_SECONDS", 0.1)
        station = WeatherStationDevice.objects.create(device_id="STATION-001")
        with psycopg.connect(database_url()) as slow:
            slow.execute(
                "INSERT INTO fleet_weatherstationreading (device_id, timestamp, received_at, temperature)"
                " VALUES (%s, %s, now(), 1)",
                [station.pk, DAY],
            )
            measure(station, (DAY, 3.0))
            assert rollups.roll_up() == 0
            slow.commit()

        roll_up()
        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}


@pytest.mark.django_db(transaction=True)
class TestRollupsThatGoOn:
    def test_values_beyond_any_sum_are_left_out(self, station, neighbour, kind):
        huge = [1.7e308, -1.7e308, 1.1e150, -1.1e150]
        measure(station, *[(DAY, value) for value in huge + huge], (DAY, 2.0))
        measure(neighbour, (DAY, 1.7e308))
        names = {station.pk: "STATION-001", neighbour.pk: "STATION-002"}
        fresh = rollups.buckets(kind, names, "temperature", HOURS, DAY)

        assert rollups.roll_up() == 10
        assert figures() == {DAY: (2.0, 2.0, 2.0, 1)}
        assert figures(key="weatherstation/STATION-002") == {}
        assert rollups.buckets(kind, names, "temperature", HOURS, DAY) == fresh

    @pytest.mark.parametrize("at_first", [0, 1])
    def test_rows_rolled_up_while_a_chart_is_read_count_once(self, station, kind, at_first):
        """One more row is rolled up before each statement of the chart."""
        measure(station, *[(DAY, float(n)) for n in range(61)])
        rollups.roll_up(limit=at_first)
        counts, outer = (
            [],
            threading.Lock(),
        )  # Without the lock the statements of the roll-up would call it too.

        def roll_up_one_more(execute, *arguments):
            if outer.acquire(blocking=False):
                counts.append(rollups.roll_up(limit=1))
                outer.release()
            return execute(*arguments)

        with connection.execute_wrapper(roll_up_one_more):
            (shown,) = rollups.buckets(kind, {station.pk: "STATION-001"}, "temperature", HOURS, DAY)

        assert (shown.low, shown.mean, shown.high) == (0.0, 30.0, 60.0)
        assert len(counts) >= 3
        assert set(counts) == {1}

    def test_large_values_have_a_mean(self, station):
        """No intermediate sum overflows: in one step, step by step, and with both signs."""
        for _ in range(3):
            measure(station, *[(DAY, value) for value in (1e150, -1e150, 1e150, 1e150)])
            roll_up()

        assert figures(DAYS) == {DAY: (-1e150, 1e150, 5e149, 12)}

    def test_a_row_that_cannot_be_added_holds_up_no_other(self, station, neighbour, caplog):
        """The stored figures of its hour are broken, so nothing can be added to them."""
        measure(neighbour, (DAY, 1.0), (DAY + HOUR, 1.0))
        measure(station, (DAY, 1.0))
        roll_up()
        Rollup.objects.filter(device_key="weatherstation/STATION-001").update(mean=math.inf, count=2**63 - 1)
        measure(neighbour, (DAY, 3.0))
        measure(station, (DAY, 3.0))
        measure(neighbour, (DAY, 5.0))

        assert rollups.roll_up() == 3
        assert "rollups.row_left_out" in caplog.text
        assert figures(key="weatherstation/STATION-002")[DAY] == (1.0, 5.0, 3.0, 3)
        assert rollups.roll_up() == 0

    def test_rows_whose_ids_begin_anew_are_rolled_up(self, station, kind, caplog):
        RolledUp.objects.create(kind="weatherstation", last_id=10**12)
        measure(station, (DAY, 1.0), (DAY, 3.0))

        prune("--older-than", "1d")

        assert not WeatherStationReading.objects.exists()
        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}
        assert "rollups.ids_began_anew" in caplog.text

    def test_ids_of_rows_that_went_are_no_new_beginning(self, station, kind):
        measure(station, (DAY, 1.0), (DAY, 3.0))
        roll_up()
        WeatherStationReading.objects.filter(temperature=3.0).delete()

        assert rollups.roll_up() == 0
        assert figures() == {DAY: (1.0, 3.0, 2.0, 2)}

    def test_rollups_that_no_declaration_names_go_as_well(self, station, keeps):
        """The reading is not declared any more, or SQL deleted the device."""
        keeps(days="30d")
        once = {"name": "once", "period": "day", "start": DAY, "low": 1, "high": 1, "mean": 1, "count": 1}
        for key, name in (("STATION-001", "once"), ("STATION-001", "temperature"), ("GONE", "once")):
            Rollup.objects.create(device_key=f"weatherstation/{key}", **once | {"name": name})
        other = Rollup.objects.create(device_key="weatherstations/STATION-001", **once)

        assert prune("--dry-run")["days"]["deleted"] == 3
        assert prune()["days"]["deleted"] == 3
        assert list(Rollup.objects.all()) == [other]

    def test_pairs_come_in_pages(self, station):
        measure(station, (DAY, 1.0), (DAY + HOUR, 2.0))
        roll_up()
        WeatherStationReading.objects.create(
            device=station, timestamp=DAY, rainfall=1.0, received_at=timezone.now()
        )
        roll_up()
        first = rollup_sql.pairs(("", ""), 1)

        assert first == [("weatherstation/STATION-001", "rainfall")]
        assert rollup_sql.pairs(first[0], 5) == [("weatherstation/STATION-001", "temperature")]
