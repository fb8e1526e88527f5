"""The one door for messages: what each payload becomes, and that no message harms another.

`NOW` is when every message is received, so nothing here depends on the clock. The same on SQLite and PostgreSQL.
"""

import base64
import json
import random
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from django.test.utils import isolate_apps
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devicehub import DeviceType, Reading, StateField, reading_types, signals
from devicehub.ingest import pipeline as door
from devicehub.ingest import store
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages.message import MAX_KEPT, Message, Outcome, Reason
from devicehub.models import DeviceCommand, QuarantinedMessage
from devicehub.mqtt import Delivery
from devicehub.worker.loop import Worker
from fleet.devices import IrrigationValve, WeatherStation
from fleet.models import (
    IrrigationValveDevice,
    WeatherStationDevice,
    WeatherStationReading,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EARLIER = NOW - HOUR
STORED, PARTIAL, FAILED, DUPLICATE, RETAINED = Outcome

a_few_hundred = settings(
    deadline=None, database=None, suppress_health_check=list(HealthCheck), max_examples=250
)


@pytest.fixture
def station(db):
    """Ours."""
    return WeatherStationDevice.objects.create(device_id="STATION-001")


@pytest.fixture
def neighbour(db):
    """Whom nothing that `station` sends may touch."""
    return WeatherStationDevice.objects.create(device_id="STATION-002")


@pytest.fixture
def valve(db):
    return IrrigationValveDevice.objects.create(device_id="VALVE-001")


@pytest.fixture(scope="module")
def probe_kind(django_db_setup, django_db_blocker):
    """A kind with a reading of each type, in tables of its own."""

    class Probe(DeviceType):
        other = Reading(type=reading_types.FLOAT)
        amount = Reading(type=reading_types.FLOAT)
        count = Reading(type=reading_types.INTEGER)
        wet = Reading(type=reading_types.BOOLEAN)
        label = Reading(type=reading_types.STRING)
        extra = Reading(type=reading_types.JSON)
        raw = Reading(type=reading_types.BINARY)
        low = Reading(type=reading_types.INTEGER, range=(None, 10))

        layout = StateField(type="json", default={})
        depth = StateField(type="float")

    with isolate_apps("fleet", "authsvc"):
        models = Probe.create_models(module="fleet.models")
    with django_db_blocker.unblock():
        with connection.schema_editor() as editor:
            for model in models:
                editor.create_model(model)
        yield registry.get("probe")
        with connection.schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)
    registry.unregister("probe")


@pytest.fixture
def probe(probe_kind, db):
    return probe_kind.device_model.objects.create(device_id="PROBE-001")


@pytest.fixture
def heard(monkeypatch):
    """What hooks and signals were told, in order, as (who, what, device id, ...)."""
    told = []
    hooks = ("on_data", "on_status_change", "on_connect", "on_disconnect", "on_command_response")
    for device_type in (WeatherStation, IrrigationValve):
        for name in hooks:

            def hook(self, device, *arguments, name=name):
                told.append(("hook", name, device.device_id, *arguments))

            monkeypatch.setattr(device_type, name, hook)
    receivers = []
    for name in ("data_received", "status_changed", "connected", "disconnected"):

        def receiver(sender, signal, device, name=name, **arguments):
            assert sender is type(device)._device_type_cls
            arguments.pop("message", None)
            told.append(("signal", name, device.device_id, *arguments.values()))

        signal = getattr(signals, f"device_{name}")
        signal.connect(receiver)
        receivers.append((signal, receiver))
    yield told
    for signal, receiver in receivers:
        signal.disconnect(receiver)


def message(device, payload, about="data", *, at=NOW, **options):
    """A message of *device*; what is no bytes is sent as JSON."""
    slug = type(device)._device_type_cls.get_slug()
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Message(f"things/{slug}/{device.device_id}/{about}", body, at, **options)


def send(device, payload, about="data", **options):
    [outcome] = pipeline([message(device, payload, about, **options)])
    return outcome


def readings(device, columns=None):
    """The rows of *device*, oldest first, as dicts of what is not null."""
    names = columns or list(type(device)._device_type_cls._readings)
    rows = device.readings.order_by("id").values("timestamp", *names)
    return [{n: _plain(v) for n, v in row.items() if v is not None} for row in rows]


def _plain(value):
    return bytes(value) if isinstance(value, memoryview) else value


def kept(device):
    """The one message row of *device*."""
    return device.messages.get()


def fresh(device):
    return type(device).objects.get(pk=device.pk)


def iso(moment):
    return moment.isoformat()


# --- Forms of a payload


def case(outcome, payload, *rows, reason=None, notes=()):
    return SimpleNamespace(payload=payload, outcome=outcome, rows=rows, reason=reason, notes=notes)


def row(timestamp=NOW, **values):
    return {"timestamp": timestamp, **values}


def failed(payload, reason):
    return case(FAILED, payload, reason=reason)


