"""Results of expensive queries are kept for a while, and computed by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from devicehub.db import costly
from devicehub.db.costly import Costly

pytestmark = pytest.mark.sqlite_only


def numbers() -> Iterator[int]:
    yield from range(1, 10)


def test_an_expensive_result_is_kept_for_a_while(monkeypatch):
    monkeypatch.setattr(costly, "EXPENSIVE", 0.05)
    clock = iter([0.0, 1.0, 15.0, 22.0, 23.0])  # It takes a second.
    found, kept = numbers(), Costly[int](clock=lambda: next(clock))

    assert kept.get(lambda: next(found)) == 1
    assert kept.get(lambda: next(found)) == 1  # This is 14 seconds later.
    assert kept.get(lambda: next(found)) == 2


def test_an_expensive_result_is_kept_for_a_bounded_time(monkeypatch):
    monkeypatch.setattr(costly, "EXPENSIVE", 0.05)
    clock = iter([0.0, 10.0, 69.0, 71.0, 81.0])  # It takes ten seconds.
    found, kept = numbers(), Costly[int](kept=400, longest=60, clock=lambda: next(clock))

    results = [kept.get(lambda: next(found)) for _ in range(3)]

    assert results == [1, 1, 2]


def test_a_cheap_result_is_as_old_as_it_may_be():
    clock = iter([0.0, 0.01, 0.5, 0.6, 0.7, 0.71])
    found, kept = numbers(), Costly[int](clock=lambda: next(clock))
    assert kept.latest(9) is None
    assert kept.get(lambda: next(found)) == 1

    assert kept.get(lambda: next(found), max_age=1) == 1
    assert kept.latest(1) == 1
    assert kept.get(lambda: next(found)) == 2


class Waited(Future):
    """A future that counts the threads that wait for it."""

    waiting = threading.Semaphore(0)

    def result(self, timeout=None):
        self.waiting.release()
        return super().result(timeout)


def test_threads_share_one_computation_and_its_error(monkeypatch):
    monkeypatch.setattr(costly, "Future", Waited)
    kept, begun, may_end, calls = Costly[int](), threading.Event(), threading.Event(), []

    def fail() -> int:
        calls.append(1)
        begun.set()
        may_end.wait(10)
        raise OSError("away")

    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(kept.get, fail)
        assert begun.wait(10)
        assert kept.latest(9) is None, "it does not wait"
        others = [threads.submit(kept.get, fail) for _ in range(2)]
        assert Waited.waiting.acquire(timeout=10)
        assert Waited.waiting.acquire(timeout=10)
        may_end.set()
        errors = [type(found.exception()) for found in (first, *others)]

    assert errors == [OSError] * 3
    assert calls == [1]
    assert kept.get(lambda: 7) == 7
