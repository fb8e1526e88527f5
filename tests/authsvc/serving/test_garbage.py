"""Invalid requests log no traceback, and no client can fill the log; on a real server."""

from __future__ import annotations

import logging
import os
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.exceptions import DisallowedHost

from authsvc import logs
from authsvc.asgi import Entrance
from rig import hub

pytestmark = pytest.mark.sqlite_only
TOKEN = "t0ken" * 9


class Server(NamedTuple):
    port: int
    log: Path

    def say(self, text: bytes, *, reset: bool = False) -> bytes:
        """Return the beginning of the answer to *text*, or no bytes if the connection is reset."""
        with closing(socket.create_connection(("127.0.0.1", self.port), timeout=10)) as client:
            client.sendall(text)
            if not reset:
                with suppress(ConnectionError):
                    return client.recv(65_536)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return b""

    def logged(self) -> str:
        """Return the log once all earlier requests are done."""
        assert self.say(request("/healthz")).startswith(b"HTTP/1.1 200 ")
        return self.log.read_text()


@pytest.fixture(scope="module")
def server(module_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("garbage")
    with hub.gunicorn(folder, WEB_CONCURRENCY="1") as url:
        yield Server(int(url.rpartition(":")[2]), folder / "gunicorn.log")


def request(
    path: str, *fields: str, method: str = "GET", host: str = "localhost", body: bytes = b""
) -> bytes:
    length = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, *length, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def handshake(path: str) -> bytes:
    lines = f"GET {path} HTTP/1.1\nHost: localhost\nUpgrade: websocket\nConnection: Upgrade\n"
    lines += "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"
    return lines.replace("\n", "\r\n").encode()


FORM = "Content-Type: application/x-www-form-urlencoded"
MANY = b"&".join([b"a=b"] * 1_200)
GARBAGE = {
    "websocket": (handshake("/"), 403),
    "websocket with a token": (handshake(f"/mqtt/k/{TOKEN}/go-auth/user"), 403),
    "websocket frames": (handshake("/stream/") + b"\x81\x85\0\0\0\0hello" * 100, 403),
    "websocket with a bad key": (handshake("/").replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"x"), 400),
    "foreign host": (request("/login/", host="evil.example"), 400),
    "foreign host of a post": (request("/login/", FORM, method="POST", host="evil", body=b"a=b"), 400),
    "host that is none": (request("/login/", host="a b\tc"), 400),
    "long host": (request("/login/", host="e" * 4_000), 400),
    "host in Latin-1": (request("/login/", host="\xff\xfe"), 400),
    "host with a token": (request("/nowhere", host=f"evil/mqtt/k/{TOKEN}/go-auth/user"), 400),
    "two hosts": (request("/login/", "Host: evil.example"), 400),
    "tls": (bytes.fromhex("16030100c8010000c403035b") + os.urandom(180), 400),
    "mqtt": (b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test", 400),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no version": (b"GET /\r\n\r\n", 400),
    "odd version": (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", 400),
    "long line": (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 414),
    "long head": (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    "long path": (request("/" + "x" * 4_000), 404),
    "bad percent": (request("/%zz/%"), 404),
    "percent that is not utf-8": (request("/login/%ff%fe"), 404),
    "query that is not utf-8": (request("/login/?next=%ff%fe"), 200),
    "nul": (request("/static/a%00b.css"), 404),
    "nul in a query": (request("/login/?next=%00"), 200),
    "bare nul": (request("/a\0b"), 400),
    "way out": (request("/static/%2e%2e/%2e%2e/etc/passwd"), 404),
    "content type that django raises on": (request("/login/", "Content-Type: a/b; charset*=foo'x'bar"), 400),
    "charset that is none": (request("/login/", "Content-Type: a/b; charset=\xff"), 200),
    "many fields": (request("/login/?" + "&".join("a" * 1_200)), 400),
    "many fields of a form": (request("/login/", FORM, method="POST", body=MANY), 403),
    "form that is none": (
        request("/login/", "Content-Type: multipart/form-data", method="POST", body=b"x"),
        403,
    ),
    "bad chunk": (
        request("/login/", "Transfer-Encoding: chunked", method="POST") + b"3\r\nabc\r\nzz\r\n",
        400,
    ),
    "two lengths": (request("/login/", "Content-Length: 5", method="POST", body=b"x"), 400),
    "length and chunks": (request("/", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n"), 400),
    "head of a page": (request("/login/", method="HEAD"), 200),
    "head of nothing": (request("/nowhere", method="HEAD"), 404),
    "head of a probe": (request("/healthz", method="HEAD"), 200),
    "head of a question": (request("/mqtt/go-auth/user", method="HEAD"), 405),
    "odd method": (request("/login/", method="BREW"), 403),
    "half a body": (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx", None),
    "half a question": (b"POST /mqtt/go-auth/user HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", None),
    "half a head": (b"GET / HT", None),
    "many at once": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 50 + b"junk\r\n\r\n", None),
}


ANSWERED = {name: case for name, case in GARBAGE.items() if case[1] is not None}


def is_short(line: str) -> bool:
    return len(line) < 600 and "Traceback" not in line and TOKEN not in line


@pytest.mark.servers
@pytest.mark.parametrize(("text", "status"), ANSWERED.values(), ids=ANSWERED)
def test_it_is_refused_with_a_short_line_at_most(server, text, status):
    before = len(server.logged())

    answer = server.say(text)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    line = server.logged()[before:]
    assert line.count("\n") <= 1
    assert is_short(line)


@pytest.mark.servers
def test_clients_that_disconnect_leave_short_lines_at_most(transactional_db, tmp_path):
    """They cause the same lines as clients that wait for the answer, once each, or fewer.

    The log is read after the server has stopped: a view still runs after its client disconnects, and logs late.
    """
    events = []
    for reset in False, True:
        folder = tmp_path / str(reset)
        folder.mkdir()
        with hub.gunicorn(folder, WEB_CONCURRENCY="1") as url:
            server = Server(int(url.rpartition(":")[2]), folder / "gunicorn.log")
            for text, status in GARBAGE.values():
                if reset or status is not None:
                    server.say(text, reset=reset)
            server.logged()
        lines = server.log.read_text().splitlines()
        assert all(is_short(line) for line in lines)
        events.append(Counter(re.sub(r"\d{4}-\d\d-\d\d[T ][\d:.]+Z?", "", line) for line in lines))
    answered, gone = events
    assert (gone - answered).total() <= len(GARBAGE) - len(ANSWERED)


@pytest.mark.servers
@pytest.mark.parametrize("name", ["foreign host", "long path", "many fields", "odd method"])
def test_a_flood_does_not_fill_the_log(server, name):
    before = server.logged().count("\n")

    for _ in range(3 * logs.LINES):
        server.say(GARBAGE[name][0])

    assert server.logged().count("\n") - before <= logs.LINES


def record(name: str, message: str, *, error: Exception | None = None, **more: Any) -> logging.LogRecord:
    line = logging.LogRecord(name, logging.ERROR, __file__, 1, message, (), None)
    if error is not None:
        line.exc_info = (type(error), error, None)
    line.__dict__.update(more)
    return line


def test_the_line_still_names_the_host():
    message = "Invalid HTTP_HOST header: 'hub.example.org'. You may need to add it to ALLOWED_HOSTS."
    line = record("django.security.DisallowedHost", message, error=DisallowedHost(), status_code=400)

    assert logs.Bounded().filter(line)

    assert line.getMessage() == message
    assert line.exc_info is None


def test_the_next_line_has_the_number_of_dropped_ones(monkeypatch):
    now = 1_000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    bounded = logs.Bounded()
    passed = [bounded.filter(record("django.request", "Not Found", status_code=404)) for _ in range(50)]
    assert passed == [True] * logs.LINES + [False] * (50 - logs.LINES)
    assert bounded.filter(record("django.request", "Forbidden", status_code=403))

    now += logs.SECONDS
    line = record("django.request", "Not Found", status_code=404)

    assert bounded.filter(line)
    assert line.getMessage() == "Not Found (40 more lines of this kind were dropped)"


def test_faults_of_the_service_are_logged_in_full():
    bounded = logs.Bounded()
    lines = [record("django.request", "Fault", error=ValueError(), status_code=500) for _ in range(50)]
    lines += [record("devicehub", "x" * 1_000, status_code=404) for _ in range(50)]

    assert all(bounded.filter(line) for line in lines)
    assert lines[0].exc_info is not None


class Sockets:
    """A site that serves websockets."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.scopes.append(scope)


@pytest.mark.parametrize("websockets", [False, True])
def test_a_site_with_websockets_enables_them(loop, websockets):
    site, sent = Sockets(), []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    loop.run(Entrance(site, websockets=websockets)({"type": "websocket", "path": "/"}, receive, send))

    assert bool(site.scopes) == websockets
    assert sent == ([] if websockets else ["websocket.close"])
