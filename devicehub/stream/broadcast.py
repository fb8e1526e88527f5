"""The streams of this process: one task reads the feed for all of them, about once a second, in one thread."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import NamedTuple

import structlog
from django.db import DatabaseError

from devicehub.errors import DevicehubError
from devicehub.stream import cursors, thread
from devicehub.stream.cursors import Place
from devicehub.stream.events import Event, dumps
from devicehub.stream.feed import Feed
from devicehub.stream.logins import Login
from devicehub.stream.sources import Flood

log = structlog.get_logger(__name__)

MAX_STREAMS = 100
MAX_OF_ONE = 10  # Streams of one caller.
SECONDS = 1.0  # From one look to the next.
CHECK_SECONDS = 2.0  # From one check of the login of a stream to the next.
HEARTBEAT = 15.0  # Seconds without an event after which a comment is sent.
MOST_WAITING = (
    20_000  # Events that wait for a slow client; then its stream ends, and it can go on where it was.
)
HEAVIEST = 16 << 20  # Bytes of those that wait, with the same end.
AT_ONCE = 200  # Events that are handed to a stream without a pause.
RETRY = b"retry: 2000\n\n"
RETRY_LATER = b"retry: 30000\n\n"  # Of a stream for which there is no place any more.
RETRY_POLL = b"retry: 5000\n\n"  # Of a server that cannot hold a stream open.


class Reader(NamedTuple):
    """The caller of a stream: a name to count by, the login to check, and a function that says which events it gets."""

    name: str
    login: Login
    wants: Callable[[Event], bool]


class Stream:
    """One open stream. *waiting* holds what is to be sent, of *weight* bytes; None ends the stream."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.weight = 0
        self._is_over = False

    async def offer(self, found: Sequence[Event]) -> None:
        """Have those of *found* sent that the reader wants. Other work of the event loop gets its turn meanwhile."""
        for number, event in enumerate(found, 1):
            if self.reader.wants(event):
                self.send(event.wire)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    def send(self, text: bytes | None) -> None:
        """Have *text* sent, or end a stream whose client does not read."""
        if self._is_over:
            return
        is_slow = self.waiting.qsize() >= MOST_WAITING or self.weight > HEAVIEST
        text = None if is_slow else text
        self._is_over = text is None
        self.weight += len(text or b"")
        self.waiting.put_nowait(text)

    async def next(self) -> bytes | None:
        """Return what is to be sent next; None at the end."""
        text = await self.waiting.get()
        self.weight -= len(text or b"")
        return text


class Broadcast:
    """The feed and the streams that get its events, in one event loop."""

    def __init__(self) -> None:
        self.streams: set[Stream] = set()
        self._joining: list[tuple[Stream, Place | None]] = []
        self._wake = asyncio.Event()
        self._feed = Feed()
        self.place = self._feed.place  # The events up to it were handed to the streams.
        self._task = asyncio.create_task(self._run())

    @property
    def is_over(self) -> bool:
        """Whether it hands out nothing more."""
        return self._task.done()

    def join(self, stream: Stream, place: Place | None) -> None:
        """Add *stream*, which begins at *place*, or now if it is None."""
        self._joining.append((stream, place))
        self._wake.set()

    def leave(self, stream: Stream) -> None:
        """Remove *stream*."""
        self.streams.discard(stream)
        self._joining = [one for one in self._joining if one[0] is not stream]

    def end(self) -> None:
        """Read nothing more."""
        self._task.cancel()
        thread.rest()

    @property
    def is_empty(self) -> bool:
        """Whether it has no streams."""
        return not self.streams and not self._joining

    async def _run(self) -> None:
        try:
            await thread.run(self._feed.begin)
            while True:
                self._wake.clear()
                await self._look()
                await self._admit()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), SECONDS)
        except DatabaseError as error:
            log.warning("stream.database_away", error=type(error).__name__)  # The clients connect again.
        except Exception:
            log.exception("stream.failed")
        finally:
            # Events that were read and not handed out are read again, from the places of the clients.
            _forget(self)
            for stream in [*self.streams, *(stream for stream, _ in self._joining)]:
                stream.waiting.put_nowait(None)

    async def _look(self) -> None:
        def look() -> tuple[list[Event], Place]:
            return self._feed.look(), self._feed.place

        def begin() -> Place:
            self._feed.begin()
            return self._feed.place

        try:
            found, place = await thread.run(look)
        except Flood:
            self.place = await thread.run(begin)
            for stream in self.streams:
                stream.send(_marker("reset", self.place))
            return
        for stream in list(self.streams):
            await stream.offer(found)
        self.place = place

    async def _admit(self) -> None:
        """Add the streams that wait, and hand them the events since their places.

        Each one waits in the list until its turn: it may leave before, and is notified if this ends before.
        """
        for _ in range(len(self._joining)):  # Those who join meanwhile wait for the next look.
            if not self._joining:
                return
            stream, place = self._joining.pop(0)
            self.streams.add(stream)
            if place is None:
                stream.send(_marker("start", self.place))
                continue
            try:
                found = await thread.run(functools.partial(self._feed.since, place))
            except Flood:
                stream.send(_marker("reset", self.place))
            else:
                await stream.offer(found)


