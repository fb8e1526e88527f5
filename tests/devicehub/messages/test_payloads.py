"""Every form of payload with its outcome, its notes and what is stored; then anything at all.

One row of the table is one message of a device. The same on SQLite and PostgreSQL.
"""

import base64
import contextlib
import json
import math
import struct
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import cbor2
import pytest
from django.db import connection, transaction
from django.test.utils import isolate_apps
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devicehub import DeviceType, Reading, StateField, reading_types
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages import decode, senml
from devicehub.messages.message import Message, Outcome
from devicehub.models import DeviceCommand, QuarantinedMessage

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
EARLIER = NOW - timedelta(hours=1)
MIB = 1 << 20
STORED, PARTIAL, FAILED, DUPLICATE, RETAINED = Outcome

SENML, SENML_CBOR, CBOR = "application/senml+json", "application/senml+cbor", "application/cbor"
READ_LATE = "timestamp: cannot be read, the time of receipt was used"
OUT_OF_TIME = "timestamp: more than ten years ago, the time of receipt was used"
AHEAD = "timestamp: more than five minutes ahead of the clock here, the time of receipt was used"
NOT_FINITE = "temperature: is no finite number"
NUL = "holds a NUL or half a surrogate pair"


@pytest.fixture(scope="module")
def meter_kind(django_db_setup, django_db_blocker):
    """A kind with a reading of each type, in tables of its own."""

    class Meter(DeviceType):
        temperature = Reading(type=reading_types.FLOAT, unit="Cel", range=(-40, 80))
        humidity = Reading(type=reading_types.FLOAT, unit="%RH", range=(0, 100))
        amount = Reading(type=reading_types.FLOAT)
        count = Reading(type=reading_types.INTEGER)
        low = Reading(type=reading_types.INTEGER, range=(None, 10))
        wet = Reading(type=reading_types.BOOLEAN)
        label = Reading(type=reading_types.STRING)
        extra = Reading(type=reading_types.JSON)
        raw = Reading(type=reading_types.BINARY)

        layout = StateField(type="json", default={})
        serviced_at = StateField(type="datetime")
        depth = StateField(type="float")

    with isolate_apps("fleet", "authsvc"):
        models = Meter.create_models(module="fleet.models")
    with django_db_blocker.unblock():
        with connection.schema_editor() as editor:
            for model in models:
                editor.create_model(model)
        yield registry.get("meter")
        with connection.schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)
    registry.unregister("meter")


@pytest.fixture
def meter(meter_kind, db):
    return meter_kind.device_model.objects.create(device_id="METER-001")


def send(payload, about="data", content_type="", at=NOW, retain=False):
    topic = f"things/meter/METER-001/{about}"
    [outcome] = pipeline([Message(topic, payload, at, retain=retain, content_type=content_type)])
    return outcome


def stored(meter):
    """The rows of *meter*, oldest first, as dicts of what is not null; its time only where it is not NOW."""
    rows = []
    for found in meter.readings.order_by("timestamp", "id").values(
        "timestamp", *type(meter)._device_type_cls._readings
    ):
        row = {n: bytes(v) if isinstance(v, memoryview) else v for n, v in found.items() if v is not None}
        if row["timestamp"] == NOW:
            del row["timestamp"]
        rows.append(row)
    return rows


# --- The table


def case(outcome, payload, *rows, notes=(), reason=None, content_type=""):
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return SimpleNamespace(
        outcome=outcome,
        body=body,
        rows=list(rows),
        notes=list(notes),
        reason=reason,
        content_type=content_type,
    )


def ok(payload, *rows, content_type=""):
    return case(STORED, payload, *rows, content_type=content_type)


def part(payload, *rows, notes, content_type=""):
    return case(PARTIAL, payload, *rows, notes=notes, content_type=content_type)


def bad(reason, payload, content_type="", notes=()):
    return case(FAILED, payload, reason=reason, content_type=content_type, notes=notes)


def item(text, *parts):
    """CBOR as in RFC 8949: hexadecimal digits, with `%` where the encoding of a part stands."""
    pieces = [bytes.fromhex(piece) for piece in text.split("%")]
    return b"".join(piece + part for piece, part in zip(pieces, [*map(cbor2.dumps, parts), b""], strict=True))


WHOLE = {
    "empty": bad("not_json", b""),
    "white space": bad("not_json", b" \t\r\n"),
    "a byte order mark alone": bad("not_json", b"\xef\xbb\xbf"),
    "a byte order mark": ok(b'\xef\xbb\xbf{"amount": 1}', {"amount": 1.0}),
    "two byte order marks": bad("not_json", b'\xef\xbb\xbf\xef\xbb\xbf{"amount": 1}'),
    "UTF-16 with its mark": bad("not_json", '{"amount": 1}'.encode("utf-16")),
    "UTF-16 without": bad("not_json", '{"amount": 1}'.encode("utf-16-le")),
    "UTF-16, the other way": bad("not_json", '{"amount": 1}'.encode("utf-16-be")),
    "UTF-32": bad("not_json", '{"amount": 1}'.encode("utf-32-le")),
    "Latin-1": bad("not_json", '{"label": "ä"}'.encode("latin-1")),
    "trailing garbage": bad("not_json", b'{"amount": 1}x'),
    "a trailing NUL": bad("not_json", b'{"amount": 1}\0'),
    "two objects": bad("not_json", b'{"amount": 1}\n{"amount": 2}'),
    "a comma too many": bad("not_json", b'{"amount": 1,}'),
    "a comment": bad("not_json", b'{"amount": 1} // one'),
    "a leading zero": bad("not_json", b'{"amount": 01}'),
    "a plus sign": bad("not_json", b'{"amount": +1}'),
    "a number that ends early": bad("not_json", b'{"amount": 1.}'),
    "hexadecimal": bad("not_json", b'{"amount": 0x10}'),
    "other digits": bad("not_json", '{"amount": ٣}'.encode()),
    "nan in small letters": bad("not_json", b'{"amount": nan}'),
    "a line break in a text": bad("not_json", b'{"label": "a\nb"}'),
    "half an escape": bad("not_json", b'{"label": "\\u12"}'),
    "true": bad("not_a_reading", b"true"),
    "null": bad("not_a_reading", b"null"),
    "a text": bad("not_a_reading", b'"online"'),
    "a number": bad("not_a_reading", b"25.3"),
    "NaN alone": bad("not_a_reading", b"NaN"),
    "1e400 alone": bad("not_a_reading", b"1e400"),
    "array of numbers": bad("not_a_reading", b"[1]"),
    "an object in an array in an array": bad("not_a_reading", b'[[{"amount": 1}]]'),
    "empty object": bad("no_value", b"{}"),
    "empty array": bad("no_value", b"[]"),
    "100 levels": part(
        b'{"amount": 1, "extra": ' + b"[" * 99 + b"NaN" + b"]" * 99 + b"}",
        {"amount": 1.0},
        notes=["extra: holds a number that is not finite, or of 1e16 and more"],
    ),
    "101 levels": bad("not_json", b'{"amount": 1, "x": ' + b"[" * 100 + b"]" * 100 + b"}"),
    "101 levels of objects": bad("not_json", b'{"amount": 1, "x": ' + b'{"a":' * 100 + b"1" + b"}" * 101),
    "100,000 levels": bad("not_json", b"[" * 100_000 + b"]" * 100_000),
    "100,000 levels of objects": bad("not_json", b'{"a":' * 100_000),
    "1 MiB": ok(b'{"amount": 1}'.ljust(MIB), {"amount": 1.0}),
    "1 MiB and one byte": bad("too_large", b'{"amount": 1}'.ljust(MIB + 1)),
    "1 MiB of CBOR": part(
        item("a2 % % 61 78", "amount", 1) + b"\x5a" + (MIB - 17).to_bytes(4) + bytes(MIB - 17),
        {"amount": 1.0},
        notes=["x: not declared"],
    ),
    "1 MiB of colons": part(
        b'{"amount": 1, "x": "' + b":" * (MIB - 22) + b'"}', {"amount": 1.0}, notes=["x: not declared"]
    ),
    "a name twice": part(
        b'{"amount": 1, "amount": 2}', {"amount": 2.0}, notes=["amount: given twice, the last counts"]
    ),
    "a name twice, once escaped": part(
        b'{"amount": 1, "\\u0061mount": 2}', {"amount": 2.0}, notes=["amount: given twice, the last counts"]
    ),
    "a name twice beside an escaped colon": part(
        b'{"amount": 1, "amount": 2, "label": "\\u003a"}',
        {"amount": 2.0, "label": ":"},
        notes=["amount: given twice, the last counts"],
    ),
    "a name twice inside": part(
        b'{"extra": {"a": 1, "a": 2}}', {"extra": {"a": 2}}, notes=["a: given twice, the last counts"]
    ),
    "a time twice": part(
        b'{"amount": 1, "timestamp": 1, "timestamp": %d}' % (EPOCH - 3600),
        {"timestamp": EARLIER, "amount": 1.0},
        notes=["timestamp: given twice, the last counts"],
    ),
    "colons in texts": ok(b'{"label": "a:b::c", "amount": 1}', {"label": "a:b::c", "amount": 1.0}),
}

