"""A bounded cache of database reads, invalidated by name when the database reports a change.

A *stamp* (`authsvc.freshness.changes`) identifies a time in which all changes are noticed. A value read under the stamp
of the present question is as valid as another read. Under the stamp None no cached value is.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from authsvc import caches
from authsvc.caches import BoundedCache
from authsvc.conf import cache_size, limits
from authsvc.freshness.reader import DatabaseAway

T = TypeVar("T")
Stamp = object

_all: weakref.WeakSet[ReadCache[Any]] = weakref.WeakSet()


class Counts:
    """Counters of all read caches of this process since it started, for /metrics and /readyz.

    *invalidated* counts notified changes: while it is equal, values read under a stamp are still valid.
    """

    def __init__(self) -> None:
        self.hits = self.reads = self.stale = self.spoiled = self.invalidated = 0


counts = Counts()


class _Entry(Generic[T]):
    __slots__ = ("read_at", "stamp", "value")

    def __init__(self, value: T, stamp: Stamp | None, read_at: float) -> None:
        self.value = value
        self.stamp = stamp
        self.read_at = read_at


class _Fill:
    """A running read. A change in that time spoils it: the read may have seen the old row or the new one."""

    __slots__ = ("name", "spoiled")

    def __init__(self, name: str) -> None:
        self.name = name
        self.spoiled = False


class ReadCache(Generic[T]):
    """A cache of the values that an asynchronous *read* returns by name. None ("does not exist") is never cached."""

    def __init__(self, read: Callable[[str], Awaitable[T | None]]) -> None:
        self._read = read
        self._entries: BoundedCache[str, _Entry[T]] = BoundedCache(cache_size)
        self._fills: set[_Fill] = set()
        _all.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, name: str, stamp: Stamp | None) -> T | None:
        """Return the cached value of *name* if it is valid, or None."""
        entry = self._entries.get(name)
        if entry is None or stamp is None or entry.stamp != stamp:
            return None
        if time.monotonic() - entry.read_at > limits().refresh_seconds:
            return None
        self._entries.touch(name)
        counts.hits += 1
        return entry.value

    async def get(self, name: str, stamp: Stamp | None) -> T | None:
        """Return the value of *name*, from the cache or the database."""
        value = self.peek(name, stamp)
        return await self.read(name, stamp) if value is None else value

    async def read(self, name: str, stamp: Stamp | None) -> T | None:
        """Return the value of *name* from the database, or a stale one from the cache while the database is down.

        Raise errors of *read*, and DatabaseAway if no value was read within AUTHSVC_STALE_SECONDS.
        """
        fill = _Fill(name)
        self._fills.add(fill)
        started = time.monotonic()
        counts.reads += 1
        try:
            value = await self._read(name)
        except DatabaseAway:
            return self._stale(name)
        except BaseException:
            self._entries.pop(name, None)
            raise
        finally:
            self._fills.discard(fill)
        if fill.spoiled or value is None:
            counts.spoiled += fill.spoiled
            self._entries.pop(name, None)
        else:
            self._entries.put(name, _Entry(value, stamp, started))
        return value

    def invalidate(self, name: str | None) -> None:
        """Drop the value of *name*, or all values (None), and spoil its running reads."""
        if name is None:
            self._entries.clear()
        else:
            self._entries.pop(name, None)
        for fill in self._fills:
            if name is None or fill.name == name:
                fill.spoiled = True

    def _stale(self, name: str) -> T:
        """Return a value of *name* that was read less than AUTHSVC_STALE_SECONDS ago under a stamp.

        Raise DatabaseAway if there is none.
        """
        entry = self._entries.get(name)
        if entry is None or entry.stamp is None or time.monotonic() - entry.read_at >= limits().stale_seconds:
            raise DatabaseAway(f"no value was read within {limits().stale_seconds} s")
        counts.stale += 1
        return entry.value


def invalidate(name: str | None) -> None:
    """Drop *name*, or everything (None), from all read caches of this process."""
    counts.invalidated += 1
    for cache in _all:
        cache.invalidate(name)


@caches.register
def _clear() -> None:
    invalidate(None)