FOUR = [{"type": "humidity", "value": 4}]
FORMS = {
    "flat": case(STORED, {"temperature": 25.3, "humidity": 40}, row(temperature=25.3, humidity=40.0)),
    "flat with a time": case(
        STORED, {"temperature": 25.3, "timestamp": iso(EARLIER)}, row(EARLIER, temperature=25.3)
    ),
    "white space around": case(STORED, b' \r\n\t{"temperature": 1}\n ', row(temperature=1.0)),
    "list": case(
        STORED,
        {"readings": [{"type": "temperature", "value": 1}, {"type": "humidity", "value": 2}]},
        row(temperature=1.0, humidity=2.0),
    ),
    "list with one time for all": case(
        STORED,
        {"timestamp": iso(EARLIER), "readings": [{"type": "temperature", "value": 1}]},
        row(EARLIER, temperature=1.0),
    ),
    "list with times of its own": case(
        STORED,
        {
            "timestamp": iso(EARLIER),
            "readings": [
                {"type": "temperature", "value": 1},
                {"type": "temperature", "value": 2, "timestamp": iso(EARLIER - HOUR)},
                {"type": "humidity", "value": 3},
            ],
        },
        row(EARLIER, temperature=1.0, humidity=3.0),
        row(EARLIER - HOUR, temperature=2.0),
    ),
    "list with entries that are none": case(
        PARTIAL,
        {"readings": [5, {"type": "temperature"}, {"value": 3}, {"type": 7, "value": 3}, None, *FOUR]},
        row(humidity=4.0),
        notes=["readings[0]", "readings[1]", "readings[2]", "readings[3]", "readings[4]"],
    ),
    "list and a value beside it": case(
        PARTIAL,
        {"temperature": 7, "readings": [{"type": "humidity", "value": 4}]},
        row(humidity=4.0),
        notes=["temperature"],
    ),
    "array of samples": case(
        STORED,
        [
            {"temperature": 1, "timestamp": iso(EARLIER)},
            {"temperature": 2, "timestamp": iso(EARLIER + HOUR / 2)},
        ],
        row(EARLIER, temperature=1.0),
        row(EARLIER + HOUR / 2, temperature=2.0),
    ),
    "array whose entries share a time": case(
        STORED,
        [{"temperature": 1, "timestamp": iso(EARLIER)}, {"humidity": 2, "timestamp": iso(EARLIER)}],
        row(EARLIER, temperature=1.0, humidity=2.0),
    ),
    "array that shares an instant written in two ways": case(
        STORED,
        [
            {"temperature": 1, "timestamp": "2026-03-01T11:00:00Z"},
            {"humidity": 2, "timestamp": "2026-03-01T13:00:00+02:00"},
            {"rainfall": 3, "timestamp": int(EARLIER.timestamp())},
        ],
        row(EARLIER, temperature=1.0, humidity=2.0, rainfall=3.0),
    ),
    "array without times": case(
        STORED, [{"temperature": 1}, {"humidity": 2}], row(temperature=1.0, humidity=2.0)
    ),
    "one name twice at one time": case(
        PARTIAL,
        [{"temperature": 1, "timestamp": iso(EARLIER)}, {"temperature": 2, "timestamp": iso(EARLIER)}],
        row(EARLIER, temperature=2.0),
        notes=["temperature: given twice"],
    ),
    "a null after a value at one time": case(
        STORED,
        [
            {"temperature": 1, "timestamp": iso(EARLIER)},
            {"temperature": None, "humidity": 2, "timestamp": iso(EARLIER)},
        ],
        row(EARLIER, temperature=1.0, humidity=2.0),
    ),
    "one sample of an array is bad": case(
        PARTIAL,
        [
            {"temperature": 999, "timestamp": iso(EARLIER)},
            {"temperature": 2, "timestamp": iso(EARLIER + HOUR / 2)},
        ],
        row(EARLIER + HOUR / 2, temperature=2.0),
        notes=["temperature: 999 is outside -40..80 Cel"],
    ),
    "unknown field": case(
        PARTIAL, {"temperature": 1, "wind": 3}, row(temperature=1.0), notes=["wind: not declared"]
    ),
    "names of columns": case(
        PARTIAL,
        {"temperature": 1, "device": 2, "device_id": 2, "id": 1, "pk": 1, "received_at": "x", "is_active": 0},
        row(temperature=1.0),
        notes=["device:", "device_id:", "id:", "pk:", "received_at:", "is_active:"],
    ),
    "names in other letters": case(
        PARTIAL, {"Temperature": 1, "humidity ": 2, "rainfall": 3}, row(rainfall=3.0)
    ),
    "null is absent": case(STORED, {"temperature": None, "humidity": 2}, row(humidity=2.0)),
    "all bad values but one": case(
        PARTIAL,
        {"temperature": "25", "humidity": True, "rainfall": 0},
        row(rainfall=0.0),
        notes=["temperature: is no number", "humidity: is no number"],
    ),
    "a NUL in an undeclared text": case(
        PARTIAL, {"temperature": 1, "x": "a\0b"}, row(temperature=1.0), notes=["x: not declared"]
    ),
    "a NUL in an undeclared name": case(
        PARTIAL, {"temperature": 1, "a\0b": 2}, row(temperature=1.0), notes=["not declared"]
    ),
    "a backslash before u0000": case(
        PARTIAL, b'{"temperature": 1, "x": "\\\\u0000"}', row(temperature=1.0), notes=["x: not declared"]
    ),
    "a name of 10,000 letters": case(
        PARTIAL, {"temperature": 1, "x" * 10_000: 2}, row(temperature=1.0), notes=["xxx"]
    ),
    "as deep as is read": case(
        PARTIAL, b'{"temperature": 1, "x": ' + b"[" * 99 + b"]" * 99 + b"}", row(temperature=1.0)
    ),
    "one level deeper": failed(b'{"temperature": 1, "x": ' + b"[" * 100 + b"]" * 100 + b"}", Reason.NOT_JSON),
    "nothing but a time": failed({"timestamp": iso(EARLIER)}, Reason.NO_VALUE),
    "nothing": failed({}, Reason.NO_VALUE),
    "empty array": failed([], Reason.NO_VALUE),
    "array of nothing": failed([{}, {}], Reason.NO_VALUE),
    "empty list": failed({"readings": []}, Reason.NO_VALUE),
    "only null": failed({"temperature": None}, Reason.NO_VALUE),
    "only bad values": failed({"temperature": 999, "humidity": "x"}, Reason.NO_VALUE),
    "only unknown fields": failed({"wind": 1}, Reason.NO_VALUE),
    "only an unknown field with a NUL": failed({"wi\0nd": 1}, Reason.NO_VALUE),
    "a number": failed(25.3, Reason.NOT_A_READING),
    "a text": failed("online", Reason.NOT_A_READING),
    "null": failed(None, Reason.NOT_A_READING),
    "true": failed(True, Reason.NOT_A_READING),
    "array of numbers": failed([1, 2], Reason.NOT_A_READING),
    "array with one number": case(
        PARTIAL,
        [{"temperature": 1}, 2],
        row(temperature=1.0),
        notes=["entry 1: is a number or something else, not an object"],
    ),
    "array with one odd list": case(
        PARTIAL,
        [{"readings": 5}, {"temperature": 1}],
        row(temperature=1.0),
        notes=["entry 0: readings is a number or something else, not a list"],
    ),
    "array in an array": failed([[{"temperature": 1}]], Reason.NOT_A_READING),
    "readings is no list": failed({"readings": {"temperature": 1}}, Reason.NOT_A_READING),
    "readings is no list, and a value beside it": case(
        PARTIAL,
        {"readings": 5, "temperature": 1},
        row(temperature=1.0),
        notes=["readings is a number or something else, not a list"],
    ),
    "readings is null": case(STORED, {"readings": None, "temperature": 1}, row(temperature=1.0)),
    "readings is null and alone": failed({"readings": None}, Reason.NO_VALUE),
    "a null beside readings": case(STORED, {"x": None, "readings": FOUR}, row(humidity=4.0)),
    "no time, and the time of receipt": case(
        STORED,
        [{"temperature": 1}, {"humidity": 2, "timestamp": iso(NOW)}],
        row(temperature=1.0, humidity=2.0),
    ),
    "empty body": failed(b"", Reason.NOT_JSON),
    "white space only": failed(b" \n", Reason.NOT_JSON),
    "text": failed(b"temperature=25", Reason.NOT_JSON),
    "half a document": failed(b'{"temperature": 25', Reason.NOT_JSON),
    "two documents": failed(b'{"temperature": 1}{"temperature": 2}', Reason.NOT_JSON),
    "single quotes": failed(b"{'temperature': 1}", Reason.NOT_JSON),
    "a comma too many": failed(b'{"temperature": 1,}', Reason.NOT_JSON),
    "byte order mark": case(STORED, b'\xef\xbb\xbf{"temperature": 1}', row(temperature=1.0)),
    "UTF-16": failed('{"temperature": 1}'.encode("utf-16"), Reason.NOT_JSON),
    "not UTF-8": failed(b'{"temperature": 1, "x": "\xff"}', Reason.NOT_JSON),
    "an over-long NUL": failed(b'{"temperature": 1, "x": "\xc0\x80"}', Reason.NOT_JSON),
    "a surrogate in UTF-8": failed(b'{"temperature": 1, "x": "\xed\xa0\x80"}', Reason.NOT_JSON),
    "a raw NUL": failed(b'{"temperature": 1, "x": "a\x00b"}', Reason.NOT_JSON),
    "a NUL behind it": failed(b'{"temperature": 1}\x00', Reason.NOT_JSON),
    "NaN": failed(b'{"temperature": NaN}', Reason.NO_VALUE),
    "Infinity": failed(b'{"temperature": -Infinity}', Reason.NO_VALUE),
    "1e400": case(
        PARTIAL,
        b'{"temperature": 1e400, "humidity": 2}',
        row(humidity=2.0),
        notes=["temperature: is no finite number"],
    ),
    "5,000 digits": failed(b'{"temperature": ' + b"1" * 5000 + b"}", Reason.NO_VALUE),
    "a lone surrogate": case(PARTIAL, b'{"temperature": 1, "x": "\\ud800"}', row(temperature=1.0)),
    "binary": failed(bytes(range(256)), Reason.NOT_JSON),
    "nested beyond every limit": failed(b"[" * 100_000, Reason.NOT_JSON),
    "nested and closed": failed(b"[" * 5000 + b"]" * 5000, Reason.NOT_JSON),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_payload_has_its_outcome(station, form):
    outcome = send(station, form.payload)

    row = kept(station)
    assert (outcome, row.outcome) == (form.outcome, form.outcome), row.processing_error
    assert readings(station) == list(form.rows)
    for note in form.notes:
        assert any(note in written for written in row.notes), row.notes
    assert bool(row.notes) or outcome is not PARTIAL
    quarantined = QuarantinedMessage.objects.first()
    if outcome is FAILED:
        assert quarantined.reason == form.reason
        assert row.processing_status == "failed"
        assert row.processing_error.startswith(f"{form.reason}: ")
    else:
        assert quarantined is None
        assert row.processing_status == "completed"
        assert row.processing_error == ""


@pytest.mark.parametrize("depth", [10, 100, 400, 500, 900, 950, 990, 1000, 1010, 1021])
@pytest.mark.parametrize("about", ["data", "status", "reply"])
def test_no_depth_of_nesting_stops_the_batch(probe, station, depth, about):
    """The parser goes 1,024 levels deep; whatever comes after it must hold that or refuse it."""
    deep = b"[" * depth + b"]" * depth
    body = {
        "data": b'{"other": 1, "extra": %b, "x": %b}',
        "status": b'{"battery_level": 5, "layout": %b, "x": %b}',
        "reply": b'{"id": "1", "ok": true, "result": %b, "x": %b}',
    }[about] % (deep, deep)

    outcomes = pipeline([message(probe, body, about), message(station, {"temperature": 1})])

    assert outcomes[0] in (STORED, PARTIAL, FAILED)
    assert outcomes[1] is STORED
    assert len(readings(station)) == 1
    assert probe.messages.count() == 1


def test_of_a_name_twice_in_one_object_the_last_counts(station):
    body = b'{"temperature": 1, "temperature": 2}'

    assert send(station, body) is PARTIAL
    assert readings(station) == [row(temperature=2.0)]
    assert kept(station).notes == ["temperature: given twice, the last counts"]
    assert bytes(kept(station).payload_raw) == body


def test_a_message_with_ten_thousand_unknown_fields_keeps_its_value_and_few_notes(station):
    assert send(station, {"temperature": 1} | {f"x{n}": n for n in range(10_000)}) is PARTIAL

    assert readings(station) == [row(temperature=1.0)]
    assert len(kept(station).notes) <= 100


# --- Times

TIMES = {
    "ISO with Z": ("2026-03-01T11:00:00Z", EARLIER),
    "ISO with an offset": ("2026-03-01T16:30:00+05:30", EARLIER),
    "ISO west of Greenwich": ("2026-03-01T03:00:00-08:00", EARLIER),
    "ISO without a zone is UTC": ("2026-03-01T11:00:00", EARLIER),
    "ISO with a blank": ("2026-03-01 11:00:00", EARLIER),
    "ISO with milliseconds": ("2026-03-01T11:00:00.250Z", EARLIER + timedelta(milliseconds=250)),
    "seconds": (int(EARLIER.timestamp()), EARLIER),
    "seconds with a fraction": (EARLIER.timestamp() + 0.25, EARLIER + timedelta(milliseconds=250)),
    "milliseconds": (int(EARLIER.timestamp() * 1000), EARLIER),
    "milliseconds as float": (EARLIER.timestamp() * 1000, EARLIER),
    "now": (iso(NOW), NOW),
    "five minutes ahead": (iso(NOW + timedelta(minutes=5)), NOW + timedelta(minutes=5)),
    "nearly ten years old": (iso(NOW - timedelta(days=3650)), NOW - timedelta(days=3650)),
    "a second too far ahead": (iso(NOW + timedelta(minutes=5, seconds=1)), None),
    "an hour ahead": (iso(NOW + HOUR), None),
    "eleven years old": (iso(NOW - timedelta(days=11 * 366)), None),
    "a clock that was never set": (0, None),
    "1970 in text": ("1970-01-01T00:00:00Z", None),
    "negative": (-1, None),
    "microseconds": (int(EARLIER.timestamp() * 1e6), None),
    "beyond all years": (2**63, None),
    "far beyond all years": (1e300, None),
    "the year 1, west": ("0001-01-01T00:00:00+14:00", None),
    "the last year, east": ("9999-12-31T23:59:59-14:00", None),
    "true": (True, None),
    "null": (None, None),
    "empty": ("", None),
    "a word": ("yesterday", None),
    "seconds in text": (str(int(EARLIER.timestamp())), None),
    "other digits": ("٢٠٢٦-03-01T11:00:00Z", None),
    "no such day": ("2026-02-30T11:00:00Z", None),
    "a list": ([2026, 3, 1], None),
}


@pytest.mark.parametrize(("sent", "moment"), TIMES.values(), ids=TIMES)
def test_the_time_of_a_reading(station, sent, moment):
    """One that cannot be used is replaced by the time of receipt, and the message says so."""
    outcome = send(station, {"temperature": 1, "timestamp": sent})

    [reading] = readings(station)
    message_row = kept(station)
    assert reading["temperature"] == 1
    if moment is not None:
        assert reading["timestamp"] == moment
        assert (outcome, message_row.notes) == (STORED, [])
        assert len(message_row.digest) == 64
    else:
        assert reading["timestamp"] == NOW
        assert outcome is PARTIAL
        assert "time of receipt" in message_row.notes[0]
        assert message_row.digest is None


def test_an_unusable_time_in_a_buffer_spoils_only_its_own_sample(station):
    buffered = [
        {"temperature": 1, "timestamp": iso(EARLIER)},
        {"temperature": 2, "timestamp": "garbage"},
        {"temperature": 3, "timestamp": iso(EARLIER + HOUR / 2)},
    ]

    assert send(station, buffered) is PARTIAL

    assert readings(station) == [
        row(EARLIER, temperature=1.0),
        row(NOW, temperature=2.0),
        row(EARLIER + HOUR / 2, temperature=3.0),
    ]


# --- Values

VALUES = {
    "temperature": {b"-40": -40.0, b"80": 80.0, b"-40.0": -40.0, b"0": 0.0, b"-0.0": 0.0, b"2.5e1": 25.0}
    | dict.fromkeys((b"-40.01", b"80.000001", b"1e308", b"-1e308", b"9999"), ValueError),
    "amount": {
        b"5e-324": 5e-324,
        b"1.7976931348623157e308": 1.7976931348623157e308,
        b"18446744073709551615": float(2**64 - 1),
        b"18446744073709551616": float(2**64),
        b"0.1": 0.1,
    }
    | dict.fromkeys(
        (b"true", b"false", b'"25"', b'"NaN"', b'""', b"[]", b"[1]", b"{}", '"٢٥"'.encode()), ValueError
    ),
    "count": {b"0": 0, b"-9223372036854775808": -(2**63), b"9223372036854775807": 2**63 - 1}
    | dict.fromkeys(
        (
            b"9223372036854775808",
            b"-9223372036854775809",
            b"18446744073709551615",
            b"18446744073709551616",
            b"25.0",
            b"25.5",
            b"1e3",
            b"true",
            b'"25"',
            b"[]",
        ),
        ValueError,
    ),
    "low": {b"10": 10, b"-9223372036854775808": -(2**63), b"11": ValueError},
    "wet": {b"true": True, b"false": False}
    | dict.fromkeys((b"1", b"0", b'"true"', b'""', b"[]"), ValueError),
    "label": {
        b'""': "",
        b'"NaN"': "NaN",
        b'"' + b"x" * 255 + b'"': "x" * 255,
        b'"' + "😀".encode() * 255 + b'"': "😀" * 255,
        b'"\\ud83d\\ude00"': "😀",
        b'"\\n\\u001b[31m"': "\n\x1b[31m",
        b'"=1+1"': "=1+1",
    }
    | dict.fromkeys(
        (b'"' + b"x" * 256 + b'"', b'"a\\u0000b"', b'"\\u0000"', b"5", b"true", b"[]"), ValueError
    ),
    "extra": {
        b"{}": {},
        b"[]": [],
        b"0": 0,
        b"false": False,
        b'""': "",
        b'{"a": [1, null, {"b": "c"}]}': {"a": [1, None, {"b": "c"}]},
        b"18446744073709551615": 2**64 - 1,
        b"[1.5, -2.5e-3]": [1.5, -0.0025],
    }
    | dict.fromkeys(
        (b'"a\\u0000"', b'["\\u0000"]', b'{"\\u0000": 1}', b'{"a": {"b": "\\u0000"}}'), ValueError
    ),
    "raw": {b'"aGk="': b"hi", b'""': b"", b'"AAECAw=="': b"\x00\x01\x02\x03", b'"//79"': b"\xff\xfe\xfd"}
    | dict.fromkeys(
        (b'"aGk"', b'"aG k="', b'"aGk=\\n"', b'"_-8="', b'"a"', b'"\\u00e4\\u00e4\\u00e4="', b"5", b"[]"),
        ValueError,
    ),
}
VALUE_CASES = [(name, sent, kept) for name, sents in VALUES.items() for sent, kept in sents.items()]


@pytest.mark.parametrize(
    ("name", "sent", "expected"), VALUE_CASES, ids=[f"{n} {ascii(s[:24])[2:-1]}" for n, s, _ in VALUE_CASES]
)
def test_the_exact_type_and_range_of_a_value(probe, station, name, sent, expected):
    """What does not fit is dropped with its reason; what came beside it is kept."""
    device, other = (station, "rainfall") if name == "temperature" else (probe, "other")
    outcome = send(device, b'{"%b": 1.5, "%b": %b}' % (other.encode(), name.encode(), sent))

    notes = kept(device).notes
    if expected is ValueError:
        assert readings(device) == [row(**{other: 1.5})]
        assert outcome is PARTIAL
        assert [note.partition(":")[0] for note in notes] == [name]
    else:
        assert readings(device) == [row(**{other: 1.5, name: expected})]
        assert type(readings(device)[0][name]) is type(expected)
        assert (outcome, notes) == (STORED, [])


def test_a_binary_value_comes_back_byte_for_byte(probe):
    everything = bytes(range(256)) * 40

    assert send(probe, {"raw": base64.b64encode(everything).decode()}) is STORED

    assert readings(probe) == [row(raw=everything)]


def test_a_required_value_that_is_missing_is_noted_and_the_others_are_kept(station, monkeypatch):
    monkeypatch.setattr(WeatherStation._readings["temperature"], "required", True)

    assert send(station, {"humidity": 40}) is PARTIAL
    assert readings(station) == [row(humidity=40.0)]
    assert kept(station).notes == ["temperature: required and missing"]


@pytest.mark.parametrize("value", [None, 999, "x"])
def test_a_required_value_that_is_bad_is_missing(station, monkeypatch, value):
    monkeypatch.setattr(WeatherStation._readings["temperature"], "required", True)

    assert send(station, {"temperature": value, "humidity": 40}) is PARTIAL
    assert readings(station) == [row(humidity=40.0)]
    assert "temperature: required and missing" in kept(station).notes


# --- Topics and devices

UNKNOWN_TOPICS = [
    "",
    "/",
    "data",
    "things/weatherstation/STATION-001",
    "things/weatherstation/STATION-001/data/",
    "things/weatherstation/STATION-001/data/x",
    "/things/weatherstation/STATION-001/data",
    "things//STATION-001/data",
    "things/weatherstation//data",
    "Things/weatherstation/STATION-001/data",
    "things/WeatherStation/STATION-001/data",
    "things/weatherstation/STATION-001/DATA",
    "things/weatherstation/STATION-001/telemetry",
    "things/weatherstation/STATION-001 /data",
    "things/weatherstation/+/data",
    "things/weatherstation/STATION-001/#",
    "things/weatherstation/STATION-001\0/data",
    "things/weatherstation/STATION-001/data\n",
    "things/windmill/STATION-001/data",
    "$share/x/things/weatherstation/STATION-001/data",
    "$SYS/broker/uptime",
    "things/weatherstation/ST\udc80/data",
    "x/" * 30_000,
]


@pytest.mark.parametrize("topic", UNKNOWN_TOPICS, ids=lambda topic: ascii(topic)[:50])
def test_a_message_on_no_topic_of_ours_is_quarantined(station, topic):
    assert pipeline([Message(topic, b'{"temperature": 1}', NOW)]) == [FAILED]

    row = QuarantinedMessage.objects.get()
    assert (row.reason, row.device_key, bytes(row.payload)) == ("unknown_topic", "", b'{"temperature": 1}')
    assert readings(station) == []
    assert not station.messages.exists()


def test_a_message_of_an_unknown_device_is_quarantined(station):
    topic = "things/weatherstation/STRANGER/data"

    assert pipeline([Message(topic, b"\x00\xff", NOW, content_type="x/y")]) == [FAILED]

    row = QuarantinedMessage.objects.get()
    assert (row.reason, row.device_key, row.topic) == ("unknown_device", "weatherstation/STRANGER", topic)
    assert (bytes(row.payload), row.content_type, row.received_at) == (b"\x00\xff", "x/y", NOW)
    assert row.detail
    assert row.replayed_at is None


def test_a_device_id_is_exact_and_belongs_to_its_kind(station, valve):
    topics = [
        "things/weatherstation/station-001/data",
        "things/weatherstation/VALVE-001/data",
        "things/irrigationvalve/STATION-001/data",
    ]

    assert pipeline([Message(topic, b'{"temperature": 1}', NOW) for topic in topics]) == [FAILED] * 3

    assert {row.reason for row in QuarantinedMessage.objects.all()} == {"unknown_device"}


@pytest.mark.parametrize("about", ["data", "status", "reply", "cmd"])
def test_what_a_disabled_device_sends_is_kept_but_not_stored(station, heard, about):
    WeatherStationDevice.objects.update(is_active=False)

    assert send(station, {"temperature": 1, "status": "online", "id": "1"}, about) is FAILED

    assert readings(station) == []
    assert QuarantinedMessage.objects.get().reason == "disabled_device"
    assert kept(station).outcome == "failed"
    assert (fresh(station).last_seen, fresh(station).status) == (None, "offline")
    assert heard == []


@pytest.mark.parametrize(
    "payload", [{"id": str(uuid.uuid4()), "command": "reboot", "payload": {}}, b"reboot"]
)
def test_a_message_on_a_command_topic_is_nothing_that_a_device_says(station, payload):
    assert send(station, payload, "cmd") is FAILED

    assert QuarantinedMessage.objects.get().reason == "unknown_topic"
    assert kept(station).outcome == "failed"


def test_who_a_message_is_from_is_in_its_topic_only(station, neighbour):
    assert send(station, {"temperature": 1, "device_id": "STATION-002", "device": neighbour.pk}) is PARTIAL

    assert len(readings(station)) == 1
    assert readings(neighbour) == []


# --- One message and its batch

POISON = {
    **{name: form.payload for name, form in FORMS.items() if form.outcome in (FAILED, PARTIAL)},
    **{f"{depth} levels": b'{"x":' * depth + b"1" + b"}" * depth for depth in (500, 960, 1000, 1023)},
    "2 MiB": b'{"temperature": 1, "x": "' + b"x" * (2 << 20) + b'"}',
}


@pytest.mark.parametrize("payload", POISON.values(), ids=POISON)
def test_one_bad_message_never_harms_its_batch(station, neighbour, payload):
    batch = [
        message(neighbour, {"temperature": 1}),
        message(station, payload),
        message(station, payload, "status"),
        message(station, payload, "reply"),
        message(neighbour, {"temperature": 2}),
    ]

    outcomes = pipeline(batch)

    assert (outcomes[0], outcomes[-1]) == (STORED, STORED)
    assert readings(neighbour) == [row(temperature=1.0), row(temperature=2.0)]
    assert station.messages.count() == 3
    assert QuarantinedMessage.objects.count() == outcomes.count(FAILED)


def test_a_megabyte_of_strays_leaves_few_notes(station):
    """Notes cost memory, of every message in a batch."""
    assert send(station, b'[{"temperature": 1}' + b",1" * 500_000 + b"]") is PARTIAL

    assert len(kept(station).notes) == 51
    assert kept(station).notes[-1] == "and 499950 more"


@pytest.mark.parametrize("payload", [b"junk", b"", {"nothing": 1}])
def test_a_retained_copy_that_cannot_be_used_is_not_kept_again_and_again(station, payload):
    """It comes with every new subscription."""
    assert send(station, payload, retain=True) is RETAINED
    assert pipeline([Message("things/weatherstation/STRANGER/data", b"{}", NOW, retain=True)]) == [RETAINED]
    assert not QuarantinedMessage.objects.exists()
    assert not station.messages.exists()


def test_all_bad_messages_at_once_leave_the_good_ones(station, neighbour):
    """In one shuffled batch, with unknown topics and devices between them."""
    bad = [message(station, form.payload) for form in FORMS.values() if form.outcome is FAILED]
    bad += [Message(topic, b"{}", NOW) for topic in UNKNOWN_TOPICS]
    bad += [Message("things/weatherstation/STRANGER/data", b"{}", NOW)] * 3
    good = [message(neighbour, {"temperature": number}) for number in range(40)]
    batch = bad + good
    random.Random(7).shuffle(batch)

    outcomes = pipeline(batch)

    assert Counter(outcomes) == {FAILED: len(bad), STORED: 40}
    assert sorted(reading["temperature"] for reading in readings(neighbour)) == list(range(40))
    assert QuarantinedMessage.objects.count() == len(bad)


def test_an_empty_batch_is_nothing(db):
    assert pipeline([]) == []


def test_a_batch_costs_the_same_number_of_queries_whatever_its_size(
    station, neighbour, django_assert_max_num_queries
):
    """Besides the saving of each device, which is one for each that spoke."""
    batch = [
        message(device, {"temperature": number, "timestamp": iso(EARLIER + timedelta(seconds=number))})
        for number in range(40)
        for device in (station, neighbour)
    ]

    with django_assert_max_num_queries(14):
        outcomes = pipeline(batch)

    assert Counter(outcomes) == {STORED: 80}


@pytest.fixture
def refusing_database(monkeypatch):
    """A database that refuses whatever holds the word poison unless it has failed already."""
    write = store.write

    @transaction.atomic
    def picky(batch):
        write(batch)
        if any(b"poison" in item.message.payload and item.outcome is not FAILED for item in batch):
            raise IntegrityError("poison")

    monkeypatch.setattr(store, "write", picky)


def test_what_the_database_refuses_is_one_failed_message(station, neighbour, refusing_database, heard):
    batch = [
        message(neighbour, {"temperature": 1}),
        message(station, {"temperature": 5, "x": "poison"}),
        message(neighbour, b"not JSON"),
        Message("nowhere", b"{}", NOW),
        message(neighbour, {"temperature": 2}),
    ]

    assert pipeline(batch) == [STORED, FAILED, FAILED, FAILED, STORED]

    assert readings(station) == []
    assert readings(neighbour) == [row(temperature=1.0), row(temperature=2.0)]
    refused = QuarantinedMessage.objects.get(reason="unstorable")
    assert refused.device_key == "weatherstation/STATION-001"
    assert b"poison" in bytes(refused.payload)
    assert QuarantinedMessage.objects.count() == 3
    assert not [told for told in heard if told[2] == "STATION-001"]


def test_what_the_database_refuses_is_still_a_message_of_its_device(station, refusing_database):
    """A message of a known device is always a row of its messages (design, 5)."""
    send(station, {"temperature": 5, "x": "poison"})

    assert kept(station).outcome == "failed"
    assert kept(station).processing_error.startswith("unstorable: ")


def test_what_the_database_refuses_changes_nothing_on_its_device(station, refusing_database):
    """Not even together with what it stores of the same device in the same batch."""
    batch = [
        message(station, {"status": "online", "battery_level": 90}, "status"),
        message(station, {"status": "error", "battery_level": 5, "x": "poison"}, "status"),
    ]

    assert pipeline(batch) == [STORED, FAILED]

    device = fresh(station)
    assert (device.status, device.battery_level) == ("online", 90)


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("disk is full"),
        OperationalError("locked"),
        OSError(24, "no more files"),
        MemoryError(),
    ],
)
def test_a_database_that_cannot_store_raises_and_tells_nobody(station, heard, monkeypatch, error):
    def broken(_items):
        raise error

    monkeypatch.setattr(store, "_write_rows", broken)

    with pytest.raises(type(error)):
        pipeline([message(station, {"temperature": 1}), Message("nowhere", b"{}", NOW)])

    assert not QuarantinedMessage.objects.exists()
    assert not station.messages.exists()
    assert fresh(station).last_seen is None
    assert heard == []