TOO_LONG = b"9" * 5000
VALUES = {
    "NaN": part(b'{"temperature": NaN, "amount": 1}', {"amount": 1.0}, notes=[NOT_FINITE]),
    "-Infinity": part(b'{"temperature": -Infinity, "amount": 1}', {"amount": 1.0}, notes=[NOT_FINITE]),
    "1e400": part(b'{"temperature": 1e400, "amount": 1}', {"amount": 1.0}, notes=[NOT_FINITE]),
    "1e-400": ok(b'{"temperature": 1e-400}', {"temperature": 0.0}),
    "5,000 digits": part(b'{"temperature": %b, "amount": 1}' % TOO_LONG, {"amount": 1.0}, notes=[NOT_FINITE]),
    "minus 5,000 digits": part(
        b'{"temperature": -%b, "amount": 1}' % TOO_LONG, {"amount": 1.0}, notes=[NOT_FINITE]
    ),
    "5,000 digits for an integer": part(
        b'{"count": %b, "amount": 1}' % TOO_LONG, {"amount": 1.0}, notes=["count: is no integer"]
    ),
    "400 digits": part(
        b'{"temperature": %b, "amount": 1}' % TOO_LONG[:400], {"amount": 1.0}, notes=[NOT_FINITE]
    ),
    "300 digits": ok(b'{"amount": %b}' % TOO_LONG[:300], {"amount": 1e300}),
    "5,000 digits behind the point": ok(b'{"amount": 0.%b}' % TOO_LONG, {"amount": 1.0}),
    "NaN that nobody declared": part(b'{"x": NaN, "amount": 1}', {"amount": 1.0}, notes=["x: not declared"]),
    "the largest integer": ok({"count": 2**63 - 1, "low": -(2**63)}, {"count": 2**63 - 1, "low": -(2**63)}),
    "one more": part({"count": 2**63, "low": 1}, {"low": 1}, notes=["count: does not fit into 64 bits"]),
    "beyond unsigned": part(
        {"count": 2**64, "low": 1}, {"low": 1}, notes=["count: does not fit into 64 bits"]
    ),
    "a float for an integer": part({"count": 25.0, "low": 1}, {"low": 1}, notes=["count: is no integer"]),
    "an exponent for an integer": part(
        b'{"count": 1e3, "low": 1}', {"low": 1}, notes=["count: is no integer"]
    ),
    "an integer for a float": ok({"amount": 25}, {"amount": 25.0}),
    "an integer beyond the mantissa": ok({"amount": 2**53 + 1}, {"amount": float(2**53)}),
    "a boolean for a number": part(
        {"amount": True, "count": False, "low": 1},
        {"low": 1},
        notes=["amount: is no number", "count: is no integer"],
    ),
    "a number for a boolean": part({"wet": 1, "low": 1}, {"low": 1}, notes=["wet: is no boolean"]),
    "digits in a text": part(
        {"amount": "25", "count": "25", "wet": "true", "low": 1},
        {"low": 1},
        notes=["amount: is no number", "count: is no integer", "wet: is no boolean"],
    ),
    "the ends of a range": ok(
        [{"temperature": -40, "timestamp": EPOCH - 3600}, {"temperature": 80}],
        {"timestamp": EARLIER, "temperature": -40.0},
        {"temperature": 80.0},
    ),
    "outside of it": part(
        {"temperature": 80.5, "low": 11, "amount": 1},
        {"amount": 1.0},
        notes=["temperature: 80.5 is outside -40..80 Cel", "low: 11 is outside ..10"],
    ),
    "255 characters": ok({"label": "😀" * 255}, {"label": "😀" * 255}),
    "256 characters": part(
        {"label": "x" * 256, "low": 1}, {"low": 1}, notes=["label: is longer than 255 characters"]
    ),
    "a NUL in a text": part({"label": "a\0b", "low": 1}, {"low": 1}, notes=[f"label: {NUL}"]),
    "half a pair": part(b'{"label": "\\ud83d", "low": 1}', {"low": 1}, notes=[f"label: {NUL}"]),
    "the other half": part(b'{"label": "\\ude00x", "low": 1}', {"low": 1}, notes=[f"label: {NUL}"]),
    "a pair": ok(b'{"label": "\\ud83d\\ude00"}', {"label": "😀"}),
    "half a pair in a name": part(b'{"\\ud83d": 1, "low": 1}', {"low": 1}, notes=["?: not declared"]),
    "U+FFFF": ok({"label": "\uffff\ufdd0"}, {"label": "\uffff\ufdd0"}),
    "JSON": ok({"extra": {"a": [1, None, True, "b", 1.5]}}, {"extra": {"a": [1, None, True, "b", 1.5]}}),
    "JSON with NaN": part(
        b'{"extra": {"a": [NaN]}, "low": 1}',
        {"low": 1},
        notes=["extra: holds a number that is not finite, or of 1e16 and more"],
    ),
    "JSON with 1e16": part(
        b'{"extra": 1e16, "low": 1}',
        {"low": 1},
        notes=["extra: holds a number that is not finite, or of 1e16 and more"],
    ),
    "JSON with an integer that fits": ok({"extra": [2**64 - 1, -(2**63)]}, {"extra": [2**64 - 1, -(2**63)]}),
    "JSON with one that does not": part(
        {"extra": [2**64], "low": 1}, {"low": 1}, notes=["extra: holds an integer beyond 64 bits"]
    ),
    "JSON with a NUL": part({"extra": ["a\0"], "low": 1}, {"low": 1}, notes=[f"extra: {NUL}"]),
    "JSON with a NUL in a name": part({"extra": {"a\0": 1}, "low": 1}, {"low": 1}, notes=[f"extra: {NUL}"]),
    "JSON with half a pair": part(b'{"extra": ["\\udc00"], "low": 1}', {"low": 1}, notes=[f"extra: {NUL}"]),
    "base64": ok({"raw": "+/8="}, {"raw": b"\xfb\xff"}),
    "base64 of nothing": ok({"raw": ""}, {"raw": b""}),
    "names like columns": part(
        {"amount": 1, "device_id": "X", "id": 5, "received_at": 1},
        {"amount": 1.0},
        notes=["device_id: not declared", "id: not declared", "received_at: not declared"],
    ),
}
for shown, sent in {
    "unpadded": "aGk",
    "padded twice": "aGk==",
    "padded too much": "aGk=====",
    "with white space": "aG k=",
    "with a line break": "aGk=\n",
    "in the other alphabet": "-_8=",
    "with bits too many": "aGl=",
    "with a sign behind": "aGkx=",
    "in other letters": "ää==",
    "as a number": 5,
    "as a list": [104, 105],
}.items():
    VALUES[f"base64 {shown}"] = part({"raw": sent, "low": 1}, {"low": 1}, notes=["raw: is no base64 text"])

