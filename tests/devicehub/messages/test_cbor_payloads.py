"""CBOR payloads, each with its outcome, its notes and its stored rows; also as a status and as a reply."""

import cbor2
import pytest

from devicehub.models import DeviceCommand, QuarantinedMessage
from rig.meter import (
    CBOR,
    EPOCH,
    FAILED,
    MAC,
    NOT_FINITE,
    NOW,
    NUL,
    OLD,
    PARTIAL,
    READ_LATE,
    SENML,
    SENML_CBOR,
    STORED,
    bad,
    case,
    is_as_sent,
    item,
    ok,
    part,
    send,
)

pytestmark = pytest.mark.sqlite_first


def one(name, encoded, *row, notes=()):
    """Return the row for a map of one value in CBOR and `amount: 1`."""
    body = item("a2 % % %", "amount", 1, name) + bytes.fromhex(encoded)
    rows = {"amount": 1.0} | ({name: row[0]} if row else {})
    return case(PARTIAL if notes else STORED, body, rows, notes=notes)


NO_NUMBER = ["temperature: is not a number"]
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
    "a number as a name in JSON": one("extra", "a10102", notes=["extra: holds a name that is not a text"]),
    "bytes": one("raw", "43000102", b"\0\1\2"),
    "bytes of indefinite length": one("raw", "5f41004101ff", b"\0\1"),
    "base64": one("raw", "646147 6b3d", b"hi"),
    "bytes as a text": one("label", "426869", notes=["label: is not a text"]),
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
    "one for an integer": one("count", "c4820005", notes=["count: is not an integer"]),
    "one with a huge exponent": one("temperature", "c4821b7fffffffffffffff01", notes=[NOT_FINITE]),
    "one that is nearly nothing": one("temperature", "c4823b7fffffffffffffff01", 0.0),
    "one of three parts": one("temperature", "c483010203", notes=NO_NUMBER),
    "a big float": one("temperature", "c5822003", 1.5),
    "a bigger float": one("temperature", "c5821b7fffffffffffffff03", notes=[NOT_FINITE]),
    "a fraction": one("temperature", "d81e820102", notes=NO_NUMBER),
    "a date as a number": one("temperature", "c105", notes=NO_NUMBER),
    "a date as a text": one("label", "c06a323032362d30332d3031", notes=["label: is not a text"]),
    "no date": one("label", "c06178", notes=["label: is not a text"]),
    "a shared value": one("temperature", "d81c05", notes=NO_NUMBER),
    "a reference": one("temperature", "d81d00", notes=NO_NUMBER),
    "a cycle": one("extra", "d81c81d81d00", notes=["extra: holds what is not in JSON"]),
    "a named text": one("label", "d901006161", notes=["label: is not a text"]),
    "a pattern": one("label", "d8236128", notes=["label: is not a text"]),
    "a set": one("extra", "d901028101", notes=["extra: holds what is not in JSON"]),
    "an address": one("label", "d9010444c0a80001", notes=["label: is not a text"]),
    "an unknown tag": one("temperature", "d9ff0005", notes=NO_NUMBER),
    "CBOR in CBOR": one("temperature", "d8184105", notes=NO_NUMBER),
    "a time": ok(item("a2 % % % c1 %", "amount", 1, "timestamp", EPOCH - 3600), OLD | {"amount": 1.0}),
    "a time as text": ok(
        item("a2 % % % c0 %", "amount", 1, "timestamp", "2026-03-01T11:00:00Z"), OLD | {"amount": 1.0}
    ),
    "a time that cannot be read": part(
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
        notes=["a map has a key twice, the last counts"],
    ),
    "a label as number and as text": part(
        item("81 a3 00 % 02 01 % 02", "count", "v"),
        {"count": 2},
        notes=["record 0: has a label twice, the last counts"],
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
        notes=["a map has a key twice, the last counts"],
    ),
    "SenML with an unknown label": ok(
        cbor2.dumps([{0: "count", 2: 1, 99: 5, "vlo": "1:2", 1.0: "K", b"u": 1}]), {"count": 1}
    ),
    "SenML with text as data": ok(cbor2.dumps([{0: "raw", 8: "aGk"}]), {"raw": b"hi"}),
    "SenML of a version too high": bad("not_a_reading", cbor2.dumps([{-1: 11, 0: "count", 2: 1}])),
    "SenML with a label to be understood": bad("not_a_reading", cbor2.dumps([{0: "count", 2: 1, "x_": 1}])),
    "SenML that is a map": bad("not_a_reading", cbor2.dumps({0: "count", 2: 1}), SENML_CBOR),
}


@pytest.mark.sqlite_first  # JSON and fuzzed payloads store values of each type in PostgreSQL as well.
@pytest.mark.parametrize("row", MAPS.values(), ids=MAPS)
def test_each_cbor_payload_has_its_outcome(becomes, row):
    becomes(row)


# --- Messages that are not data


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
        (b'{"battery_level": 5, "depth": 1e400}', "depth: is not a finite number"),
        (b'{"battery_level": 5, "depth": NaN}', "depth: is not a finite number"),
        (
            b'{"battery_level": 5, "layout": [NaN]}',
            "layout: holds a number that is not finite, or of 1e16 and more",
        ),
        (b'{"battery_level": 5, "firmware_version": "\\ud800"}', f"firmware_version: {NUL}"),
        (b'{"battery_level": 4, "battery_level": 5}', "battery_level: given twice, the last counts"),
        (item("a2 % 05 07 01", "battery_level"), "7: not declared"),
        (item("a2 % 05 % c06178", "battery_level", "serviced_at"), "serviced_at: is not an ISO 8601 time"),
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
