"""SenML (RFC 8428) in JSON and in CBOR, strictly: a pack is read whole or refused. Pure.

`devicehub.messages.senml` reads packs of typed devices, which lose only the records that cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from devicehub.messages.lwm2m import base64_text, cbor_writer, exact_json, paths
from devicehub.messages.lwm2m.cbor_reader import ARRAY, INDEFINITE, INTEGERS, MAP, TEXT, UNSIGNED, Reader
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import (
    DataType,
    Moment,
    Seen,
    TypeOf,
    Value,
    checked,
    link,
    seconds,
    total,
    typed,
)
from devicehub.messages.senml import ABSOLUTE, BASE, LABELS, VERSION

OBJECT_LINK = "vlo"  # An addition of LwM2M, which is a text in CBOR, too.
MAX_NAME = 255  # Characters of a base name, and of a name.
NAME_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")  # Of a name that is not a path (section 4.5.1).
NUMBER = frozenset({int, float, Decimal})
STRING = frozenset({str})
JSON_FIELDS: Mapping[str, frozenset[type]] = {
    **dict.fromkeys(("bver", "bt", "bv", "bs", "v", "s", "t", "ut"), NUMBER),
    **dict.fromkeys(("bn", "bu", "n", "u", "vs", "vd", OBJECT_LINK), STRING),
    "vb": frozenset({bool}),
}
CBOR_FIELDS = {**JSON_FIELDS, "vd": frozenset({bytes})}
VALUES = frozenset({"v", "vs", "vb", "vd", OBJECT_LINK})
BASE_FIELDS = frozenset(BASE)
# The first bytes of the labels in CBOR, in their shortest form.
BY_BYTE = {(label if label >= 0 else 0x20 | -1 - label): name for label, name in LABELS.items()}
BY_NAME = {name: label for label, name in LABELS.items()}
PLAIN_TYPES = {
    "v": DataType.FLOAT,
    "vs": DataType.STRING,
    "vb": DataType.BOOLEAN,
    "vd": DataType.OPAQUE,
    OBJECT_LINK: DataType.OBJLNK,
}


class Record(NamedTuple):
    """One resolved record with a value. *label* is the field that held the value; *number* counts from 0."""

    number: int
    name: str
    label: str
    value: Any
    unit: str
    time: int | Decimal | None


def decode_json(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the values of a pack in JSON, whose names are paths in *base*. Raise CodecError.

    *now* is the time of receipt in seconds since 1970, to which relative times refer.
    """
    return _values(resolve(read_json(payload), JSON_FIELDS, now), base, type_of)


