"""The limit of messages that are stored of one device in a time: its own, or DEVICEHUB_RATE_LIMIT, off by default.

A device may send its whole allowance at once; used allowance comes back evenly. Messages beyond it fail as
`rate_limited`: they are kept in the quarantine, can be replayed from there, and change nothing on their device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import MappingProxyType

from django.db import transaction

from authsvc import caches
from devicehub.conf import RateLimit, rate_limit, settings
from devicehub.models import DeviceOptions

# Devices with a count; one whose count was dropped may send its whole allowance again.
MOST_COUNTED = 100_000
READ_EVERY = 10.0  # Seconds between two reads of the limits of single devices.


class Limiter:
    """Counts of stored messages by device key, in this process. Batches that failed to commit do not count."""

    def __init__(self) -> None:
        self._used: dict[str, tuple[float, float]] = {}  # By key: the count, and its time (monotonic).

    def beyond(
        self,
        limit: RateLimit | None,
        keys: Sequence[str],
        now: float | None = None,
        own: Mapping[str, RateLimit] = MappingProxyType({}),
    ) -> list[int]:
        """Return the positions in *keys*, the devices of messages in order, beyond *limit*. Call in a transaction.

        *own* are limits of single devices, which hold in place of *limit*.
        """
        now = time.monotonic() if now is None else now
        used: dict[str, tuple[float, float]] = {}
        refused = []
        general = limit
        for position, key in enumerate(keys):
            limit = own.get(key, general) if own else general
            if limit is None:
                continue
            count = used[key][0] if key in used else self._left_over(key, limit, now)
            if count + 1 > limit.messages:
                refused.append(position)
            else:
                count += 1
            used[key] = (count, now)
        longest = max((each.seconds for each in (general, *own.values()) if each is not None), default=0)
        transaction.on_commit(lambda: self._count(used, longest, now))
        return refused

    def wait(self, limit: RateLimit, key: str, now: float | None = None) -> float:
        """Return the seconds until device *key*, which is limited to *limit*, may send another message."""
        used = self._left_over(key, limit, time.monotonic() if now is None else now)
        return max(0.0, used + 1 - limit.messages) * limit.seconds / limit.messages

    def clear(self) -> None:
        """Delete all counts."""
        self._used.clear()

    def _left_over(self, key: str, limit: RateLimit, now: float) -> float:
        """Return how much of its allowance a device used and did not get back yet."""
        count, at = self._used.get(key, (0.0, now))
        return max(0.0, count - (now - at) * limit.messages / limit.seconds)

    def _count(self, used: dict[str, tuple[float, float]], seconds: int, now: float) -> None:
        self._used |= used
        if len(self._used) > MOST_COUNTED:
            recent = {key: value for key, value in self._used.items() if now - value[1] < seconds}
            self._used = dict(list(recent.items())[-MOST_COUNTED:])


class OwnLimits:
    """The limits of single devices by key, read at most once in READ_EVERY seconds."""

    def __init__(self) -> None:
        self._found: dict[str, RateLimit] = {}
        self._until = float("-inf")

    def read(self, now: float | None = None) -> Mapping[str, RateLimit]:
        """Return the limits. A text that is not a rate, which only SQL can store, is left out."""
        now = time.monotonic() if now is None else now
        if now >= self._until:
            rows = DeviceOptions.objects.exclude(rate_limit="").values_list("device_key", "rate_limit")
            self._found = dict(_rates(rows[:MOST_COUNTED]))
            self._until = now + READ_EVERY
        return self._found

    def clear(self) -> None:
        """Read again at the next call."""
        self._until = float("-inf")


def _rates(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, RateLimit]]:
    for key, text in rows:
        with suppress(ValueError):
            if (limit := rate_limit(text)) is not None:
                yield key, limit


limiter = Limiter()
own_limits = OwnLimits()
caches.register(own_limits.clear)


def wait(key: str) -> int:
    """Return the whole seconds, at least 1, after which device *key* may send another message to this process."""
    limit = own_limits.read().get(key, settings.rate_limit)
    return 1 if limit is None else max(1, math.ceil(limiter.wait(limit, key)))


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
