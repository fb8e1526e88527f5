"""The waits of a listener before it connects again."""

from __future__ import annotations

import random
from collections.abc import Callable

from devicehub.backoff import Backoff

SOON = 60.0  # Seconds a connection must last to count as stable.
THROWN_OUT = 3  # After so many short connections in a row the likely cause is reported.
AWAY = Backoff.doubling(1, 8, spread=0.5)  # For a broker that is away: connected within 10 s of its return.
# While each connection is closed soon. A network that resets connections for ten seconds is not another client: it
# resets five at most, and a pause of 8 s leaves time to connect within 10 s of its end.
EVICTED = Backoff((2, 4, 8, 8, 8, 16, 30), spread=0.5)


class Reconnection:
    """The next wait, which depends on the connections before it. No clock is read here.

    The first attempt after a stable connection is made at once. A connection that was lost soon does not reset the
    waits: two clients with one client id evict each other for as long as both connect again, so the waits grow.
    """

    def __init__(self, chance: Callable[[float, float], float] = random.uniform) -> None:
        self._chance = chance
        self._failed = 0
        self.evictions = 0  # Short connections in a row, to a broker that was there all the time.

    def failed(self) -> None:
        """Note that no connection was possible: the broker is away or refuses us, so no client evicted us."""
        self._failed += 1
        self.evictions = 0

    def connected(self) -> None:
        """Note that a connection was made, and its subscription granted."""
        self._failed = 0

    def lost(self, after: float, *, silently: bool = False) -> None:
        """Note that a connection broke *after* so many seconds; *silently* if it was not closed."""
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
