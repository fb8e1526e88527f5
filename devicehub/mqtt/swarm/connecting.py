"""A socket on its way to the broker: TCP, and TLS where wanted, without waiting for either."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import ssl
from typing import Any, Protocol


class Opener(Protocol):
    """Who wants the socket: a Loop."""

    address: Any
    selector: selectors.BaseSelector
    tls: ssl.SSLContext | None
    places: list[Any]  # of socket.getaddrinfo()

    def opened(self, link: Any, connection: socket.socket) -> None: ...

    def failed(self, link: Any, reason: str) -> None: ...


class Opening:
    """One attempt for *link*. It tries the addresses of the host in order, and tells the opener how it ended."""

    def __init__(self, opener: Opener, link: Any) -> None:
        self._opener, self._link = opener, link
        self._places = list(opener.places)
        self._socket: socket.socket | None = None
        self._is_tls = self._awaits = False

    def start(self) -> None:
        """Begin with the next address."""
        family, kind, protocol, _, place = self._places.pop(0)
        try:
            made = self._socket = socket.socket(family, kind, protocol)
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = made.connect_ex(place)
        except OSError as error:
            self._failed(error)
            return
        if code not in (0, errno.EINPROGRESS):
            self._failed(OSError(code, os.strerror(code)))
            return
        self._await(made, selectors.EVENT_WRITE)

    def close(self) -> None:
        if self._socket is not None:
            if self._awaits:
                self._opener.selector.unregister(self._socket)
            self._awaits = False
            self._socket.close()
            self._socket = None

    def _await(self, connection: socket.socket, events: int) -> None:
        self._awaits = True
        self._opener.selector.register(connection, events, lambda _: self._go_on(connection))

    def _go_on(self, connection: socket.socket) -> None:
        """The next step of what *connection* waited for."""
        self._opener.selector.unregister(connection)
        self._awaits = False
        code = 0 if self._is_tls else connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(OSError(code, os.strerror(code)))
            return
        try:
            connection = self._socket = self._secured(connection)
        except ssl.SSLWantReadError:
            self._await(self._socket or connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._await(self._socket or connection, selectors.EVENT_WRITE)
        except OSError as error:
            self._failed(error)
        else:
            self._socket = None
            self._opener.opened(self._link, connection)

    def _secured(self, connection: socket.socket) -> socket.socket:
        """*connection* with TLS where that is wanted. Raises SSLWantReadError while the handshake goes on."""
        if self._opener.tls is None:
            return connection
        if not isinstance(connection, ssl.SSLSocket):
            connection = self._socket = self._opener.tls.wrap_socket(
                connection, server_hostname=self._opener.address.host, do_handshake_on_connect=False
            )
            self._is_tls = True
        connection.do_handshake()
        return connection

    def _failed(self, error: OSError) -> None:
        self.close()
        if self._places and not isinstance(error, ssl.SSLError):
            self.start()
            return
        where = f"{self._opener.address.host}:{self._opener.address.port}"
        self._opener.failed(self._link, f"no connection to {where} ({error})")
