"""The entrance fed with anything: it answers as the oracle says, and a stranger gets nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from authsvc.asgi import Entrance
from authsvc.conf import options
from authsvc.dialects.base import FORM, JSON, MAX_BODY, Reply, Request
from authsvc.freshness import reader
from authsvc.models import Broker
from rig import oracles
from rig.fuzzed import RIGHT, hostile, mutated, quick, requests
from rig.oracles import QUESTIONS

pytestmark = pytest.mark.sqlite_only  # the parsers need no database, and the entrance reads one row of it


# The entrance.


async def _site(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("a question was passed on to the site")


@pytest.fixture(scope="module")
def broker(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """The token of a broker that may ask about the people of the oracle."""
    with django_db_blocker.unblock():
        row = Broker(name="fuzz")
        token = row.issue_token()
        row.save()
        yield token
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def knock(loop, broker, settings, django_db_blocker):
    """Send one HTTP request to the entrance, message by message; the reply, and whether it was one."""
    settings.AUTHSVC_DIRECTORIES = ["rig.oracles.People"]
    settings.AUTHSVC_JWT_KEYS = {"k": oracles.OPTIONS.jwt_keys[0].signing}
    entrance = Entrance(_site)

    async def one(messages: list[dict[str, Any]], **scope: Any) -> Reply:
        waiting, sent = iter(messages), []

        async def receive() -> dict[str, Any]:
            return next(waiting, {"type": "http.disconnect"})

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        known = {"type": "http", "method": "POST", "query_string": b"", "headers": [], "client": None}
        await entrance({**known, **scope}, receive, send)
        start, end = sent
        if scope.get("method") != "HEAD":
            assert dict(start["headers"])[b"content-length"] == str(len(end["body"])).encode()
        return Reply(start["status"], end["body"], dict(start["headers"])[b"content-type"].decode())

    with django_db_blocker.unblock():
        assert options().jwt_keys == oracles.OPTIONS.jwt_keys
        yield lambda messages, **scope: loop.run(one(messages, **scope))
        loop.run(reader.close())


def in_pieces(body: bytes, cuts: list[int]) -> list[dict[str, Any]]:
    """*body* as the messages of a server, cut at *cuts*; a message may leave out what has a default."""
    places = sorted([0, *(cut % (len(body) + 1) for cut in cuts), len(body)])  # some are empty
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


@settings(in_sessions, max_examples=250)
@given(mutated(), st.lists(st.integers(0, 400), max_size=4), st.one_of(st.just([]), odd_headers), proofs)
def test_the_entrance_answers_as_the_oracle_says(knock, broker, case, cuts, odd, proof):
    """In pieces, with headers that come twice or are no text, and proved in one way, in none, or in two."""
    path, request = case
    sent = list(request.headers)
    of_the_client = path.startswith("jwt/")
    sent = [header for header in sent if of_the_client or header[0] not in PROOFS] + odd
    in_query = {"query": f"k={broker}", "part": f"k={broker[:-1]}", "two": f"k={broker}&k={broker}x"}.get(
        proof
    )
    request.query = "&".join(part for part in (request.query, in_query) if part)

    reply = knock(
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


def test_a_header_that_comes_twice_is_neither(knock, broker):
    """A proxy and we would not agree which one counts."""
    path, right = next((p, r) for p, r in RIGHT if p == "go-auth/user" and oracles.permitted(p, r))
    kind, url = (b"content-type", JSON.encode()), f"/mqtt/k/{broker}/{path}"

    once = knock(in_pieces(right.body, []), path=url, headers=[kind])
    twice = knock(in_pieces(right.body, []), path=url, headers=[kind, kind])

    assert oracles.reads_as_allow(path, once)
    assert oracles.reads_as_deny(path, twice)


@settings(in_sessions, max_examples=60)
@given(requests(), st.sampled_from(QUESTIONS), st.lists(st.integers(0, 400), max_size=4))
def test_a_stranger_gets_nothing(knock, request_, path, cuts):
    """Without the proof of a broker whatever is asked reads as a deny, and never as a fault."""
    headers = list(request_.headers)
    query = request_.query.encode("latin-1")

    reply = knock(
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


@settings(in_sessions, max_examples=60)
@given(odd_paths, st.sampled_from(["POST", "GET", "HEAD", "DELETE", "post", "", "\xff"]))
@example("k/\ud800/go-auth/user", "POST")
def test_an_odd_path_leads_nowhere(knock, path, method):
    reply = knock([{"type": "http.request"}], path=f"/mqtt/{path}", method=method)

    assert reply.status in (404, 405) or oracles.reads_as_deny("go-auth/acl", reply)


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.request", "more_body": True}, {"type": "http.request"}],
        [{"type": "http.request", "more_body": True}],  # and then the client is gone
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}],
        [{"type": "http.disconnect"}],
        [{"type": "http.request", "body": b"", "more_body": True}] * 5_000,
        [{"type": "http.request", "body": b" " * 65_536, "more_body": True}] * (MAX_BODY // 65_536 + 2),
    ],
    ids=["empty pieces", "half a body", "a torn body", "no body", "many empty pieces", "too much"],
)
def test_a_body_that_never_comes_is_a_deny(knock, broker, messages):
    reply = knock(messages, path=f"/mqtt/k/{broker}/go-auth/user", headers=[(b"content-type", JSON.encode())])

    assert oracles.reads_as_deny("go-auth/user", reply)
