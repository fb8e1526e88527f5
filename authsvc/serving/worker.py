"""gunicorn's ASGI worker with time limits for requests and a bound on connections.

It uses private names of gunicorn: pyproject.toml pins the release, and tests/authsvc/serving/test_serving.py lists
them.
"""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterable
from enum import Enum
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from authsvc.serving.scopes import CALLER_IS_ADMITTED, PREFIX, PROTECTED

SECONDS = "AUTHSVC_REQUEST_SECONDS"
DEFAULT_SECONDS = 30.0
FILES = 65_536  # Files that a process may open, if its hard limit allows so many.
WATCH_SECONDS = 1.0
REPORT_SECONDS = 60.0
REPORT = "Closed %d connections to make room; %d may be open, and %d of these by clients other than brokers"
Header = tuple[str, str]
ERROR_HEADERS: list[Header] = [(name.decode(), value.decode()) for name, value in PROTECTED]
# Bytes for the parser at a time: after a whole request it stores up to 64 KiB, and drops the rest.
PIECE = 32 * 1024
PROGRESS = 48 * 1024  # Bytes of a large answer that a client must read within the time limit.


# Called for every request; super() would take twice the time.
_feed = ASGIProtocol._feed_callback_parser
_scope_of = ASGIProtocol._build_http_scope


class Waiting(Enum):
    """The thing that a connection waits for from its client."""

    HEAD = "the head of a request"
    BODY = "the body of a request"
    ANSWER = "room for more of an answer"


