"""A connection to a broker that asyncio opens, reads and writes, TLS included, and that paho uses as a socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from devicehub.mqtt.address import BrokerAddress, MqttError

Place = tuple[Any, ...]  # This is an entry of socket.getaddrinfo().


class Stream(asyncio.Protocol):
    """One connection. *on_news* is called when bytes came, when it ended, and when it accepts more bytes again."""

    def __init__(self) -> None:
        self.on_news: Callable[[], None] = lambda: None
        self._transport: asyncio.Transport | None = None
        self._incoming = bytearray()
        self._is_open = self._is_full = False

    @property
    def is_open(self) -> bool:
        """True while the connection is open. After close() it stays open until all bytes are sent."""
        return self._is_open

    @property
    def has_news(self) -> bool:
        """True if recv() returns bytes or the end."""
        return bool(self._incoming) or not self._is_open

    def abort(self) -> None:
        """Close at once, without sending the rest."""
        self.on_news = lambda: None
        if self._transport is not None:
            self._transport.abort()

    # The side of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's class is not a subclass.
        self._is_open = True

    def data_received(self, data: bytes) -> None:
        self._incoming += data
        self.on_news()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open, self._transport = False, None
        self.on_news()

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self.on_news()

    # The side of paho

    def recv(self, size: int) -> bytes:
        """Return at most *size* bytes, none at the end. Raise BlockingIOError if there are none yet."""
        if not self._incoming and self._is_open:
            raise BlockingIOError
        taken = bytes(self._incoming[:size])
        del self._incoming[:size]
        return taken

    def send(self, data: bytes) -> int:
        """Send *data* whole. Raise BlockingIOError while the network does not keep up."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        if self._is_full:
            raise BlockingIOError
        self._transport.write(data)
        return len(data)

    def setblocking(self, flag: bool) -> None:
        """Do nothing: no call of this class waits."""

    def close(self) -> None:
        """Close once all bytes are sent."""
        self.on_news = lambda: None
        if self._transport is not None:
            self._transport.close()


def look_up(address: BrokerAddress) -> list[Place]:
    """Return the network addresses of the host of *address*; this blocks. Raise MqttError for an unknown host."""
    try:
        return list(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
    except UnicodeError as error:
        raise MqttError(f"{address.host} is not the name of a host") from error
    except OSError as error:
        raise MqttError(f"no connection to {address.host}:{address.port} ({error})") from error


async def connect(address: BrokerAddress, places: list[Place], tls: ssl.SSLContext | None) -> Stream:
    """Return a connection to the first of *places* that accepts one. Raise MqttError if none does.

    The caller looks the host up once, not for each connection: asyncio would do that in threads.
    """
    trouble: OSError | None = None
    for *_, place in places:
        try:
            _, stream = await asyncio.get_running_loop().create_connection(
                Stream, place[0], place[1], ssl=tls, server_hostname=address.host if tls else None
            )
        except ssl.SSLError as error:
            trouble = error
            break  # The host answers, but its certificate does not match.
        except OSError as error:
            trouble = error
        else:
            return stream
    raise MqttError(f"no connection to {address.host}:{address.port} ({trouble})") from trouble
