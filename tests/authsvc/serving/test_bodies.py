"""No request outside /mqtt/ can make the site store an endless body, on the shipped server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.core.asgi import get_asgi_application

from authsvc.asgi import Entrance
from authsvc.serving import bodies
from rig import hub, servers

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]
LIMIT = 2_621_440
MIB = 1024 * 1024
OUTSIDE = ["/login/", "/api/token", "/nowhere", "/static/nothing.css", "/healthz", "/readyz", "/metrics", "/"]
DISGUISED = [
    "//mqtt/go-auth/user",
    "/mqtt",
    "/x/../mqtt/go-auth/user",
    "/%2fmqtt/go-auth/user",
    "/MQTT/go-auth/user",
]
CHUNK = b"10000\r\n" + b"x" * 65_536 + b"\r\n"


class Server(NamedTuple):
    port: int
    worker: int
    temporary: Path
    log: Path

    def memory(self) -> int:
        """Return the peak resident memory of the worker in bytes."""
        lines = Path(f"/proc/{self.worker}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def files(self) -> list[str]:
        """Return the open temporary files of the worker, except those of gunicorn."""
        open_files = (os.readlink(link) for link in Path(f"/proc/{self.worker}/fd").iterdir())
        own = f"{self.temporary}/wgunicorn-"
        return [
            name for name in open_files if name.startswith(str(self.temporary)) and not name.startswith(own)
        ]


@pytest.fixture(scope="module")
def server(module_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bodies")
    temporary = folder / "temporary"
    temporary.mkdir()
    variables = {"WEB_CONCURRENCY": "1", "TMPDIR": str(temporary)}
    with hub.gunicorn_process(folder, **variables) as (url, process):
        [worker] = servers._children(process.pid)
        yield Server(int(url.rpartition(":")[2]), worker, temporary, folder / "gunicorn.log")


class Sent(NamedTuple):
    """The answer, and the number of bytes of the body that could be sent."""

    answer: bytes
    size: int

    @property
    def status(self) -> int:
        return int(self.answer.split(b" ", 2)[1])


def send(port: int, head: str, piece: bytes = b"", pieces: int = 0) -> Sent:
    """Send *head* and *pieces* times *piece*, until the server answers or closes the connection."""
    size = 0
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as client:
        client.sendall(head.replace("\n", "\r\n").encode())
        try:
            for _ in range(pieces):
                client.sendall(piece)
                size += len(piece)
        except ConnectionError:
            pass
        answer = b""
        try:
            while part := client.recv(65_536):
                answer += part
        except ConnectionError:
            pass
    return Sent(answer, size)


def head(path: str, *fields: str, method: str = "POST", version: str = "1.1") -> str:
    return "\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *fields, "", ""])


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize("path", [*OUTSIDE, *DISGUISED])
def test_an_endless_body_is_refused(server, path):
    before = server.memory()

    sent = send(server.port, head(path, CHUNKED), CHUNK, 800)

    assert sent.status == 413
    assert sent.size < 40 * MIB
    assert server.files() == []
    assert server.memory() - before < 16 * MIB


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "PATCH", "DELETE", "OPTIONS", "HEAD", "BREW"])
def test_every_method_is_bounded(server, method):
    sent = send(server.port, head("/static/devicehub/live.js", CHUNKED, method=method), CHUNK, 400)

    assert sent.status == 413
    assert (sent.answer.endswith(b"\r\n\r\n")) == (method == "HEAD")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("length", [LIMIT + 1, 10**12, 10**18])
def test_an_announced_body_is_refused_before_it_comes(server, length, version):
    sent = send(
        server.port, head("/login/", f"Content-Length: {length}", "Expect: 100-continue", version=version)
    )

    assert sent.status == 413
    assert b"connection: close" in sent.answer.lower()
    assert b"100 Continue" not in sent.answer


def test_a_body_of_the_size_that_is_allowed_is_read(server):
    sent = send(
        server.port, head("/nowhere", f"Content-Length: {LIMIT}", "Connection: close"), b"x" * LIMIT, 1
    )

    assert sent.status == 404


def test_an_upload_is_refused_too(server):
    form = "Content-Type: multipart/form-data; boundary=x"
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + b"y" * (3 * MIB)

    sent = send(
        server.port, head("/login/", form, f"Content-Length: {len(part)}", "Connection: close"), part, 1
    )

    assert sent.status == 413
    assert server.files() == []


@pytest.mark.parametrize(
    "path", ["/mqtt/go-auth/user", "/mqtt/k/some-token/go-auth/user", "/%6dqtt/go-auth/user"]
)
def test_a_question_is_denied_and_not_stored(server, path):
    before = server.memory()

    sent = send(server.port, head(path, CHUNKED), CHUNK, 800)

    assert sent.status == 403
    assert sent.size < 40 * MIB
    assert server.memory() - before < 16 * MIB


def test_refused_bodies_are_not_logged(server):
    before = server.log.read_text()

    for method in ("POST", "HEAD"):
        send(server.port, head("/login/", CHUNKED, method=method), CHUNK, 400)

    assert server.log.read_text() == before


class Site:
    """An application that reads the whole body before it answers."""

    def __init__(self) -> None:
        self.read = 0

    async def __call__(self, _scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            self.read += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


def request(
    application: Callable[..., Any], *messages: dict[str, Any], path: str = "/", headers: Any = ()
) -> list[int]:
    """Return the statuses that *application* answers; after *messages* the client disconnects."""
    statuses = []
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(application(scope, receive, send))
    return statuses


def piece(size: int, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": b"x" * size, "more_body": more}


def test_an_upload_route_may_have_its_own_limit(settings):
    settings.AUTHSVC_MAX_BODY = 100
    settings.AUTHSVC_UPLOADS = {"/files/": 1000, "/files/small/": 10}
    site = Site()

    def status(path: str, size: int) -> list[int]:
        return request(Entrance(site), piece(size), piece(0, more=False), path=path)

    assert status("/files/", 1000) == [200]
    assert status("/files/", 1001) == [413]
    assert status("/files/small/", 11) == [413]
    assert status("/files", 101) == [413]
    assert status("/", 100) == [200]


def test_an_incomplete_body_times_out():
    assert request(Entrance(Site()), piece(10)) == [408]


def test_many_bodies_at_once_are_bounded_together(monkeypatch):
    """One process holds at most bodies.MAX_HELD bytes of all of them, whatever the limit of each is."""
    entrance = Entrance(Site())
    entrance._held.limit = 100

    async def both() -> None:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": (), "query_string": b""}
        arriving = asyncio.Event()

        async def slowly() -> dict[str, Any]:
            if arriving.is_set():
                await asyncio.Event().wait()
            arriving.set()
            return piece(90)

        async def ignore(_message: Any) -> None:
            pass

        first = asyncio.create_task(entrance(scope, slowly, ignore))
        await arriving.wait()
        second: list[int] = []

        async def note(message: Any) -> None:
            second.append(message.get("status"))

        async def eleven() -> dict[str, Any]:
            return piece(11, more=False)

        await entrance(scope, eleven, note)
        assert second[0] == bodies.BUSY
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(both())
    assert entrance._held.size == 0
    assert request(entrance, piece(100, more=False)) == [200]


def test_the_rest_of_a_body_is_dropped_within_a_time(monkeypatch):
    monkeypatch.setattr(bodies, "DISCARD_SECONDS", 0.01)

    async def never() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    asyncio.run(bodies.discard(never))


def test_django_itself_reads_no_more(settings):
    settings.AUTHSVC_MAX_BODY = 1000
    pieces = [piece(600), piece(600, more=False)]

    assert request(Entrance(get_asgi_application()), *pieces, path="/nowhere") == [413]
