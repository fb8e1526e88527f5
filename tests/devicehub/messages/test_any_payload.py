"""Any payload has exactly one outcome, and only values that were sent are stored."""

import base64
import contextlib
import json
import math
import struct
from datetime import timedelta

import cbor2
import pytest
from django.db import transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devicehub.models import QuarantinedMessage
from rig.examples import examples
from rig.meter import CBOR, EPOCH, FAILED, NOW, PARTIAL, SENML, SENML_CBOR, STORED, is_as_sent, send, stored

pytestmark = pytest.mark.sqlite_first

# --- Anything at all

NAMES = ["temperature", "humidity", "amount", "count", "low", "wet", "label", "extra", "raw", "x"]
numbers = (
    st.integers(-50, 120)
    | st.integers(-(2**66), 2**66)
    | st.floats()
    | st.sampled_from([EPOCH, EPOCH * 1000, EPOCH - 5.5, -60, 0.1])
)
texts = st.text(max_size=5) | st.sampled_from(
    ["aGk=", "aGk", "25", "2026-03-01T11:00:00Z", "Cel", "%RH", "a\0b"]
)
scalars = st.none() | st.booleans() | numbers | texts
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
flats = st.dictionaries(st.sampled_from([*NAMES, "timestamp"]), trees, max_size=4)
lists = st.fixed_dictionaries(
    {
        "readings": st.lists(
            st.fixed_dictionaries({"type": st.sampled_from(NAMES), "value": trees}), max_size=3
        )
    }
)
records = st.fixed_dictionaries(
    {},
    optional={
        "n": st.sampled_from(NAMES),
        "v": numbers,
        "vs": texts,
        "vb": st.booleans(),
        "vd": texts,
        "t": numbers,
        "u": st.sampled_from(["Cel", "%RH", "K"]),
        "bn": st.sampled_from(["a/", "a:", "urn:x_", "amount", "b/temper"]),
        "bt": numbers,
        "bv": numbers,
        "bu": st.sampled_from(["Cel", "K"]),
        "s": numbers,
    },
)
documents = flats | lists | st.lists(flats, max_size=3) | st.lists(records, min_size=1, max_size=4) | trees
IN_CBOR = {
    "bn": -2,
    "bt": -3,
    "bu": -4,
    "bv": -5,
    "n": 0,
    "u": 1,
    "v": 2,
    "vs": 3,
    "vb": 4,
    "s": 5,
    "t": 6,
    "vd": 8,
}


def labelled(document):
    """Return *pack* with the labels of CBOR."""
    if not isinstance(document, list) or not all(isinstance(entry, dict) for entry in document):
        return document
    return [{IN_CBOR.get(label, label): value for label, value in entry.items()} for entry in document]


as_json = documents.map(lambda found: json.dumps(found).encode())
as_cbor = (documents | documents.map(labelled)).map(cbor2.dumps)
tagged = st.tuples(st.sampled_from(NAMES), st.integers(0, 300), trees).map(
    lambda parts: cbor2.dumps({"amount": 1, parts[0]: cbor2.CBORTag(parts[1], parts[2])})
)
PIECES = [
    b"NaN",
    b"1e400",
    b"9" * 350,
    b'"\\ud800"',
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b",",
    b"[",
    b"}",
    b"\xf9\x7e\x00",
    b"\xc2",
]


@st.composite
def damaged(draw):
    """Return a good payload with some bytes replaced, inserted or left out."""
    body = draw(as_json | as_cbor)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.integers(0, 3)))
        body = body[:start] + draw(st.binary(max_size=2) | st.sampled_from(PIECES)) + body[end:]
    return body


bodies = (
    as_json
    | as_cbor
    | tagged
    | damaged()
    | st.binary(max_size=40)
    | st.builds(lambda first, rest: bytes([first]) + rest, st.integers(0x80, 0xBF), st.binary(max_size=40))
)
content_types = st.sampled_from(["", "", "", "application/json", SENML, SENML_CBOR, CBOR, "text/plain"])


class RolledBack(Exception):
    pass


@settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=examples(120))
@given(
    body=bodies,
    content_type=content_types,
    about=st.sampled_from(["data", "data", "data", "status", "reply"]),
)
@example(body=b'{"amount": 1, "amount": 2}', content_type="", about="data")
@example(body=b'[{"n": "amount", "bv": 1, "v": 2}]', content_type="", about="data")
@example(
    body=cbor2.dumps({"extra": cbor2.CBORTag(28, [cbor2.CBORTag(29, 0)])}), content_type="", about="data"
)
def test_anything_ends_in_one_outcome_and_stores_only_what_was_sent(meter, body, content_type, about):
    with pytest.raises(RolledBack), transaction.atomic():
        outcome = send(body, about, content_type)

        assert outcome in (STORED, PARTIAL, FAILED)
        message = meter.messages.get()
        assert message.outcome == outcome
        assert is_as_sent(message, body)
        assert bool(message.notes) is (outcome is PARTIAL) or outcome is FAILED
        quarantined = [(q.reason, bytes(q.payload)) for q in QuarantinedMessage.objects.all()]
        assert [payload for _, payload in quarantined] == ([body] if outcome is FAILED else [])
        assert "unstorable" not in [reason for reason, _ in quarantined]
        rows = stored(meter)
        assert bool(rows) is (outcome is not FAILED and about == "data")
        sent = list(leaves(body))
        for row in rows:
            assert NOW - timedelta(days=3653) <= row.pop("timestamp", NOW) <= NOW + timedelta(minutes=5)
            for name, value in row.items():
                assert was_sent(name, value, sent), (name, value, sent)
        raise RolledBack