TIMES = {
    "a date": ("2026-03-01", NOW - timedelta(hours=12)),
    "a naive time": ("2026-03-01T11:00:00", EARLIER),
    "Z": ("2026-03-01T11:00:00Z", EARLIER),
    "an offset": ("2026-03-01T11:00:00-01:00", NOW),
    "half an hour": ("2026-03-01T16:30:00+05:30", EARLIER),
    "a fraction": ("2026-03-01T11:00:00.5Z", EARLIER + timedelta(seconds=0.5)),
    "nanoseconds": ("2026-03-01T11:00:00.123456789Z", EARLIER + timedelta(microseconds=123456)),
    "without separators": ("20260301T110000Z", EARLIER),
    "a date without separators": ("20260301", NOW - timedelta(hours=12)),
    "a date by its week": ("2026-W09-7", NOW - timedelta(hours=12)),
    "small letters": ("2026-03-01t11:00:00z", EARLIER),
    "a space": ("2026-03-01 11:00:00", EARLIER),
    "a comma": ("2026-03-01T11:00:00,5Z", EARLIER + timedelta(seconds=0.5)),
    "without seconds": ("2026-03-01T11:00Z", EARLIER),
    "an hour alone": ("2026-03-01T11", EARLIER),
    "seconds": (EPOCH - 3600, EARLIER),
    "seconds and a fraction": (EPOCH - 3600 + 0.5, EARLIER + timedelta(seconds=0.5)),
    "milliseconds": ((EPOCH - 3600) * 1000, EARLIER),
    "ten years": ((NOW - timedelta(days=3653)).isoformat(), NOW - timedelta(days=3653)),
    "five minutes ahead": (EPOCH + 300, NOW + timedelta(minutes=5)),
}
UNREADABLE_TIMES = [
    "",
    "now",
    "2026-02-30",
    "2026-03-01T25:00:00Z",
    "1772362800",
    "٢٠٢٦-03-01",
    True,
    False,
    None,
    [],
    {},
    2**70,
    -(2**70),
    10**300,
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "2026-03-01\0",
    "2026-03-01T11:00:00\0",
    "2026-03-01\ud80011:00:00",
    "2026-03-01x11:00:00",
    "2026-03-01T11:00:00 Z",
    "2026-03-01T11:00:00.Z",
    "2026-03-01T11.5Z",
    "2026-03-01T11:00.5Z",
    "2026-03-01T24:00:00Z",
    "2026-03-01T11:00:60Z",
    " 2026-03-01",
    float("nan"),
    float("inf"),
    float("-inf"),
    1e300,
    1772362800000000,
]
OLD_TIMES = [0, -1, 0.5, 1e-300, EPOCH - 86400 * 3654, "1970-01-01", "0001-01-01"]
COMING_TIMES = [EPOCH + 301, (EPOCH + 301) * 1000, "2099-01-01T00:00:00Z", "9999-12-31"]
WRONG_TIMES = [(sent, OUT_OF_TIME) for sent in OLD_TIMES] + [(sent, AHEAD) for sent in COMING_TIMES]
TIMES = (
    {
        f"time: {name}": ok(
            {"amount": 1, "timestamp": sent},
            {"amount": 1.0} | ({"timestamp": moment} if moment != NOW else {}),
        )
        for name, (sent, moment) in TIMES.items()
    }
    | {
        f"no time: {ascii(sent)[:40]}": part(
            {"amount": 1, "timestamp": sent}, {"amount": 1.0}, notes=[READ_LATE]
        )
        for sent in UNREADABLE_TIMES
    }
    | {
        f"wrong clock: {ascii(sent)[:40]}": part(
            {"amount": 1, "timestamp": sent}, {"amount": 1.0}, notes=[note]
        )
        for sent, note in WRONG_TIMES
    }
)


def pack(*records, notes=(), rows=None, outcome=None):
    """A SenML pack in JSON, which is recognised."""
    decided = outcome or (PARTIAL if notes else STORED)
    return case(decided, list(records), *(rows or []), notes=notes)


