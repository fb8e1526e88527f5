"""The cache of database reads: bounded, and invalidated by name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from authsvc.freshness import read_cache
from authsvc.freshness.read_cache import ReadCache
from authsvc.freshness.reader import DatabaseAway

pytestmark = pytest.mark.sqlite_only  # It starts its own PostgreSQL, so one run is enough.


class Database:
    """Answers each name with itself, until it is away."""

    is_away = False

    async def read(self, name: str) -> str:
        if self.is_away:
            raise DatabaseAway
        return name


class TestReadCache:
    """The cache alone."""

    @pytest.fixture
    def run(self) -> Iterator[Callable[..., Any]]:
        with asyncio.Runner() as runner:
            yield runner.run

    def test_a_read_that_overlaps_a_change_is_not_cached(self, run):
        """The change is notified during the read, by its name or as everything."""
        for changed in ("station", None):
            answers = iter(["before", "after"])

            async def read(name: str, changed: str | None = changed, answers: Iterator[str] = answers) -> str:
                value = next(answers)
                if value == "before":
                    read_cache.invalidate("neighbour")
                    read_cache.invalidate(changed)
                return value

            cache = ReadCache(read)
            assert run(cache.get("station", "now")) == "before"
            assert cache.peek("station", "now") is None
            assert run(cache.get("station", "now")) == "after"
            assert cache.peek("station", "now") == "after"

    def test_a_change_of_another_spoils_nothing(self, run):
        async def read(name: str) -> str:
            read_cache.invalidate("neighbour")
            return name

        cache = ReadCache(read)
        run(cache.get("station", "now"))

        assert cache.peek("station", "now") == "station"

    def test_a_value_is_valid_under_one_stamp(self, run):
        cache = ReadCache(self.echo)
        run(cache.get("station", "then"))

        assert cache.peek("station", "then") == "station"
        assert cache.peek("station", "now") is None
        assert cache.peek("station", None) is None

    def test_without_a_stamp_everything_is_read(self, run):
        reads = []

        async def read(name: str) -> str:
            reads.append(name)
            return name

        cache = ReadCache(read)
        for _ in range(3):
            run(cache.get("station", None))

        assert reads == ["station"] * 3

    def test_a_missing_row_is_not_cached(self, run):
        async def nobody(name: str) -> None:
            return None

        cache: ReadCache[str] = ReadCache(nobody)
        assert run(cache.get("stranger", "now")) is None
        assert len(cache) == 0

    def test_it_is_bounded_and_drops_the_value_used_longest_ago(self, run, settings):
        settings.AUTHSVC_CACHE_SIZE = 3
        cache = ReadCache(self.echo)
        for name in ("a", "b", "c"):
            run(cache.get(name, "now"))
        assert cache.peek("a", "now") == "a"
        run(cache.get("d", "now"))

        assert [name for name in "abcd" if cache.peek(name, "now")] == ["a", "c", "d"]

    def test_a_used_value_is_read_again_in_time(self, run, settings, monkeypatch):
        settings.AUTHSVC_STALE_SECONDS = 300
        clock = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        cache = ReadCache(self.echo)
        run(cache.get("station", "now"))

        clock[0] += 149
        assert cache.peek("station", "now") == "station"
        clock[0] += 2
        assert cache.peek("station", "now") is None

    @pytest.mark.parametrize(("age", "answered"), [(0, True), (299, True), (300, False), (10_000, False)])
    def test_a_database_that_is_away_makes_it_stale_for_a_time(
        self, run, settings, monkeypatch, age, answered
    ):
        settings.AUTHSVC_STALE_SECONDS = 300
        clock = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        database = Database()
        cache = ReadCache(database.read)
        run(cache.get("station", "now"))
        database.is_away = True
        clock[0] += age

        if answered:
            assert run(cache.read("station", None)) == "station"
        else:
            with pytest.raises(DatabaseAway):
                run(cache.read("station", None))
        with pytest.raises(DatabaseAway):
            run(cache.read("stranger", None))

    def test_a_value_read_without_a_stamp_is_not_used_in_an_outage(self, run):
        database = Database()
        cache = ReadCache(database.read)
        assert run(cache.get("station", None)) == "station"
        database.is_away = True

        with pytest.raises(DatabaseAway):
            run(cache.get("station", None))

    def test_a_changed_value_is_not_used_in_an_outage(self, run):
        database = Database()
        cache = ReadCache(database.read)
        run(cache.get("station", "now"))
        database.is_away = True
        read_cache.invalidate("station")

        with pytest.raises(DatabaseAway):
            run(cache.get("station", None))

    @staticmethod
    async def echo(name: str) -> str:
        return name