def was_sent(name, value, sent):
    """Return whether *value* and a text with the end of *name* are in the payload, or two numbers with that sum are."""
    reading = {"temperature": (-40, 80), "humidity": (0, 100), "low": (-(2**63), 10)}.get(
        name, (-math.inf, math.inf)
    )
    texts_sent = [text for text in sent if type(text) is str]
    # A base name may hold the beginning of a name.
    assert any(name.endswith(text) for text in texts_sent if text) or any(
        text.endswith(name) for text in texts_sent
    )
    if isinstance(value, bool):
        return any(found is value for found in sent)
    if isinstance(value, bytes):
        return value in [*decoded(texts_sent), *(found for found in sent if type(found) is bytes)]
    if name == "extra" or isinstance(value, str):
        return any(same(value, found) for found in sent) or (
            isinstance(value, float | int) and is_sum(value, sent)
        )
    assert math.isfinite(value)
    assert reading[0] <= value <= reading[1]
    return is_sum(value, sent)


def is_sum(value, sent):
    found = [number for number in sent if type(number) in (int, float)]
    return any(equal(value, one) for one in found) or any(equal(value, a, b) for a in found for b in found)


def equal(value, *parts):
    try:
        return value == type(value)(sum(parts))
    except (OverflowError, ValueError):
        return False


def same(one, other):
    return one == other and type(one) is type(other)


def decoded(texts_sent):
    for text in texts_sent:
        for alphabet in (b"+/", b"-_"):
            try:
                yield base64.b64decode(text + "=" * (-len(text) % 4), alphabet)
            except ValueError:
                continue


def leaves(body):
    """Return all names, texts, numbers and parts of *body*, read as JSON or as CBOR by code of this test."""
    if 0x80 <= (body or b"\0")[0] <= 0xDF or not body.removeprefix(b"\xef\xbb\xbf").isascii():
        yield from cbor_leaves(body)
    found = []

    def collect(members):
        found.extend(part for member in members for part in member)
        made = dict(members)
        found.append(made)
        return made

    def integer(digits):
        return int(digits) if len(digits) < 4000 else math.inf

    try:
        text = body.decode("utf-8-sig")
        whole = json.loads(text, object_pairs_hook=collect, parse_int=integer)
    except (ValueError, RecursionError):
        return
    yield from inner(whole)
    for value in found:
        yield from inner(value)


def inner(value):
    yield value
    if isinstance(value, list):
        for part in value:
            yield from inner(part)
    elif isinstance(value, dict):
        for part in (*value, *value.values()):
            yield from inner(part)


def cbor_leaves(body):
    """Yield the items in *body*, by the algorithm of RFC 8949, appendix C, up to the first malformed byte."""
    parts = []

    def take(position, count):
        if position + count > len(body):
            raise IndexError
        return body[position : position + count], position + count

    def walk(position):
        first, position = body[position], position + 1
        major, info = first >> 5, first & 31
        number = info
        if 24 <= info <= 27:
            raw, position = take(position, 1 << (info - 24))
            number = int.from_bytes(raw)
        if major == 7:
            if info in (20, 21):
                return info == 21, position
            if info in (25, 26, 27):
                return struct.unpack({25: ">e", 26: ">f", 27: ">d"}[info], raw)[0], position
            return (None if info == 22 else object()), position
        if major in (0, 1):
            return (number if major == 0 else -1 - number), position
        if major == 6:
            content, position = walk(position)
            parts.append(content)
            return tagged_value(number, content), position
        if major in (2, 3) and info != 31:
            raw, position = take(position, number)
            return (raw if major == 2 else raw.decode()), position
        children = []
        while (body[position] != 0xFF) if info == 31 else len(children) < number * (2 if major == 5 else 1):
            child, position = walk(position)
            children.append(child)
        parts.extend(children)
        if info == 31:
            position += 1
        if major in (2, 3):
            return (b"" if major == 2 else "").join(children), position
        if major == 5:
            return {str(k): v for k, v in zip(children[::2], children[1::2], strict=True)}, position
        return children, position

    with contextlib.suppress(IndexError, ValueError, TypeError, RecursionError, MemoryError):
        parts.append(walk(0)[0])
    return parts


def tagged_value(number, content):
    if number in (2, 3) and isinstance(content, bytes):
        return int.from_bytes(content) if number == 2 else -1 - int.from_bytes(content)
    if number in (4, 5) and isinstance(content, list) and [type(part) for part in content] == [int, int]:
        exponent, mantissa = content
        if number == 4:
            return float(f"{mantissa}e{exponent}")
        try:
            return math.ldexp(mantissa, exponent)
        except OverflowError:
            return math.inf
    return content if number == 55799 else object()
