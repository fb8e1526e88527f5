"""The fuzzed entrance: it answers as the oracle does, and a stranger is always denied."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from authsvc.asgi import Entrance
from authsvc.conf import options
from authsvc.dialects.base import FORM, JSON, MAX_BODY, Reply, Request
from authsvc.freshness import reader
from authsvc.models import Broker
from rig import oracles
from rig.examples import examples
from rig.fuzzed import RIGHT, hostile, mutated, quick, requests
from rig.oracles import QUESTIONS

pytestmark = pytest.mark.sqlite_only  # The parsers need no database, and the entrance reads one row of it.


# The entrance.


async def _site(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("a question was passed on to the site")


@pytest.fixture(scope="module")
def broker(module_database: Any) -> Iterator[str]:
    """Create a broker that may ask about the principals of the oracle, and yield its token."""
    with module_database.unblock():
        row = Broker(name="fuzz")
        token = row.issue_token()
        row.save()
        yield token


@pytest.fixture
def send_messages(loop, broker, settings, django_db_blocker):
    """Return a function that sends one request to the entrance, message by message, and checks the reply's form."""
    settings.AUTHSVC_DIRECTORIES = ["rig.oracles.People"]
    settings.AUTHSVC_JWT_KEYS = {"k": oracles.OPTIONS.jwt_keys[0].signing}
    entrance = Entrance(_site)

    async def one(messages: list[dict[str, Any]], **scope: Any) -> Reply:
        waiting, sent = iter(messages), []

        async def receive() -> dict[str, Any]:
            return next(waiting, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        base = {"type": "http", "method": "POST", "query_string": b"", "headers": [], "client": None}
        await entrance({**base, **scope}, receive, send)
        start, end = sent
        if scope.get("method") != "HEAD":
            assert dict(start["headers"])[b"content-length"] == str(len(end["body"])).encode()
        return Reply(start["status"], end["body"], dict(start["headers"])[b"content-type"].decode())

    with django_db_blocker.unblock():
        assert options().jwt_keys == oracles.OPTIONS.jwt_keys
        yield lambda messages, **scope: loop.run(one(messages, **scope))
        loop.run(reader.close())


def in_pieces(body: bytes, cuts: list[int]) -> list[dict[str, Any]]:
    """Return *body* as messages of a server, cut at *cuts*; keys with a default value may be left out."""
    places = sorted([0, *(cut % (len(body) + 1) for cut in cuts), len(body)])  # Some pieces are empty.
    parts = [body[a:b] for a, b in itertools.pairwise(places)] or [b""]
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": p, "more_body": True} for p in parts]
    messages[-1].pop("more_body")
    return messages


odd_headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"Authorization",
                b"x-broker-secret",
                b"content-type",
                b"content-length",
                b"expect",
                b"\xff",
                b"",
            ]
        ),
        st.one_of(st.binary(max_size=12), st.sampled_from([JSON.encode(), FORM.encode(), b"Bearer x"])),
    ),
    max_size=2,
)
proofs = st.sampled_from(["path", "query", "path", "query", "none", "part", "two"])
in_sessions = settings(quick, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(in_sessions, max_examples=examples(80))
@given(mutated(), st.lists(st.integers(0, 400), max_size=4), st.one_of(st.just([]), odd_headers), proofs)
def test_the_entrance_answers_as_the_oracle_says(send_messages, broker, case, cuts, odd, proof):
    """The body comes in pieces; headers may be repeated or not be text; there are zero, one or two proofs."""
    path, request = case
    sent = list(request.headers)
    of_the_client = path.startswith("jwt/")
    sent = [header for header in sent if of_the_client or header[0] not in PROOFS] + odd
    in_query = {"query": f"k={broker}", "part": f"k={broker[:-1]}", "two": f"k={broker}&k={broker}x"}.get(
        proof
    )
    request.query = "&".join(part for part in (request.query, in_query) if part)

    reply = send_messages(
        in_pieces(request.body, cuts),
        method=request.method,
        path=f"/mqtt/k/{broker}/{path}" if proof == "path" else f"/mqtt/{path}",
        query_string=request.query.encode("latin-1"),
        headers=sent,
    )

    joined: dict[str, str] = {}
    for name, value in ((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in sent):
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    request = Request(
        request.method,
        request.query,
        oracles.pairs(joined),
        request.body,
        oversized=request.oversized,
    )
    beside = not of_the_client and any(name.lower() in PROOFS for name, _ in odd)
    oracles.judge_reply(path, request, reply, admitted=proof in ("path", "query") and not beside)


PROOFS = (b"authorization", b"x-broker-secret")


def test_a_repeated_header_counts_as_none(send_messages, broker):
    """A proxy could read the other one."""
    path, right = next((p, r) for p, r in RIGHT if p == "go-auth/user" and oracles.permitted(p, r))
    kind, url = (b"content-type", JSON.encode()), f"/mqtt/k/{broker}/{path}"

    once = send_messages(in_pieces(right.body, []), path=url, headers=[kind])
    twice = send_messages(in_pieces(right.body, []), path=url, headers=[kind, kind])

    assert oracles.reads_as_allow(path, once)
    assert oracles.reads_as_deny(path, twice)


@settings(in_sessions, max_examples=examples(25))
@given(requests(), st.sampled_from(QUESTIONS), st.lists(st.integers(0, 400), max_size=4))
def test_a_stranger_is_denied(send_messages, request_, path, cuts):
    """Without the proof of a broker every question reads as a deny, never as a fault."""
    headers = list(request_.headers)
    query = request_.query.encode("latin-1")

    reply = send_messages(
        in_pieces(request_.body, cuts),
        method=request_.method,
        path=f"/mqtt/{path}",
        query_string=query,
        headers=headers,
    )

    oracles.judge_reply(path, request_, reply, admitted=False)


odd_paths = st.one_of(
    st.sampled_from(
        ["", "/", "k", "k/", "k//go-auth/user", "go-auth", "go-auth/", "go-auth//user", "GO-AUTH/user"]
    ),
    st.sampled_from(
        ["go-auth/user/", "../mqtt/go-auth/user", "k/a/b/go-auth/user", "go-auth/user\x00", "emqx/user"]
    ),
    hostile,
    hostile.map(lambda text: f"k/{text}/go-auth/acl"),
)


@settings(in_sessions, max_examples=examples(25))
@given(odd_paths, st.sampled_from(["POST", "GET", "HEAD", "DELETE", "post", "", "\xff"]))
@example("k/\ud800/go-auth/user", "POST")
def test_an_odd_path_leads_nowhere(send_messages, path, method):
    reply = send_messages([{"type": "http.request"}], path=f"/mqtt/{path}", method=method)

    assert reply.status in (404, 405) or oracles.reads_as_deny("go-auth/acl", reply)


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.request", "more_body": True}, {"type": "http.request"}],
        [{"type": "http.request", "more_body": True}],  # Then the client disconnects.
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}],
        [{"type": "http.disconnect"}],
        [{"type": "http.request", "body": b"", "more_body": True}] * 5_000,
        [{"type": "http.request", "body": b" " * 65_536, "more_body": True}] * (MAX_BODY // 65_536 + 2),
    ],
    ids=["empty pieces", "half a body", "a torn body", "no body", "many empty pieces", "too much"],
)
def test_an_incomplete_body_is_a_deny(send_messages, broker, messages):
    reply = send_messages(
        messages, path=f"/mqtt/k/{broker}/go-auth/user", headers=[(b"content-type", JSON.encode())]
    )

    assert oracles.reads_as_deny("go-auth/user", reply)
