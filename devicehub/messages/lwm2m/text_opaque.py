"""Plain text and opaque bytes (content formats 0 and 42): the value of one resource. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from devicehub.messages.lwm2m import base64_text
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import (
    DataType,
    TypeOf,
    Value,
    check_size,
    link,
    one,
    resource_of,
    typed,
)

WHOLE = re.compile(r"[+-]?[0-9]{1,100}")
# Each run of digits fits one part alone; otherwise the search would take hours for a megabyte of them.
REAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WHOLE_TYPES = (DataType.INTEGER, DataType.UNSIGNED_INTEGER, DataType.TIME)


def decode_text(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the value of the resource *base* that *payload* spells. Raise CodecError.

    A resource without a type has a string.
    """
    path = resource_of(base, "text")
    check_size(payload)
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise CodecError(f"byte {error.start}", "is not UTF-8") from error
    try:
        return [Value(path, *read_text(text, type_of(path[0], path[2]) or DataType.STRING))]
    except ValueError as error:
        raise CodecError("byte 0", str(error)) from error


def read_text(text: str, kind: DataType) -> tuple[DataType, Any]:
    """Return the value of type *kind* that *text* spells. Raise ValueError."""
    if kind in WHOLE_TYPES and WHOLE.fullmatch(text):
        return typed(int(text), kind)
    if kind == DataType.FLOAT and REAL.fullmatch(text):
        return typed(float(text), kind)
    if kind == DataType.BOOLEAN and text in ("0", "1"):
        return kind, text == "1"
    if kind == DataType.OPAQUE:
        return kind, base64_text.decode(text)
    if kind == DataType.OBJLNK:
        return kind, link(text)
    if kind == DataType.STRING or kind == DataType.CORELNK:
        return kind, text
    raise ValueError(f"{text[:40]!r} is not a value of type {kind}")


def encode_text(values: Sequence[Value], base: Path = ()) -> bytes:
    """Return the only one of *values* as text. Raise CodecError."""
    value = one(values, "text")
    match value.type:
        case DataType.BOOLEAN:
            return b"1" if value.value else b"0"
        case DataType.OPAQUE:
            return base64_text.encode(value.value).encode()
    if isinstance(value.value, Decimal):
        raise CodecError("/", "text cannot write a time with a fraction")
    return str(value.value).encode()


def decode_opaque(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the bytes of *payload* as the value of the resource *base*. Raise CodecError if it is not opaque."""
    path = resource_of(base, "an opaque payload")
    check_size(payload)
    kind = type_of(path[0], path[2]) or DataType.OPAQUE
    if kind != DataType.OPAQUE:
        raise CodecError("byte 0", f"an opaque payload is not a value of type {kind}")
    return [Value(path, kind, payload)]


def encode_opaque(values: Sequence[Value], base: Path = ()) -> bytes:
    """Return the bytes of the only one of *values*. Raise CodecError if it is not opaque."""
    value = one(values, "an opaque payload")
    if value.type != DataType.OPAQUE:
        raise CodecError("/", f"an opaque payload is not a value of type {value.type}")
    return bytes(value.value)
