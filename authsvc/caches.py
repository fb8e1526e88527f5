"""Bounded caches, and one function that clears every cache of this process whose content follows from settings."""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.signals import setting_changed

K = TypeVar("K")
V = TypeVar("V")
Clear = TypeVar("Clear", bound=Callable[[], object])

_bounded: weakref.WeakValueDictionary[int, BoundedCache[Any, Any]] = weakref.WeakValueDictionary()
_registered: list[Callable[[], object]] = []


class BoundedCache(OrderedDict[K, V]):
    """A dict of up to *size()* entries. The entry that was put or touched longest ago makes room for a new one.

    A look-up is that of a dict, and is no touch. Every method is O(1), and threads may share a cache: between two
    calls an entry may be gone. Keys are texts, bytes and tuples of such: a key with an `__eq__` or `__hash__` in Python
    lets another thread in half-way, and an OrderedDict then breaks the process.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        super().__init__()
        self._size = size
        _bounded[id(self)] = self

    def put(self, key: K, value: V) -> None:
        """Store *value* as the newest entry."""
        self[key] = value
        self.touch(key)
        size = self._size()
        while len(self) > size:
            with contextlib.suppress(KeyError):  # Another thread dropped the last one.
                self.popitem(last=False)

    def touch(self, key: K) -> None:
        """Make *key* the newest entry, if it is still there."""
        try:  # noqa: SIM105 - contextlib.suppress costs five times as much, and every hit pays for it.
            self.move_to_end(key)
        except KeyError:
            pass


def register(clear: Clear) -> Clear:
    """Have clear_caches() call *clear*, which clears a cache of another class. Return *clear*, as a decorator does."""
    _registered.append(clear)
    return clear


def clear_caches(**_: object) -> None:
    """Clear every BoundedCache and all other registered caches, as when a setting changes (which happens in tests)."""
    for cache in list(_bounded.values()):
        cache.clear()
    for clear in _registered:
        clear()


setting_changed.connect(clear_caches, dispatch_uid="authsvc.caches")
