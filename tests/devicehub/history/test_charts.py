"""Charts of long ranges: from the rollups, and from the readings that are not rolled up yet."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub.dashboard.chart import Chart, Tail
from devicehub.dashboard.selection import parse
from devicehub.db import statements
from devicehub.history import rollups
from rig.telemetry import HOUR, measure, prune, roll_up


class TestChart:
    """Long ranges come from the rollups, together with the rows that are not rolled up yet."""

    @pytest.fixture
    def load(self, kind):
        """Return a function that returns a chart of the last seconds, and its content."""
        plotted = parse({"reading": "weatherstation.temperature"}).plotted

        def load(seconds=7 * 86_400):
            chart = Chart(plotted, seconds, User(is_superuser=True))
            return chart, chart.load(timezone.now())

        return load

    @pytest.mark.parametrize(
        ("seconds", "step"), [(604_800, 3_600), (2_592_000, 3_600), (31_536_000, 86_400)]
    )
    def test_a_long_range_has_lowest_mean_and_highest_of_hours_or_days(self, station, load, seconds, step):
        hour = (timezone.now() - timedelta(days=2)).replace(hour=5, minute=0, second=0, microsecond=0)
        measure(station, (hour, 1.0), (hour + HOUR / 2, 3.0))
        roll_up()

        _, loaded = load(seconds)

        assert loaded["step"] == step
        start = hour.timestamp() // step * step
        assert loaded["series"] == [
            {"device": "STATION-001", "t": [start + step / 2], "v": [2.0], "low": [1.0], "high": [3.0]}
        ]

    @pytest.mark.parametrize("rolled_up", [0, 1, 2, 3, 4])
    def test_rows_that_are_not_rolled_up_yet_count(self, station, load, rolled_up):
        hour = (timezone.now() - timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
        measure(station, (hour, 1.0), (hour, 3.0), (hour + HOUR, 9.0), (hour + HOUR / 2, 8.0))
        if rolled_up:
            rollups.roll_up(limit=rolled_up)

        (series,) = load()[1]["series"]

        assert (series["low"], series["v"], series["high"]) == ([1.0, 9.0], [4.0, 9.0], [8.0, 9.0])

    def test_it_shows_what_was_pruned(self, station, load):
        old = timezone.now() - timedelta(days=5)
        measure(station, (old, 4.0))
        prune("--older-than", "2d")

        assert load()[1]["series"][0]["v"] == [4.0]

    def test_news_change_their_bucket(self, station, load, kind):
        measure(station, (timezone.now(), 4.0))
        roll_up()
        chart, _ = load()
        tail = Tail(kind)
        measure(station, (timezone.now(), 6.0))

        (news,) = chart.add(tail.look(None, "temperature"), timezone.now())

        assert (news["v"][-1], news["high"][-1]) in ((5.0, 6.0), (6.0, 6.0))  # A new hour may have begun.

    def test_no_row_is_read_for_what_is_rolled_up(self, station, load, kind):
        """The query for rows that are not rolled up yet uses their ids."""
        measure(station, *[(timezone.now() - n * HOUR, 1.0) for n in range(300)])
        roll_up()
        with CaptureQueriesContext(connection) as captured:
            load()

        readings = [
            q["sql"] for q in captured if "weatherstationreading" in q["sql"] and "LIMIT" not in q["sql"]
        ]
        (statement,) = [sql for sql in readings if "GROUP BY" in sql]
        assert "WHERE id > " in statement
        if connection.vendor == "sqlite":  # The plan of PostgreSQL depends on its statistics.
            plan = " ".join(row[-1] for row in statements.query(f"EXPLAIN QUERY PLAN {statement}"))
            assert "USING INTEGER PRIMARY KEY (rowid>?)" in plan
