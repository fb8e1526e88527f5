"""SenML (RFC 8428) in JSON and in CBOR, strictly: a pack is read whole or refused. Pure.

`devicehub.messages.senml` reads packs of typed devices, which lose only the records that cannot be used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import starmap
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
    payload, scalar = reader.payload, reader.scalar
    count = reader.enter(MAP, "a record, a map")
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
) -> Iterator[tuple[Any, ...]]:
    """Yield the fields of each Record, with base fields applied (section 4.6). Raise CodecError.

    Only fields in *fields* are used, and each must have one of its types there.
    """
    base: dict[str, Any] = {}
    base_name = ""
    base_time: Any = None  # Of records without a time of their own.
    version: Any = None
    for number, record in enumerate(records):
        try:
            label, name, own_time = "", "", None
            raw: Any = None
            for field, held in record.items():
                fitting = fields.get(field)
                if fitting is None:
                    _check_unknown(field)
                elif type(held) not in fitting:
                    raise _other_type(field)
                elif field in VALUES:
                    if label:
                        raise _several(record)
                    label, raw = field, held
                elif field == "n":
                    name = _name(field, held)
                elif field == "t":
                    own_time = held
                elif field in BASE_FIELDS:
                    base[field] = held
                    if field == "bn":
                        base_name = _name(field, held)
                    elif field == "bt":
                        base_time = None
            if version is None or "bver" in record:
                version = _version(record.get("bver", VERSION), version)
            if not label:
                if _has_no_value(record, base, fields):
                    continue
                label, raw = "v", 0  # The base value alone.
            if own_time is not None:
                time = _time(base.get("bt", 0), own_time, now)
            elif base_time is None and "bt" in base:
                time = base_time = _time(base["bt"], 0, now)
            else:
                time = base_time
            if label == "v":
                unit = record.get("u", base.get("bu", ""))
                value = total(base["bv"], raw) if "bv" in base else raw
            else:
                unit, value = "", _value(label, raw)
            yield number, base_name + name, label, value, unit, time
        except ValueError as error:
            raise CodecError(f"record {number}", str(error)) from error


def _other_type(field: str) -> ValueError:
    return ValueError(f"{field} has a value of another type")


def _several(record: dict[str, Any]) -> ValueError:
    return ValueError(f"has the values {' and '.join(sorted(VALUES.intersection(record)))}")


def _check_unknown(field: str) -> None:
    if field.endswith("_"):
        raise ValueError(f"the field {field[:40]} must be understood, and is not")


def _name(field: str, text: str) -> str:
    if len(text) > MAX_NAME:
        raise ValueError(f"{field} has more than {MAX_NAME} characters")
    return text


def _version(version: Any, before: Any) -> Any:
    """Return the version of the pack. Raise ValueError if it is not known, or not that of the records before."""
    if not 1 <= version <= VERSION or version != version // 1:
        raise ValueError(f"has a SenML version other than 1 to {VERSION}")
    if before is not None and version != before:
        raise ValueError("has another SenML version than the records before")
    return version


def _has_no_value(record: dict[str, Any], base: dict[str, Any], fields: Mapping[str, Any]) -> bool:
    """Return whether a record without a value is one of base fields, or of a sum, which is not kept.

    Fields that are not known do not count, and a base sum alone is a sum.
    """
    own = [field for field in record if field in fields]
    if "s" in record or (own and BASE_FIELDS.issuperset(own)):
        return True
    if "bv" not in base and "bs" not in base:
        raise ValueError("has no value")
    return "bv" not in base


def _value(label: str, raw: Any) -> Any:
    if label == "vd" and type(raw) is str:
        return base64_text.decode(raw, base64_text.URL_SAFE)
    return link(raw) if label == OBJECT_LINK else raw


def _time(base: Any, own: Any, now: int | Decimal) -> Any:
    """Return the time of a record in seconds since 1970; a small sum counts from *now* (section 4.5.3)."""
    time = seconds(total(base, own))
    return time if time >= ABSOLUTE else total(now, time)


def _values(records: Iterable[tuple[Any, ...]], base: Path, type_of: TypeOf) -> list[Value]:
    found = []
    parse, see = paths.parse, Seen(base).add
    new = tuple.__new__  # The constructor of a NamedTuple takes twice as long.
    for number, name, _, raw, _, time in records:
        try:
            path = parse(name)
            see(path, time)
            kind, value = typed(raw, type_of(path[0], path[2]))
        except ValueError as error:
            raise CodecError(f"record {number}", str(error)) from error
        found.append(new(Value, (path, kind, value, time)))
    return found


def _named(records: Iterable[tuple[Any, ...]]) -> list[Record]:
    found = []
    for record in starmap(Record, records):
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
