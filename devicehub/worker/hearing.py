"""The time in which a worker and its peers heard all devices: only then does a missing message show anything."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from devicehub.worker.peers import Peers

log = structlog.get_logger(__name__)

JUMP = 2.0  # If the clock differs from time.monotonic() by more seconds between two runs, it was set.
AWAY = 10.0  # If more seconds pass between two runs, this process was stopped, and heard nothing.


class Hearing:
    """The hearing of one worker, for one of its tasks.

    *listening_since* and *heard_until* are by time.monotonic(), the first None for not listening. Hearing begins anew
    after an outage, after the clock was set, and after this process was stopped for a while. *peers* are the workers
    that get the other messages. *away* are the seconds between two runs after which the process was stopped.
    """

    def __init__(
        self,
        listening_since: Callable[[], float | None],
        heard_until: Callable[[], float],
        peers: Peers,
        away: float = AWAY,
    ) -> None:
        self._listening_since, self._heard_until, self._peers = listening_since, heard_until, peers
        self._away = away
        self._anew = float("-inf")  # The time.monotonic() at which hearing last began anew.
        self._offset = time.time() - time.monotonic()
        self._until = float("inf")  # The result of heard_until() at the last run.
        self._rested_since = time.monotonic()

    def heard(self) -> tuple[float, float]:
        """Return the time in which this worker and the others heard all devices, by time.monotonic().

        Its end is heard_until() of the last run: messages up to then are stored by now.
        """
        now = time.monotonic()
        offset = time.time() - now
        if abs(offset - self._offset) > JUMP:
            log.warning("worker.clock_was_set", seconds=round(offset - self._offset))
            self._anew = now
        if now - self._rested_since > self._away:
            log.warning("worker.was_away", seconds=round(now - self._rested_since))
            self._anew = now
        self._offset = offset
        since, heard = self._listening_since(), self._heard_until()
        until, self._until = min(self._until, heard), heard
        return (now, now) if since is None else self._peers.heard(max(since, self._anew), until)

    def rest(self) -> None:
        """Note that a run has ended."""
        self._rested_since = time.monotonic()
