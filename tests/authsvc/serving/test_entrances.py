"""Both entrances give the gateway the same request and send its reply alike.

Everything behind the gateway sees only its Request. So tests of decisions use one entrance, and a difference between
the two can only show here, in the tests with the mark `both_entrances` and in projects that stand in their way.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authsvc import gateway
from authsvc.dialects.base import FORM, JSON, MAX_BODY, TEXT, Dialect, Headers, Reply, Request
from rig.entrances import ENTRANCES, Exchange, both_entrances, pieces
from rig.examples import examples
from rig.fuzzed import hostile
from rig.questions import BODIES, OTHER_TYPES, PARAMETERS, QUERIES, QUESTIONS

pytestmark = pytest.mark.sqlite_only
USER = "/mqtt/go-auth/user"
READ = (b"authorization", b"content-type", b"vernemq-hook", b"x-broker-secret")


class Raw(NamedTuple):
    """One HTTP request as a server hands it to an application."""

    path: str = USER
    method: str = "POST"
    query: bytes = b""
    headers: Headers = ((b"content-type", JSON.encode()),)
    body: bytes = b""
    size: int | None = None
    peer: str = "10.1.2.3"


def typed(content_type: str | None, body: bytes) -> Raw:
    """Return a request with *body* of this content type."""
    headers = () if content_type is None else ((b"content-type", content_type.encode("latin-1")),)
    return Raw(headers=headers, body=body)


FIELDS = {
    "username": "STATION-001",
    "password": "p&=%+ \u00e4\u20ac\U0001f600\x00",
    "acc": 2,
    "topic": "a/+/#",
}
QUESTION = json.dumps(FIELDS).encode()
FORM_TEXT = urlencode(FIELDS).encode()
TOKEN = b"t0ken-_" * 6
TOKENS_IN_PATHS = ["", "x y", "\u00e4", "\ufffd", "%41", "..", "k", "a\x00"]
PATHS = [
    *(Raw(f"/mqtt/{path}", body=QUESTION) for path in QUESTIONS),
    *(Raw(f"/mqtt/k/{TOKEN.decode()}/{path}", body=QUESTION) for path in QUESTIONS),
    *(Raw(f"/mqtt/k/{token}/go-auth/user") for token in TOKENS_IN_PATHS),
]
PROOFS_IN_QUERIES = [b"k=" + TOKEN, b"k=a&k=b", b"k=&x", b"a=b;k=c", b"k=%00", b"k=a+b%2B", b"?"]
METHODS_AND_QUERIES = [
    *(
        Raw(method=method, query=query, body=body)
        for method in ("GET", "POST", "PUT")
        for query in (*QUERIES, *PROOFS_IN_QUERIES, FORM_TEXT)
        for body in (b"", QUESTION)
    ),
    *(
        Raw(method=method, body=QUESTION)
        for method in ("HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "CONNECT", "X")
    ),
]
FORMS = [FORM_TEXT, b"a=1&a=2", b"a=%ff", b"a=\xff", b"a=\x00", b"&"]
DOCUMENTS = [
    QUESTION,
    json.dumps(FIELDS, ensure_ascii=False).encode(),
    b'{"a":1,"a":2}',
    b'{"a":"\xff"}',
    b'{"a":"\\u0000"}',
    b"\n{}\r\n",
]
CONTENT_TYPES = [
    *(typed(content_type, body) for body in (*BODIES, *FORMS, *DOCUMENTS) for content_type in (JSON, FORM)),
    *(typed(content_type, QUESTION) for content_type in OTHER_TYPES),
    *(typed(f"application/json; {parameters}", QUESTION) for parameters in PARAMETERS),
]
SIZES = [
    *(Raw(body=QUESTION, size=size) for size in (1, 7, 4096)),
    *(
        Raw(body=b"x" * length, size=size)
        for length in (MAX_BODY, MAX_BODY + 1, 3 * MAX_BODY)
        for size in (None, 65_536)
    ),
]
NAMES = [*READ, b"Authorization", b"X-Broker-Secret", b"Content-Type", b"x_broker_secret", b"cookie"]
VALUES = [TOKEN, b"Bearer " + TOKEN, b"bearer  " + TOKEN + b" ", b"\xe9", b"\x00", b"", b" ", b"a,b", b"a;b"]
TWICE = [
    (b"x-broker-secret", b"x-broker-secret"),
    (b"x-broker-secret", b"x_broker_secret"),
    (b"authorization", b"Authorization"),
    (b"vernemq-hook", b"vernemq-hook"),
    (b"content-type", b"content-type"),
]
HEADERS = [
    *(Raw(headers=((name, value),)) for name in NAMES for value in VALUES),
    *(Raw(headers=((one, b"a"), (another, b"b"))) for one, another in TWICE),
]
FORWARDED = [(), (b"192.0.2.1",), (b"192.0.2.1, 10.1.2.3",), (b"192.0.2.1", b"192.0.2.2"), (b"nonsense",)]
PEERS = [
    Raw(peer=peer, headers=tuple((b"x-forwarded-for", value) for value in values))
    for peer in ("10.1.2.3", "10.9.9.9", "2001:db8::1", "::ffff:10.1.2.3", "")
    for values in FORWARDED
]
GROUPS = [PATHS, METHODS_AND_QUERIES, CONTENT_TYPES, SIZES, HEADERS, PEERS]
REQUESTS = [raw for group in GROUPS for raw in group]


class Seen(NamedTuple):
    """The parts of a Request that the gateway and the dialects read."""

    dialect: str
    question: str
    method: str
    query: str
    body: bytes
    oversized: bool
    peer: str
    path_token: str | None
    headers: dict[bytes, str | None]


@pytest.fixture
def given_to_the_gateway(loop, monkeypatch, settings) -> Callable[[str, Raw], tuple[Seen | None, int]]:
    """Return a function that sends a request to an entrance and returns what reaches the gateway, and the status."""
    settings.TRUSTED_PROXIES = ["10.1.2.3"]
    seen: list[Seen] = []
    raw: Raw

    async def answer(request: Request, dialect: Dialect) -> Reply:
        names = {name.lower() for name, _ in raw.headers if b"_" not in name}  # No dialect reads others.
        headers = {name: request.header(name) for name in (*READ, *names)}
        seen.append(
            Seen(
                dialect.name,
                request.question,
                request.method,
                request.query,
                request.body,
                request.oversized,
                request.peer,
                request.path_token,
                headers,
            )
        )
        return Reply(200, b"{}")

    def send(entrance: str, one: Raw) -> tuple[Seen | None, int]:
        nonlocal raw
        raw = one
        seen.clear()
        exchange = Exchange(
            pieces(one.body, one.size),
            path=one.path,
            method=one.method,
            query_string=one.query,
            headers=[(b"host", b"localhost"), *one.headers],
            client=(one.peer, 40000),
        )
        reply = loop.run(exchange.run(ENTRANCES[entrance]))
        return (seen[0] if seen else None), reply.status

    monkeypatch.setattr(gateway, "answer", answer)
    return send


def test_both_entrances_give_the_gateway_the_same_request(given_to_the_gateway):
    for raw in REQUESTS:
        found = given_to_the_gateway("asgi", raw)

        assert given_to_the_gateway("django", raw) == found, raw
        assert (found[0] is None) == (found[1] in (404, 405)), raw


def test_each_part_of_a_request_arrives_unchanged(given_to_the_gateway):
    """The comparison above would not notice a value that both entrances lose."""
    raw = Raw(
        f"/mqtt/k/{TOKEN.decode()}/rabbitmq/user",
        "PUT",
        b"a=%20&a=+",
        ((b"X-Broker-Secret", b"a"), (b"x-broker-secret", b"\xe9"), (b"content-type", b"A/b; c=d")),
        b"\x00\xff",
    )
    headers = {
        b"authorization": None,
        b"content-type": "A/b; c=d",
        b"vernemq-hook": None,
        b"x-broker-secret": "a,\xe9",
    }

    found, status = given_to_the_gateway("django", raw)

    assert status == 200
    assert found == Seen(
        "rabbitmq", "user", "PUT", "a=%20&a=+", b"\x00\xff", False, "10.1.2.3", TOKEN.decode(), headers
    )


ascii_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30)
header_values = st.binary(max_size=20)


@settings(
    deadline=None,
    database=None,
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    raw=st.builds(
        Raw,
        path=st.one_of(st.sampled_from(QUESTIONS), hostile.map(lambda text: f"k/{text}/go-auth/user")).map(
            "/mqtt/{}".format
        ),
        method=st.sampled_from(["POST", "GET", "PUT", "DELETE", "HEAD"]),
        query=ascii_text.map(str.encode),
        headers=st.lists(st.tuples(st.sampled_from(READ), header_values), max_size=4).map(tuple),
        body=st.binary(max_size=60),
        size=st.sampled_from([None, 1, 9]),
    )
)
def test_any_request_reaches_the_gateway_alike(given_to_the_gateway, raw):
    assert given_to_the_gateway("django", raw) == given_to_the_gateway("asgi", raw)


@both_entrances
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_a_reply_is_sent_unchanged(loop, monkeypatch, entrance, method):
    """Each status that a dialect uses, with a body of each kind, and no header that it did not ask for."""
    for status in (200, 400, 401, 403, 404, 500, 503):
        for body, content_type in (
            (b"", TEXT),
            (b"allow", TEXT),
            (b'{"a":"\xc3\xa4"}', JSON),
            (b"x" * 70_000, JSON),
        ):

            async def answer(_request: Request, _dialect: Dialect) -> Reply:
                return Reply(status, body, content_type)  # noqa: B023 - called before the next one is defined

            monkeypatch.setattr(gateway, "answer", answer)
            exchange = Exchange(pieces(b"{}"), path=USER, method=method, headers=[(b"host", b"localhost")])

            reply = loop.run(exchange.run(ENTRANCES[entrance]))

            assert reply == Reply(status, body, content_type)
            named = dict(exchange.headers)
            assert len(named) == len(exchange.headers)
            assert named.get("cache-control") == (None if method in ("POST", "PUT") else "no-store")
            assert not {"location", "set-cookie", "etag", "last-modified", "www-authenticate"} & named.keys()
