"""Questions on a connection: the longest body, pipelining, and bodies with a wrong length."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from authsvc.dialects.base import JSON, MAX_BODY
from rig import hub
from rig.oracles import reads_as_allow, reads_as_deny
from rig.questions import by_dialect, first, good

pytestmark = pytest.mark.sqlite_first

# ---------------------------------------------------------------- long bodies


@by_dialect
@pytest.mark.parametrize("chunk", [None, 1 << 14])
def test_the_longest_body_is_read_and_a_longer_one_denied(question, station, dialect, chunk):
    path = first(dialect)
    fields = good(path, station)
    padding = MAX_BODY - len(json.dumps(fields | {"padding": ""}))
    longest = json.dumps(fields | {"padding": "x" * padding}).encode()
    assert len(longest) == MAX_BODY

    assert reads_as_allow(path, question(path, body=longest, chunk=chunk))
    assert reads_as_deny(path, question(path, body=longest + b" ", chunk=chunk))
    assert reads_as_deny(path, question(path, body=longest * 3, chunk=chunk))


@pytest.fixture(scope="module")
def served(world, tmp_path_factory) -> Iterator[str]:
    """Run the site in gunicorn, and yield its URL."""
    with hub.gunicorn(tmp_path_factory.mktemp("gunicorn")) as url:
        yield url


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        yield connection


def http(path: str, token: str, body: bytes, *extra: str) -> bytes:
    lines = [
        f"POST /mqtt/{path}?k={token} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {JSON}",
        *(extra or [f"Content-Length: {len(body)}"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def replies_of(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Return the next *count* answers on *connection*, as status and body."""
    data, found = b"", []
    while len(found) < count:
        head, separator, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) if separator else 0
        if not separator or len(rest) < length:
            part = connection.recv(1 << 16)
            assert part, f"closed after {len(found)} of {count} answers: {data[:200]!r}"
            data += part
            continue
        found.append((int(head.split(b" ")[1]), rest[:length]))
        data = rest[length:]
    assert not data
    return found


ALLOWED = (200, b'{"ok":true,"error":""}')
DENIED = (403, b'{"ok":false,"error":"denied"}')


@pytest.mark.servers
class TestOnAConnection:
    def test_pipelined_questions_are_answered_in_order(self, served, token, station):
        """EMQX sends up to a hundred questions before it reads."""
        right = json.dumps(good("go-auth/acl", station)).encode()
        wrong = right.replace(b"/data", b"/cmd")
        order = [right, wrong, wrong, right] * 25

        with connected(served) as connection:
            connection.sendall(b"".join(http("go-auth/acl", token, body) for body in order))

            assert replies_of(connection, 100) == [ALLOWED if body is right else DENIED for body in order]

    @pytest.mark.parametrize("size", [MAX_BODY + 1, 2_000_000])
    def test_a_long_body_is_denied_and_the_connection_stays(self, served, token, station, size):
        right = json.dumps(good("go-auth/acl", station)).encode()

        with connected(served) as connection:
            connection.sendall(
                http("go-auth/acl", token, right + b" " * size) + http("go-auth/acl", token, right)
            )
            assert replies_of(connection, 2) == [DENIED, ALLOWED]

            connection.sendall(http("go-auth/acl", token, right))
            assert replies_of(connection, 1) == [ALLOWED]

    def test_a_body_in_chunks_is_one_body(self, served, token, station):
        right = json.dumps(good("go-auth/acl", station)).encode()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in right) + b"0\r\n\r\n"

        with connected(served) as connection:
            connection.sendall(
                http("go-auth/acl", token, chunks, "Transfer-Encoding: chunked")
                + http("go-auth/acl", token, right)
            )

            assert replies_of(connection, 2) == [ALLOWED, ALLOWED]

    def test_a_stranger_with_a_long_body_gets_the_answer_of_strangers(self, served, token, station):
        right = json.dumps(good("go-auth/acl", station)).encode()

        with connected(served) as connection:
            connection.sendall(
                http("go-auth/acl", "x", b"x" * (MAX_BODY + 1)) + http("go-auth/acl", token, right)
            )

            assert replies_of(connection, 2) == [DENIED, ALLOWED]

    @pytest.mark.parametrize(
        "headers",
        [
            ["Content-Length: 5", "Transfer-Encoding: chunked"],
            ["Content-Length: 5", "Content-Length: 6"],
            ["Content-Length: -1"],
            ["Content-Length: +5"],
            ["Transfer-Encoding: chunked, identity"],
        ],
        ids=" and ".join,
    )
    def test_a_smuggled_question_is_not_answered(self, served, token, station, headers):
        """Two different ends of a body: the server refuses both, or closes after the first."""
        right = json.dumps(good("go-auth/acl", station)).encode()
        smuggled = b"0\r\n\r\n" + http("go-auth/acl", token, right)

        with connected(served) as connection:
            connection.sendall(http("go-auth/acl", "x", smuggled, *headers))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            end = time.monotonic() + 5
            while time.monotonic() < end and (part := connection.recv(1 << 16)):
                answer += part

        assert b'"ok":true' not in answer
