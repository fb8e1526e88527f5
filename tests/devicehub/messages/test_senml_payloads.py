"""SenML payloads, in JSON and in CBOR, each with its outcome, its notes and its stored rows."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from devicehub.messages import senml
from rig.meter import (
    AHEAD,
    EARLIER,
    EPOCH,
    FAILED,
    MAC,
    NOT_FINITE,
    NOW,
    OLD,
    OUT_OF_TIME,
    PARTIAL,
    READ_LATE,
    SENML,
    STORED,
    TOO_LONG,
    bad,
    case,
    ok,
    part,
    send,
)

# JSON and fuzzed payloads store values of each type in PostgreSQL as well.
pytestmark = pytest.mark.sqlite_first


def pack(*records, notes=(), rows=None, outcome=None):
    """Return the row for a SenML pack in JSON, which is recognised."""
    decided = outcome or (PARTIAL if notes else STORED)
    return case(decided, list(records), *(rows or []), notes=notes)


T = {"n": "temperature"}


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
    "a time that is not a number": pack(
        T | {"v": 1, "t": True}, notes=[READ_LATE], rows=[{"temperature": 1.0}]
    ),
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
    "a name of a wrong type": pack(
        {"n": 5, "v": 1},
        {"n": "humidity", "v": 2},
        notes=["record 0: n is not a text"],
        rows=[{"humidity": 2.0}],
    ),
    "a unit of a wrong type": pack(
        T | {"v": 1, "u": 5},
        {"n": "humidity", "v": 2},
        notes=["temperature: u is not a text"],
        rows=[{"humidity": 2.0}],
    ),
    "a text as v": pack(
        {"n": "label", "v": "a"},
        {"n": "humidity", "v": 2},
        notes=["label: v is not a number"],
        rows=[{"humidity": 2.0}],
    ),
    "a boolean as v": pack(
        {"n": "wet", "v": True},
        {"n": "humidity", "v": 2},
        notes=["wet: v is not a number"],
        rows=[{"humidity": 2.0}],
    ),
    "a number as vb": pack(
        {"n": "wet", "vb": 1},
        {"n": "humidity", "v": 2},
        notes=["wet: vb is not a boolean"],
        rows=[{"humidity": 2.0}],
    ),
    "a number as vs": pack(
        {"n": "label", "vs": 1},
        {"n": "humidity", "v": 2},
        notes=["label: vs is not a text"],
        rows=[{"humidity": 2.0}],
    ),
    "a float for an integer": pack(
        {"n": "count", "v": 2.0},
        {"n": "humidity", "v": 2},
        notes=["count: is not an integer"],
        rows=[{"humidity": 2.0}],
    ),
    "a text for a number": pack(
        {"n": "amount", "vs": "2"},
        {"n": "humidity", "v": 2},
        notes=["amount: is not a number"],
        rows=[{"humidity": 2.0}],
    ),
    "data for a text": pack(
        {"n": "label", "vd": "aGk"},
        {"n": "humidity", "v": 2},
        notes=["label: is not a text"],
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
        notes=["amount: is not a finite number"],
    ),
    "a base beyond all floats": part(
        b'[{"n": "amount", "bv": %b, "v": 1.5}, {"n": "label", "vs": "a"}]' % TOO_LONG[:390],
        {"label": "a"},
        notes=["amount: is not a finite number"],
    ),
    "only base records": pack({"bn": MAC}, {"bt": 5}, outcome=FAILED),
    "no record": bad("no_value", b"[]", SENML),
    "a version too high": bad("not_a_reading", [{"bver": 11} | T | {"v": 1}]),
    "a version of a wrong type": bad("not_a_reading", [{"bver": "10"} | T | {"v": 1}]),
    "a version that is true": bad("not_a_reading", [{"bver": True} | T | {"v": 1}]),
    "a version that is NaN": bad("not_a_reading", b'[{"bver": NaN, "n": "temperature", "v": 1}]'),
    "a version too high in a later record": bad("not_a_reading", [T | {"v": 1}, {"bver": 26}]),
    "a label to be understood": bad("not_a_reading", [T | {"v": 1}, T | {"v": 2, "x_": 1}]),
    "a base name of a wrong type": bad("not_a_reading", [{"bn": 5} | T | {"v": 1}]),
    "a base time of a wrong type": bad("not_a_reading", [{"bt": "2026-03-01"} | T | {"v": 1}]),
    "a base value of a wrong type": bad("not_a_reading", [{"bv": True} | T | {"v": 1}]),
    "a base unit of a wrong type": bad("not_a_reading", [{"bu": []} | T | {"v": 1}]),
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
        notes=["raw: vd is not base64url without padding"],
    )


@pytest.mark.parametrize("row", PACKS.values(), ids=PACKS)
def test_each_senml_payload_has_its_outcome(becomes, row):
    becomes(row)


@pytest.mark.parametrize(
    ("seconds", "moment"), [(2**28 - 1, None), (2**28, datetime(1978, 7, 4, 21, 24, 16, tzinfo=UTC))]
)
def test_where_the_times_of_a_pack_begin_to_be_absolute(meter, seconds, moment):
    """With a clock of 1978, one second less lies eight years ahead."""
    received = datetime(1978, 7, 5, tzinfo=UTC)

    outcome = send(json.dumps([{"n": "amount", "v": 1, "t": seconds}]).encode(), at=received)

    assert outcome is (STORED if moment else PARTIAL)
    assert meter.readings.get().timestamp == (moment or received)


def test_a_long_base_name_costs_its_length_once():
    """It applies to every record. If each record read it again, this pack would take minutes."""
    records = [{"bn": "x" * 500_000, "n": "a", "v": 1}, {"n": "b", "v": 1}, {"n": "c", "v": 1}]
    notes = []

    found = [record.name for record in senml.resolve(records, {}, notes)]

    assert [name[-1] for name in found] == ["a", "b", "c"]
    assert max(map(len, found)) <= 257
    assert notes == []
