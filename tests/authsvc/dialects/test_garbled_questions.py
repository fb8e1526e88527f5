"""Garbage in place of a question, and a right question with one field replaced, are denied."""

from __future__ import annotations

import json
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authsvc.core.access import MalformedRequest
from authsvc.dialects import vernemq
from authsvc.dialects.base import FORM, JSON, Request
from rig.oracles import reads_as_deny
from rig.questions import BESIDE, by_question, good, in_sessions

pytestmark = pytest.mark.sqlite_first

# ---------------------------------------------------------------- garbage

# fmt: off
NAMES = [
    "username", "password", "clientid", "client_id", "acc", "action", "access", "topic", "topics", "qos",
    "vhost", "resource", "name", "permission", "routing_key", "tags", "k", "format",
    "variable_map.username", "variable_map.client_id",
]
# fmt: on
hostile_text = st.one_of(
    st.sampled_from(
        ["", "root", "admin", "guest", "/", "#", "+", "amq.topic", "1", "2", "4", "publish", "write"]
    ),
    st.text(max_size=12),
    st.lists(st.characters(exclude_categories=()), max_size=6).map("".join),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), hostile_text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile_text, inner, max_size=3),
    max_leaves=6,
)
pairs = st.lists(st.tuples(st.sampled_from(NAMES) | hostile_text, values), max_size=14)


def as_json(items):
    """Return a JSON object with *items*, including repeated names."""
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in items) + "}").encode()


def as_form(items):
    return urlencode([(n, str(v)) for n, v in items], errors="surrogatepass").encode()


bodies = st.one_of(
    st.binary(max_size=200),
    pairs.map(as_json),
    values.map(lambda value: json.dumps(value).encode()),
    pairs.map(as_form),
    st.tuples(pairs.map(as_json), st.integers(0, 60)).map(lambda cut: cut[0][: -cut[1] or None]),
)
content_types = st.sampled_from(
    [JSON, FORM, JSON, FORM, "application/json; charset=latin-1", "text/html", None]
)
queries = st.one_of(st.just(b""), pairs.map(as_form), st.from_regex(rb"[!-~]{0,30}", fullmatch=True))


@pytest.mark.sqlite_first  # The next test sends garbage to the database as well.
@by_question
@in_sessions
@given(
    body=bodies,
    content_type=content_types,
    query=queries,
    method=st.sampled_from(["POST", "PUT", "GET", "POST"]),
)
@example(body=b"", content_type=None, query=b"", method="GET")
def test_garbage_is_denied(question, world, path, body, content_type, query, method):
    """These names do not exist, so readable and unreadable requests are both a deny."""
    bearer = world.bearers["stranger"]
    reply = question(path, body=body, content_type=content_type, query=query, method=method, bearer=bearer)

    text_mode = path.startswith(("go-auth/", "jwt/")) and b"format=text" in query.split(b"&")
    assert (
        reads_as_deny(path, reply)
        or (text_mode and (reply.status, reply.body) == (403, b"denied"))
        or (
            path.startswith("vernemq/") and b"k=" in query and reply == vernemq.UNKNOWN_CALLER
        )  # A second proof.
    )


@by_question
@in_sessions
@given(data=st.data())
def test_a_known_station_and_garbage_is_denied(question, station, path, data):
    """One field of a right question is replaced: an allow must be about the station's own names and topics."""
    fields = good(path, station)
    name = data.draw(st.sampled_from(sorted(fields.keys() - BESIDE)))
    fields[name] = data.draw(values)

    reply = question(path, body=as_json(fields.items()))

    assert reads_as_deny(path, reply) or fields in (good(path, station), _still_good(path, station, fields))


def _still_good(path, station, fields):
    """Return whether the replaced question is still one that the station is allowed."""
    may = {"acc": [2], "access": ["2"], "topic": [station.topic("data")], "action": ["publish"]}
    if path == "rabbitmq/resource":
        may = {"permission": ["write", "read"]}
    if path == "rabbitmq/topic":
        may = {"permission": ["write"]}
    rest = good(path, station)
    return {name: v if v in may.get(name, []) else rest[name] for name, v in fields.items()}


@pytest.mark.sqlite_only  # Needs no database.
@settings(deadline=None, database=None)
@given(text=st.text(st.sampled_from("ab=&;%+\x00 /ä"), max_size=20))
def test_a_form_is_read_as_the_standard_library_does(text):
    """The fast path for text without encoded characters gives the same results."""
    request = Request("GET", query=text)
    try:
        expected = (
            parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
        )
    except ValueError:
        with pytest.raises(MalformedRequest):
            _ = request.parameters
    else:
        assert request.parameters == expected
