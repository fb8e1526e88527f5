"""The bounded queue between the stream of a Leshan server, the answers of endpoints, and the thread that stores."""

from __future__ import annotations

import threading
import time
from collections import deque
from datetime import datetime
from typing import NamedTuple

from devicehub.lwm2m.leshan.plans import Step
from devicehub.lwm2m.leshan.server import Answer
from devicehub.lwm2m.leshan.shapes import Event, Registration

MOST_ITEMS = 5000
MOST_BYTES = 8 << 20


class ListBegins(NamedTuple):
    """The stream is open, and the list of all registrations follows."""


class Listed(NamedTuple):
    """One registration of the list."""

    registration: Registration


class ListEnds(NamedTuple):
    """The list is complete."""


class Replied(NamedTuple):
    """The answer to one step. *answer* is None if the server was away; the last one of a series *is_last*."""

    endpoint: str
    registration_id: str
    step: Step | None
    answer: Answer | None
    is_last: bool


Content = Event | ListBegins | Listed | ListEnds | Replied


class Arrived(NamedTuple):
    """One content and the time at which it was received."""

    content: Content
    at: datetime
    size: int


class Intake:
    """A queue that put() fills and take() empties. While it is full, put() waits: memory is bounded.

    The stream is then read no faster than its events are stored, and TCP makes the server wait.
    """

    def __init__(self) -> None:
        self._items: deque[Arrived] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, content: Content, at: datetime, size: int = 1000) -> bool:
        """Add *content* of about *size* bytes when there is room; return False if the queue was closed meanwhile."""
        with self._changed:
            while not self._is_closed and (len(self._items) >= MOST_ITEMS or self._bytes >= MOST_BYTES):
                self._changed.wait()
            if self._is_closed:
                return False
            self._items.append(Arrived(content, at, size))
            self._bytes += size
            self._changed.notify_all()
            return True

    def take(self, most: int, timeout: float) -> list[Arrived]:
        """Return up to *most* items, after waiting up to *timeout* seconds for the first."""
        end = time.monotonic() + timeout
        with self._changed:
            while not self._items and not self._is_closed:
                left = end - time.monotonic()
                if left <= 0:
                    return []
                self._changed.wait(left)
            taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
            self._bytes -= sum(item.size for item in taken)
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Refuse further items; those that wait can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
