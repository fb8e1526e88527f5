"""SenML (RFC 8428): a pack of records, resolved into names, values, units and times. Pure."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from devicehub.messages.message import FailureReason, Unreadable

NO_PATHS: Mapping[str, str] = {}
VERSION = 10
MAX_NAME = 256  # Characters of a base name's last segment; no reading has a name that long.
ABSOLUTE = 2**28  # A time below so many seconds is relative to now (section 4.5.3).
# The labels in JSON, by their labels in CBOR (section 6).
LABELS = {
    -1: "bver",
    -2: "bn",
    -3: "bt",
    -4: "bu",
    -5: "bv",
    -6: "bs",
    0: "n",
    1: "u",
    2: "v",
    3: "vs",
    4: "vb",
    5: "s",
    6: "t",
    7: "ut",
    8: "vd",
}
SUPPORTED = frozenset(LABELS) | frozenset(LABELS.values())
VALUES = ("v", "vs", "vb", "vd")
TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "bn": ((str,), "a text"),
    "bu": ((str,), "a text"),
    "bver": ((int, float), "a number"),
    "bt": ((int, float), "a number"),
    "bv": ((int, float), "a number"),
    "bs": ((int, float), "a number"),
    "n": ((str,), "a text"),
    "u": ((str,), "a text"),
    "v": ((int, float), "a number"),
    "vs": ((str,), "a text"),
    "vb": ((bool,), "a boolean"),
    "vd": ((str, bytes), "data"),
}
BASE = ("bver", "bn", "bt", "bu", "bv", "bs")
# The labels that make a record more than a base for the next ones.
OWN = frozenset(label for pair in LABELS.items() if pair[1] not in BASE for label in pair)


class Record(NamedTuple):
    """One resolved record. *unit* is "" if none was named; *time* is None, seconds, or any other value as sent."""

    name: str
    value: Any
    unit: str
    time: Any


def is_pack(found: Any, declared: Collection[str]) -> bool:
    """Return whether *found* is a pack and not an array of flat samples with *declared* names."""
    return (
        isinstance(found, list)
        and "n" not in declared
        and "bn" not in declared
        and all(isinstance(entry, dict) and not SUPPORTED.isdisjoint(entry) for entry in found)
        and any(isinstance(entry.get(label), str) for entry in found for label in ("n", "bn", 0, -2))
    )


def count(found: Any) -> int:
    """Return how many records in *found* are more than a base for the next ones."""
    if not isinstance(found, list):
        return 0
    return sum(1 for entry in found if isinstance(entry, dict) and not OWN.isdisjoint(entry))


def resolve(
    found: Any, declared: Collection[str], notes: list[str], by_path: Mapping[str, str] = NO_PATHS
) -> Iterator[Record]:
    """Yield the records of a pack that have a value; add notes on the others to *notes*. Raise Unreadable.

    *by_path* has the names of readings by the paths of LwM2M that a name may be instead, such as `/3303/0/5700`.
    """
    base: dict[str, Any] = {}
    above = ""  # The base name, if paths begin with it.
    for number, record in enumerate(_records(found, notes)):
        base |= {label: value for label, value in record.items() if label in BASE}
        if "bn" in record:
            above = record["bn"] if by_path and len(record["bn"]) <= MAX_NAME else ""
            # Only the part that counts: a long base name must not cost its length again in every record.
            base["bn"] = _segment(record["bn"])[-MAX_NAME:]
        wrong = next(
            (label for label in ("n", "u", *VALUES) if label in record and not _fits(record, label)), ""
        )
        name = _name(base.get("bn", ""), record.get("n", ""), declared) if wrong != "n" else ""
        if by_path and name not in declared and wrong != "n":
            name = _reading(above + record.get("n", ""), by_path) or name
        shown = name[:64] or f"record {number}"
        sent = [label for label in VALUES if label in record]
        if wrong:
            notes.append(f"{shown}: {wrong} is not {TYPES[wrong][1]}")
            continue
        if len(sent) > 1:
            notes.append(f"{shown}: has {' and '.join(sent)}")
            continue
        if "s" in record:
            notes.append(f"{shown}: its sum is not kept")
        is_base = bool(record) and record.keys() <= set(BASE)  # It only sets values for the next records.
        if not sent and (is_base or "bv" not in base or "s" in record):
            if not is_base and "s" not in record:
                notes.append(f"{shown}: has no value")
            continue
        if not name:
            notes.append(f"{shown}: has no name")
            continue
        label = sent[0] if sent else "v"
        try:
            value = _value(label, record.get(label, 0), base.get("bv", 0))
        except ValueError:
            notes.append(f"{shown}: vd is not base64url without padding")
            continue
        unit = record.get("u") or base.get("bu", "") if label == "v" else ""
        yield Record(name, value, unit, _time(base.get("bt"), record.get("t")))


def _records(found: Any, notes: list[str]) -> list[dict[str, Any]]:
    """Return the records with the labels of JSON, without nulls. Raise Unreadable for a pack that must not be used."""
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise Unreadable(FailureReason.NOT_A_READING, "a SenML pack is an array of records")
    records = []
    for number, entry in enumerate(found):
        for label in entry:
            if isinstance(label, str) and label.endswith("_"):
                # Such a label must be understood, or the pack must not be used (section 4.4).
                raise Unreadable(
                    FailureReason.NOT_A_READING, f"record {number}: {label[:64]} is not understood"
                )
        named = [(LABELS.get(label, label), value) for label, value in entry.items() if _is_label(label)]
        record = {label: value for label, value in dict(named).items() if value is not None}
        if len(dict(named)) < len(named):
            notes.append(f"record {number}: has a label twice, the last counts")
        for label in BASE:
            if label in record and not _fits(record, label):
                raise Unreadable(
                    FailureReason.NOT_A_READING, f"record {number}: {label} is not {TYPES[label][1]}"
                )
        if not record.get("bver", VERSION) <= VERSION:
            raise Unreadable(FailureReason.NOT_A_READING, f"record {number}: a SenML version above {VERSION}")
        records.append(record)
    return records


def _is_label(label: Any) -> bool:
    """Return whether *label* is one of SenML's; others are ignored. In CBOR `true` and 1.0 are not the label 1."""
    return type(label) in (str, int) and label in SUPPORTED


