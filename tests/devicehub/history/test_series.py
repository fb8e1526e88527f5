"""Series and newest values, with the plain arguments that pages and REST use."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub.history import latest, series
from devicehub.history.series import Resolution
from devicehub.models import Rollup
from fleet.models import WeatherStationReading
from rig.telemetry import DAY, HOUR, measure, roll_up

MINUTE = timedelta(minutes=1)


def values(kind, devices, since, given=None, until=None):
    return [
        point.value
        for point in series.points(kind, devices, "temperature", since, given or Resolution(), until)
    ]


@pytest.fixture
def devices(station):
    return {station.pk: station.device_id}


class TestSeries:
    def test_a_short_range_is_given_value_by_value(self, kind, devices, station, neighbour):
        measure(station, (DAY, 1.0), (DAY + MINUTE, None), (DAY + 2 * MINUTE, 3.0))
        measure(neighbour, (DAY, 99.0))

        given = series.resolution(kind, devices, "temperature", DAY, DAY + HOUR)

        assert given == Resolution(0, None)
        assert series.points(kind, devices, "temperature", DAY, given) == [
            (station.pk, DAY, None, 1.0, None),
            (station.pk, DAY + 2 * MINUTE, None, 3.0, None),
        ]

    def test_more_values_than_a_device_may_have_are_given_in_buckets(
        self, kind, devices, station, monkeypatch
    ):
        monkeypatch.setattr(series, "MAX_POINTS", 3)
        measure(station, *[(DAY + n * MINUTE, float(n)) for n in range(4)])

        given = series.resolution(kind, devices, "temperature", DAY, DAY + 24 * HOUR)

        assert given == Resolution(120)
        assert series.points(kind, devices, "temperature", DAY, given) == [
            (station.pk, DAY + MINUTE, 0.0, 0.5, 1.0),
            (station.pk, DAY + 3 * MINUTE, 2.0, 2.5, 3.0),
        ]

    def test_values_whose_sum_is_beyond_every_float_are_in_no_bucket(self, kind, devices, station):
        measure(station, *[(DAY, value) for value in (1.7e308, 1.7e308, -1.7e308, 1e150, 3e150)])

        assert series.points(kind, devices, "temperature", DAY, Resolution(60)) == [
            (station.pk, DAY + MINUTE / 2, 1e150, 1e150, 1e150)
        ]

    def test_values_outside_of_the_range_do_not_make_it_coarser(self, kind, devices, station, monkeypatch):
        monkeypatch.setattr(series, "MAX_POINTS", 3)
        measure(station, *[(DAY + n * MINUTE, float(n)) for n in range(4)])

        assert series.resolution(kind, devices, "temperature", DAY, DAY + 3 * MINUTE) == Resolution()

    @pytest.mark.parametrize(
        ("days", "given"),
        [
            (6.99, Resolution()),
            (7, Resolution(3_600, Rollup.Period.HOUR)),
            (30, Resolution(3_600, Rollup.Period.HOUR)),
            (31, Resolution(86_400, Rollup.Period.DAY)),
            (3_650, Resolution(86_400, Rollup.Period.DAY)),
        ],
    )
    def test_a_long_range_is_given_by_hours_or_days(self, kind, devices, days, given):
        assert series.resolution(kind, devices, "temperature", DAY, DAY + timedelta(days=days)) == given

    @pytest.mark.parametrize(
        "given", [Resolution(), Resolution(3_600), Resolution(3_600, Rollup.Period.HOUR)], ids=str
    )
    @pytest.mark.parametrize("rolled_up", [False, True])
    def test_a_series_ends_before_its_end(self, kind, devices, station, given, rolled_up):
        measure(station, *[(DAY + n * HOUR, float(n)) for n in range(5)])
        if rolled_up:
            roll_up()

        assert values(kind, devices, DAY + HOUR, given, DAY + 3 * HOUR) == [1.0, 2.0]
        assert values(kind, devices, DAY + HOUR, given) == [1.0, 2.0, 3.0, 4.0]

    def test_a_series_of_no_device_is_empty(self, kind, station):
        measure(station, (DAY, 1.0))

        for given in (Resolution(), Resolution(60), Resolution(3_600, Rollup.Period.HOUR)):
            assert values(kind, {}, DAY, given) == []


class TestLatest:
    def test_each_reading_has_the_value_that_was_measured_last(self, kind, station, neighbour):
        measure(station, (DAY + HOUR, 2.0), (DAY, 1.0), (DAY + 2 * HOUR, None))
        measure(neighbour, (DAY + 3 * HOUR, 99.0))

        assert latest.values(kind, [station.pk], ["temperature", "humidity"]) == {
            (station.pk, "temperature"): (2.0, DAY + HOUR)
        }

    def test_two_queries_however_many_devices(self, kind, station, neighbour):
        measure(station, (DAY, 1.0))
        measure(neighbour, (DAY, 2.0))

        with CaptureQueriesContext(connection) as captured:
            found = latest.values(kind, [station.pk, neighbour.pk], ["temperature", "humidity"])

        assert len(found) == len(captured) == 2

    def test_nothing_is_read_for_no_device_and_no_reading(self, kind, station, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert latest.values(kind, [], ["temperature"]) == {}
            assert latest.values(kind, [station.pk], []) == {}

    def test_a_row_that_is_pruned_meanwhile_is_no_value(self, kind, station, monkeypatch):
        measure(station, (DAY, 1.0))
        monkeypatch.setattr(type(WeatherStationReading.objects.all()), "in_bulk", lambda *_: {})

        assert latest.values(kind, [station.pk], ["temperature"]) == {}

    def test_devices_heard_last_come_first(self, kind, station, neighbour):
        measure(neighbour, (DAY, 1.0))
        measure(station, (DAY + HOUR, 1.0), (DAY + 30 * HOUR, 1.0))

        assert latest.heard_last(kind, "temperature", DAY, DAY + HOUR, 1) == [station.pk]
        assert latest.heard_last(kind, "temperature", DAY, DAY, 1) == [neighbour.pk]
        assert latest.heard_last(kind, "humidity", DAY, DAY + HOUR, 1) == []

    def test_a_small_fleet_is_given_whole(self, kind, station, neighbour):
        assert latest.heard_last(kind, "temperature", DAY, DAY, 2) == [station.pk, neighbour.pk]

    def test_the_newest_measurement_of_a_kind(self, kind, station):
        assert latest.measured_at(kind) is None

        moment = timezone.now()
        measure(station, (moment, 1.0), (DAY, 1.0))

        assert latest.measured_at(kind) == moment