# --- Duplicates and retained messages


def test_a_message_with_a_device_time_is_stored_once(station, heard):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert [send(station, payload) for _ in range(3)] == [STORED, DUPLICATE, DUPLICATE]

    assert len(readings(station)) == 1
    assert station.messages.count() == 1
    assert not QuarantinedMessage.objects.exists()
    assert len([told for told in heard if told[1] == "on_data"]) == 1


def test_a_message_with_a_device_time_is_stored_once_in_one_batch(station, heard):
    twice = message(station, {"temperature": 1, "timestamp": iso(EARLIER)})
    other = message(station, {"temperature": 2})

    assert pipeline([twice, other, twice, twice]) == [STORED, STORED, DUPLICATE, DUPLICATE]

    assert [reading["temperature"] for reading in readings(station)] == [1, 2]
    assert station.messages.count() == 2
    assert len([told for told in heard if told[1] == "on_data"]) == 2


def test_equal_messages_without_a_usable_device_time_are_two(station):
    for payload in ({"temperature": 1}, {"temperature": 1, "timestamp": "garbage"}):
        twice = message(station, payload)
        assert DUPLICATE not in pipeline([twice, twice])
        assert DUPLICATE not in pipeline([twice])

    assert len(readings(station)) == 6


def test_the_key_of_a_message_belongs_to_its_device(station, neighbour):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert pipeline([message(station, payload), message(neighbour, payload)]) == [STORED, STORED]
    assert pipeline([message(station, payload), message(neighbour, payload)]) == [DUPLICATE, DUPLICATE]