def _fits(record: dict[str, Any], label: str) -> bool:
    value, (types, _) = record[label], TYPES[label]
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _name(base: str, own: str, declared: Collection[str]) -> str:
    """Return the name of the reading: the last segment of the whole name, or of the record's own name.

    >>> _name("urn:dev:ow:10e2073a01080063:", "temp", {"temp"})
    'temp'
    >>> _name("urn:dev:os:32473-1_", "temp", {"temp"})
    'temp'
    """
    whole, last = _segment(base + own), _segment(own)
    return last if last in declared and whole not in declared else whole


def _reading(path: str, by_path: Mapping[str, str]) -> str:
    """Return the name of the reading at *path*; a path without one itself; "" for another text."""
    if not path.startswith("/"):
        return ""
    return by_path.get(path) or path[:MAX_NAME]


def _segment(name: str) -> str:
    return name[max(name.rfind("/"), name.rfind(":")) + 1 :]


def _value(label: str, value: Any, base: float) -> Any:
    """Return the value of a record. Raise ValueError for data that is not base64url without padding (section 5)."""
    if label == "v":
        return _sum(base, value)
    if label != "vd" or isinstance(value, bytes):
        return value
    try:
        data = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if base64.urlsafe_b64encode(data).decode().rstrip("=") != value:
        raise ValueError("not base64url")
    return data


def _time(base: float | None, own: Any) -> Any:
    if base is None or own is None:
        return own if base is None else base
    return _sum(base, own) if isinstance(own, int | float) and not isinstance(own, bool) else own


def _sum(one: float, other: float) -> float:
    if not one:
        return other  # The type of a value without a base stays as it is, too.
    try:
        return one + other
    except OverflowError:
        return math.inf  # An integer is beyond every float.