T = {"n": "temperature"}
MAC = "urn:dev:mac:0024befffe804ff1/"
OLD = {"timestamp": EARLIER}
PACKS = {
    "one record": pack(T | {"v": 25.5}, rows=[{"temperature": 25.5}]),
    "by its content type": ok([T | {"v": 1}], {"temperature": 1.0}, content_type=SENML),
    "by its content type with a parameter": ok(
        [T | {"v": 1}], {"temperature": 1.0}, content_type="Application/SenML+JSON; x=y"
    ),
    "as application/json": ok([T | {"v": 1}], {"temperature": 1.0}, content_type="application/json"),
    "every type": pack(
        {"n": "amount", "v": 1},
        {"n": "count", "v": 2},
        {"n": "wet", "vb": False},
        {"n": "label", "vs": ""},
        {"n": "raw", "vd": "-_8"},
        {"n": "extra", "v": 1.5},
        rows=[{"amount": 1.0, "count": 2, "wet": False, "label": "", "raw": b"\xfb\xff", "extra": 1.5}],
    ),
    "a base name": pack(
        {"bn": MAC} | T | {"v": 1}, {"n": "humidity", "v": 2}, rows=[{"temperature": 1.0, "humidity": 2.0}]
    ),
    "a base name that ends in a colon": pack(
        {"bn": "urn:dev:ow:10e2073a01080063:"} | T | {"v": 1}, rows=[{"temperature": 1.0}]
    ),
    "a base name that ends in nothing": pack(
        {"bn": "urn:dev:os:32473-1_"} | T | {"v": 1}, rows=[{"temperature": 1.0}]
    ),
    "a base name without a name": pack({"bn": MAC + "temperature", "v": 1}, rows=[{"temperature": 1.0}]),
    "a name in two halves": pack({"bn": MAC + "temper", "n": "ature", "v": 1}, rows=[{"temperature": 1.0}]),
    "a base name that changes": pack(
        {"bn": "a/temperature", "v": 1},
        {"bn": "b/humidity", "v": 2},
        rows=[{"temperature": 1.0, "humidity": 2.0}],
    ),
    "the name of another device": pack(
        {"bn": "things/meter/METER-002/"} | T | {"v": 1}, rows=[{"temperature": 1.0}]
    ),
    "a path of its own": pack({"n": "outside/north/temperature", "v": 1}, rows=[{"temperature": 1.0}]),
    "an undeclared name": pack(
        T | {"v": 1},
        {"bn": MAC, "n": "wind", "v": 2},
        notes=["wind: not declared"],
        rows=[{"temperature": 1.0}],
    ),
    "a base record": pack({"bn": MAC, "bt": EPOCH - 3600}, T | {"v": 1}, rows=[OLD | {"temperature": 1.0}]),
    "base fields after their record": pack(
        T | {"v": 1},
        {"n": "humidity", "v": 2, "bt": EPOCH - 3600},
        rows=[OLD | {"humidity": 2.0}, {"temperature": 1.0}],
    ),
    "times": pack(
        {"bt": EPOCH - 3600} | T | {"v": 1, "t": -60},
        T | {"v": 2},
        {"n": "humidity", "v": 3},
        rows=[
            {"timestamp": EARLIER - timedelta(minutes=1), "temperature": 1.0},
            OLD | {"temperature": 2.0, "humidity": 3.0},
        ],
    ),
    "a time of its own": pack(
        T | {"v": 1, "t": EPOCH - 3600 + 0.25},
        rows=[{"timestamp": EARLIER + timedelta(seconds=0.25), "temperature": 1.0}],
    ),
    "a relative time": pack(T | {"v": 1, "t": -3600}, rows=[OLD | {"temperature": 1.0}]),
    "relative to a relative base": pack(
        {"bt": -3000} | T | {"v": 1, "t": -600}, rows=[OLD | {"temperature": 1.0}]
    ),
    "now": pack(
        T | {"v": 1, "t": 0}, {"n": "humidity", "v": 2}, rows=[{"temperature": 1.0, "humidity": 2.0}]
    ),
    "soon": pack(T | {"v": 1, "t": 60}, rows=[{"timestamp": NOW + timedelta(minutes=1), "temperature": 1.0}]),
    "the longest relative time": pack(
        T | {"v": 1, "t": 2**28 - 1}, notes=[AHEAD], rows=[{"temperature": 1.0}]
    ),
    "the first absolute time": pack(
        T | {"v": 1, "t": 2**28}, notes=[OUT_OF_TIME], rows=[{"temperature": 1.0}]
    ),
    "a time in milliseconds": pack(
        T | {"v": 1, "t": EPOCH * 1000}, notes=[READ_LATE], rows=[{"temperature": 1.0}]
    ),
    "a relative time before all years": pack(
        T | {"v": 1, "t": -1e300}, notes=[READ_LATE], rows=[{"temperature": 1.0}]
    ),
    "a time in a text": pack(T | {"v": 1, "t": "2026-03-01"}, notes=[READ_LATE], rows=[{"temperature": 1.0}]),
    "a time that is no number": pack(T | {"v": 1, "t": True}, notes=[READ_LATE], rows=[{"temperature": 1.0}]),
    "a base value": pack(
        {"bv": 20} | T | {"v": 1.5},
        {"n": "humidity", "v": 2},
        {"n": "count", "v": 3},
        rows=[{"temperature": 21.5, "humidity": 22.0, "count": 23}],
    ),
    "a base value and no value": pack({"bv": 20} | T, rows=[{"temperature": 20.0}]),
    "a base value in a base record": pack({"bv": 20, "bn": MAC}, T | {"v": 1}, rows=[{"temperature": 21.0}]),
    "a base value beside a text": pack({"bv": 20, "n": "label", "vs": "a"}, rows=[{"label": "a"}]),
    "a base value that leaves the range": pack(
        {"bv": 70} | T | {"v": 20},
        {"n": "count", "v": 1},
        notes=["temperature: 90 is outside -40..80 Cel"],
        rows=[{"count": 71}],
    ),
    "the unit": pack(T | {"v": 1, "u": "Cel"}, rows=[{"temperature": 1.0}]),
    "a base unit": pack(
        {"bu": "Cel"} | T | {"v": 1},
        {"n": "humidity", "v": 2, "u": "%RH"},
        rows=[{"temperature": 1.0, "humidity": 2.0}],
    ),
    "another unit": pack(
        T | {"v": 300, "u": "K"},
        {"n": "humidity", "v": 2},
        notes=["temperature: is in 'K', not in 'Cel'"],
        rows=[{"humidity": 2.0}],
    ),
    "another base unit": pack(
        {"bu": "K"} | T | {"v": 1},
        {"n": "label", "vs": "a"},
        notes=["temperature: is in 'K', not in 'Cel'"],
        rows=[{"label": "a"}],
    ),
    "a unit in other letters": pack(
        T | {"v": 1, "u": "cel"}, outcome=FAILED, notes=["temperature: is in 'cel', not in 'Cel'"]
    ),
    "a unit where none is declared": pack({"n": "amount", "v": 1, "u": "furlong"}, rows=[{"amount": 1.0}]),
    "a sum": pack(
        {"n": "amount", "v": 1, "s": 5}, notes=["amount: its sum is not kept"], rows=[{"amount": 1.0}]
    ),
    "only a sum": pack(
        {"n": "amount", "s": 5},
        T | {"v": 1},
        notes=["amount: its sum is not kept"],
        rows=[{"temperature": 1.0}],
    ),
    "an update time": pack(T | {"v": 1, "ut": 60}, rows=[{"temperature": 1.0}]),
    "an unknown label": pack(T | {"v": 1, "x": 5}, rows=[{"temperature": 1.0}]),
    "one reading twice": pack(
        {"n": "in/temperature", "v": 1},
        {"n": "out/temperature", "v": 2},
        notes=["temperature: given twice, the last counts"],
        rows=[{"temperature": 2.0}],
    ),
    "a version": pack({"bver": 10} | T | {"v": 1}, rows=[{"temperature": 1.0}]),
    "an older version": pack({"bver": 5} | T | {"v": 1}, rows=[{"temperature": 1.0}]),
    "out of order": pack(
        T | {"v": 1, "t": EPOCH - 60},
        T | {"v": 2, "t": EPOCH - 3600},
        rows=[OLD | {"temperature": 2.0}, {"timestamp": NOW - timedelta(minutes=1), "temperature": 1.0}],
    ),
    "no value": pack(
        T, {"n": "humidity", "v": 2}, notes=["temperature: has no value"], rows=[{"humidity": 2.0}]
    ),
    "null": pack(
        T | {"v": None},
        {"n": "humidity", "v": 2, "u": None, "t": None},
        notes=["temperature: has no value"],
        rows=[{"humidity": 2.0}],
    ),
    "two values": pack(
        T | {"v": 1, "vs": "1"},
        {"n": "humidity", "v": 2},
        notes=["temperature: has v and vs"],
        rows=[{"humidity": 2.0}],
    ),
    "no name": pack(
        {"v": 1}, {"n": "humidity", "v": 2}, notes=["record 0: has no name"], rows=[{"humidity": 2.0}]
    ),
    "a name that is none": pack(
        {"n": 5, "v": 1},
        {"n": "humidity", "v": 2},
        notes=["record 0: n is no text"],
        rows=[{"humidity": 2.0}],
    ),
    "a unit that is none": pack(
        T | {"v": 1, "u": 5},
        {"n": "humidity", "v": 2},
        notes=["temperature: u is no text"],
        rows=[{"humidity": 2.0}],
    ),
    "a text as v": pack(
        {"n": "label", "v": "a"},
        {"n": "humidity", "v": 2},
        notes=["label: v is no number"],
        rows=[{"humidity": 2.0}],
    ),
    "a boolean as v": pack(
        {"n": "wet", "v": True},
        {"n": "humidity", "v": 2},
        notes=["wet: v is no number"],
        rows=[{"humidity": 2.0}],
    ),
    "a number as vb": pack(
        {"n": "wet", "vb": 1},
        {"n": "humidity", "v": 2},
        notes=["wet: vb is no boolean"],
        rows=[{"humidity": 2.0}],
    ),
    "a number as vs": pack(
        {"n": "label", "vs": 1},
        {"n": "humidity", "v": 2},
        notes=["label: vs is no text"],
        rows=[{"humidity": 2.0}],
    ),
    "a float for an integer": pack(
        {"n": "count", "v": 2.0},
        {"n": "humidity", "v": 2},
        notes=["count: is no integer"],
        rows=[{"humidity": 2.0}],
    ),
    "a text for a number": pack(
        {"n": "amount", "vs": "2"},
        {"n": "humidity", "v": 2},
        notes=["amount: is no number"],
        rows=[{"humidity": 2.0}],
    ),
    "data for a text": pack(
        {"n": "label", "vd": "aGk"},
        {"n": "humidity", "v": 2},
        notes=["label: is no text"],
        rows=[{"humidity": 2.0}],
    ),
    "data for JSON": pack(
        {"n": "extra", "vd": "aGk"},
        {"n": "humidity", "v": 2},
        notes=["extra: holds what is not in JSON"],
        rows=[{"humidity": 2.0}],
    ),
    "NaN": part(
        b'[{"n": "temperature", "v": NaN}, {"n": "humidity", "v": 2}]', {"humidity": 2.0}, notes=[NOT_FINITE]
    ),
    "1e400 as a time": part(b'[{"n": "humidity", "v": 2, "t": 1e400}]', {"humidity": 2.0}, notes=[READ_LATE]),
    "a label twice": part(
        b'[{"n": "humidity", "v": 1, "v": 2}]', {"humidity": 2.0}, notes=["v: given twice, the last counts"]
    ),
    "a sum beyond all floats": part(
        b'[{"n": "amount", "bv": 1e308, "v": 1e308}, {"n": "label", "vs": "a"}]',
        {"label": "a"},
        notes=["amount: is no finite number"],
    ),
    "a base beyond all floats": part(
        b'[{"n": "amount", "bv": %b, "v": 1.5}, {"n": "label", "vs": "a"}]' % TOO_LONG[:390],
        {"label": "a"},
        notes=["amount: is no finite number"],
    ),
    "only base records": pack({"bn": MAC}, {"bt": 5}, outcome=FAILED),
    "no record": bad("no_value", b"[]", SENML),
    "a version too high": bad("not_a_reading", [{"bver": 11} | T | {"v": 1}]),
    "a version that is none": bad("not_a_reading", [{"bver": "10"} | T | {"v": 1}]),
    "a version that is true": bad("not_a_reading", [{"bver": True} | T | {"v": 1}]),
    "a version that is NaN": bad("not_a_reading", b'[{"bver": NaN, "n": "temperature", "v": 1}]'),
    "a version too high in a later record": bad("not_a_reading", [T | {"v": 1}, {"bver": 26}]),
    "a label to be understood": bad("not_a_reading", [T | {"v": 1}, T | {"v": 2, "x_": 1}]),
    "a base name that is none": bad("not_a_reading", [{"bn": 5} | T | {"v": 1}]),
    "a base time that is none": bad("not_a_reading", [{"bt": "2026-03-01"} | T | {"v": 1}]),
    "a base value that is none": bad("not_a_reading", [{"bv": True} | T | {"v": 1}]),
    "a base unit that is none": bad("not_a_reading", [{"bu": []} | T | {"v": 1}]),
    "an object with its content type": bad("not_a_reading", T | {"v": 1}, SENML),
    "an array of numbers with its content type": bad("not_a_reading", [1], SENML),
    "flat with its content type": bad("no_value", [{"temperature": 1}], SENML, ["record 0: has no value"]),
    "an object without": bad("no_value", T | {"v": 1}, notes=["n: not declared", "v: not declared"]),
    "a flat sample among records": part(
        [T | {"v": 1}, {"humidity": 2}], {"humidity": 2.0}, notes=["n: not declared", "v: not declared"]
    ),
}
for shown, sent in {
    "padded": "aGk=",
    "standard": "+/8",
    "one sign": "a",
    "bits too many": "aGl",
    "other": "ä",
}.items():
    PACKS[f"data {shown}"] = pack(
        {"n": "raw", "vd": sent},
        T | {"v": 1},
        rows=[{"temperature": 1.0}],
        notes=["raw: vd is no base64url without padding"],
    )


