"""A fake of a Leshan server's REST API and stream of events, on loopback, in the forms of its versions M4 to M18.

It answers as the real one was recorded to: 405 without the Accept header, CR LF, no ids, nothing replayed, status 200
for the refusal of an endpoint, 504 for one that does not answer, and at once with `timeout=0`.
"""

from __future__ import annotations

import base64
import json
import queue
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]
TEMPERATURE = {"kind": "singleResource", "id": 5700, "type": "FLOAT", "value": "20.0"}
HEARTBEAT = 10.0


def link(url: str, **attributes: str) -> Json:
    """Return a link of a registration."""
    return {"url": url, "attributes": attributes}


LINKS = (
    link("/", rt='"oma.lwm2m"', ct='"60 110 112 11542 11543"'),
    link("/1/0"),
    link("/3", ver="1.2"),
    link("/3/0"),
    link("/3303", ver="1.1"),
    link("/3303/0"),
)


class FakeLeshan:
    """The state of the fake, and the methods by which a test makes things happen.

    *nodes* are the answers to reads and observations by endpoint and path; another path is NOT_FOUND. *silent*
    endpoints do not answer, *refuses_composite* ones refuse composite requests. *requests* were received.
    """

    def __init__(self, version: str = "M18", login: str = "") -> None:
        self.version = version
        self.login = login
        self.nodes: dict[tuple[str, str], Any] = {}
        self.silent: set[str] = set()
        self.refuses_composite: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.refused_streams = 0
        self.time_out = threading.Event()  # While it is not set, requests to silent endpoints have no answer.
        self.time_out.set()
        self.lists_as: bytes | None = None  # An answer in place of the list of registrations.
        self._registrations: dict[str, Json] = {}
        self._streams: list[queue.Queue[bytes | None]] = []
        self._lock = threading.Lock()
        self._count = 0
        self.url = ""

    def register(
        self,
        endpoint: str,
        links: Sequence[Json] = LINKS,
        *,
        lifetime: int = 60,
        queue_mode: bool = False,
        sleeping: bool = False,
        is_silent: bool = False,
        lwm2m: str = "1.1",
    ) -> Json:
        """Register *endpoint*, as it does when it starts or returns; return the registration."""
        self._count += 1
        now = time.time()
        new: Json = {
            "endpoint": endpoint,
            "registrationId": f"id{self._count}",
            "registrationDate": self._time(now),
            "lastUpdate": self._time(now),
            "address": "127.0.0.1:35644",
            "lwM2mVersion": lwm2m,
            "lifetime": lifetime,
            "bindingMode": "UQ" if queue_mode else "U",
            "rootPath": "/",
            "objectLinks": list(links),
            "secure": False,
            "additionalRegistrationAttributes": {},
        }
        if self.version != "M4":
            new |= {"queuemode": queue_mode}
            if queue_mode:
                new |= {"sleeping": sleeping}
        old = self._registrations.get(endpoint)
        self._registrations[endpoint] = new
        if is_silent:
            return new
        if old is not None:
            self.emit("DEREGISTRATION", old)
        if queue_mode:
            self.emit("AWAKE", {"ep": endpoint})
        self.emit("REGISTRATION", new)
        return new

    def deregister(self, endpoint: str) -> None:
        """End the registration of *endpoint*."""
        self.emit("DEREGISTRATION", self._registrations.pop(endpoint))

    def update(self, endpoint: str, **members: Any) -> None:
        """Update the registration of *endpoint*; *members* are those that the update carries."""
        registration = self._registrations[endpoint]
        registration |= {**members, "lastUpdate": self._time(time.time())}
        update = {"registrationId": registration["registrationId"], "secure": False, **members}
        self.emit("UPDATED", {"registration": registration, "update": update})

    def sleep(self, endpoint: str, *, is_awake: bool = False) -> None:
        """Let *endpoint* fall asleep, or wake up."""
        self._registrations[endpoint]["sleeping"] = not is_awake
        self.emit("AWAKE" if is_awake else "SLEEPING", {"ep": endpoint})

    def notify(self, endpoint: str, path: str, node: Any) -> None:
        """Let *endpoint* notify of the node at *path*."""
        kind = {} if self.version == "M4" else {"kind": "single"}
        self.emit("NOTIFICATION", {"ep": endpoint, **kind, "res": path, "val": node})

    def notify_composite(self, endpoint: str, nodes: Json) -> None:
        """Let *endpoint* notify of several nodes at once."""
        self.emit("NOTIFICATION", {"ep": endpoint, "kind": "composite", "val": nodes, "paths": list(nodes)})

    def send(self, endpoint: str, nodes: Json) -> None:
        """Let *endpoint* send nodes by itself."""
        self.emit("SEND", {"ep": endpoint, "val": nodes})

    def trace(self, endpoint: str) -> None:
        """Emit a trace of CoAP, as the real one does to all streams once one was opened for a single endpoint."""
        self.emit("COAPLOG", {"timestamp": 1795933708197, "incoming": False, "code": "GET", "ep": endpoint})

    def emit(self, name: str, content: Any) -> None:
        """Send an event to all streams."""
        self.emit_raw(f"event: {name}\r\ndata: {json.dumps(content)}\r\n\r\n".encode())

    def emit_raw(self, text: bytes) -> None:
        """Send *text* to all streams."""
        with self._lock:
            for stream in self._streams:
                stream.put(text)

    def break_streams(self) -> None:
        """End all streams, as a proxy or a network does."""
        with self._lock:
            for stream in self._streams:
                stream.put(None)
            self._streams.clear()

    def restart(self) -> None:
        """Forget all registrations and observations, and end all streams, as a kill and a new start do."""
        self._registrations.clear()
        self.break_streams()

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    def requests_to(self, endpoint: str) -> list[str]:
        """Return the requests about *endpoint*, without their queries, as `POST /3303/0/5700/observe`."""
        start = f"/api/clients/{endpoint}"
        return [
            f"{verb} {path.removeprefix(start)}" for verb, path in self.requests if path.startswith(start)
        ]

    def _time(self, seconds: float) -> Any:
        if self.version == "M4":
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return int(seconds * 1000)

    # The answers to requests

    def answer(self, verb: str, path: str, query: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a request about clients."""
        self.requests.append((verb, path))
        if path == "/api/clients":
            return self._json(list(self._registrations.values()))
        endpoint, _, rest = path.removeprefix("/api/clients/").partition("/")
        registration = self._registrations.get(endpoint)
        if registration is None:
            return 400, "", f"No registered client with id '{endpoint}'".encode()
        if not rest:
            return self._json(registration)
        if registration.get("sleeping"):
            if self.version != "M18":
                return 400, "", b"Invalid request: client is sleeping"
            delayed = {"ep": endpoint, "path": f"/{rest}", "requestId": "1fa5", "delayed": True}
            return self._json(delayed)
        if parse_qs(query).get("timeout") == ["0"]:
            return 504, "", b"Request timeout"
        if endpoint in self.silent:
            self.time_out.wait(30)
            return 504, "", b"Request timeout"
        if rest == "composite/observe":
            return self._composite(endpoint, parse_qs(query))
        return self._read(endpoint, f"/{rest.removesuffix('/observe')}")

    def _composite(self, endpoint: str, query: dict[str, list[str]]) -> tuple[int, str, bytes]:
        if self.version == "M4":
            return 400, "", b"Invalid request: Invalid elements in path composite"
        if "pathformat" not in query or "nodeformat" not in query:
            return 500, "", b"Unexpected exception: Cannot invoke ContentFormat.getCode()\nbecause it is null"
        if endpoint in self.refuses_composite:
            return self._refusal("METHOD_NOT_ALLOWED(405)")
        found = {path: self.nodes.get((endpoint, path)) for path in query["paths"][0].split(",")}
        if not any(found.values()):
            return self._refusal("NOT_FOUND(404)")
        return self._content({path: node for path, node in found.items() if node is not None})

    def _read(self, endpoint: str, path: str) -> tuple[int, str, bytes]:
        node = self.nodes.get((endpoint, path))
        return self._refusal("NOT_FOUND(404)") if node is None else self._content(node)

    def _content(self, content: Any) -> tuple[int, str, bytes]:
        state = {"status": "CONTENT(205)", "valid": True, "success": True, "failure": False}
        return self._json({**state, "content": content})

    def _refusal(self, status: str) -> tuple[int, str, bytes]:
        return self._json({"status": status, "valid": True, "success": False, "failure": True})

    def _json(self, content: Any) -> tuple[int, str, bytes]:
        return 200, "application/json", json.dumps(content).encode()

    def follow(self) -> queue.Queue[bytes | None]:
        """Add a stream, and return the queue of its pieces; None ends it."""
        stream: queue.Queue[bytes | None] = queue.Queue()
        with self._lock:
            self._streams.append(stream)
        return stream

    def leave(self, stream: queue.Queue[bytes | None]) -> None:
        """Remove a stream whose reader is gone."""
        with self._lock, suppress(ValueError):
            self._streams.remove(stream)


class Handler(BaseHTTPRequestHandler):
    """The requests of one connection."""

    protocol_version = "HTTP/1.1"
    fake: FakeLeshan

    def do_GET(self) -> None:
        """Answer a read, a list, or the stream of events."""
        self._answer("GET")

    def do_POST(self) -> None:
        """Answer an observation."""
        self._answer("POST")

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self, verb: str) -> None:
        parts = urlsplit(self.path)
        if self.fake.login:
            expected = "Basic " + base64.b64encode(self.fake.login.encode()).decode()
            if self.headers.get("Authorization") != expected:
                self._reply(401, "text/plain", b"Unauthorized")
                return
        if parts.path == "/api/event":
            self._stream()
        elif unquote(parts.path) == "/api/clients" and self.fake.lists_as is not None:
            self._reply(200, "application/json", self.fake.lists_as)
        elif parts.path.startswith("/api/clients"):
            self._reply(*self.fake.answer(verb, unquote(parts.path), parts.query))
        else:
            self._reply(404, "text/html", b"Not Found")

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        if "text/event-stream" not in self.headers.get("Accept", ""):
            self._reply(405, "text/html", b"Method Not Allowed")
            return
        if self.fake.refused_streams:
            self.fake.refused_streams -= 1
            self._reply(503, "text/html", b"Service Unavailable")
            return
        self.close_connection = True
        stream = self.fake.follow()
        try:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream;charset=utf-8")
            self.send_header("Connection", "close")
            self.end_headers()
            while True:
                try:
                    piece = stream.get(timeout=HEARTBEAT)
                except queue.Empty:
                    piece = b"\r\n"
                if piece is None:
                    return
                self.wfile.write(piece)
        except OSError:
            pass  # The reader is gone.
        finally:
            self.fake.leave(stream)


@contextmanager
def fake_leshan(
    version: str = "M18", login: str = "", certificate: tuple[Path, Path] | None = None
) -> Iterator[FakeLeshan]:
    """Run a fake on a free port of loopback, with TLS if a certificate and its key are given; its `url` says where."""
    fake = FakeLeshan(version, login)
    handler = type("BoundHandler", (Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*certificate)
            # The handshake is that of the first read, in the thread of the connection.
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        fake.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield fake
        finally:
            fake.time_out.set()
            fake.break_streams()
            server.shutdown()
            thread.join()
