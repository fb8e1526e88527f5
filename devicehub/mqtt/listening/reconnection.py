"""How long a listener waits before it connects again."""

from __future__ import annotations

import random
from collections.abc import Callable

from devicehub.backoff import Backoff

SOON = 60.0  # seconds: who is thrown out before them has not settled
THROWN_OUT = 3  # times in a row, soon after connecting, from when on it is told what the cause may be
AWAY = Backoff.doubling(1, 8, spread=0.5)  # for a broker that is away: back within 10 s of its return
EVICTED = Backoff.doubling(2, 30, spread=0.5)  # while something throws us out each time


class Reconnection:
    """The next wait, by what the connections before it came to. Knows no clock.

    The first attempt after a connection that had settled is made at once. One that was lost soon after it was made
    does not start the waiting anew: two clients with one client id evict each other for as long as both come back, so
    they do ever more seldom.
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
        """Note that a connection was made, and its subscription granted."""
        self._failed = 0

    def lost(self, after: float, *, silently: bool = False) -> None:
        """A connection broke *after* so many seconds; *silently* when nobody closed it."""
        self.evictions = self.evictions + 1 if after < SOON and not silently else 0

    def delay(self) -> float:
        """Return the seconds until the next attempt."""
        if self._failed:
            return AWAY.after(self._failed, self._chance)
        if self.evictions:
            return EVICTED.after(self.evictions, self._chance)
        return 0.0

    def explain(self, reason: str, client_id: str) -> str:
        """Return a sentence about a connection of *client_id* that was lost for *reason*."""
        if self.evictions < THROWN_OUT:
            return f"connection lost ({reason}), trying again"
        return (
            f"connection lost ({reason}), {self.evictions} times in a row soon after connecting: another client "
            f"probably connects as {client_id}, such as a second worker with the same --worker number; "
            "trying again less often"
        )
