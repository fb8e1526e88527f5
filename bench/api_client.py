"""The client of `script/bench api`: `python -m bench.api_client` does the job on its standard input.

It has a process of its own, so that it shares no lock with the bench, and kept-alive connections.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

WARM_UP = 10
PATIENCE = 600  # seconds for one answer
MISSING = 404
PART = 1 << 16


class Failed(Exception):
    """An answer is not the expected one; the message says which."""


class Caller:
    """One connection of a caller with a key."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._headers = {"Authorization": f"Api-Key {key}"}

    def send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        headers = self._headers if body is None else {**self._headers, "Content-Type": "application/json"}
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def read(self, path: str) -> tuple[int, float, float]:
        """Return the number of lines of an answer, the seconds until its first bytes, and those until its end."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        lines, first = 0, 0.0
        while part := answer.read(PART):
            first = first or time.perf_counter() - began
            lines += part.count(b"\n")
        if answer.status != 200:
            raise Failed(f"{path} was answered with {answer.status}")
        return lines, first, time.perf_counter() - began


def get(port: int, key: str, addresses: list[Any], names: Any, found: Any, requests: int) -> Any:
    """Return the figures of each of *addresses*, pairs of name and path, one after the other.

    *names* are values for the names in braces; those of *found* are looked for in lists.
    """
    caller = Caller(port, key)
    known = dict(names)
    for name, (path, member) in found.items():
        known[name] = _members(caller, _filled(path, known, 0), member)
    return [_address(caller, name, path, known, requests) for name, path in addresses]


def _members(caller: Caller, path: str, member: str) -> list[str]:
    status, body = caller.send("GET", path)
    if status == MISSING:
        return []
    if status != 200:
        raise Failed(f"{path} was answered with {status}: {body[:200]!r}")
    return [str(row[member]) for row in json.loads(body)["results"]]


def _filled(path: str, known: Mapping[str, list[str]], number: int) -> str:
    for name, values in known.items():
        if f"{{{name}}}" in path and values:
            path = path.replace(f"{{{name}}}", quote(values[number % len(values)], safe=""))
    return path


def _address(caller: Caller, name: str, path: str, known: Mapping[str, list[str]], requests: int) -> Any:
    row: dict[str, Any] = {"address": name, "rows": None, "kib": None, "median_ms": None, "p99_ms": None}
    if "{" in _filled(path, known, 0):
        return row
    seconds, body = [], b""
    for number in range(-WARM_UP, requests):
        address = _filled(path, known, number)
        began = time.perf_counter()
        status, body = caller.send("GET", address)
        took = time.perf_counter() - began
        if status == MISSING:
            return row
        if status != 200:
            raise Failed(f"{address} was answered with {status}: {body[:300]!r}")
        if number >= 0:
            seconds.append(took)
    seconds.sort()
    content = json.loads(body)
    results = content.get("results") if isinstance(content, dict) else None
    return {
        "address": name,
        "rows": None if results is None else len(results),
        "kib": round(len(body) / 1024, 1),
        "median_ms": round(statistics.median(seconds) * 1e3, 2),
        "p99_ms": round(seconds[int(len(seconds) * 0.99)] * 1e3, 2),
    }


def export(port: int, key: str, path: str) -> Any:
    """Return the lines of an export, and its times."""
    lines, first, seconds = Caller(port, key).read(path)
    return {"lines": lines, "first_ms": round(first * 1e3), "seconds": seconds}


def post(port: int, keys: list[str], paths: list[str], bodies: list[str]) -> Any:
    """Return the posts per second of *bodies*, over one connection for each of *keys*, each with its path."""
    waiting = deque(bodies)
    errors: list[str] = []

    def run(key: str, path: str) -> None:
        caller = Caller(port, key)
        try:
            while not errors:
                try:
                    body = waiting.popleft()
                except IndexError:
                    return
                status, answer = caller.send("POST", path, body.encode())
                if status != 202 or b'"failed"' in answer or b'"partial"' in answer:
                    errors.append(f"{path} was answered with {status}: {answer[:300]!r}")
        except (OSError, http.client.HTTPException) as error:
            errors.append(f"{path}: {error!r}")

    threads = [threading.Thread(target=run, args=pair) for pair in zip(keys, paths, strict=True)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if errors:
        raise Failed(errors[0])
    return {"per_second": round(len(bodies) / seconds, 1), "seconds": round(seconds, 2)}


JOBS: dict[str, Callable[..., Any]] = {"get": get, "export": export, "post": post}


def main() -> int:
    wanted = json.load(sys.stdin)
    try:
        found = JOBS[wanted.pop("job")](**wanted)
    except (Failed, OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(found, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
