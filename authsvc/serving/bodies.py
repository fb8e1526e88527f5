"""Bounds on the bodies of requests, checked before anything else reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

TOO_LARGE, TIMED_OUT, BUSY = 413, 408, 503
MAX_HELD = 64 * 1024 * 1024  # Bytes of unfinished requests in the memory of one process.
MAX_HELD_OF_ONE = 2_621_440  # Django writes further bytes to a temporary file.
MAX_DISCARDED = 16 * 1024 * 1024  # Bytes of a refused body that are read, so that its sender gets the answer.
DISCARD_SECONDS = 2.0


class Held:
    """The bytes that the bodies of unfinished requests take in this process."""

    def __init__(self, limit: int = MAX_HELD) -> None:
        self.limit = limit
        self.size = 0


class BoundedBody:
    """A receive() that returns a disconnect once the body exceeds *limit* bytes.

    *refusal* is then the status of the answer. A body that its sender does not finish is TIMED_OUT, and one beyond
    the limit of *held* is BUSY. Call release() when the request has ended.
    """

    def __init__(self, receive: Receive, limit: int, held: Held) -> None:
        self._receive = receive
        self._limit = limit
        self._held = held
        self._size = 0
        self._counted = 0  # Bytes of this body that are counted in *held*.
        self.is_complete = False
        self.refusal: int | None = None

    async def __call__(self) -> Message:
        if self.refusal is None:
            message = await self._receive()
            if self.is_complete:
                return message
            if message["type"] != "http.request":
                self.refusal = TIMED_OUT
                return message
            self._size += len(message.get("body", b""))
            if self._size > self._limit:
                self.refusal = TOO_LARGE
            elif not self._fits():
                self.refusal = BUSY
            else:
                self.is_complete = not message.get("more_body")
                return message
        return {"type": "http.disconnect"}

    def release(self) -> None:
        """Subtract the bytes of this body from *held*."""
        self._held.size -= self._counted
        self._counted = 0

    def _fits(self) -> bool:
        counted = min(self._size, MAX_HELD_OF_ONE)
        self._held.size += counted - self._counted
        self._counted = counted
        return self._held.size <= self._held.limit


def declared(headers: Iterable[Any]) -> int:
    """Return the length in Content-Length; 0 if it is missing or not a number."""
    for name, value in headers:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def is_held_back(headers: Iterable[Any]) -> bool:
    """Return whether the client sends its body only after a status 100 (RFC 9110, 10.1.1)."""
    return any(name.lower() == b"expect" for name, _ in headers)


async def discard(receive: Receive) -> None:
    """Read and drop the rest of a refused body, within a size and a time.

    Closing a connection with unread bytes resets it, and the client may lose the answer.
    """
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while size < MAX_DISCARDED:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
