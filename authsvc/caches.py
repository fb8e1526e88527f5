"""Bounded caches, and a function that clears every cache of this process that depends on settings."""

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
    """A dict of up to *size()* entries. A new entry drops the one that was put or touched longest ago.

    A look-up is that of a dict, and does not touch. Every method is O(1), and threads may share a cache: between two
    calls an entry may be dropped. Keys are texts, bytes and tuples of these: `__eq__` or `__hash__` in Python would let
    another thread run in the middle of an operation, which can crash the process.
    """

    def __init__(self, size: Callable[[], int]) -> None:
        super().__init__()
        self._size = size
        _bounded[id(self)] = self

    def put(self, key: K, value: V) -> None:
        """Store *value* under *key* as the newest entry."""
        self[key] = value
        self.touch(key)
        size = self._size()
        while len(self) > size:
            with contextlib.suppress(KeyError):  # Another thread dropped the last one.
                self.popitem(last=False)

    def touch(self, key: K) -> None:
        """Make *key* the newest entry, if it is still there."""
        try:  # noqa: SIM105 - contextlib.suppress takes five times as long, at every hit.
            self.move_to_end(key)
        except KeyError:
            pass


def register(clear: Clear) -> Clear:
    """Register *clear*, which clears a cache of another class, for clear_caches(). Return *clear*, for a decorator."""
    _registered.append(clear)
    return clear


def clear_caches(**_: object) -> None:
    """Clear every BoundedCache and all registered caches. Django calls it when a test changes a setting."""
    for cache in list(_bounded.values()):
        cache.clear()
    for clear in _registered:
        clear()


setting_changed.connect(clear_caches, dispatch_uid="authsvc.caches")