def test_two_messages_of_one_time_are_two(station):
    assert send(station, {"temperature": 1, "timestamp": iso(EARLIER)}) is STORED
    assert send(station, {"temperature": 2, "timestamp": iso(EARLIER)}) is STORED


def test_a_status_of_the_same_bytes_as_data_is_news(station):
    """A device that says all in one document may publish it on both topics."""
    document = {"temperature": 1, "status": "error", "timestamp": iso(EARLIER)}
    data, status = message(station, document), message(station, document, "status")

    assert pipeline([data, status]) == [PARTIAL, PARTIAL]
    assert pipeline([data, status]) == [DUPLICATE, DUPLICATE]
    assert fresh(station).reported_status == "error"


def test_a_failed_message_is_no_duplicate_of_itself(station):
    """It said nothing, so a second one is as worth looking at as the first."""
    bad = message(station, {"temperature": 999, "timestamp": iso(EARLIER)})

    assert pipeline([bad, bad]) == [FAILED, FAILED]
    assert pipeline([bad]) == [FAILED]
    assert QuarantinedMessage.objects.count() == 3


def test_a_replayed_status_changes_nothing(station, heard):
    old = {"status": "online", "battery_level": 90, "timestamp": iso(EARLIER)}
    send(station, old, "status")
    send(station, {"status": "offline", "battery_level": 5}, "status")
    before = fresh(station)
    heard.clear()

    assert send(station, old, "status", at=NOW + HOUR) is DUPLICATE

    after = fresh(station)
    assert (after.status, after.connected, after.battery_level) == ("offline", False, 5)
    assert after.last_seen == before.last_seen
    assert heard == []