def one(name, encoded, *row, notes=()):
    """A map of one value in CBOR, beside `amount: 1`."""
    body = item("a2 % % %", "amount", 1, name) + bytes.fromhex(encoded)
    rows = {"amount": 1.0} | ({name: row[0]} if row else {})
    return case(PARTIAL if notes else STORED, body, rows, notes=notes)


NO_NUMBER = ["temperature: is no number"]
MAPS = {
    "a map": ok(
        cbor2.dumps({"temperature": 25.5, "count": 2, "wet": True, "label": "ä", "extra": [1, {"a": None}]}),
        {"temperature": 25.5, "count": 2, "wet": True, "label": "ä", "extra": [1, {"a": None}]},
    ),
    "by its content type": ok(cbor2.dumps({"amount": 1}), {"amount": 1.0}, content_type=CBOR),
    "of an unknown content type": ok(
        cbor2.dumps({"amount": 1}), {"amount": 1.0}, content_type="application/octet-stream"
    ),
    "a list of readings": ok(
        cbor2.dumps({"readings": [{"type": "amount", "value": 1}], "timestamp": EPOCH - 3600}),
        OLD | {"amount": 1.0},
    ),
    "an array": ok(
        cbor2.dumps([{"amount": 1, "timestamp": EPOCH - 3600}, {"amount": 2}]),
        OLD | {"amount": 1.0},
        {"amount": 2.0},
    ),
    "self-described": ok(item("d9d9f7 %", {"amount": 1}), {"amount": 1.0}),
    "indefinite": ok(item("bf % 01 % 7f 6161 6162 ff ff", "amount", "label"), {"amount": 1.0, "label": "ab"}),
    "an indefinite array": ok(item("9f % ff", {"amount": 1}), {"amount": 1.0}),
    "half a float": one("temperature", "f94e80", 26.0),
    "a single float": one("temperature", "fa41cc0000", 25.5),
    "a double": one("temperature", "fb4039800000000000", 25.5),
    "NaN": one("temperature", "f97e00", notes=[NOT_FINITE]),
    "infinity": one("temperature", "fa7f800000", notes=[NOT_FINITE]),
    "undefined": one("temperature", "f7", notes=NO_NUMBER),
    "null": one("temperature", "f6"),
    "true": one("temperature", "f5", notes=NO_NUMBER),
    "a simple value": one("temperature", "f0", notes=NO_NUMBER),
    "a simple value in JSON": one("extra", "81f0", notes=["extra: holds what is not in JSON"]),
    "undefined in JSON": one("extra", "81f7", notes=["extra: holds what is not in JSON"]),
    "NaN in JSON": one(
        "extra", "81f97e00", notes=["extra: holds a number that is not finite, or of 1e16 and more"]
    ),
    "a number as a name in JSON": one("extra", "a10102", notes=["extra: holds a name that is no text"]),
    "bytes": one("raw", "43000102", b"\0\1\2"),
    "bytes of indefinite length": one("raw", "5f41004101ff", b"\0\1"),
    "base64": one("raw", "646147 6b3d", b"hi"),
    "bytes as a text": one("label", "426869", notes=["label: is no text"]),
    "a NUL": one("label", "6100", notes=[f"label: {NUL}"]),
    "a big integer": one("count", "c2480000000000000005", 5),
    "a negative one": one("count", "c34105", -6),
    "one of 65 bits": one("count", "c249010000000000000000", notes=["count: does not fit into 64 bits"]),
    "one for a float": one("temperature", "c24105", 5.0),
    "one beyond all floats": one("temperature", "c259 0100" + "ff" * 256, notes=[NOT_FINITE]),
    "one that is a text": one("temperature", "c26105", notes=NO_NUMBER),
    "the largest": one("count", "1b7fffffffffffffff", 2**63 - 1),
    "one more": one("count", "1b8000000000000000", notes=["count: does not fit into 64 bits"]),
    "the smallest": one("count", "3b7fffffffffffffff", -(2**63)),
    "a decimal fraction": one("temperature", "c482211909f6", 25.5),
    "one for an integer": one("count", "c4820005", notes=["count: is no integer"]),
    "one with a huge exponent": one("temperature", "c4821b7fffffffffffffff01", notes=[NOT_FINITE]),
    "one that is nearly nothing": one("temperature", "c4823b7fffffffffffffff01", 0.0),
    "one of three parts": one("temperature", "c483010203", notes=NO_NUMBER),
    "a big float": one("temperature", "c5822003", 1.5),
    "a bigger float": one("temperature", "c5821b7fffffffffffffff03", notes=[NOT_FINITE]),
    "a fraction": one("temperature", "d81e820102", notes=NO_NUMBER),
    "a date as a number": one("temperature", "c105", notes=NO_NUMBER),
    "a date as a text": one("label", "c06a323032362d30332d3031", notes=["label: is no text"]),
    "no date": one("label", "c06178", notes=["label: is no text"]),
    "a shared value": one("temperature", "d81c05", notes=NO_NUMBER),
    "a reference": one("temperature", "d81d00", notes=NO_NUMBER),
    "a cycle": one("extra", "d81c81d81d00", notes=["extra: holds what is not in JSON"]),
    "a named text": one("label", "d901006161", notes=["label: is no text"]),
    "a pattern": one("label", "d8236128", notes=["label: is no text"]),
    "a set": one("extra", "d901028101", notes=["extra: holds what is not in JSON"]),
    "an address": one("label", "d9010444c0a80001", notes=["label: is no text"]),
    "an unknown tag": one("temperature", "d9ff0005", notes=NO_NUMBER),
    "CBOR in CBOR": one("temperature", "d8184105", notes=NO_NUMBER),
    "a time": ok(item("a2 % % % c1 %", "amount", 1, "timestamp", EPOCH - 3600), OLD | {"amount": 1.0}),
    "a time as text": ok(
        item("a2 % % % c0 %", "amount", 1, "timestamp", "2026-03-01T11:00:00Z"), OLD | {"amount": 1.0}
    ),
    "a time that is none": part(
        item("a2 % % % c0 %", "amount", 1, "timestamp", "soon"), {"amount": 1.0}, notes=[READ_LATE]
    ),
    "a number where a time is a text": part(
        item("a2 % 01 % c0 %", "amount", "timestamp", EPOCH - 3600), {"amount": 1.0}, notes=[READ_LATE]
    ),
    "a text where a time is a number": part(
        item("a2 % 01 % c1 %", "amount", "timestamp", "2026-03-01T11:00:00Z"),
        {"amount": 1.0},
        notes=[READ_LATE],
    ),
    "milliseconds in a tag": part(
        item("a2 % 01 % c1 %", "amount", "timestamp", EPOCH * 1000), {"amount": 1.0}, notes=[READ_LATE]
    ),
    "a time that is NaN": part(
        item("a2 % % % c1 f97e00", "amount", 1, "timestamp"), {"amount": 1.0}, notes=[READ_LATE]
    ),
    "a name twice": part(
        item("a2 % 01 % 02", "amount", "amount"),
        {"amount": 2.0},
        notes=["a map names something twice, the last counts"],
    ),
    "a label as number and as text": part(
        item("81 a3 00 % 02 01 % 02", "count", "v"),
        {"count": 2},
        notes=["record 0: names something twice, the last counts"],
        content_type=SENML_CBOR,
    ),
    "a number as a name": part(item("a2 % 01 07 02", "amount"), {"amount": 1.0}, notes=["7: not declared"]),
    "a number of 2,048 bytes as a name": part(
        item("a2 % 01 c2 590800", "amount") + b"\xff" * 2048 + b"\x02",
        {"amount": 1.0},
        notes=["inf: not declared"],
    ),
    "bytes as a name": part(item("a2 % 01 4161 02", "amount"), {"amount": 1.0}, notes=["b'a': not declared"]),
    "an array as a name": part(
        item("a2 % 01 8101 02", "amount"), {"amount": 1.0}, notes=["(1,): not declared"]
    ),
    "100 levels": part(
        item("a2 % 01 6178", "amount") + b"\x81" * 98 + b"\x80", {"amount": 1.0}, notes=["x: not declared"]
    ),
    "101 levels": bad("not_cbor", item("a2 % 01 6178", "amount") + b"\x81" * 100 + b"\x80"),
    "100,000 levels": bad("not_cbor", b"\x81" * 100_000),
    "100,000 tags": bad("not_cbor", b"\x81" + b"\xc1" * 100_000),
    "an array that is said to be huge": bad("not_cbor", bytes.fromhex("9b7fffffffffffffff")),
    "a map that is said to be huge": bad("not_cbor", bytes.fromhex("bbffffffffffffffff")),
    "a text that is said to be huge": bad("not_cbor", bytes.fromhex("a1617b7b7fffffffffffffff61")),
    "cut off": bad("not_cbor", cbor2.dumps({"amount": 1.5})[:-1]),
    "followed by something": bad("not_cbor", cbor2.dumps({"amount": 1}) + b"\x00"),
    "two items": bad("not_cbor", cbor2.dumps({"amount": 1}) * 2),
    "a text that is not UTF-8": bad("not_cbor", item("a2 % 01 % 61ff", "amount", "label")),
    "a surrogate": bad("not_cbor", item("a2 % 01 % 63eda080", "amount", "label")),
    "a reserved length": bad("not_cbor", item("a1 % 1c", "amount")),
    "a break alone": bad("not_cbor", bytes.fromhex("81ff")),
    "an empty map": bad("no_value", b"\xa0"),
    "an empty array": bad("no_value", b"\x80"),
    "an array of numbers": bad("not_a_reading", b"\x81\x01"),
    "a number with its content type": bad("not_a_reading", b"\x01", CBOR),
    "nothing with its content type": bad("not_cbor", b"", CBOR),
    "JSON with its content type": bad("not_cbor", b'{"amount": 1}', CBOR),
    "said to be JSON": bad("not_json", cbor2.dumps({"amount": 1}), "application/json"),
    "numbers as names in 64 KiB": part(
        item("a3 % 01 07 02 6178", "amount") + b"\x5a" + (65536 - 19).to_bytes(4) + bytes(65536 - 19),
        {"amount": 1.0},
        notes=["7: not declared", "x: not declared"],
    ),
    "numbers as names in more": bad(
        "not_cbor", item("a3 % 01 07 02 6178", "amount") + b"\x5a" + (65536).to_bytes(4) + bytes(65536)
    ),
    "SenML": ok(
        cbor2.dumps(
            [
                {-2: MAC, -3: EPOCH - 3600, 0: "temperature", 1: "Cel", 2: 25.5},
                {0: "raw", 8: b"\0"},
                {0: "wet", 4: True},
                {0: "label", 3: "a"},
            ]
        ),
        OLD | {"temperature": 25.5, "raw": b"\0", "wet": True, "label": "a"},
    ),
    "SenML by its content type": ok(cbor2.dumps([{0: "count", 2: 1}]), {"count": 1}, content_type=SENML_CBOR),
    "SenML as CBOR": ok(cbor2.dumps([{0: "count", 2: 1}]), {"count": 1}, content_type=CBOR),
    "SenML with texts as labels": ok(cbor2.dumps([{"n": "count", "v": 1}]), {"count": 1}),
    "SenML with a decimal fraction": ok(
        item("81 a2 00 % 02 c482211909f6", "temperature"), {"temperature": 25.5}
    ),
    "SenML with a base value and a unit": part(
        cbor2.dumps([{-5: 20, -4: "Cel", 0: "temperature", 2: 1}, {0: "humidity", 2: 1}]),
        {"temperature": 21.0},
        notes=["humidity: is in 'Cel', not in '%RH'"],
    ),
    "SenML with a relative time": ok(cbor2.dumps([{0: "count", 2: 1, 6: -3600}]), OLD | {"count": 1}),
    "SenML with a time as a tag": part(
        item("81 a3 00 % 02 01 06 c1 %", "count", EPOCH), {"count": 1}, notes=[READ_LATE]
    ),
    "SenML with a label twice": part(
        item("81 a3 00 % 02 01 02 02", "count"),
        {"count": 2},
        notes=["a map names something twice, the last counts"],
    ),
    "SenML with an unknown label": ok(
        cbor2.dumps([{0: "count", 2: 1, 99: 5, "vlo": "1:2", 1.0: "K", b"u": 1}]), {"count": 1}
    ),
    "SenML with text as data": ok(cbor2.dumps([{0: "raw", 8: "aGk"}]), {"raw": b"hi"}),
    "SenML of a version too high": bad("not_a_reading", cbor2.dumps([{-1: 11, 0: "count", 2: 1}])),
    "SenML with a label to be understood": bad("not_a_reading", cbor2.dumps([{0: "count", 2: 1, "x_": 1}])),
    "SenML that is a map": bad("not_a_reading", cbor2.dumps({0: "count", 2: 1}), SENML_CBOR),
}

