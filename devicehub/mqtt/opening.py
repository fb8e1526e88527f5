"""A socket on its way to the broker: TCP, and TLS where wanted, without waiting for either."""

from __future__ import annotations

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
        self._is_tls = False

    def start(self) -> None:
        """Begin with the next address."""
        family, kind, protocol, _, place = self._places.pop(0)
        try:
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.connect(place)
        except BlockingIOError:
            pass  # under way
        except OSError as error:
            self._failed(error)
            return
        assert self._socket is not None
        self._opener.selector.register(self._socket, selectors.EVENT_WRITE, self._go_on)

    def close(self) -> None:
        if self._socket is not None:
            if self._socket.fileno() in self._opener.selector.get_map():
                self._opener.selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _go_on(self, _events: int) -> None:
        assert self._socket is not None
        selector = self._opener.selector
        selector.unregister(self._socket)
        wanted = 0
        try:
            if not self._is_tls:
                code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise OSError(code, os.strerror(code))
                if self._opener.tls is not None:
                    self._socket = self._opener.tls.wrap_socket(
                        self._socket,
                        server_hostname=self._opener.address.host,
                        do_handshake_on_connect=False,
                    )
                    self._is_tls = True
            if isinstance(self._socket, ssl.SSLSocket):
                self._socket.do_handshake()
        except ssl.SSLWantReadError:
            wanted = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            wanted = selectors.EVENT_WRITE
        except OSError as error:
            self._failed(error)
            return
        if wanted:
            selector.register(self._socket, wanted, self._go_on)
            return
        done, self._socket = self._socket, None
        self._opener.opened(self._link, done)

    def _failed(self, error: OSError) -> None:
        self.close()
        if self._places and not isinstance(error, ssl.SSLError):
            self.start()
            return
        where = f"{self._opener.address.host}:{self._opener.address.port}"
        self._opener.failed(self._link, f"no connection to {where} ({error})")
