"""A bounded cache of database reads, invalidated by name when the database reports a change.

A *stamp* (`authsvc.freshness.changes`) stands for a time in which no change went unnoticed. What was read under the
stamp of the question that asks is as true as another read would be; under None nothing is.
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
    """What all memories of this process did since it started, for /metrics and /readyz.

    *invalidated* counts the changes that were notified: while it stays, what was true under a stamp still is.
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
    """A read under way. A change that arrives meanwhile spoils it: which of both it saw nobody knows."""

    __slots__ = ("name", "spoiled")

    def __init__(self, name: str) -> None:
        self.name = name
        self.spoiled = False


class ReadCache(Generic[T]):
    """The values of an asynchronous *read* by name. None, "there is no such thing", is never kept."""

    def __init__(self, read: Callable[[str], Awaitable[T | None]]) -> None:
        self._read = read
        self._entries: BoundedCache[str, _Entry[T]] = BoundedCache(cache_size)
        self._fills: set[_Fill] = set()
        _all.add(self)

    def __len__(self) -> int:
        return len(self._entries)

    def peek(self, name: str, stamp: Stamp | None) -> T | None:
        """The value of *name* as it is now, if memory can tell."""
        entry = self._entries.get(name)
        if entry is None or stamp is None or entry.stamp != stamp:
            return None
        if time.monotonic() - entry.read_at > limits().refresh_seconds:
            return None
        self._entries.touch(name)
        counts.hits += 1
        return entry.value

    async def get(self, name: str, stamp: Stamp | None) -> T | None:
        """The value of *name* as it is now, from memory or read."""
        value = self.peek(name, stamp)
        return await self.read(name, stamp) if value is None else value

    async def read(self, name: str, stamp: Stamp | None) -> T | None:
        """The value of *name* as the database has it; what was read lately when the database is away.

        Raises what *read* raises, DatabaseAway when nothing was read within AUTHSVC_STALE_SECONDS.
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
        """Drop the value of *name*, or all values (None), and the reads of it that are under way."""
        if name is None:
            self._entries.clear()
        else:
            self._entries.pop(name, None)
        for fill in self._fills:
            if name is None or fill.name == name:
                fill.spoiled = True

    def _stale(self, name: str) -> T:
        """What was read of *name* less than AUTHSVC_STALE_SECONDS ago, by a process that hears of changes.

        Raises DatabaseAway: nothing was.
        """
        entry = self._entries.get(name)
        if entry is None or entry.stamp is None or time.monotonic() - entry.read_at >= limits().stale_seconds:
            raise DatabaseAway(f"nothing was read within {limits().stale_seconds} s")
        counts.stale += 1
        return entry.value


def invalidate(name: str | None) -> None:
    """Drop *name*, or everything (None), from all memories of this process."""
    counts.invalidated += 1
    for memory in _all:
        memory.invalidate(name)


@caches.register
def _clear() -> None:
    invalidate(None)
