"""Results of queries that may be expensive: kept for a while then, and computed by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from math import inf
from typing import Generic, TypeVar

Result = TypeVar("Result")

EXPENSIVE = 0.05  # seconds; a result that takes longer is kept
KEPT = 20  # It is used for this many times the seconds that it took, so it takes at most 5 % of the time.


class Costly(Generic[Result]):
    """A result of queries, which run outside the lock, and at most once at a time.

    An expensive result is used for *kept* times the seconds that it took, but not for longer than *longest* seconds.
    """

    def __init__(
        self, *, kept: float = KEPT, longest: float = inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kept, self._longest, self._clock = kept, longest, clock
        self._lock = threading.Lock()
        # With the time, and the seconds that it took.
        self._latest: tuple[Result, float, float] | None = None
        self._running: Future[Result] | None = None

    def latest(self, max_age: float) -> Result | None:
        """Return the result if it is at most *max_age* seconds old, without a query; or None."""
        latest = self._latest
        return latest[0] if latest is not None and self._clock() - latest[1] <= max_age else None

    def get(self, compute: Callable[[], Result], max_age: float = 0) -> Result:
        """Return the result of *compute*, at most *max_age* seconds old unless it is expensive.

        While another thread computes it, wait and return the same. Its query may have begun before this call, so even
        with *max_age* 0 the result may lack what the caller wrote just before.
        """
        with self._lock:
            started, latest, running = self._clock(), self._latest, self._running
            if latest is not None and started - latest[1] < self._allowed(latest[2], max_age):
                return latest[0]
            own: Future[Result] = Future()
            if running is None:
                self._running = own
        return self._run(compute, own, started) if running is None else running.result()

    def _allowed(self, took: float, max_age: float) -> float:
        return max(max_age, min(self._kept * took, self._longest) if took > EXPENSIVE else 0)

    def _run(self, compute: Callable[[], Result], own: Future[Result], started: float) -> Result:
        try:
            result = compute()
        except BaseException as error:
            self._running = None
            own.set_exception(error)
            raise
        at = self._clock()
        self._latest, self._running = (result, at, at - started), None
        own.set_result(result)
        return result
