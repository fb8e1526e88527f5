"""The limit of messages that are stored of one device in a time: DEVICEHUB_RATE_LIMIT, off by default.

A device may send its whole allowance at once; used allowance comes back evenly. Messages beyond it fail as
`rate_limited`: they are kept in the quarantine, can be replayed from there, and change nothing on their device.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import transaction

from devicehub.conf import RateLimit

# Devices with a count; one whose count was dropped may send its whole allowance again.
MOST_COUNTED = 100_000


class Limiter:
    """Counts of stored messages by device key, in this process. Batches that failed to commit do not count."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float]] = {}  # By key: the count, and its time (monotonic).

    def beyond(self, limit: RateLimit, keys: Sequence[str], now: float | None = None) -> list[int]:
        """Return the positions in *keys*, the devices of messages in order, beyond *limit*. Call in a transaction."""
        now = time.monotonic() if now is None else now
        used: dict[str, tuple[float, float]] = {}
        refused = []
        for position, key in enumerate(keys):
            count = used[key][0] if key in used else self._left_over(key, limit, now)
            if count + 1 > limit.messages:
                refused.append(position)
            else:
                count += 1
            used[key] = (count, now)
        transaction.on_commit(lambda: self._count(used, limit, now))
        return refused

    def clear(self) -> None:
        """Delete all counts."""
        self._used.clear()

    def _left_over(self, key: str, limit: RateLimit, now: float) -> float:
        """Return how much of its allowance a device used and did not get back yet."""
        count, at = self._used.get(key, (0.0, now))
        return max(0.0, count - (now - at) * limit.messages / limit.seconds)

    def _count(self, used: dict[str, tuple[float, float]], limit: RateLimit, now: float) -> None:
        self._used |= used
        if len(self._used) > MOST_COUNTED:
            recent = {key: value for key, value in self._used.items() if now - value[1] < limit.seconds}
            self._used = dict(list(recent.items())[-MOST_COUNTED:])


limiter = Limiter()
_lifted: ContextVar[bool] = ContextVar("lifted", default=False)


@contextmanager
def lifted() -> Iterator[None]:
    """Lift the limit inside the context: an operator replays messages on purpose."""
    token = _lifted.set(True)
    try:
        yield
    finally:
        _lifted.reset(token)


def are_lifted() -> bool:
    """Return whether the limit is lifted here."""
    return _lifted.get()
