"""Decoding of payloads into samples, each with the values that were measured at one time. Pure.

In JSON and CBOR alike: flat `{"temperature": 25.3, "timestamp": ...}`, a list of named values
`{"readings": [{"type": "temperature", "value": 25.3}]}`, an array of flat objects for buffered samples, and SenML.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from devicehub.kinds.declare import Reading
from devicehub.messages import cbor, json_faults, senml, times
from devicehub.messages.json_limits import fault_as_json
from devicehub.messages.message import MAX_DEPTH, MAX_KEPT, FailureReason, Notes, Unreadable

OLDEST = timedelta(days=3653)  # Times older than ten years come from a clock that was never set.
NEWEST = timedelta(minutes=5)  # Times further ahead come from a clock that is wrong.
MILLISECONDS = 100_000_000_000  # A time beyond this is in milliseconds (in seconds it is the year 5138).
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
FORM_WORDS = frozenset({"readings", "timestamp"})  # Words of an entry, which no reading can have as its name.
MAX_DIGITS = 400  # An integer with more digits is beyond every float.
# With every digit as 0 and every E as e, two searches find the numbers that the fast parser may not read as they were
# sent, 1e400 and 12345678901234567. A pattern takes four times as long, and every payload is searched.
IN_NUMBERS = bytes.maketrans(b"123456789E", b"000000000e")
# A NUL, which is not stored, and a colon that `_colons` does not see.
ESCAPED = re.compile(rb"\\u00(?:00|3[aA])")


@dataclass
class Document:
    """A decoded payload. *is_exact* is true if JSON in the database holds it as it was sent.

    *values* are those of LwM2M resources, in place of a content.
    """

    content: Any
    notes: Notes = field(default_factory=Notes)
    is_exact: bool = True
    is_senml: bool = False
    values: Sequence[Any] | None = None


@dataclass
class Sample:
    """Values by name. *timestamp* is None if it is the time of receipt.

    *is_dated* is true if the payload names the moment itself, rather than "ten seconds ago".
    """

    values: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None
    is_dated: bool = False


@dataclass
class Decoded:
    """The samples in a payload, by time; *now* is the time of receipt. *notes* lists omitted values with reasons."""

    now: datetime
    by_time: dict[datetime | None, Sample] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)

    @property
    def samples(self) -> list[Sample]:
        return list(self.by_time.values())

    @property
    def has_device_time(self) -> bool:
        return any([sample.is_dated for sample in self.by_time.values()])  # noqa: C419 - faster for one sample

    def add(self, values: Mapping[str, Any], timestamp: datetime | None, *, is_dated: bool) -> None:
        """Add *values* to the sample of their time."""
        if timestamp == self.now:
            timestamp = None  # Values without a time have this one too.
        sample = self.by_time.setdefault(timestamp, Sample(timestamp=timestamp))
        sample.is_dated = sample.is_dated or is_dated
        for name, value in values.items():
            if value is None:
                continue  # A null is an absent value.
            if name in sample.values:
                self.notes.append(f"{str(name)[:64]}: given twice, the last counts")
            sample.values[name] = value


def document(payload: bytes, content_type: str) -> Document:
    """Return the decoded payload. Raise Unreadable."""
    if len(payload) > MAX_KEPT:
        # The number of bytes is not reported: an Intake keeps only the beginning of a payload.
        raise Unreadable(FailureReason.TOO_LARGE, f"more than {MAX_KEPT} bytes")
    media_type = content_type.partition(";")[0].strip().lower()
    decoder = DECODERS.get(media_type) or (cbor_document if cbor.begins(payload) else json_document)
    found = decoder(payload)
    found.is_senml = media_type in SENML
    return found


def samples(
    found: Document,
    now: datetime,
    declared: Mapping[str, Reading],
    most: Callable[[], float] = lambda: math.inf,
    by_path: Mapping[str, str] = senml.NO_PATHS,
) -> Decoded:
    """Return the samples in a decoded `data` payload, by time. Raise Unreadable, also for more than *most*().

    *by_path* names the readings that are LwM2M resources, whose paths may be names in SenML.
    """
    decoded = Decoded(now)
    is_pack = found.is_senml or senml.is_pack(found.content, declared)
    count = senml.count(found.content) if is_pack else _count(found.content)
    if count > 1 and count > most():  # Checked before any sample is made.
        detail = f"{count} samples; at most {most()} are stored of one message"
        raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
    if is_pack:
        records = senml.resolve(found.content, declared, decoded.notes, by_path)
        _add_records(decoded, records, declared)
        return decoded
    entries = found.content if isinstance(found.content, list) else [found.content]
    if not entries:
        raise Unreadable(FailureReason.NO_VALUE, "the array is empty")
    strays, first = 0, ""
    for number, entry in enumerate(entries):
        if strays >= Notes.MOST and not isinstance(entry, dict):
            # No further note is kept, and a payload may hold a million such entries.
            strays += 1
            decoded.notes.more += 1
            continue
        try:
            read = _entries(entry, now, decoded.notes)
        except Unreadable as error:
            stray = f"entry {number}: {error.detail}" if len(entries) > 1 else error.detail
            strays, first = strays + 1, first or stray
            decoded.notes.append(stray)
            continue
        for values, timestamp in read:
            decoded.add(values, timestamp, is_dated=timestamp is not None)
    if strays == len(entries):
        raise Unreadable(FailureReason.NOT_A_READING, first)
    return decoded


def _count(content: Any) -> int:
    """Return how many samples *content* has at most: its objects, or those in their `readings`."""
    count = 0
    for entry in content if isinstance(content, list) else [content]:
        if isinstance(entry, dict):
            listed = entry.get("readings")
            count += sum(isinstance(item, dict) for item in listed) if isinstance(listed, list) else 1
    return count


def _entries(entry: Any, now: datetime, notes: list[str]) -> list[tuple[dict[str, Any], datetime | None]]:
    """Return the values in one entry and their times. Raise Unreadable for an entry of another form."""
    if not isinstance(entry, dict):
        raise Unreadable(FailureReason.NOT_A_READING, f"is {_kind(entry)}, not an object")
    shared = parse_time(entry["timestamp"], now, notes) if "timestamp" in entry else None
    values = {name: value for name, value in entry.items() if value is not None and name not in FORM_WORDS}
    listed = entry.get("readings")
    if listed is None:
        return [(values, shared)]
    if not isinstance(listed, list):
        wrong = f"readings is {_kind(listed)}, not a list"
        if not values:
            raise Unreadable(FailureReason.NOT_A_READING, wrong)
        notes.append(wrong)
        return [(values, shared)]
    notes += [f"{str(name)[:64]}: stands beside readings" for name in values]
    found: list[tuple[dict[str, Any], datetime | None]] = []
    for number, item in enumerate(listed):
        if not isinstance(item, dict) or not isinstance(item.get("type"), str) or "value" not in item:
            notes.append(f"readings[{number}]: is not an object with type and value")
            continue
        own = parse_time(item["timestamp"], now, notes) if "timestamp" in item else shared
        found.append(({item["type"]: item["value"]}, own))
    return found


def _add_records(decoded: Decoded, records: Iterable[senml.Record], declared: Mapping[str, Reading]) -> None:
    now = decoded.now
    for record in records:
        reading = declared.get(record.name)
        if reading is not None and record.unit and reading.unit and record.unit != reading.unit:
            decoded.notes.append(f"{record.name}: is in {record.unit[:32]!r}, not in {reading.unit!r}")
            continue
        is_relative = _is_number(record.time) and record.time < senml.ABSOLUTE
        moment = None if record.time is None else _checked(record.time, _seconds_at(now), now, decoded.notes)
        decoded.add({record.name: record.value}, moment, is_dated=moment is not None and not is_relative)


def parse_time(value: Any, now: datetime, notes: list[str]) -> datetime | None:
    """Return a device's timestamp in UTC; None, with a note, if it cannot be used.

    It is ISO 8601 (in UTC without a zone), or seconds or milliseconds since 1970.
    """
    return _checked(value, _moment, now, notes)


def parse_seconds(value: Any, now: datetime, notes: list[str]) -> datetime | None:
    """Return a number of seconds since 1970 as a time in UTC; None, with a note, if it cannot be used."""
    return _checked(value, lambda seconds: datetime.fromtimestamp(float(seconds), UTC), now, notes)


def _checked(value: Any, read: Callable[[Any], datetime], now: datetime, notes: list[str]) -> datetime | None:
    try:
        moment = read(value)
    except (ValueError, OverflowError, OSError, TypeError):
        notes.append("timestamp: cannot be read, the time of receipt was used")
        return None
    if moment > now + NEWEST:
        notes.append(
            "timestamp: more than five minutes ahead of the clock here, the time of receipt was used"
        )
        return None
    if moment < now - OLDEST:
        notes.append("timestamp: more than ten years ago, the time of receipt was used")
        return None
    return moment


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        return times.moment(value)
    if isinstance(value, datetime):
        return value  # CBOR has a type for times.
    if not _is_number(value):
        raise TypeError("not a timestamp")
    return datetime.fromtimestamp(value / 1000 if abs(value) >= MILLISECONDS else value, UTC)


def _seconds_at(now: datetime) -> Callable[[Any], datetime]:
    """Return the function that reads a time of SenML: seconds since 1970, or from *now* if it is below ABSOLUTE."""

    def moment(seconds: Any) -> datetime:
        if not _is_number(seconds):
            raise TypeError("not a time")
        if seconds < senml.ABSOLUTE:
            return now + timedelta(seconds=seconds)
        return datetime.fromtimestamp(seconds, UTC)

    return moment


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cbor_document(payload: bytes) -> Document:
    """Return the decoded CBOR. Raise Unreadable if it is not CBOR, too deep, or followed by more bytes."""
    try:
        found, names_twice = cbor.read(payload)
    except ValueError as error:
        raise Unreadable(FailureReason.NOT_CBOR, str(error)[:200]) from error
    notes = Notes()
    if names_twice:
        notes.append("a map has a key twice, the last counts")
    return Document(found, notes, is_exact=False)


def json_document(payload: bytes) -> Document:
    """Return the decoded JSON. Raise Unreadable if it is not JSON, not UTF-8, or too deep. Ignore a byte order mark.

    Texts that the grammar allows and no value can hold (1e400, a lone surrogate), and NaN and Infinity, are read as
    values that fit no declaration: they cost their value, and not the message.
    """
    body = payload.removeprefix(BYTE_ORDER_MARK)
    before = len(payload) - len(body)
    if not body.strip():
        raise Unreadable(FailureReason.NOT_JSON, "the payload is empty")
    try:
        found = Document(orjson.loads(body))
        if _needs_care(body) or _colons(found.content) != body.count(b":"):
            found = _read_with_care(body, before)
    except orjson.JSONDecodeError:
        found = _read_with_care(body, before)
    # The parser goes deeper than the encoder that stores the document; counting brackets is a cheap first check.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(found.content) > MAX_DEPTH:
        raise Unreadable(FailureReason.NOT_JSON, json_faults.TOO_DEEP)
    if not found.is_exact and not found.notes:
        found.is_exact = fault_as_json(found.content) is None
    return found


def _needs_care(body: bytes) -> bool:
    """Return whether the fast parser may read *body* differently from how it was sent."""
    numbers = body.translate(IN_NUMBERS)
    if b"0e" in numbers or b"00000000000000000" in numbers:
        return True
    return b"\\" in body and ESCAPED.search(body) is not None


def _read_with_care(body: bytes, before: int) -> Document:
    """Return *body* read slowly: every number as it was sent, and a note for each name that is given twice.

    *before* is the number of bytes of the payload before it.
    """
    notes = Notes()

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                notes.append(f"{name[:64]}: given twice, the last counts")
            found[name] = value
        return found

    decoder = json.JSONDecoder(object_pairs_hook=members, parse_int=_integer, parse_constant=float)
    try:
        found = decoder.decode(body.decode())
    except (ValueError, RecursionError) as error:
        raise Unreadable(FailureReason.NOT_JSON, json_faults.in_words(error, before=before)) from error
    return Document(found, notes, is_exact=False)


def _integer(digits: str) -> float:
    return (
        int(digits) if len(digits) <= MAX_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)
    )


HOLD_COLONS = frozenset({dict, list, str})  # The exact types that orjson makes.


def _colons(document: Any) -> int:
    """Return the number of colons of *document* as text: one for each name, and those in its names and texts.

    A payload has more if a name stands twice in one object, since the parser keeps only one.
    """
    colons, level = 0, [document]
    while level:
        value = level.pop()
        if isinstance(value, dict):
            colons += len(value) + "".join(value).count(":")
            level += [inner for inner in value.values() if type(inner) in HOLD_COLONS]
        elif isinstance(value, str):
            colons += value.count(":")
        elif isinstance(value, list):
            level += value
    return colons


def _depth(document: Any) -> int:
    """Return the levels of nesting, counted without recursion, and at most MAX_DEPTH + 1."""
    level, depth = [document], 0
    while level and depth <= MAX_DEPTH:
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth


def _kind(value: Any) -> str:
    return {type(None): "null", dict: "an object", list: "a list", str: "a text", bool: "a boolean"}.get(
        type(value), "a number or something else"
    )


# The decoders by content type (MQTT 5). Without one, or with an unknown one, a payload that begins like CBOR is read
# as CBOR, and any other as JSON.
DECODERS: dict[str, Callable[[bytes], Document]] = {
    "application/json": json_document,
    "application/senml+json": json_document,
    "application/cbor": cbor_document,
    "application/senml+cbor": cbor_document,
}
SENML = frozenset({"application/senml+json", "application/senml+cbor"})
