"""Requests to a Leshan server: its registrations, its stream of events, reads and observations of endpoints.

It uses the HTTP client of the standard library: there are a stream and short requests, without redirects, proxies or
cookies.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from enum import StrEnum
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from devicehub.errors import DevicehubError
from devicehub.lwm2m.leshan import shapes
from devicehub.lwm2m.leshan.address import Address
from devicehub.lwm2m.leshan.shapes import MalformedAnswer, Registration
from devicehub.messages.json_limits import MAX_KEPT

CONNECT_SECONDS = 10.0
DEVICE_SECONDS = 10  # The server waits so long for an endpoint.
SILENT_SECONDS = (
    60.0  # The server sends an empty line every 10 s; without one for so long the stream is dead.
)
LIST_SECONDS = 60.0
PIECE = 65_536
MAX_ANSWER = MAX_KEPT
FORMATS = "pathformat=SENML_CBOR&nodeformat=SENML_CBOR"  # Composite requests need both.
ACCEPTED = "text/event-stream"
OPENING = re.compile(r"\s*\[")
BETWEEN = re.compile(r"[\s,]*")


class ServerAway(DevicehubError):
    """The Leshan server does not answer now. A later attempt may succeed."""


class ServerRefuses(DevicehubError):
    """The Leshan server, or another program at its address, refuses us. A later attempt needs another configuration."""


class Result(StrEnum):
    """The end of a request to an endpoint."""

    VALUES = "values"
    REFUSED = "refused"  # By the endpoint or by the server; the same request would be refused again.
    ASLEEP = "asleep"
    SILENT = "silent"  # The endpoint did not answer in time.
    UNREGISTERED = "unregistered"


class Answer(NamedTuple):
    """The answer to a request to an endpoint: its nodes by path, or the reason why there are none.

    *size* is the number of bytes in which the server wrote it.
    """

    result: Result
    nodes: Mapping[str, Any]
    detail: str = ""
    size: int = 0


class Stream:
    """The open stream of events. Iterate over its pieces; close() may be called by another thread."""

    def __init__(self, response: HTTPResponse, connection: HTTPConnection, connected: socket.socket) -> None:
        self._response = response
        self._connection = connection
        self._socket = connected
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield pieces until the stream ends or is closed. Raise ServerAway if it breaks or becomes silent."""
        try:
            while piece := self._response.read1(PIECE):
                yield piece
        except (OSError, HTTPException, ValueError) as error:
            if not self._is_closed:
                raise ServerAway(f"the stream of events broke ({_reason(error)})") from error
        finally:
            self._response.close()
            self._connection.close()

    def close(self) -> None:
        """End the stream, also while another thread waits for its next piece."""
        self._is_closed = True
        with suppress(OSError):  # It may have ended already.
            # The method of plain sockets: that of TLS sockets takes away the state that the waiting thread uses.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True
        self._response.close()
        self._connection.close()


