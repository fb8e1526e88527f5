"""The time and the values of a reading: exact types and ranges, and what is missing."""

import base64
from datetime import timedelta

import pytest

from fleet.devices import WeatherStation
from rig.messages import EARLIER, HOUR, NOW, PARTIAL, STORED, iso, message_row, readings, row, send

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
    """A time that cannot be used is replaced by the time of receipt, with a note."""
    outcome = send(station, {"temperature": 1, "timestamp": sent})

    [reading] = readings(station)
    stored = message_row(station)
    assert reading["temperature"] == 1
    if moment is not None:
        assert reading["timestamp"] == moment
        assert (outcome, stored.notes) == (STORED, [])
        assert len(stored.digest) == 64
    else:
        assert reading["timestamp"] == NOW
        assert outcome is PARTIAL
        assert "time of receipt" in stored.notes[0]
        assert stored.digest is None


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
    """A value that does not fit is dropped with its reason; the other values are kept."""
    device, other = (station, "rainfall") if name == "temperature" else (probe, "other")
    outcome = send(device, b'{"%b": 1.5, "%b": %b}' % (other.encode(), name.encode(), sent))

    notes = message_row(device).notes
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
    assert message_row(station).notes == ["temperature: required and missing"]


@pytest.mark.parametrize("value", [None, 999, "x"])
def test_a_required_value_that_is_bad_is_missing(station, monkeypatch, value):
    monkeypatch.setattr(WeatherStation._readings["temperature"], "required", True)

    assert send(station, {"temperature": value, "humidity": 40}) is PARTIAL
    assert readings(station) == [row(humidity=40.0)]
    assert "temperature: required and missing" in message_row(station).notes
