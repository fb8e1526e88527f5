"""How long a listener waits before it connects again."""

from __future__ import annotations

import random
from collections.abc import Callable

SOON = 60.0  # seconds: who is thrown out before them has not settled
LONGEST_AWAY = 8.0  # seconds between attempts at a broker that is away: back within 10 s of its return
LONGEST_EVICTED = 30.0  # seconds between attempts while something throws us out each time


class Backoff:
    """Doubles from 1 s while nobody answers and from 2 s while we are thrown out. Knows no clock.

    Each time is shortened by chance to between half and all of it. The first attempt after a connection that
    had settled is made at once. One that was lost soon after it was made does not start the waiting anew: two
    clients with one client id evict each other for as long as both come back, so they do ever more seldom.
    """

    def __init__(self, chance: Callable[[float, float], float] = random.uniform) -> None:
        self._chance = chance
        self._failed = 0
        self.evictions = 0  # one after the other, with a broker that was there all the time

    def failed(self) -> None:
        """There was no connection to be had: the broker is away or refuses us, so nobody evicted us."""
        self._failed += 1
        self.evictions = 0

    def connected(self) -> None:
        self._failed = 0

    def lost(self, after: float, *, silently: bool = False) -> None:
        """A connection broke *after* so many seconds; *silently* when nobody closed it."""
        self.evictions = self.evictions + 1 if after < SOON and not silently else 0

    def delay(self) -> float:
        """Seconds until the next attempt."""
        if self._failed:
            longest = _doubled(self._failed - 1, LONGEST_AWAY)
        elif self.evictions:
            longest = _doubled(self.evictions, LONGEST_EVICTED)
        else:
            return 0.0
        return self._chance(longest / 2, longest)


def _doubled(times: int, most: float) -> float:
    return min(2.0 ** min(times, 10), most)
