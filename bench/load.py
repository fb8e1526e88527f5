"""A reconnect storm: `python -m bench.load` asks what standard input says, and prints how it was answered.

It speaks HTTP/1.1 by hand, because a client library would cost more than the server that is measured. Every
connection takes the next question as soon as its last one is answered, as the pools of brokers do.
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

AGAIN_SECONDS = 1.0  # after which a device that was not let in tries again
BUSY = 503
ALLOWS = (b'{"ok":true', b'{"result":"allow"', b'{"result":"ok"', b"allow")  # by which all dialects begin
TIMEOUT_SECONDS = 300


@dataclass
class Storm:
    """Questions that are asked at once, and what became of them."""

    waiting: deque[tuple[bytes, float | None]]  # a question, and when it was first sent
    open: int
    done: asyncio.Future[None]
    idle: list[Connection] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    refused: int = 0

    def answered(self, request: bytes, began: float, status: int, body: bytes) -> None:
        if status == BUSY:
            self.refused += 1
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again, request, began)
            return
        if status != 200 or not body.startswith(ALLOWS):
            self.fail(f"answered with {status}: {body[:200]!r}")
            return
        self.latencies.append(time.perf_counter() - began)
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)

    def fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(why))

    def _again(self, request: bytes, began: float) -> None:
        self.waiting.append((request, began))
        if self.idle:
            self.idle.pop().ask()


class Connection(asyncio.Protocol):
    """One kept-alive connection: one question at a time."""

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

    def ask(self) -> None:
        assert self.storm is not None
        if not self.storm.waiting:
            self.storm.idle.append(self)
            return
        self._request, began = self.storm.waiting.popleft()
        self._began = began or time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self.storm is None:
            return  # the answer to a question of a storm that failed
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        self._received = b""
        self.storm.answered(self._request, self._began, int(head[9:12]), body)
        self.ask()


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    if not found:
        raise ConnectionError(f"an answer without its length: {head[:200]!r}")
    return int(rest.partition(b"\r\n")[0])


async def ask_all(port: int, connections: int, storms: list[list[str]]) -> list[dict[str, Any]]:
    """Ask the *storms* one after the other over the same connections."""
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(connections)]
    try:
        return [await _ask(opened, requests) for requests in storms]
    finally:
        for connection in opened:
            connection.storm = None
            connection.transport.close()
        await asyncio.gather(*(connection.closed for connection in opened))


async def _ask(opened: list[Connection], requests: list[str]) -> dict[str, Any]:
    waiting: deque[tuple[bytes, float | None]] = deque((request.encode(), None) for request in requests)
    storm = Storm(waiting, len(requests), asyncio.get_running_loop().create_future())
    began = time.perf_counter()
    for connection in opened:
        connection.storm = storm
        connection.ask()
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await storm.done
    return _report(storm, time.perf_counter() - began)


def _report(storm: Storm, seconds: float) -> dict[str, Any]:
    """Milliseconds from a question, first sent, to its answer; what waits for a free connection is not sent."""
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
    """The same in a process of its own."""
    failed = "Not every question was answered as it should be"
    reports: list[dict[str, Any]] = apart.call(
        "bench.load", failed, port=port, connections=connections, storms=requests
    )
    return reports


if __name__ == "__main__":
    sys.exit(apart.answer(ask_all, TIMEOUT_SECONDS))