TABLE = {
    f"{part_name}: {name}": row
    for part_name, rows in {"JSON": WHOLE, "value": VALUES, "": TIMES, "SenML": PACKS, "CBOR": MAPS}.items()
    for name, row in rows.items()
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_each_payload_has_its_outcome(meter, row):
    outcome = send(row.body, content_type=row.content_type)

    message = meter.messages.get()
    assert (outcome, message.notes, stored(meter)) == (row.outcome, row.notes, row.rows), (
        message.processing_error
    )
    quarantined = list(QuarantinedMessage.objects.values_list("reason", flat=True))
    assert quarantined == ([row.reason or "no_value"] if outcome is FAILED else [])
    assert message.outcome == outcome
    assert is_as_sent(message, row.body)


@pytest.mark.parametrize("body", [b'{"amount": -0.0}', b'{"amount": -1e-400}', item("a1 % f98000", "amount")])
def test_minus_zero_is_zero(meter, body):
    """SQLite keeps no sign of it."""
    assert send(body) is STORED

    assert math.copysign(1, meter.readings.get().amount) == 1


def is_as_sent(message, body):
    """The row has the bytes, or JSON that says the same to whoever reads it with the standard library.

    That of a failed message has neither: they are in the quarantine.
    """
    if message.outcome == FAILED:
        kept = message.payload_raw, message.payload_json, bytes(message.quarantined.payload)
        return kept == (None, None, body[:MIB])
    if message.payload_raw is not None:
        return message.payload_json is None and bytes(message.payload_raw) == body[:MIB]

    def unique(pairs):
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return message.payload_json == json.loads(body, object_pairs_hook=unique)


@pytest.mark.parametrize(
    ("seconds", "moment"), [(2**28 - 1, None), (2**28, datetime(1978, 7, 4, 21, 24, 16, tzinfo=UTC))]
)
def test_where_the_times_of_a_pack_begin_to_be_absolute(meter, seconds, moment):
    """Seen by a clock of 1978: one second less lies eight years ahead."""
    received = datetime(1978, 7, 5, tzinfo=UTC)

    outcome = send(json.dumps([{"n": "amount", "v": 1, "t": seconds}]).encode(), at=received)

    assert outcome is (STORED if moment else PARTIAL)
    assert meter.readings.get().timestamp == (moment or received)


def test_a_long_base_name_costs_its_length_once():
    """It applies to every record: read anew for each, this pack would take minutes."""
    records = [{"bn": "x" * 500_000, "n": "a", "v": 1}, {"n": "b", "v": 1}, {"n": "c", "v": 1}]
    notes = []

    found = [record.name for record in senml.resolve(records, {}, notes)]

    assert [name[-1] for name in found] == ["a", "b", "c"]
    assert max(map(len, found)) <= 257
    assert notes == []


# --- What is not data


def test_a_status_may_be_cbor(meter):
    body = item(
        "a5 % % % 1832 % c1 % % % % 7f",
        "status",
        "online",
        "battery_level",
        "serviced_at",
        EPOCH,
        "layout",
        {"a": 1},
        "depth",
    )
    assert send(body[:-1] + cbor2.dumps(2.5), "status") is STORED

    meter.refresh_from_db()
    assert (meter.status, meter.battery_level, meter.serviced_at) == ("online", 50.0, NOW)
    assert (meter.layout, meter.depth) == ({"a": 1}, 2.5)


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (b'{"battery_level": 5, "depth": 1e400}', "depth: is no finite number"),
        (b'{"battery_level": 5, "depth": NaN}', "depth: is no finite number"),
        (
            b'{"battery_level": 5, "layout": [NaN]}',
            "layout: holds a number that is not finite, or of 1e16 and more",
        ),
        (b'{"battery_level": 5, "firmware_version": "\\ud800"}', f"firmware_version: {NUL}"),
        (b'{"battery_level": 4, "battery_level": 5}', "battery_level: given twice, the last counts"),
        (item("a2 % 05 07 01", "battery_level"), "7: not declared"),
        (item("a2 % 05 % c06178", "battery_level", "serviced_at"), "serviced_at: is no ISO 8601 time"),
    ],
)
def test_a_bad_value_of_a_status_costs_that_value(meter, body, note):
    assert send(body, "status") is PARTIAL

    assert meter.messages.get().notes == [note]
    meter.refresh_from_db()
    assert (meter.battery_level, meter.depth, meter.layout, meter.firmware_version) == (5.0, None, {}, "")


