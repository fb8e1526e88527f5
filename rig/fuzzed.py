"""Strategies for hostile text, and for requests: correct, nearly correct, or arbitrary."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from authsvc.dialects.base import FORM, JSON, Request
from rig import oracles
from rig.oracles import PEOPLE, QUESTIONS, TOKENS
from rig.seeds import questions

quick = settings(deadline=None, database=None)
by_question = pytest.mark.parametrize("path", QUESTIONS)

# st.text() is not used: it makes one character set of the alphabet, in which the meaningful characters are rare.
HOSTILE = [
    *"/+#$a{}.*,=&%",
    *("\x00", "\x1f", "\n", "\x7f", "\x9f"),  # control
    *("\u202e", "\u2066", "\u200b", "\u200d", "\ufeff"),  # bidi, zero width
    *("\ufffd", "\ufffe", "\ufdd0", "\U0010ffff"),  # replacement, non-characters
    *("\ud800", "\udfff", "\udc80"),  # halves of characters
    *("\u0661", "\u212a", "\u0131"),  # a digit, K and i of others
]
hostile = st.lists(
    st.one_of(st.sampled_from(HOSTILE), st.characters(exclude_categories=())), max_size=10
).map("".join)


# Bodies.

NAMES = [
    *("username", "password", "clientid", "client_id", "acc", "access", "action", "topic", "topics", "qos"),
    *("vhost", "resource", "name", "permission", "routing_key", "variable_map.username"),
    *("variable_map.client_id", "k", "format"),
]
WORDS = [
    *PEOPLE,
    *(person.secret for person in PEOPLE.values()),
    *("1", "2", "4", "publish", "subscribe", "write", "read", "/", "amq.topic", "exchange", "queue", "topic"),
    *("things/weatherstation/STATION-001/data", "things/weatherstation/STATION-001/cmd"),
    *("things.weatherstation.STATION-001.data", "$share/g/things/weatherstation/STATION-001/cmd"),
    *("mqtt-subscription-STATION-001qos1", "guest", "undefined", "null", ""),
]
texts = st.one_of(st.sampled_from(WORDS), hostile)
numbers = st.one_of(st.sampled_from([0, 1, 2, 4, -0.0, 2.0, True, None, 10**400]), st.integers(), st.floats())
values = st.recursive(
    st.one_of(texts, texts, numbers),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
pairs = st.lists(st.tuples(st.one_of(st.sampled_from(NAMES), hostile), values), max_size=12)


def as_json(items: Any) -> bytes:
    """Return *items* as the JSON of an object, in which a name may be repeated."""
    return ("{" + ",".join(f"{_dump(name)}:{_dump(value)}" for name, value in items) + "}").encode(
        "utf-8", "surrogatepass"
    )


def _dump(value: Any) -> str:
    return "9" * 5_000 if value == 10**400 else json.dumps(value, ensure_ascii=False)


def as_form(items: Any) -> bytes:
    """Return *items* as a form."""
    return urlencode([(n, _plain(v)) for n, v in items], errors="surrogatepass").encode()


def _plain(value: Any) -> str:
    return "9" * 5_000 if value == 10**400 else str(value)


BOMBS = [
    b"[" * 100_000,
    b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    b'{"username":' * 40_000,
    b"=&" * 60,
    b"a=b&" * 70,
    b"\xc0\xaf=\xc0\x80",  # overlong
    b'{"username":"\xed\xa0\x80"}',  # half a character
    b'{"username":"\xf4\x90\x80\x80"}',  # beyond the last one
    "{}".encode("utf-16"),
    b"\xef\xbb\xbf{}",
]
bodies = st.one_of(
    st.binary(max_size=120),
    st.sampled_from(BOMBS),
    pairs.map(as_json),
    pairs.map(as_form),
    values.map(lambda value: _dump(value).encode("utf-8", "surrogatepass")),
)
content_types = st.sampled_from(
    [JSON, FORM, JSON, FORM, "Application/JSON ; charset=latin-1", "text/html", ""]
)
bearers = st.one_of(
    st.sampled_from([f"Bearer {token}" for token in TOKENS.values()]),
    st.sampled_from(["Bearer", "bearer  ", "Basic eDp5", "Bearer a.b.c", "Bearer " + "x" * 9_000]),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
queries = st.one_of(
    st.just(""),
    pairs.map(lambda items: as_form(items).decode()),
    st.sampled_from(["format=text", "format=text&format=json", "%ff=1", "&", "%00=%00", "k=a&k=b"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20),
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Draw any request that an HTTP server may pass on."""
    headers = {"content-type": draw(content_types), "authorization": draw(bearers)}
    return Request(
        draw(st.sampled_from(oracles.METHODS)),
        draw(queries),
        oracles.pairs(headers),
        draw(bodies),
        oversized=draw(rarely),
    )


rarely = st.integers(0, 20).map(lambda number: number == 0)


RIGHT = list(questions())


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, Request]:
    """Draw a case of the contracts with one fault: bytes of the body, a field, the path of another question."""
    path, right = draw(st.sampled_from(RIGHT))
    body, headers = right.body, oracles.named(right)
    place = draw(st.integers(0, max(0, len(body))))
    kind = draw(
        st.sampled_from(["cut", "insert", "flip", "field", "twice", "path", "type", "bearer", "method"])
    )
    method = right.method
    if kind == "cut":
        body = body[:place]
    elif kind == "insert":
        added = st.one_of(st.binary(max_size=4), hostile.map(lambda t: t.encode("utf-8", "surrogatepass")))
        body = body[:place] + draw(added) + body[place:]
    elif kind == "flip" and body[place:]:
        body = body[:place] + bytes([draw(st.integers(0, 255))]) + body[place + 1 :]
    elif kind in ("field", "twice"):
        body = _with_field(body, draw(st.sampled_from(NAMES)), draw(values), twice=kind == "twice")
    elif kind == "path":
        path = draw(st.sampled_from(QUESTIONS))
    elif kind == "type":
        headers["content-type"] = draw(content_types)
    elif kind == "bearer":
        headers["authorization"] = draw(bearers)
    else:
        method = draw(st.sampled_from(oracles.METHODS))
    return path, Request(method, right.query, oracles.pairs(headers), body, oversized=right.oversized)


def _with_field(body: bytes, name: str, value: Any, *, twice: bool) -> bytes:
    """Return *body* with the field *name* set to *value*: added to the present one if *twice*, else in its place."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return body + b"&" + as_form([(name, value)])
    if not isinstance(fields, dict):
        return body
    return as_json([*(item for item in fields.items() if twice or item[0] != name), (name, value)])
