"""Payloads become samples: some values that were measured at one time. Pure.

Three JSON forms: flat `{"temperature": 25.3, "timestamp": ...}`, a list of named values
`{"readings": [{"type": "temperature", "value": 25.3}]}`, and an array of flat objects for buffered samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from devicehub.ingest.message import Reason, Unreadable

OLDEST = timedelta(days=3653)  # ten years: older is a clock that was never set
NEWEST = timedelta(minutes=5)  # further ahead is a clock that is wrong
MAX_DEPTH = 100  # levels of nesting
MILLISECONDS = 100_000_000_000  # an epoch beyond this is in milliseconds (as seconds it is the year 5138)


@dataclass
class Sample:
    """Values by name. *timestamp* is the device's, or None where it sent none that can be used."""

    values: dict[str, Any] = field(default_factory=dict)
    timestamp: datetime | None = None


@dataclass
class Decoded:
    """What a payload holds. *notes* says what was left out and why."""

    document: Any
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def has_device_time(self) -> bool:
        return any(sample.timestamp is not None for sample in self.samples)


def document(payload: bytes, content_type: str) -> Any:
    """The decoded payload. Raises Unreadable."""
    decoder = DECODERS.get(content_type.partition(";")[0].strip().lower())
    return (decoder or json_document)(payload)


def samples(found: Any, now: datetime) -> Decoded:
    """The samples in a decoded `data` payload, one for each time. Raises Unreadable."""
    decoded = Decoded(found)
    entries = found if isinstance(found, list) else [found]
    if not entries:
        raise Unreadable(Reason.NO_VALUE, "the array is empty")
    by_time: dict[datetime | None, Sample] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise Unreadable(Reason.NOT_A_READING, f"entry {number} is {_kind(entry)}, not an object")
        for values, timestamp in _entries(entry, now, decoded.notes):
            values = {name: value for name, value in values.items() if value is not None}  # null is absent
            sample = by_time.setdefault(timestamp, Sample(timestamp=timestamp))
            decoded.notes += [
                f"{name}: given twice, the last counts" for name in sample.values if name in values
            ]
            sample.values |= values
    decoded.samples = list(by_time.values())
    return decoded


def _entries(
    entry: dict[str, Any], now: datetime, notes: list[str]
) -> list[tuple[dict[str, Any], datetime | None]]:
    shared = parse_time(entry["timestamp"], now, notes) if "timestamp" in entry else None
    if "readings" not in entry:
        return [({name: value for name, value in entry.items() if name != "timestamp"}, shared)]
    listed = entry["readings"]
    if not isinstance(listed, list):
        raise Unreadable(Reason.NOT_A_READING, f"readings is {_kind(listed)}, not a list")
    notes += [
        f"{name[:64]}: stands beside readings" for name in entry if name not in ("readings", "timestamp")
    ]
    found: list[tuple[dict[str, Any], datetime | None]] = []
    for number, item in enumerate(listed):
        if not isinstance(item, dict) or not isinstance(item.get("type"), str) or "value" not in item:
            notes.append(f"readings[{number}]: no object with type and value")
            continue
        own = parse_time(item["timestamp"], now, notes) if "timestamp" in item else shared
        found.append(({item["type"]: item["value"]}, own))
    return found


def parse_time(value: Any, now: datetime, notes: list[str]) -> datetime | None:
    """A device's timestamp in UTC; None, with a note, when it cannot be used.

    ISO 8601 (without a zone it is UTC), or seconds or milliseconds since 1970.
    """
    try:
        moment = _moment(value)
    except (ValueError, OverflowError, OSError, TypeError):
        notes.append("timestamp: cannot be read, the time of receipt was used")
        return None
    if not now - OLDEST <= moment <= now + NEWEST:
        notes.append("timestamp: not of the last ten years, the time of receipt was used")
        return None
    return moment


def _moment(value: Any) -> datetime:
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no timestamp")
    return datetime.fromtimestamp(value / 1000 if abs(value) >= MILLISECONDS else value, UTC)


def json_document(payload: bytes) -> Any:
    """Raises Unreadable for what is no JSON (also NaN, a byte order mark, bytes that are not UTF-8), or too deep."""
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise Unreadable(Reason.NOT_JSON, str(error)[:200]) from error
    # The parser goes deeper than what must store it again; brackets in texts are counted only to look closer.
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and _depth(found) > MAX_DEPTH:
        raise Unreadable(Reason.NOT_JSON, f"nested deeper than {MAX_DEPTH} levels")
    return found


def _depth(document: Any) -> int:
    """Levels of nesting, counted without recursion; stops at one more than matters."""
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
        type(value), "a number"
    )


# By content type (MQTT 5); without one, or with an unknown one, a payload is taken for JSON.
DECODERS: dict[str, Callable[[bytes], Any]] = {"application/json": json_document}