class Connection(ASGIProtocol):  # type: ignore[misc]
    """A connection with time limits for its client."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self._scope: dict[str, Any] | None = None  # The scope of the last request.
        self._is_brokers = False
        self._has_half_a_head = False
        self._behind = bytearray()  # Bytes beyond those that the parser stores after a whole request.
        self._resumed = 0
        self._watched: tuple[Waiting | None, int, int] | None = None
        self._since = 0.0
        self._unsent = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._task.add_done_callback(self._release)
        self.worker.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.worker.connections.remove(self)
        if self._request_ready is not None:
            self._request_ready.set()  # Otherwise its task would wait for some more seconds.

    def _release(self, _task: Any) -> None:
        """Drop objects that refer back to this connection and hold data of its client.

        Otherwise only a full garbage collection would free them, and authsvc/gunicorn.py makes these rare.
        """
        self._callback_parser = self._body_receiver = self._scope = None

    def resume_writing(self) -> None:
        self._resumed += 1
        super().resume_writing()

    def _feed_callback_parser(self, data: bytes) -> bool:
        if self._closed:  # gunicorn would look up the peer of a closed transport.
            return False
        parser: Any = self._callback_parser
        behind = self._behind
        if parser.is_complete and parser.remaining():
            behind += data
            return True
        if len(data) > PIECE:
            behind[:0] = data[PIECE:]
        goes_on: bool = _feed(self, data[:PIECE])
        # The parser stores some bytes after a whole request; gunicorn feeds them again after the answer.
        while goes_on and behind and not (parser.is_complete and parser.remaining()):
            piece = bytes(behind[:PIECE])
            del behind[:PIECE]
            goes_on = _feed(self, piece)
        self._has_half_a_head = self._current_request is None
        return goes_on

    def _http1_buffered(self) -> int:
        held: int = super()._http1_buffered()
        return held + len(self._behind)

    def _resume_reading(self) -> None:
        if len(self._behind) <= self._max_buffer_size // 2:
            super()._resume_reading()

    def _send_error_response(self, status: int, message: str, extra_headers: Iterable[Header] = ()) -> None:
        """Send the answer to a request that gunicorn itself refuses. Its text may repeat the request."""
        super()._send_error_response(status, message, (*extra_headers, *ERROR_HEADERS))

    def _build_http_scope(self, request: Any, sockname: Any, peername: Any) -> dict[str, Any]:
        scope: dict[str, Any] = _scope_of(self, request, sockname, peername)
        self._scope = scope
        return scope

    @property
    def is_at_work(self) -> bool:
        """Whether the application has a whole request and does not wait for the client."""
        return self._current_request is not None and self.waits_for() is None

    def is_brokers(self) -> bool:
        """Return whether the last request was a question of an admitted caller.

        A question without an answer yet does not count.
        """
        if self._scope is not None:
            admitted = self._scope.get(CALLER_IS_ADMITTED)
            is_undecided = admitted is None and self._current_request is not None
            if not (is_undecided and self._scope["path"].startswith(PREFIX)):
                self._is_brokers = bool(admitted)
        return self._is_brokers

    def waits_for(self) -> Waiting | None:
        """Return the thing it waits for; None while the application works, or between two requests."""
        if self.reader is not None or self._websocket is not None:
            return None
        if self._closed or self._flow_control.write_paused:
            return Waiting.ANSWER
        if self._current_request is None:
            return Waiting.HEAD if self._has_half_a_head or self.req_count <= 1 else None
        receiver = self._body_receiver
        return None if receiver is None or receiver._complete else Waiting.BODY

    def watch(self, now: float, seconds: float) -> None:
        """End the request or the connection if the client has made no progress for *seconds*."""
        waiting = self.waits_for()
        watched = (waiting, self.req_count, self._resumed)
        if watched != self._watched or (waiting is Waiting.ANSWER and self._has_sent()):
            self._watched, self._since = watched, now
            self._unsent = self.transport.get_write_buffer_size()
        elif waiting is not None and now - self._since >= seconds:
            self._end(waiting)

    def _has_sent(self) -> bool:
        return bool(self._unsent - self.transport.get_write_buffer_size() >= PROGRESS)

    def _end(self, waiting: Waiting) -> None:
        receiver: Any = self._body_receiver
        if waiting is Waiting.HEAD:
            if self._has_half_a_head:
                self._send_error_response(408, "The head of this request did not arrive in time.")
            self._close_transport()
            self._request_ready.set()  # Otherwise the task of this connection would wait on.
        elif waiting is Waiting.BODY and not receiver._body_wait_expired:
            # The application gets a disconnect, and has a second to answer.
            receiver._body_wait_expired = True
            receiver._wake_waiter()
        else:
            self.transport.abort()


class Connections:
    """The open connections of a worker.

    At most *limit* are open, and at most half of these belong to clients other than brokers: browsers, unknown
    clients, and clients without a request yet. For a new connection the oldest of these is closed, first those that
    wait for their client. So a broker that asks at once is always served.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.closed = 0  # Connections closed to make room.
        self.web: dict[Connection, None] = {}  # The oldest first.
        self.brokers: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """Count a new connection, and make room for it."""
        while self._is_full():
            surplus = self._first_to_go()
            if not self._is_full():
                break
            if surplus is None:
                surplus = connection  # All others belong to brokers.
            self.closed += 1
            self.remove(surplus)
            surplus.transport.abort()
            if surplus is connection:
                return
        self.web[connection] = None

    def remove(self, connection: Connection) -> None:
        """Count *connection* no longer."""
        self.web.pop(connection, None)
        self.brokers.discard(connection)

    def watch(self, now: float, seconds: float) -> None:
        """Apply the time limit to each connection, and move those whose last request changed their kind."""
        for connection in (*self.web, *self.brokers):
            connection.watch(now, seconds)
        self._are_brokers([c for c in self.web if c.is_brokers()])
        for connection in [c for c in self.brokers if not c.is_brokers()]:
            self.brokers.discard(connection)
            self.web[connection] = None

    def _is_full(self) -> bool:
        web, brokers = len(self.web), len(self.brokers)
        return web >= self.limit // 2 or web + brokers >= self.limit

    def _are_brokers(self, found: list[Connection]) -> None:
        for connection in found:
            del self.web[connection]
            self.brokers.add(connection)

    def _first_to_go(self) -> Connection | None:
        """Return the oldest web connection that waits for its client, or else the oldest of all."""
        found, at_work = [], None
        try:
            for connection in self.web:
                if connection.is_brokers():
                    found.append(connection)
                elif not connection.is_at_work:
                    return connection
                elif at_work is None:
                    at_work = connection
            return at_work
        finally:
            self._are_brokers(found)


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]
    """The worker class for gunicorn: `worker_class = "authsvc.serving.Worker"`."""

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise SystemExit if the time limit is not a number."""
        super().check_config(cfg, log)
        _seconds()

    def init_process(self) -> None:
        # It stores its result in the class it is called on, and gunicorn reads that of ASGIProtocol.
        ASGIProtocol._check_h1c_protocol_available()
        gasgi.ASGIProtocol = Connection
        self._request_seconds = _seconds()
        self.connections = Connections(min(self.worker_connections, _raise_file_limit() * 3 // 4))
        self._report_after = 0.0
        self._has_backlog = False
        super().init_process()

    def run(self) -> None:
        self._watch()
        super().run()

    def _watch(self) -> None:
        self.loop.call_later(min(WATCH_SECONDS, self._request_seconds / 4), self._watch)
        if self.servers and not self._has_backlog:
            self._set_backlog()
        now, connections = self.loop.time(), self.connections
        connections.watch(now, self._request_seconds)
        if connections.closed and now >= self._report_after:
            self.log.warning(REPORT, connections.closed, connections.limit, connections.limit // 2)
            connections.closed = 0
            self._report_after = now + REPORT_SECONDS

    def _set_backlog(self) -> None:
        """Set the queue of new connections to gunicorn's `backlog`; asyncio has set it to 100."""
        self._has_backlog = True
        for listener in self.sockets:
            listener.sock.listen(self.cfg.backlog)


def _seconds() -> float:
    text = os.environ.get(SECONDS, str(DEFAULT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (0 < seconds < math.inf):
        raise SystemExit(f"{SECONDS} is {text!r}; write a number of seconds above 0, such as 30")
    return seconds


def _raise_file_limit() -> int:
    """Raise the number of files that this process may open to FILES if possible, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return FILES
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