def test_a_pack_is_no_status(meter):
    assert send(b'[{"n": "status", "vs": "online"}]', "status", SENML) is FAILED
    assert QuarantinedMessage.objects.get().reason == "not_a_reading"


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (b'"a\\u0000b"', "a\ufffdb"),
        (b'"\\ud800"', "\ufffd"),
        (b'{"\\udc00": [1e400, NaN, 1.5]}', {"\ufffd": [None, None, 1.5]}),
        (b"[1, true, null]", [1, True, None]),
        ("d9ff0005", "CBORTag(65280, 5)"),
        ("a2014203ff820102c07432303236", None),
        ("43000102", "AAEC"),
        ("a101f97e00", {"1": None}),
    ],
)
def test_a_reply_is_kept_with_what_no_database_keeps_replaced(meter, result, kept):
    command = DeviceCommand.objects.create(device_key="meter/METER-001", name="reset")
    if isinstance(result, bytes):
        body = b'{"id": "%b", "ok": true, "result": %b}' % (str(command.id).encode(), result)
    else:
        body = item("a3 % % % f5 %", "id", str(command.id), "ok", "result") + bytes.fromhex(result)

    outcome = send(body, "reply")

    command.refresh_from_db()
    if kept is None:
        assert (outcome, command.answered_at) == (FAILED, None)
    else:
        assert (outcome, command.response["result"]) == (STORED, kept)
    assert is_as_sent(meter.messages.get(), body)


