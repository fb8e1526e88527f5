"""A storm of requests: `python -m bench.load` sends those of its standard input and prints a report of the answers.

It speaks HTTP/1.1 by hand, because a client library would cost more than the measured server. Each connection sends
the next request as soon as its last one is answered, like the pools of brokers.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, cast

from bench import apart

RETRY_SECONDS = 1.0  # until a device that got a 503 tries again
BUSY = 503
# The beginnings of an allow in all dialects.
ALLOWS = (b'{"ok":true', b'{"result":"allow"', b'{"result":"ok"', b"allow")
TIMEOUT_SECONDS = 300


@dataclass
class Storm:
    """Requests that are sent at once, and their results."""

    waiting: deque[tuple[bytes, float | None]]  # a request, and the time when it was first sent
    open: int
    done: asyncio.Future[None]
    idle: list[Connection] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    refused: int = 0

    def handle(self, request: bytes, began: float, status: int, body: bytes) -> None:
        """Record the answer to *request*, or send it again later if the server is busy."""
        if status == BUSY:
            self.refused += 1
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._retry, request, began)
            return
        if status != 200 or not body.startswith(ALLOWS):
            self.fail(f"answered with {status}: {body[:200]!r}")
            return
        self.latencies.append(time.perf_counter() - began)
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)

    def fail(self, why: str) -> None:
        """End the storm with ConnectionError."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(why))

    def _retry(self, request: bytes, began: float) -> None:
        self.waiting.append((request, began))
        if self.idle:
            self.idle.pop().send_next()


class Connection(asyncio.Protocol):
    """One kept-alive connection with one request at a time."""

    transport: asyncio.Transport
    closed: asyncio.Future[None]
    storm: Storm | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self.closed = asyncio.get_running_loop().create_future()
        self._received = b""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)
        if self.storm is not None:
            self.storm.fail(f"a connection was closed: {exc or 'by the server'}")

    def send_next(self) -> None:
        """Send the next request of the storm, or wait for one."""
        assert self.storm is not None
        if not self.storm.waiting:
            self.storm.idle.append(self)
            return
        self._request, began = self.storm.waiting.popleft()
        self._began = began or time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.storm is None:
            return  # the answer to a request of a storm that failed
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._received = b""
        self.storm.handle(self._request, self._began, int(head[9:12]), body)
        self.send_next()


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    if not found:
        raise ConnectionError(f"an answer without Content-Length: {head[:200]!r}")
    return int(rest.partition(b"\r\n")[0])


async def send_all(port: int, connections: int, storms: list[list[str]]) -> list[dict[str, Any]]:
    """Send the requests of *storms*, one storm after the other, over the same connections. Return their reports."""
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(connections)]
    try:
        return [await _send(opened, requests) for requests in storms]
    finally:
        for connection in opened:
            connection.storm = None
            connection.transport.close()
        await asyncio.gather(*(connection.closed for connection in opened))


async def _send(opened: list[Connection], requests: list[str]) -> dict[str, Any]:
    waiting: deque[tuple[bytes, float | None]] = deque((request.encode(), None) for request in requests)
    storm = Storm(waiting, len(requests), asyncio.get_running_loop().create_future())
    began = time.perf_counter()
    for connection in opened:
        connection.storm = storm
        connection.send_next()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await storm.done
    return _report(storm, time.perf_counter() - began)


def _report(storm: Storm, seconds: float) -> dict[str, Any]:
    """Return the report of *storm*; latencies begin when a request is first sent on a free connection."""
    in_order = sorted(storm.latencies)
    return {
        "questions": len(in_order),
        "seconds": round(seconds, 4),
        "per_second": round(len(in_order) / seconds),
        "p50_ms": round(statistics.median(in_order) * 1e3, 2),
        "p99_ms": round(in_order[int(len(in_order) * 0.99)] * 1e3, 2),
        "max_ms": round(in_order[-1] * 1e3, 2),
        "refused": storm.refused,
    }


def storms(port: int, connections: int, requests: list[list[str]]) -> list[dict[str, Any]]:
    """Run send_all() in a process of its own. Raise CannotMeasure."""
    failed = "not every request was allowed"
    reports: list[dict[str, Any]] = apart.call(
        "bench.load", failed, port=port, connections=connections, storms=requests
    )
    return reports


if __name__ == "__main__":
    sys.exit(apart.answer(send_all, TIMEOUT_SECONDS))
