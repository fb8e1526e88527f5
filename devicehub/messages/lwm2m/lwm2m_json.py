"""The JSON of LwM2M 1.0 (content format 11543). Its `bv` is a boolean, and a base value in SenML. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from devicehub.messages.lwm2m import base64_text, exact_json, paths
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import (
    DataType,
    Seen,
    TypeOf,
    Value,
    checked,
    decimal,
    link,
    seconds,
    total,
    typed,
)
from devicehub.messages.senml import ABSOLUTE

MAX_NAME = 255  # Characters of a base name, and of a name.
NUMBER = frozenset({int, float, Decimal})
STRING = frozenset({str})
ROOT_FIELDS = {"bn": STRING, "bt": NUMBER, "e": frozenset({list})}
FIELDS = {"n": STRING, "t": NUMBER, "v": NUMBER, "bv": frozenset({bool}), "sv": STRING, "ov": STRING}
VALUES = frozenset({"v", "bv", "sv", "ov"})


def decode(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the values of a document, whose names are paths in *base*. Raise CodecError.

    Without a base name, a name that does not begin with `/` continues *base*.
    """
    root = exact_json.load(payload)
    if type(root) is not dict or "e" not in root:
        raise CodecError("byte 0", "is not an object with entries in e")
    _check_types(root, ROOT_FIELDS, "byte 0")
    base_name, base_time = root.get("bn", ""), root.get("bt")
    if len(base_name) > MAX_NAME:
        raise CodecError("byte 0", f"the base name has more than {MAX_NAME} characters")
    found: list[Value] = []
    seen = Seen(base)
    for number, entry in enumerate(root["e"]):
        position = f"record {number}"
        if type(entry) is not dict:
            raise CodecError(position, "is not an object")
        _check_types(entry, FIELDS, position)
        held = VALUES.intersection(entry)
        if len(held) != 1:
            raise CodecError(
                position, f"has the values {' and '.join(sorted(held))}" if held else "has no value"
            )
        (label,) = held
        try:
            path = _path(base_name, entry.get("n", ""), base)
            time = _time(base_time, entry.get("t"), now)
            seen.add(path, time)
            kind, value = _value(label, entry[label], type_of(path[0], path[2]))
        except ValueError as error:
            raise CodecError(position, str(error)) from error
        found.append(Value(path, kind, value, time))
    return found


def _check_types(members: dict[str, Any], fields: dict[str, frozenset[type]], position: str) -> None:
    for label, raw in members.items():
        if label in fields and type(raw) not in fields[label]:
            raise CodecError(position, f"{label} has a value of another type")


def _path(base_name: str, name: str, base: Path) -> Path:
    if len(name) > MAX_NAME:
        raise ValueError(f"a name has more than {MAX_NAME} characters")
    whole = base_name + name
    if whole.startswith("/"):
        return paths.parse(whole)
    if base_name or not base:
        return paths.parse("/" + whole)
    return paths.parse(paths.write(base) + ("/" + name if name else ""))


def _time(base: Any, own: Any, now: int | Decimal) -> Any:
    """Return a time in seconds since 1970, or None. Without a base time, a small one counts from *now*."""
    if base is not None:
        return seconds(total(base, own or 0))
    if own is None:
        return None
    time = seconds(own)
    return time if time >= ABSOLUTE else total(now, time)


def _value(label: str, raw: Any, declared: DataType | None) -> tuple[DataType, Any]:
    if label == "ov":
        return typed(link(raw), declared)
    if label == "sv" and declared == DataType.OPAQUE:
        return declared, base64_text.decode(raw)
    return typed(raw, declared)


def encode(values: Sequence[Value], base: Path = ()) -> bytes:
    """Return *values* as a document. Raise CodecError for one that is not in *base*, or if only some have a time."""
    entries, base_time = [], checked(values[0]).time if values else None
    for value in map(checked, values):
        if not paths.lies_in(value.path, base):
            raise CodecError(paths.write(value.path), f"is not a part of {paths.write(base)}")
        if (value.time is None) != (base_time is None):
            raise CodecError(paths.write(value.path), "either all values have a time, or none")
        time = ""
        if value.time is not None and base_time is not None and value.time != base_time:
            time = f',"t":{exact_json.scalar(_difference(value, base_time))}'
        entries.append(f'{{"n":"{paths.write(value.path)}",{_field(value)}{time}}}')
    shared = "" if base_time is None else f'"bt":{exact_json.scalar(base_time)},'
    return f'{{{shared}"e":[{",".join(entries)}]}}'.encode()


def _difference(value: Value, base: int | Decimal) -> Any:
    """Return the time of *value* as a reader adds it to *base*. Raise CodecError if digits would get lost."""
    time: Any = value.time
    # The sign of a decimal changes without rounding by copy_negate() only.
    found = total(time, -base if type(base) is int else decimal(base).copy_negate())
    if total(base, found) != time:
        raise CodecError(paths.write(value.path), "has a time with too many digits beside the first one")
    return found


def _field(value: Value) -> str:
    match value.type:
        case DataType.BOOLEAN:
            label, held = "bv", value.value
        case DataType.OPAQUE:
            label, held = "sv", base64_text.encode(value.value)
        case DataType.OBJLNK:
            label, held = "ov", str(value.value)
        case DataType.STRING | DataType.CORELNK:
            label, held = "sv", value.value
        case _:
            label, held = "v", value.value
    return f'"{label}":{exact_json.scalar(held)}'