# --- Duplicates and retained messages


DATED = {
    "a pack with a time": json.dumps([{"n": "amount", "v": 1, "t": EPOCH - 60}]).encode(),
    "a pack with a base time": cbor2.dumps([{-3: EPOCH - 60}, {0: "amount", 2: 1}]),
    "one of its records": json.dumps(
        [{"n": "amount", "v": 1, "t": -5}, {"n": "count", "v": 1, "t": EPOCH}]
    ).encode(),
    "a map with a time": cbor2.dumps({"amount": 1, "timestamp": EPOCH - 60}),
    "a map with a date": item("a2 % % % c1 %", "amount", 1, "timestamp", EPOCH),
    "a time given twice": b'{"amount": 1, "timestamp": 5, "timestamp": %d}' % EPOCH,
}
UNDATED = {
    "a pack": b'[{"n": "amount", "v": 1}]',
    "a pack that counts from now": b'[{"n": "amount", "v": 1, "t": -60}]',
    "a pack of now": b'[{"n": "amount", "v": 1, "t": 0}]',
    "a pack with a bad time": b'[{"n": "amount", "v": 1, "t": 1e300}]',
    "a map": cbor2.dumps({"amount": 1}),
}


@pytest.mark.parametrize("body", DATED.values(), ids=DATED)
def test_a_payload_that_names_its_moment_is_stored_once(meter, body):
    first = send(body)
    rows = stored(meter)

    assert first in (STORED, PARTIAL)
    assert send(body, at=NOW + timedelta(seconds=30)) is DUPLICATE
    assert send(body, retain=True) is DUPLICATE
    assert stored(meter) == rows
    assert meter.messages.count() == 1


@pytest.mark.parametrize("body", UNDATED.values(), ids=UNDATED)
def test_a_payload_that_names_no_moment_is_news_each_time(meter, body):
    assert send(body) in (STORED, PARTIAL)
    assert send(body, at=NOW + timedelta(minutes=1)) in (STORED, PARTIAL)
    assert send(body, retain=True) is RETAINED
    assert len(stored(meter)) == 2


def test_a_type_that_declares_n_has_flat_samples(django_db_setup):
    """`n` is then the name of a reading, and a pack needs its content type."""
    found = decode.Document([{"n": "x", "v": 1}])

    [sample] = decode.samples(found, NOW, {"n": Reading(type="string"), "v": Reading()}).samples
    assert sample.values == {"n": "x", "v": 1}


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
    """A pack with the labels of CBOR."""
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
    """A good payload with some bytes replaced, put in or left out."""
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


@settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=600)
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
    """*value* stands in the payload with a text that ends as *name* does, or it is the sum of two numbers there."""
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
    """All names, texts, numbers and parts of *body*, read as JSON or as CBOR by something of our own."""
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
    """What stands in *body*, by the algorithm of RFC 8949, appendix C; ends where it is no longer well-formed."""
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