class LeshanServer:
    """A Leshan server. Its methods may be called by several threads at once; each opens a connection of its own."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._tls = ssl.create_default_context() if address.is_secure else None
        self._headers = {"Accept": "*/*", "Connection": "close", "User-Agent": "devicehub"}
        if address.username:
            login = base64.b64encode(f"{address.username}:{address.password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"

    def stream(self) -> Stream:
        """Open the stream of all events. Raise ServerAway or ServerRefuses."""
        # Without `ep`: a stream of one endpoint would switch traces of CoAP on for all streams.
        response, connection, connected = self._send("GET", "/api/event", SILENT_SECONDS, accept=ACCEPTED)
        kind, status = response.headers.get_content_type(), response.status
        if status == 200 and kind == ACCEPTED:
            return Stream(response, connection, connected)
        response.close()
        connection.close()
        self._check(status)
        said = f"is of type {kind}" if status == 200 else f"has the status {status}"
        raise ServerRefuses(
            f"the answer of {self.address}/api/event {said}: this is not a Leshan demo server, or the path of the "
            "URL is wrong"
        )

    def registrations(self) -> Iterator[Registration | MalformedAnswer]:
        """Yield all registrations, one after the other; an error in place of one that cannot be read.

        Raise ServerAway, ServerRefuses, or MalformedAnswer if the answer is not a list.
        """
        with self._exchange("GET", "/api/clients", LIST_SECONDS) as response:
            if response.status != 200:
                self._check(response.status)
                raise ServerAway(f"{self.address}/api/clients answers with status {response.status}")
            for content in _elements(_pieces(response)):
                try:
                    yield shapes.registration(content)
                except MalformedAnswer as error:
                    yield error

    def read(self, endpoint: str, path: str) -> Answer:
        """Read *path* of *endpoint*. Raise ServerAway or ServerRefuses."""
        return self._request("GET", endpoint, path, {path})

    def observe(self, endpoint: str, paths: Sequence[str]) -> Answer:
        """Observe one path of *endpoint*, or several as one composite observation; the answer has the first values.

        Raise ServerAway or ServerRefuses.
        """
        if len(paths) == 1:
            return self._request("POST", endpoint, f"{paths[0]}/observe", set(paths))
        wanted = quote(",".join(paths), safe="/,")
        return self._request("POST", endpoint, f"/composite/observe?paths={wanted}&{FORMATS}", None)

    def _request(self, method: str, endpoint: str, target: str, single: set[str] | None) -> Answer:
        """Send a request about *endpoint*. The content of the answer is the node at *single*, or nodes by path."""
        if endpoint in (".", ".."):
            return Answer(Result.REFUSED, {}, "a URL cannot name this endpoint")
        mark = "&" if "?" in target else "?"
        path = f"/api/clients/{quote(endpoint, safe=':')}{target}{mark}timeout={DEVICE_SECONDS}"
        with self._exchange(method, path, DEVICE_SECONDS + 5.0) as response:
            body = _body(response)
        if response.status == 200:
            return _answer(body, single)._replace(size=len(body))
        self._check(response.status)
        detail = body[:200].decode("utf-8", "replace").strip().partition("\n")[0]
        if response.status == 504:
            return Answer(Result.SILENT, {}, detail)
        if response.status == 400 and "sleeping" in detail.lower():
            return Answer(Result.ASLEEP, {}, detail)
        if response.status == 400 and detail.lower().startswith("no registered client"):
            return Answer(Result.UNREGISTERED, {}, detail)
        return Answer(Result.REFUSED, {}, f"{response.status} {detail}")

    def _check(self, status: int) -> None:
        """Raise ServerRefuses for a status about the login, and ServerAway for one of a server that is not ready."""
        if status in (401, 403):
            raise ServerRefuses(
                f"{self.address} answers with status {status}: name a user in the URL, and set "
                "DEVICEHUB_LESHAN_PASSWORD or DEVICEHUB_LESHAN_PASSWORD_FILE to the password"
            )
        if status in (408, 429, 502, 503):
            raise ServerAway(f"{self.address} answers with status {status}")

    @contextmanager
    def _exchange(self, method: str, path: str, seconds: float) -> Iterator[HTTPResponse]:
        """Send a request; yield the begun response, and close all at the end."""
        response, connection, _ = self._send(method, path, seconds)
        with response, closing(connection):
            yield response

    def _send(
        self, method: str, path: str, seconds: float, accept: str = "*/*"
    ) -> tuple[HTTPResponse, HTTPConnection, socket.socket]:
        """Send a request; return the begun response, whose reads wait for *seconds* at most, and its connection.

        The socket is returned too: the connection drops it when the server said that it will close.
        """
        address = self.address
        if self._tls is None:
            connection = HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
        else:
            connection = HTTPSConnection(
                address.host, address.port, timeout=CONNECT_SECONDS, context=self._tls
            )
        try:
            connection.connect()
            connected: socket.socket = connection.sock
            connected.settimeout(seconds)
            connection.request(method, f"{address.path}{path}", headers={**self._headers, "Accept": accept})
            return connection.getresponse(), connection, connected
        except ssl.SSLCertVerificationError as error:
            connection.close()
            raise ServerRefuses(
                f"the certificate of {address} is not valid here ({error.verify_message})"
            ) from error
        except (OSError, HTTPException) as error:
            connection.close()
            raise ServerAway(f"{address} does not answer ({_reason(error)})") from error


def _answer(body: bytes, single: set[str] | None) -> Answer:
    """Return the answer of an endpoint in a reply with status 200, which may be a refusal."""
    try:
        found = shapes.load(body)
    except MalformedAnswer as error:
        return Answer(Result.REFUSED, {}, str(error))
    if not isinstance(found, Mapping):
        return Answer(Result.REFUSED, {}, "the answer is not an object")
    if found.get("delayed") is True:
        return Answer(Result.ASLEEP, {}, "the server sends the request when the endpoint wakes up")
    if found.get("success") is not True:
        said = f"{found.get('status', '')} {found.get('errormessage', '')}".strip()
        return Answer(Result.REFUSED, {}, said[:200])
    content = found.get("content")
    if single is not None:
        return Answer(Result.VALUES, {} if content is None else dict.fromkeys(single, content))
    try:
        return Answer(Result.VALUES, shapes.nodes(content))
    except MalformedAnswer as error:
        return Answer(Result.REFUSED, {}, str(error))


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the body in pieces. Raise ServerAway if it breaks."""
    try:
        while piece := response.read1(PIECE):
            yield piece
    except (OSError, HTTPException, ValueError) as error:
        raise ServerAway(f"an answer broke off ({_reason(error)})") from error


def _body(response: HTTPResponse) -> bytes:
    """Return the body, up to MAX_ANSWER bytes. Raise ServerAway if it breaks or takes too long."""
    body, end = bytearray(), time.monotonic() + DEVICE_SECONDS + 5.0
    for piece in _pieces(response):
        body += piece
        if len(body) > MAX_ANSWER or time.monotonic() > end:
            raise ServerAway("an answer is too long, or takes too long")
    return bytes(body)


def _elements(pieces: Iterator[bytes]) -> Iterator[Any]:
    """Yield the elements of a JSON list as they arrive; only one is in memory. Raise MalformedAnswer."""
    decoder = json.JSONDecoder(parse_int=shapes.integer)
    utf8, text = codecs.getincrementaldecoder("utf-8")("replace"), ""
    is_begun = False
    for piece in pieces:
        text += utf8.decode(piece)
        if not is_begun:
            opening = OPENING.match(text)
            if opening is None:
                break
            is_begun, text = True, text[opening.end() :]
        position = 0
        while True:
            position = BETWEEN.match(text, position).end()  # type: ignore[union-attr]
            if text.startswith("]", position):
                return
            try:
                content, position = decoder.raw_decode(text, position)
            except (ValueError, RecursionError):
                break  # Its end has not arrived.
            yield content
        text = text[position:]
        if len(text) > MAX_ANSWER:
            break
    raise MalformedAnswer("the list of registrations is not a JSON list, or breaks off")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200]