_current: Broadcast | None = None
_open: Counter[str] = Counter()  # Open streams by the name of their reader.


def _forget(broadcast: Broadcast) -> None:
    global _current
    if _current is broadcast:
        _current = None


def is_full() -> bool:
    """Return whether this process has as many streams as it may have."""
    return _open.total() >= MAX_STREAMS


def is_full_for(name: str) -> bool:
    """Return whether the caller *name* has as many streams as one may have."""
    return _open[name] >= MAX_OF_ONE


async def events(reader: Reader, place: Place | None) -> AsyncGenerator[bytes, None]:
    """Yield what is sent to *reader*: the events from *place*, or from now, until its login is not valid any more.

    The answers to many requests at once begin after the checks of all of them, so the places are counted again here.
    """
    global _current
    if is_full() or is_full_for(reader.name):
        yield RETRY_LATER
        return
    loop = asyncio.get_running_loop()
    _open[reader.name] += 1
    stream = Stream(reader)
    broadcast = _current
    if broadcast is None or broadcast.is_over:
        broadcast = _current = Broadcast()
    broadcast.join(stream, place)
    try:
        yield RETRY
        check_at = loop.time() + CHECK_SECONDS
        beat_at = loop.time() + HEARTBEAT
        while True:
            text = await _next(stream, min(check_at, beat_at) - loop.time())
            if loop.time() >= check_at:
                if not await thread.run(reader.login.counts):
                    return
                check_at = loop.time() + CHECK_SECONDS
            if text is not None:
                yield text
                beat_at = loop.time() + HEARTBEAT
            elif stream.waiting.empty() and loop.time() >= beat_at:
                # The id moves the place of a client on that gets no events.
                yield b": still here\nid: %s\n\n" % cursors.write(*broadcast.place).encode()
                beat_at = loop.time() + HEARTBEAT
    except EndOfStream:
        return
    finally:
        _open[reader.name] -= 1
        if not _open[reader.name]:
            del _open[reader.name]
        broadcast.leave(stream)
        if broadcast.is_empty:
            _forget(broadcast)
            broadcast.end()


def once(reader: Reader, place: Place | None) -> bytes:
    """Return what *reader* gets from *place* to now, for a server that cannot hold a stream open."""
    feed = Feed()
    feed.begin()
    parts = [RETRY_POLL]
    if place is None:
        parts.append(_marker("start", feed.place))
    else:
        try:
            parts += [event.wire for event in feed.since(place) if reader.wants(event)]
            parts.append(b"id: %s\n\n" % cursors.write(*feed.place).encode())
        except Flood:
            parts.append(_marker("reset", feed.place))
    return b"".join(parts)


class EndOfStream(DevicehubError):
    """Nothing more follows."""


async def _next(stream: Stream, seconds: float) -> bytes | None:
    """Return what is to be sent next, or None if there was nothing for *seconds*. Raise EndOfStream."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            text = await stream.next()
    except TimeoutError:
        return None
    if text is None:
        raise EndOfStream
    return text


def _marker(name: str, place: Place) -> bytes:
    content = dumps({"event": name})
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (cursors.write(*place).encode(), name.encode(), content)