def test_a_replayed_status_changes_nothing_together_with_a_new_message(station, heard):
    """The duplicate says online, the device is offline: data of the same batch brings it back."""
    old = {"status": "online", "timestamp": iso(EARLIER)}
    send(station, old, "status")
    send(station, {"status": "offline"}, "status")
    heard.clear()

    batch = [message(station, old, "status"), message(station, {"temperature": 1})]
    assert pipeline(batch) == [DUPLICATE, STORED]

    assert (fresh(station).connected, fresh(station).status) == (True, "online")
    assert [told[1] for told in heard].count("on_connect") == 1


def test_a_status_replayed_inside_a_batch_changes_nothing(station, heard):
    online = message(station, {"status": "online", "timestamp": iso(EARLIER)}, "status")
    offline = message(station, {"status": "offline", "timestamp": iso(EARLIER + HOUR / 2)}, "status")

    assert pipeline([online, offline, online]) == [STORED, STORED, DUPLICATE]

    assert (fresh(station).connected, fresh(station).status) == (False, "offline")
    assert "on_connect" not in [told[1] for told in heard]


@pytest.mark.parametrize(
    ("about", "payload"),
    [("data", {"temperature": 1}), ("status", {"status": "online"}), ("reply", {"id": "1", "ok": True})],
)
def test_a_retained_message_without_a_device_time_is_no_news(station, heard, about, payload):
    assert send(station, payload, about, retain=True) is RETAINED

    assert readings(station) == []
    assert not station.messages.exists()
    assert not QuarantinedMessage.objects.exists()
    assert (fresh(station).last_seen, fresh(station).status) == (None, "offline")
    assert heard == []


def test_a_retained_message_with_a_device_time_is_stored_unless_it_was_already(station):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert send(station, payload, retain=True) is STORED
    assert send(station, payload, retain=True) is DUPLICATE
    assert send(station, payload) is DUPLICATE
    assert readings(station) == [row(EARLIER, temperature=1.0)]


def test_a_retained_message_with_a_device_time_that_came_fresh_before_is_a_duplicate(station):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert send(station, payload) is STORED
    assert send(station, payload, retain=True) is DUPLICATE


def test_a_retained_message_that_cannot_be_used_is_no_duplicate_of_itself(station):
    """However it is cut into batches."""
    copy = message(station, {"temperature": 999, "timestamp": iso(EARLIER)}, retain=True)

    assert pipeline([copy, copy]) == [RETAINED, RETAINED]
    assert pipeline([copy]) == [RETAINED]


# --- Status

