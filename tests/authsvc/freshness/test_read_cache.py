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

pytestmark = pytest.mark.sqlite_only  # a PostgreSQL of its own, so once is enough


class TestReadCache:
    """The memory by itself."""

    @pytest.fixture
    def run(self) -> Iterator[Callable[..., Any]]:
        with asyncio.Runner() as runner:
            yield runner.run

    def test_a_read_that_overlaps_a_change_is_not_kept(self, run):
        """By force: the change is told while the read is under way, by its name or as everything."""
        for told in ("station", None):
            answers = iter(["before", "after"])

            async def read(name: str, told: str | None = told, answers: Iterator[str] = answers) -> str:
                value = next(answers)
                if value == "before":
                    read_cache.invalidate("neighbour")
                    read_cache.invalidate(told)
                return value

            memory = ReadCache(read)
            assert run(memory.get("station", "now")) == "before"
            assert memory.peek("station", "now") is None
            assert run(memory.get("station", "now")) == "after"
            assert memory.peek("station", "now") == "after"

    def test_a_change_of_another_spoils_nothing(self, run):
        async def read(name: str) -> str:
            read_cache.invalidate("neighbour")
            return name

        memory = ReadCache(read)
        run(memory.get("station", "now"))

        assert memory.peek("station", "now") == "station"

    def test_it_is_true_under_one_stamp(self, run):
        memory = ReadCache(self.echo)
        run(memory.get("station", "then"))

        assert memory.peek("station", "then") == "station"
        assert memory.peek("station", "now") is None
        assert memory.peek("station", None) is None

    def test_without_a_stamp_everything_is_read(self, run):
        reads = []

        async def read(name: str) -> str:
            reads.append(name)
            return name

        memory = ReadCache(read)
        for _ in range(3):
            run(memory.get("station", None))

        assert reads == ["station"] * 3

    def test_nobody_is_not_kept(self, run):
        async def nobody(name: str) -> None:
            return None

        memory: ReadCache[str] = ReadCache(nobody)
        assert run(memory.get("stranger", "now")) is None
        assert len(memory) == 0

    def test_it_is_bounded_and_drops_who_was_asked_for_longest_ago(self, run, settings):
        settings.AUTHSVC_CACHE_SIZE = 3
        memory = ReadCache(self.echo)
        for name in ("a", "b", "c"):
            run(memory.get(name, "now"))
        assert memory.peek("a", "now") == "a"
        run(memory.get("d", "now"))

        assert [name for name in "abcd" if memory.peek(name, "now")] == ["a", "c", "d"]

    def test_what_is_asked_for_is_read_again_in_time(self, run, settings, monkeypatch):
        settings.AUTHSVC_STALE_SECONDS = 300
        clock = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        memory = ReadCache(self.echo)
        run(memory.get("station", "now"))

        clock[0] += 149
        assert memory.peek("station", "now") == "station"
        clock[0] += 2
        assert memory.peek("station", "now") is None

    @pytest.mark.parametrize(("age", "answered"), [(0, True), (299, True), (300, False), (10_000, False)])
    def test_a_database_that_is_away_makes_it_stale_for_a_time(
        self, run, settings, monkeypatch, age, answered
    ):
        settings.AUTHSVC_STALE_SECONDS = 300
        clock = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        away = []

        async def read(name: str) -> str:
            if away:
                raise DatabaseAway
            return name

        memory = ReadCache(read)
        run(memory.get("station", "now"))
        away.append(True)
        clock[0] += age

        if answered:
            assert run(memory.read("station", None)) == "station"
        else:
            with pytest.raises(DatabaseAway):
                run(memory.read("station", None))
        with pytest.raises(DatabaseAway):
            run(memory.read("stranger", None))

    def test_what_was_read_by_who_hears_nothing_is_not_answered_when_the_database_is_away(self, run):
        away = []

        async def read(name: str) -> str:
            if away:
                raise DatabaseAway
            return name

        memory = ReadCache(read)
        assert run(memory.get("station", None)) == "station"
        away.append(True)

        with pytest.raises(DatabaseAway):
            run(memory.get("station", None))

    def test_what_changed_is_not_answered_when_the_database_is_away(self, run):
        away = []

        async def read(name: str) -> str:
            if away:
                raise DatabaseAway
            return name

        memory = ReadCache(read)
        run(memory.get("station", "now"))
        away.append(True)
        read_cache.invalidate("station")

        with pytest.raises(DatabaseAway):
            run(memory.get("station", None))

    @staticmethod
    async def echo(name: str) -> str:
        return name