def decode_cbor(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the values of a pack in CBOR, whose names are paths in *base*. Raise CodecError."""
    return _values(resolve(read_cbor(payload), CBOR_FIELDS, now), base, type_of)


def decode_names_json(payload: bytes, now: int | Decimal = 0) -> list[Record]:
    """Return the records of a pack in JSON, whose names are not paths. Raise CodecError."""
    return _named(resolve(read_json(payload), JSON_FIELDS, now))


def decode_names_cbor(payload: bytes, now: int | Decimal = 0) -> list[Record]:
    """Return the records of a pack in CBOR, whose names are not paths. Raise CodecError."""
    return _named(resolve(read_cbor(payload), CBOR_FIELDS, now))


def encode_json(values: Sequence[Value], base: Path = ()) -> bytes:
    """Return *values* as a pack in JSON. Raise CodecError for one that is not of its type, or is not in *base*."""
    return f"[{','.join(map(_json_record, _encodable(values, base)))}]".encode()


def encode_cbor(values: Sequence[Value], base: Path = ()) -> bytes:
    """Return *values* as a pack in CBOR. Raise CodecError for one that is not of its type, or is not in *base*."""
    records = [_cbor_record(value) for value in _encodable(values, base)]
    return cbor_writer.head(ARRAY, len(records)) + b"".join(records)


def read_json(payload: bytes) -> list[dict[str, Any]]:
    """Return the records of a pack in JSON as they were sent. Raise CodecError."""
    pack = exact_json.load(payload)
    if type(pack) is not list:
        raise CodecError("byte 0", "a SenML pack is an array of records")
    for number, record in enumerate(pack):
        if type(record) is not dict:
            raise CodecError(f"record {number}", "is not an object")
    return pack


def read_cbor(payload: bytes) -> Iterator[dict[str, Any]]:
    """Yield the records of a pack in CBOR as they were sent, with the labels of JSON. Raise CodecError."""
    reader = Reader(payload)
    major, _, tag = reader.head()
    if (major, tag) != (6, 55799):  # The tag of self-described CBOR.
        reader.position = 0
    count = reader.enter(ARRAY, "a SenML pack, an array of records")
    done = 0
    while reader.more(count, done):
        yield _read_map(reader)
        done += 1
    reader.finish()


def _read_map(reader: Reader) -> dict[str, Any]:
    record: dict[str, Any] = {}
    count = reader.enter(MAP, "a record, a map")
    payload, scalar = reader.payload, reader.scalar
    done = 0
    while done < count if count != INDEFINITE else not reader.at_break():
        start = reader.position
        label = BY_BYTE.get(payload[start]) if start < reader.end else None
        if label is None:
            label = _read_label(reader)
        else:
            reader.position = start + 1
        if label in record:
            raise reader.fault(f"a record has the label {label[:40]} twice", start)
        if label in CBOR_FIELDS:
            raw = scalar()
            record[label] = raw.seconds if type(raw) is Moment else raw
        else:
            record[label] = None
            reader.skip()
        done += 1
    return record


def _read_label(reader: Reader) -> str:
    """Return a label that is a text, or a number that is not written in the shortest form, or unknown."""
    start = reader.position
    major, _, argument = reader.head()
    if major in INTEGERS:
        number = argument if major == UNSIGNED else -1 - argument
        return LABELS.get(number) or str(number)
    reader.position = start
    label = reader.scalar() if major == TEXT else None
    if type(label) is not str:
        raise reader.fault("a label is neither a number nor a text", start)
    return label


def resolve(
    records: Iterable[dict[str, Any]], fields: Mapping[str, frozenset[type]], now: int | Decimal
) -> Iterator[Record]:
    """Yield the records that have a value, with base fields applied (section 4.6). Raise CodecError.

    Only fields in *fields* are used, and each must have one of its types there.
    """
    base_name, base_unit, base_value, base_time = "", "", None, None
    version: Any = None
    for number, record in enumerate(records):
        for label, raw in record.items():
            fitting = fields.get(label)
            if fitting is None:
                if label.endswith("_"):
                    raise CodecError(
                        f"record {number}", f"the field {label[:40]} must be understood, and is not"
                    )
            elif type(raw) not in fitting:
                raise CodecError(f"record {number}", f"{label} has a value of another type")
        if not BASE_FIELDS.isdisjoint(record):
            version = _version(record, version, number)
            base_name = record.get("bn", base_name)
            base_unit = record.get("bu", base_unit)
            base_value = record.get("bv", base_value)
            base_time = record.get("bt", base_time)
            if len(base_name) > MAX_NAME:
                raise CodecError(f"record {number}", f"a base name has more than {MAX_NAME} characters")
        elif version is None:
            version = VERSION
        held = VALUES.intersection(record)
        if len(held) > 1:
            raise CodecError(f"record {number}", f"has the values {' and '.join(sorted(held))}")
        if held:
            (label,) = held
            value = record[label]
        elif record and BASE_FIELDS.issuperset(record):
            continue  # It only sets values for the next records.
        elif base_value is not None and "s" not in record:
            label, value = "v", 0
        elif "s" in record:
            continue  # Sums are not kept.
        else:
            raise CodecError(f"record {number}", "has no value")
        name = record.get("n", "")
        if len(name) > MAX_NAME:
            raise CodecError(f"record {number}", f"a name has more than {MAX_NAME} characters")
        if label == "v" and base_value is not None:
            value = total(base_value, value)
        time = None
        try:
            if base_time is not None or "t" in record:
                time = _time(base_time or 0, record.get("t", 0), now)
            if label == "vd" and type(value) is str:
                value = base64_text.decode(value, base64_text.URL_SAFE)
            elif label == OBJECT_LINK:
                value = link(value)
        except ValueError as error:
            raise CodecError(f"record {number}", str(error)) from error
        unit = record.get("u", base_unit) if label == "v" else ""
        yield Record(number, base_name + name, label, value, unit, time)


def _version(record: dict[str, Any], before: Any, number: int) -> Any:
    """Return the version of the pack. Raise CodecError if it is not known, or not that of the records before."""
    version = record.get("bver", before or VERSION)
    if not 1 <= version <= VERSION or version != version // 1:
        raise CodecError(f"record {number}", f"has a SenML version other than 1 to {VERSION}")
    if before is not None and version != before:
        raise CodecError(f"record {number}", "has another SenML version than the records before")
    return version


def _time(base: Any, own: Any, now: int | Decimal) -> Any:
    """Return the time of a record in seconds since 1970; a small sum counts from *now* (section 4.5.3)."""
    time = seconds(total(base, own))
    return time if time >= ABSOLUTE else total(now, time)


def _values(records: Iterable[Record], base: Path, type_of: TypeOf) -> list[Value]:
    found = []
    seen = Seen(base)
    for number, name, _, raw, _, time in records:
        try:
            path = paths.parse(name)
            seen.add(path, time)
            kind, value = typed(raw, type_of(path[0], path[2]))
        except ValueError as error:
            raise CodecError(f"record {number}", str(error)) from error
        found.append(Value(path, kind, value, time))
    return found


def _named(records: Iterable[Record]) -> list[Record]:
    found = []
    for record in records:
        if not NAME_FORM.fullmatch(record.name):
            hint = ": a path needs a base" if record.name.startswith("/") else ""
            raise CodecError(f"record {record.number}", f"{record.name[:40]!r} is not a name of SenML{hint}")
        try:
            value = typed(record.value, PLAIN_TYPES[record.label])[1]
        except ValueError as error:
            raise CodecError(f"record {record.number}", str(error)) from error
        found.append(record._replace(value=value))
    return found


def _encodable(values: Sequence[Value], base: Path) -> Iterator[Value]:
    """Yield *values* checked. An absolute time must not read as a relative one."""
    for value in map(checked, values):
        if not paths.lies_in(value.path, base):
            raise CodecError(paths.write(value.path), f"is not a part of {paths.write(base)}")
        if value.time is not None and value.time < ABSOLUTE:
            raise CodecError(paths.write(value.path), "has a time that SenML reads as relative")
        yield value


def _label(value: Value) -> tuple[str, Any]:
    """Return the field that holds *value*, and what stands in it."""
    if value.type == DataType.OBJLNK:
        return OBJECT_LINK, str(value.value)
    if value.type == DataType.BOOLEAN:
        return "vb", value.value
    if value.type == DataType.OPAQUE:
        return "vd", value.value
    return ("vs" if type(value.value) is str else "v"), value.value


def _json_record(value: Value) -> str:
    label, held = _label(value)
    if type(held) is bytes:
        held = base64_text.encode_url_safe(held)
    time = "" if value.time is None else f',"t":{exact_json.scalar(value.time)}'
    return f'{{"n":"{paths.write(value.path)}","{label}":{exact_json.scalar(held)}{time}}}'


def _cbor_record(value: Value) -> bytes:
    label, held = _label(value)
    items = [0, paths.write(value.path), BY_NAME.get(label, label), held]
    if value.time is not None:
        items += [BY_NAME["t"], value.time]
    return cbor_writer.head(MAP, len(items) // 2) + b"".join(map(cbor_writer.scalar, items))
