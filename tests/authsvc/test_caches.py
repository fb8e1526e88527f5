"""Bounded caches, which threads share, and the function that clears all caches of a process."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Iterator

import pytest

from authsvc import caches, chain, directory
from authsvc.caches import BoundedCache, clear_caches, register
from authsvc.conf import limits, options, trusted_proxies
from authsvc.core import passwords
from authsvc.freshness.read_cache import ReadCache, counts
from authsvc.logins import verifier
from rig.hub import ROOT

STAMP = object()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Make the interpreter switch between threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_the_oldest_entry_is_dropped():
    cache: BoundedCache[str, int] = BoundedCache(lambda: 2)

    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)

    assert list(cache.items()) == [("a", 3), ("c", 4)]


def test_a_touch_makes_an_entry_the_newest():
    cache: BoundedCache[str, int] = BoundedCache(lambda: 2)
    cache.put("a", 1)
    cache.put("b", 2)

    cache.touch("a")
    cache.touch("gone")
    cache.put("c", 3)

    assert list(cache) == ["a", "c"]


def test_a_smaller_bound_applies_from_the_next_entry():
    bound = 100
    cache: BoundedCache[int, int] = BoundedCache(lambda: bound)
    for number in range(100):
        cache.put(number, number)

    bound = 3
    cache.put(100, 100)

    assert list(cache) == [98, 99, 100]


def test_a_cache_of_no_entries_holds_none():
    cache: BoundedCache[str, int] = BoundedCache(lambda: 0)

    cache.put("a", 1)

    assert len(cache) == 0


def test_threads_share_a_cache(impatient):
    """Entries are dropped between a look-up and its touch, and between two steps of put()."""
    cache: BoundedCache[int, int] = BoundedCache(lambda: 3)
    failures: list[BaseException] = []
    stop = threading.Event()

    def work(first: int) -> None:
        try:
            number = first
            while not stop.is_set():
                number = (number + 1) % 7
                if number in cache:
                    cache.touch(number)
                cache.put(number, number)
                if number == first:
                    cache.clear()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    stop.wait(0.5)
    stop.set()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(cache) <= 3


def test_a_right_password_that_is_dropped_meanwhile_is_right(monkeypatch):
    """Another thread drops the entry between the look-up and the touch."""
    stored, password = passwords.hash_generated("correct-horse"), "correct-horse"

    class Emptying(BoundedCache[verifier.Entry, None]):
        def __contains__(self, entry: object) -> bool:
            found = super().__contains__(entry)
            self.clear()
            return found

    monkeypatch.setattr(verifier, "_right", Emptying(lambda: 10))
    attempt = verifier.Attempt(password)

    assert asyncio.run(attempt.verify(password, stored))
    assert asyncio.run(attempt.verify(password, stored))


def test_all_caches_are_cleared(monkeypatch, settings):
    """The function clears them, and so does a changed setting."""
    filled: BoundedCache[str, int] = BoundedCache(lambda: 10)
    cleared = []
    monkeypatch.setattr(caches, "_registered", list(caches._registered))
    register(lambda: cleared.append(True))

    for change in (clear_caches, lambda: setattr(settings, "AUTHSVC_CACHE_SIZE", 7)):
        filled.put("a", 1)
        before = chain.configured(), directory.cached_chain(), limits(), options(), trusted_proxies()
        invalidated, so_far = counts.invalidated, len(cleared)

        change()

        after = chain.configured(), directory.cached_chain(), limits(), options(), trusted_proxies()
        assert all(new is not old for new, old in zip(after[:4], before[:4], strict=True))
        assert len(filled) == 0
        assert counts.invalidated > invalidated
        assert len(cleared) > so_far

    assert limits().cache_size == 7


def test_a_running_read_is_not_cached_after_caches_are_cleared():
    async def main() -> int:
        started, go_on = asyncio.Event(), asyncio.Event()

        async def read(name: str) -> str:
            started.set()
            await go_on.wait()
            return name

        memory = ReadCache(read)
        reading = asyncio.create_task(memory.read("station", STAMP))
        await started.wait()
        clear_caches()
        go_on.set()
        assert await reading == "station"
        return len(memory)

    assert asyncio.run(main()) == 0


def test_nothing_else_listens_to_settings_that_change():
    """Callers of clear_caches() rely on it to clear every cache."""
    listening = [
        str(path.relative_to(ROOT))
        for package in ("authsvc", "devicehub", "fleet", "config")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bsetting_changed\b", path.read_text())
    ]

    assert listening == ["authsvc/caches.py"], "use a BoundedCache or caches.register() of authsvc.caches"
