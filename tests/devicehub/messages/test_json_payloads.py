"""JSON payloads, each with its outcome, its notes and its stored rows: as a whole, its values, its times."""

import math
from datetime import timedelta

import pytest

from rig.meter import (
    AHEAD,
    EARLIER,
    EPOCH,
    MIB,
    NOT_FINITE,
    NOW,
    NUL,
    OUT_OF_TIME,
    READ_LATE,
    STORED,
    TOO_LONG,
    bad,
    item,
    ok,
    part,
    send,
)

pytestmark = pytest.mark.sqlite_first

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
        b'{"count": %b, "amount": 1}' % TOO_LONG, {"amount": 1.0}, notes=["count: is not an integer"]
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
    "a float for an integer": part({"count": 25.0, "low": 1}, {"low": 1}, notes=["count: is not an integer"]),
    "an exponent for an integer": part(
        b'{"count": 1e3, "low": 1}', {"low": 1}, notes=["count: is not an integer"]
    ),
    "an integer for a float": ok({"amount": 25}, {"amount": 25.0}),
    "an integer beyond the mantissa": ok({"amount": 2**53 + 1}, {"amount": float(2**53)}),
    "a boolean for a number": part(
        {"amount": True, "count": False, "low": 1},
        {"low": 1},
        notes=["amount: is not a number", "count: is not an integer"],
    ),
    "a number for a boolean": part({"wet": 1, "low": 1}, {"low": 1}, notes=["wet: is not a boolean"]),
    "digits in a text": part(
        {"amount": "25", "count": "25", "wet": "true", "low": 1},
        {"low": 1},
        notes=["amount: is not a number", "count: is not an integer", "wet: is not a boolean"],
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
    VALUES[f"base64 {shown}"] = part({"raw": sent, "low": 1}, {"low": 1}, notes=["raw: is not a base64 text"])

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


JSON_TABLE = {
    f"{part_name}: {name}": row
    for part_name, rows in {"whole": WHOLE, "value": VALUES, "time": TIMES}.items()
    for name, row in rows.items()
}


@pytest.mark.parametrize("row", JSON_TABLE.values(), ids=JSON_TABLE)
def test_each_json_payload_has_its_outcome(becomes, row):
    becomes(row)


@pytest.mark.parametrize("body", [b'{"amount": -0.0}', b'{"amount": -1e-400}', item("a1 % f98000", "amount")])
def test_minus_zero_is_zero(meter, body):
    """SQLite does not keep the sign of a zero."""
    assert send(body) is STORED

    assert math.copysign(1, meter.readings.get().amount) == 1