LONG_AGO = "0001-01-01T00:00:00+14:00"
STATUS = {
    "online": ({"status": "online"}, STORED, {"status": "online"}),
    "error": ({"status": "error"}, STORED, {"status": "error"}),
    "low battery": ({"status": "low_battery"}, STORED, {"status": "low_battery"}),
    "still offline": ({"status": "offline"}, STORED, {"reported_status": "offline"}),
    "maintenance": ({"status": "maintenance"}, FAILED, {}),
    "provisioning": ({"status": "provisioning"}, FAILED, {}),
    "maintenance beside": ({"status": "maintenance", "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "capitals": ({"status": "Online"}, STORED, {"status": "online"}),
    "unknown": ({"status": "sleeping", "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "empty status": ({"status": ""}, FAILED, {}),
    "long status": ({"status": "o" * 10_000}, FAILED, {}),
    "status with NUL": ({"status": "online\0"}, FAILED, {}),
    "a number": ({"status": 1}, FAILED, {}),
    "true": ({"status": True}, FAILED, {}),
    "a list": ({"status": ["online"]}, FAILED, {}),
    "battery 0": ({"battery_level": 0}, STORED, {"battery_level": 0}),
    "battery 100": ({"battery_level": 100}, STORED, {"battery_level": 100}),
    "battery 55.5": ({"battery_level": 55.5}, STORED, {"battery_level": 55.5}),
    "battery 101": ({"battery_level": 101}, FAILED, {}),
    "battery 100.0001": ({"battery_level": 100.0001}, FAILED, {}),
    "battery -1": ({"battery_level": -1}, FAILED, {}),
    "battery in text": ({"battery_level": "50"}, FAILED, {}),
    "battery true": ({"battery_level": True}, FAILED, {}),
    "battery 1e308": ({"battery_level": 1e308}, FAILED, {}),
    "battery text beside": ({"battery_level": "x", "status": "online"}, PARTIAL, {"status": "online"}),
    "firmware": ({"firmware_version": "1.2.3-ä"}, STORED, {"firmware_version": "1.2.3-ä"}),
    "firmware of 50": ({"firmware_version": "x" * 50}, STORED, {"firmware_version": "x" * 50}),
    "firmware of 51": ({"firmware_version": "x" * 51}, FAILED, {}),
    "firmware with NUL": ({"firmware_version": "1\0", "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "firmware number": ({"firmware_version": 1.2}, FAILED, {}),
    "a state with a choice": ({"mode": "manual"}, STORED, {"mode": "manual"}),
    "none of the choices": ({"mode": "open"}, FAILED, {}),
    "choice in capitals": ({"mode": "Manual"}, FAILED, {}),
    "choice with a NUL": ({"mode": "manual\0"}, FAILED, {}),
    "choice of a number": ({"opening": 75}, STORED, {"opening": 75}),
    "no such number": ({"opening": 30}, FAILED, {}),
    "number in text": ({"opening": "75"}, FAILED, {}),
    "number as float": ({"opening": 75.0}, FAILED, {}),
    "false is not 0": ({"opening": False}, FAILED, {}),
    "beyond 64 bits": ({"opening": 2**70}, FAILED, {}),
    "a date": ({"serviced_at": iso(EARLIER)}, STORED, {"serviced_at": EARLIER}),
    "a naive date is UTC": ({"serviced_at": "2026-03-01T11:00:00"}, STORED, {"serviced_at": EARLIER}),
    "an offset": ({"serviced_at": "2026-03-01T12:00:00+01:00"}, STORED, {"serviced_at": EARLIER}),
    "no date": ({"serviced_at": "soon"}, FAILED, {}),
    "no date of UTC": ({"serviced_at": LONG_AGO}, FAILED, {}),
    "a date as number": ({"serviced_at": 5}, FAILED, {}),
    "one bad of many": (
        {"mode": "manual", "opening": 30, "battery_level": 5, "status": "online"},
        PARTIAL,
        {"mode": "manual", "battery_level": 5, "status": "online"},
    ),
    "unknown field": ({"foo": 1, "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "unknown name with a NUL": ({"a\0b": 1, "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "only unknown": ({"foo": 1}, FAILED, {}),
    "only unknown with a NUL": ({"f\0o": 1}, FAILED, {}),
    "a reading": ({"flow": 1}, FAILED, {}),
    "columns that are not a device's to set": (
        {
            "battery_level": 5,
            "device_id": "X",
            "is_active": False,
            "mqtt_username": "x",
            "mqtt_password_hash": "x",
            "api_key": "x",
            "name": "x",
            "connected": True,
            "last_seen": iso(NOW + HOUR),
            "reported_status": "online",
            "metadata": {},
            "site": "x",
            "id": 99,
            "pk": 99,
        },
        PARTIAL,
        {"battery_level": 5},
    ),
    "an array": ([{"status": "online"}], FAILED, {}),
    "a text": ("online", STORED, {"status": "online"}),
    "null": (None, FAILED, {}),
    "bare text": (b"online", STORED, {"status": "online"}),
    "nothing": ({}, FAILED, {}),
    "only a time": ({"timestamp": iso(EARLIER)}, FAILED, {}),
}
SEEN = {"last_seen": NOW, "connected": True, "connected_changed_at": NOW, "status": "online"}
UNCLEAR = {"maintenance", "sleeping"}  # besides what is read


@pytest.mark.parametrize(("sent", "outcome", "changes"), STATUS.values(), ids=STATUS)
def test_each_status_has_its_outcome(valve, sent, outcome, changes):
    """And changes exactly what it may on its device. A status that cannot be read may be a will, and is not life."""
    before = vars(fresh(valve))

    assert send(valve, sent, "status") is outcome

    after = vars(fresh(valve))
    changed = {name: after[name] for name in after if after[name] != before[name] and name != "_state"}
    for name in ("updated_at", "reported_times"):
        changed.pop(name, None)
    if "status" in changes:
        changes = changes | {"reported_status": changes["status"]}
    is_unclear = outcome is FAILED or (isinstance(sent, dict) and sent.get("status") in UNCLEAR)
    if not is_unclear:
        alive = {} if changes.get("reported_status") == "offline" else SEEN
        changes = alive | changes | {"last_message_at": NOW}
    assert changed == changes
    row = kept(valve)
    assert row.outcome == outcome
    assert bool(row.notes) is (outcome is PARTIAL) or outcome is FAILED
    assert QuarantinedMessage.objects.count() == (outcome is FAILED)


@pytest.mark.parametrize("state", ["maintenance", "provisioning"])
@pytest.mark.parametrize(
    ("about", "payload", "connected"),
    [
        ("status", {"status": "online"}, True),
        ("status", {"status": "error"}, True),
        ("status", {"status": "offline"}, False),
        ("data", {"temperature": 1}, True),
    ],
)
def test_a_device_does_not_end_what_an_operator_set(station, heard, state, about, payload, connected):
    WeatherStationDevice.objects.update(status=state, connected=not connected)

    assert send(station, payload, about) is STORED

    device = fresh(station)
    assert device.status == state
    assert device.connected is connected
    assert device.reported_status == payload.get("status", "")
    assert "on_status_change" not in [told[1] for told in heard]


def test_a_state_that_an_operator_sets_while_a_batch_is_judged_stays(station, monkeypatch):
    """The batch was read before, and must not write back what it read."""
    load = store.load_devices

    def load_then_edit(wanted):
        devices = load(wanted)
        WeatherStationDevice.objects.update(status="maintenance")
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_edit)

    send(station, {"temperature": 1})

    assert fresh(station).status == "maintenance"


# --- When a device was heard


def test_when_a_device_was_heard_never_goes_back(station):
    send(station, {"temperature": 1, "timestamp": iso(NOW - HOUR)}, at=NOW)
    send(station, {"temperature": 2, "timestamp": iso(NOW - 5 * HOUR)}, at=NOW - 2 * HOUR)

    device = fresh(station)
    assert (device.last_seen, device.last_message_at, device.last_reading_at) == (NOW, NOW, NOW - HOUR)

    send(station, {"status": "online"}, "status", at=NOW - HOUR)
    send(station, {"id": "1", "ok": True}, "reply", at=NOW - HOUR)
    device = fresh(station)
    assert (device.last_seen, device.last_message_at, device.last_reading_at) == (NOW, NOW, NOW - HOUR)


def test_when_a_device_was_heard_never_goes_back_inside_a_batch(station):
    ages = [5, 1, 9, 3]
    pipeline(
        [
            message(station, {"temperature": 1, "timestamp": iso(NOW - age * HOUR)}, at=NOW - age * HOUR / 10)
            for age in ages
        ]
    )

    device = fresh(station)
    assert (device.last_seen, device.last_reading_at) == (NOW - HOUR / 10, NOW - HOUR)


def test_of_a_buffer_the_newest_sample_counts(station):
    send(
        station,
        [{"temperature": age, "timestamp": iso(NOW - age * HOUR)} for age in (3, 1, 2)],
    )

    assert fresh(station).last_reading_at == NOW - HOUR
    assert fresh(station).last_seen == NOW


def test_a_sample_without_a_device_time_counts_as_received(station):
    send(station, {"temperature": 1})

    assert fresh(station).last_reading_at == NOW


def test_a_status_without_a_time_that_can_be_used_says_so(station):
    assert send(station, {"status": "online", "timestamp": None}, "status") is PARTIAL
    assert station.messages.get().notes == ["timestamp: cannot be read, the time of receipt was used"]


def test_a_status_is_no_reading(station):
    send(station, {"status": "online"}, "status")

    assert fresh(station).last_reading_at is None


def test_a_second_worker_never_takes_back_when_a_device_was_heard(station, monkeypatch):
    """It stored something newer between our reading of the device and our writing."""
    load = store.load_devices
    newer = NOW + HOUR

    def load_then_lose_the_race(wanted):
        devices = load(wanted)
        WeatherStationDevice.objects.update(last_seen=newer, last_message_at=newer, last_reading_at=newer)
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_lose_the_race)

    send(station, {"temperature": 1})

    device = fresh(station)
    assert (device.last_seen, device.last_message_at, device.last_reading_at) == (newer, newer, newer)


# --- Presence, hooks and signals


def test_data_of_a_device_that_was_not_connected_connects_it(station, heard):
    send(station, {"temperature": 1})

    device = fresh(station)
    assert (device.connected, device.connected_changed_at, device.status) == (True, NOW, "online")
    assert heard == [
        ("hook", "on_data", "STATION-001", {"temperature": 1.0}),
        ("signal", "data_received", "STATION-001", {"temperature": 1.0}),
        ("hook", "on_connect", "STATION-001"),
        ("signal", "connected", "STATION-001"),
        ("hook", "on_status_change", "STATION-001", "offline", "online"),
        ("signal", "status_changed", "STATION-001", "offline", "online"),
    ]


def test_what_did_not_change_is_not_told(station, heard):
    send(station, {"temperature": 1})
    changed_at = fresh(station).connected_changed_at
    heard.clear()

    send(station, {"temperature": 2}, at=NOW + HOUR)
    send(station, {"status": "online"}, "status", at=NOW + HOUR)

    assert [told[1] for told in heard] == ["on_data", "data_received"]
    assert fresh(station).connected_changed_at == changed_at


def test_a_will_disconnects(station, heard):
    send(station, {"status": "online"}, "status")
    heard.clear()

    send(station, b'{"status":"offline"}', "status", at=NOW + HOUR)

    device = fresh(station)
    assert (device.connected, device.connected_changed_at, device.status) == (False, NOW + HOUR, "offline")
    assert heard == [
        ("hook", "on_disconnect", "STATION-001"),
        ("signal", "disconnected", "STATION-001"),
        ("hook", "on_status_change", "STATION-001", "online", "offline"),
        ("signal", "status_changed", "STATION-001", "online", "offline"),
    ]


def test_a_device_that_reports_an_error_and_then_data_is_still_in_error(station):
    send(station, {"status": "error"}, "status")
    send(station, {"temperature": 1})

    assert fresh(station).status == "error"
    assert fresh(station).connected


def test_each_sample_of_a_buffer_is_told(station, heard):
    send(station, [{"temperature": n, "timestamp": iso(EARLIER + n * HOUR / 10)} for n in (1, 2, 3)])

    told = [entry[3] for entry in heard if entry[1] == "on_data"]
    assert told == [{"temperature": 1.0}, {"temperature": 2.0}, {"temperature": 3.0}]


def test_only_accepted_values_are_told(station, heard):
    send(station, {"temperature": 1, "humidity": 999, "wind": 3})
    send(station, {"temperature": 999})

    assert [entry[3] for entry in heard if entry[1] == "on_data"] == [{"temperature": 1.0}]


def test_a_message_of_one_device_is_told_of_no_other(station, neighbour, valve, heard):
    send(station, {"temperature": 1})

    assert {entry[2] for entry in heard} == {"STATION-001"}
    for other in (neighbour, valve):
        assert (fresh(other).last_seen, fresh(other).connected) == (None, False)


def test_the_signal_carries_the_stored_message_and_no_credential(station):
    WeatherStationDevice.objects.update(mqtt_password_hash="{SSHA256}secret")
    received = []

    def receiver(sender, **arguments):
        received.append((sender, arguments))

    signals.device_data_received.connect(receiver)
    try:
        send(station, {"temperature": 1})
    finally:
        signals.device_data_received.disconnect(receiver)

    [(sender, arguments)] = received
    assert sender is WeatherStation
    assert set(arguments) == {"signal", "device", "readings", "message"}
    assert arguments["message"] == kept(station)
    assert "secret" not in str(arguments)


@pytest.mark.parametrize(
    "hook", ["on_data", "on_connect", "on_status_change", "on_disconnect", "on_command_response"]
)
def test_a_hook_that_raises_loses_nothing(station, neighbour, heard, monkeypatch, hook):
    def broken(self, *arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(WeatherStation, hook, broken)
    command = DeviceCommand.objects.create(device_key="weatherstation/STATION-001", name="reboot")
    batch = [
        message(station, {"temperature": 1}),
        message(station, {"id": str(command.id), "ok": True}, "reply"),
        message(neighbour, {"temperature": 2}),
    ]

    assert pipeline(batch) == [STORED] * 3
    assert send(station, {"status": "offline"}, "status") is STORED

    assert len(readings(station)) == len(readings(neighbour)) == 1
    assert station.messages.count() == 3
    told = Counter((entry[0], entry[1]) for entry in heard)
    assert told["signal", "data_received"] == told["signal", "connected"] == 2
    assert told["signal", "disconnected"] == 1
    command.refresh_from_db()
    assert command.answered_at is not None


def test_a_receiver_that_raises_loses_nothing(station, neighbour, heard):
    def broken(**arguments):
        raise ZeroDivisionError

    for signal in (signals.device_data_received, signals.device_connected, signals.device_status_changed):
        signal.connect(broken)
    try:
        assert pipeline([message(d, {"temperature": 1}) for d in (station, neighbour)]) == [STORED] * 2
    finally:
        for signal in (signals.device_data_received, signals.device_connected, signals.device_status_changed):
            signal.disconnect(broken)

    assert len(readings(station)) == len(readings(neighbour)) == 1
    assert [entry[1] for entry in heard].count("data_received") == 2
    assert [entry[1] for entry in heard].count("on_status_change") == 2


def test_hooks_and_signals_come_after_the_commit(transactional_db, monkeypatch):
    station = WeatherStationDevice.objects.create(device_id="STATION-001")
    seen = []

    def look(*_, **__):
        seen.append((connection.in_atomic_block, WeatherStationReading.objects.count()))

    monkeypatch.setattr(WeatherStation, "on_data", look)
    signals.device_connected.connect(look)
    try:
        send(station, {"temperature": 1})
    finally:
        signals.device_connected.disconnect(look)

    assert seen == [(False, 1), (False, 1)]


def delivery(device, payload, packet_id):
    one = message(device, payload)
    return Delivery(one.topic, one.payload, 1, False, False, NOW.timestamp(), "", b"", (), packet_id, 1)


def test_a_message_is_acknowledged_before_hooks_run(station, monkeypatch):
    """A slow hook must not withhold acks (design, 2: store, ack, signals)."""
    order = []

    class OneBatch:
        failure = ""

        def take(self, most, timeout):
            worker.stop()
            return [delivery(station, {"temperature": 1}, 7)]

        def acknowledge(self, deliveries):
            order.append(("acknowledged", [d.packet_id for d in deliveries], station.messages.count()))

    monkeypatch.setattr(WeatherStation, "on_data", lambda *_: order.append(("told",)))
    with Worker(OneBatch()) as worker:
        worker.run()

    assert order == [("acknowledged", [7], 1), ("told",)]


# --- Replies


@pytest.fixture
def command(station):
    return DeviceCommand.objects.create(device_key="weatherstation/STATION-001", name="reboot")


def replies(heard):
    return [entry[2:] for entry in heard if entry[1] == "on_command_response"]


@pytest.mark.parametrize(
    "more", [{"ok": True, "result": [1]}, {"ok": False, "error": "jammed"}, {"ok": True}]
)
def test_a_reply_reaches_the_hook_once(station, command, heard, more):
    reply = {"id": str(command.id), **more}

    assert send(station, reply, "reply") is STORED
    assert send(station, reply, "reply") is STORED

    assert replies(heard) == [("STATION-001", "reboot", reply)]
    command.refresh_from_db()
    assert command.response == reply
    assert command.answered_at is not None


def test_of_two_replies_in_one_batch_the_first_counts(station, command, heard):
    first, second = ({"id": str(command.id), "ok": True, "result": n} for n in (1, 2))

    pipeline([message(station, first, "reply"), message(station, second, "reply")])

    assert replies(heard) == [("STATION-001", "reboot", first)]
    command.refresh_from_db()
    assert command.response == first


def test_nobody_answers_for_another_device(station, neighbour, command, heard):
    assert send(neighbour, {"id": str(command.id), "ok": True}, "reply") is STORED

    assert replies(heard) == []
    command.refresh_from_db()
    assert command.answered_at is None


@pytest.mark.parametrize(
    "command_id", ["", "x", 5, None, [1], {}, True, str(uuid.UUID(int=0)), "\0", "x" * 10_000], ids=repr
)
def test_a_reply_to_no_command_is_kept_and_told_to_nobody(station, command, heard, command_id):
    assert send(station, {"id": command_id, "ok": True}, "reply") is STORED

    assert replies(heard) == []
    assert kept(station).outcome == "stored"
    assert fresh(station).last_seen == NOW


@pytest.mark.parametrize("payload", [b"ok", b"", [], "ok", 5, None, {}, {"ok": True}, {"id": "1"}], ids=repr)
def test_what_is_no_reply_is_quarantined(station, heard, payload):
    assert send(station, payload, "reply") is FAILED
    assert replies(heard) == []
    assert QuarantinedMessage.objects.get().reason in ("not_json", "not_a_reading")


def test_a_reply_with_a_nul_answers_its_command(transactional_db, heard):
    """PostgreSQL holds no NUL in JSON; that is not the command's fault."""
    station = WeatherStationDevice.objects.create(device_id="STATION-001")
    command = DeviceCommand.objects.create(device_key="weatherstation/STATION-001", name="reboot")

    assert send(station, {"id": str(command.id), "ok": True, "result": "a\0b"}, "reply") is STORED

    command.refresh_from_db()
    assert command.answered_at is not None
    assert len(replies(heard)) == 1


# --- The message row and the quarantine row


def test_the_message_row_of_a_stored_message(station):
    outcome = send(
        station,
        {"temperature": 1, "timestamp": iso(EARLIER)},
        content_type="application/json; charset=utf-8",
        correlation_id="c-1",
        user_properties=(("trace", "t-1"), ("trace", "t-2"), ("x", "ä")),
    )

    row = kept(station)
    assert outcome is STORED
    assert row.topic == "things/weatherstation/STATION-001/data"
    assert row.payload_json == {"temperature": 1, "timestamp": iso(EARLIER)}
    assert row.payload_raw is None
    assert (row.content_type, row.correlation_id) == ("application/json; charset=utf-8", "c-1")
    assert row.user_properties["x"] == "ä"
    assert (row.processing_status, row.processing_error, row.outcome) == ("completed", "", "stored")
    assert row.notes == []
    assert row.processed_at is not None
    assert len(row.digest) == 64


@pytest.mark.parametrize(
    "content_type", ["text/plain", "APPLICATION/JSON", "x" * 65_535, "\0;\0", "; ;", "/"]
)
def test_an_odd_content_type_is_taken_for_json(station, content_type):
    assert send(station, {"temperature": 1}, content_type=content_type) is STORED
    assert len(kept(station).content_type) <= 100


def test_odd_properties_are_bounded_and_cost_no_reading(station):
    outcome = send(
        station,
        {"temperature": 1},
        content_type="\0\ud800" * 100,
        correlation_id="\0\ufffd" * 1000,
        user_properties=tuple(("\0\udc00" + "k" * 5000 + str(n), "\0" + "v" * 65_535) for n in range(3000)),
    )

    assert outcome is STORED
    row = kept(station)
    assert len(row.user_properties) <= 32
    assert "\0" not in json.dumps(row.user_properties, ensure_ascii=False) + row.content_type
    assert len(row.correlation_id) <= 256


def test_the_rows_of_a_message_that_is_no_json(station):
    body = b'\xff\x00{"temperature": 1}'
    send(station, body, content_type="text/x", correlation_id="c-1")

    row = kept(station)
    assert (row.payload_json, row.payload_raw) == (None, None)
    assert row.quarantined == QuarantinedMessage.objects.get()
    assert (row.processing_status, row.outcome) == ("failed", "failed")
    assert row.processing_error.startswith("not_json: ")
    assert row.digest is None
    held = QuarantinedMessage.objects.get()
    assert (held.reason, bytes(held.payload), held.content_type) == ("not_json", body, "text/x")
    assert (held.topic, held.device_key) == (row.topic, "weatherstation/STATION-001")
    assert (held.received_at, held.replayed_at) == (NOW, None)
    assert held.detail


@pytest.mark.parametrize("body", [b'{"temperature": 1, "x": "\\u0000"}', b'{"temperature": 1, "\\u0000": 1}'])
def test_a_document_with_a_nul_is_kept_byte_for_byte(station, body):
    assert send(station, body) is PARTIAL

    row = kept(station)
    assert bytes(row.payload_raw) == body
    assert row.payload_json is None


def test_the_quarantine_keeps_one_mebibyte(station):
    body = b"x" * (MAX_KEPT + 10)
    pipeline([message(station, body), Message("nowhere", body, NOW)])

    assert [len(bytes(row.payload)) for row in QuarantinedMessage.objects.all()] == [1 << 20, 1 << 20]


def test_a_long_reason_fits_its_row(station):
    assert send(station, {"x" * 64 + str(n): n for n in range(500)}) is FAILED

    assert len(QuarantinedMessage.objects.get().detail) <= 500


def test_a_bug_in_a_reader_costs_one_message(station, neighbour, monkeypatch):
    """Nothing a device sends may raise; if something does, it is that message's end only."""
    monkeypatch.setattr(door.decode, "samples", lambda *_: 1 / 0)

    outcomes = pipeline(
        [message(station, {"temperature": 1}), message(neighbour, {"battery_level": 1}, "status")]
    )

    assert outcomes == [FAILED, STORED]
    assert QuarantinedMessage.objects.get().reason == "unstorable"
    assert kept(station).outcome == "failed"


# --- Anything at all

NAMES = [
    "temperature", "humidity", "rainfall", "timestamp", "readings", "type", "value", "status",
    "battery_level", "firmware_version", "mode", "opening", "serviced_at", "id", "device", "x", "a\0b",
]  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-50, 120)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["online", "offline", "maintenance", "manual", iso(EARLIER), "25", "NaN", "a\0b"])
    | st.sampled_from([int(EARLIER.timestamp()), int(EARLIER.timestamp() * 1000), 0, 25, 75, 100])
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=4), inner, max_size=5)
        | st.lists(st.fixed_dictionaries({"type": st.sampled_from(NAMES), "value": inner}), max_size=3)
    ),
    max_leaves=12,
)
flat = st.dictionaries(st.sampled_from(NAMES), scalars, max_size=5)
as_json = (documents | flat | st.lists(flat, max_size=3)).map(lambda found: json.dumps(found).encode())


@st.composite
def damaged(draw):
    """JSON with one byte replaced, or cut off."""
    body = bytearray(draw(as_json))
    position = draw(st.integers(0, max(0, len(body) - 1)))
    if draw(st.booleans()):
        return bytes(body[:position])
    body[position : position + 1] = draw(st.binary(max_size=2))
    return bytes(body)


bodies = st.binary(max_size=60) | as_json | damaged()
addresses = st.tuples(
    st.sampled_from(["STATION-001", "STATION-002", "VALVE-001", "STRANGER"]),
    st.sampled_from(["data", "data", "status", "reply", "cmd"]),
)


class RolledBack(Exception):
    pass


@a_few_hundred
@given(sent=st.lists(st.tuples(addresses, bodies, st.booleans()), min_size=1, max_size=5))
@example(sent=[(("STATION-001", "data"), b'{"temperature": 1, "a\\u0000b": 1}', False)])
@example(sent=[(("VALVE-001", "status"), b'{"a\\u0000b": 1}', False)])
def test_any_bytes_on_our_topics_end_in_one_outcome_and_store_only_what_was_sent(
    station, neighbour, valve, sent
):
    devices = {device.device_id: device for device in (station, neighbour, valve)}
    messages = [
        Message(
            f"things/{'irrigationvalve' if who == 'VALVE-001' else 'weatherstation'}/{who}/{about}",
            body,
            NOW,
            retain=retain,
        )
        for (who, about), body, retain in sent
    ]
    with pytest.raises(RolledBack), transaction.atomic():
        outcomes = pipeline(messages)

        assert [type(outcome) for outcome in outcomes] == [Outcome] * len(sent)
        assert QuarantinedMessage.objects.count() == outcomes.count(FAILED)
        with_row = [
            who
            for ((who, _), _, _), outcome in zip(sent, outcomes, strict=True)
            if who in devices and outcome not in (DUPLICATE, RETAINED)
        ]
        for device_id, device in devices.items():
            assert device.messages.count() == with_row.count(device_id)
            said = [(about, body) for (who, about), body, _ in sent if who == device_id]
            check_stored(device, said)
        raise RolledBack


def check_stored(device, said):
    """Every value on *device* was sent by it under that name, as a number, inside the range."""
    device_type = type(device)._device_type_cls
    sent = {about: list(pairs(b for a, b in said if a == about)) for about in ("data", "status")}
    for stored in readings(device):
        assert stored["timestamp"] <= NOW + timedelta(minutes=5)
        for name in device_type._readings.keys() & stored.keys():
            numbers = [v for n, v in sent["data"] if n == name and type(v) in (int, float)]
            assert stored[name] in [float(number) for number in numbers]
            low, high = device_type._readings[name].range or (None, None)
            assert (low is None or stored[name] >= low) and (high is None or stored[name] <= high)  # noqa: PT018
    now = fresh(device)
    for name in ("battery_level", "firmware_version", "reported_status", "mode", "opening"):
        if getattr(now, name, None) != getattr(device, name, None):
            key = "status" if name == "reported_status" else name
            assert getattr(now, name) in [v for n, v in sent["status"] if n == key and type(v) is not bool]
    assert now.status not in ("maintenance", "provisioning")
    assert now.is_active


def pairs(bodies):
    """All names with their values, at any depth, of what the standard library can read of *bodies*."""
    for body in bodies:
        found = []

        def collect(members, found=found):
            found += members
            made = dict(members)
            if isinstance(made.get("type"), str) and "value" in made:
                found.append((made["type"], made["value"]))
            return made

        try:
            json.loads(body, object_pairs_hook=collect)
        except ValueError:
            continue
        yield from found


# --- The quarantine in the admin


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"temperature": <b>', "{&quot;temperature&quot;: &lt;b&gt;"),
        (b"\xff\x00", "ff 00"),
        (b"line\nline", "6c 69 6e 65 0a"),
        (b"", "(empty)"),
        (b"x" * 5000, "... (5,000 bytes)"),
    ],
)
def test_the_admin_shows_what_was_sent(admin_client, payload, shown):
    pipeline([Message("nowhere", payload, NOW)])
    row = QuarantinedMessage.objects.get()

    page = admin_client.get(f"/admin/devicehub/quarantinedmessage/{row.pk}/change/").content.decode()

    assert shown in page
    assert "<b>" not in page.replace("<b>Hint", "")
