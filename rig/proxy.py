"""A TCP proxy on loopback that harms connections: cut, reset, silent in one or both directions, late, slow.

It runs between two real processes, in a thread of its own. A method harms the connections that are open at that
moment; `refusing`, `delay`, `rate` and `doom` hold until they are set back.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

PIECE = 65_536  # bytes per read
TO_SERVER, TO_CLIENT = "to server", "to client"
BOTH_WAYS = (TO_SERVER, TO_CLIENT)
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets the connection


@dataclass(eq=False)
class Link:
    """A connection of a client, and its connection to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: set[str] = field(default_factory=set)
    doom: int = 0  # bytes until it is reset
    passed: int = 0  # bytes, both ways


class Proxy:
    """Listens on *port* and passes all bytes on to *target*, a loopback port, and back.

    *watch* is called with each piece, its link and its direction.
    """

    def __init__(self, target: int, watch: Callable[[Link, str, bytes], None] = lambda *_: None) -> None:
        self._target, self._watch = target, watch
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0  # connections so far
        self.refusing = False  # new connections are closed at once
        self.delay = 0.0  # seconds by which each piece is delayed
        self.rate = 0  # bytes per second each way; 0 is without a limit
        self.doom: Callable[[], int] = lambda: 0  # bytes until a new connection is reset; 0 is never
        listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, sock=listening), self._loop
        ).result(5)

    def reset(self) -> None:
        """Send a RST to both sides of every connection."""
        self._do(self._abort)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Close open connections, and refuse new ones until the block ends."""
        self.refusing = True
        self._do(self._close)
        try:
            yield
        finally:
            self.refusing = False

    def silence(self, *directions: str) -> None:
        """Drop all bytes in *directions* on the connections that are open now, without a sign to either end.

        New connections work: this is a router that lost a connection, not one that is off.
        """
        self._do(lambda link: link.silent.update(directions))

    def close(self) -> None:
        """Reset all connections and stop listening."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, harm: Callable[[Link], None]) -> None:
        """Apply *harm* to all links in the thread of the proxy, and wait."""

        async def now() -> None:
            for link in list(self._links):
                harm(link)
            await asyncio.sleep(0)  # so that the closed connections are closed when this returns

        asyncio.run_coroutine_threadsafe(now(), self._loop).result(5)

    async def _end(self) -> None:
        self._server.close()
        for link in list(self._links):
            self._abort(link)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        if self.refusing:
            client.close()
            return
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            client.close()  # the client must see that the server is away
            return
        link = Link(client, server, doom=self.doom())
        self._links.add(link)
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(
                    self._carry(link, reader, server, TO_SERVER),
                    self._carry(link, answers, client, TO_CLIENT),
                )
        finally:
            self._close(link)

    async def _carry(
        self, link: Link, source: asyncio.StreamReader, target: asyncio.StreamWriter, direction: str
    ) -> None:
        """Carry bytes until *source* closes, and close *target* for writing: either side may close first.

        The other side is read to its end: a socket that is closed with unread bytes is reset, and the bytes that
        were just sent over it may be lost.
        """
        with suppress(OSError):
            rest = b""  # the rest of a piece that is carried in parts
            while piece := rest or await source.read(PIECE):
                held, size = 0.0 if rest else self.delay, len(piece)
                if self.rate:
                    size = min(size, max(1, self.rate // 10))
                    held += size / self.rate
                piece, rest = piece[:size], piece[size:]
                if held:
                    await asyncio.sleep(held)
                if direction in link.silent or target.is_closing():
                    continue
                self._watch(link, direction, piece)
                with suppress(OSError):
                    target.write(piece)
                    await target.drain()
                link.passed += len(piece)
                if 0 < link.doom <= link.passed:
                    self._abort(link)
                    return
        if not link.silent and target.can_write_eof():
            with suppress(OSError):
                target.write_eof()

    def _close(self, link: Link) -> None:
        self._links.discard(link)
        for side in (link.client, link.server):
            side.close()

    def _abort(self, link: Link) -> None:
        self._links.discard(link)
        for side in (link.client, link.server):
            with suppress(OSError):
                side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            side.transport.abort()
