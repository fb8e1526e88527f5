"""The TLV format of LwM2M (content format 11542): entries of kind, id, length and value, without types. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import MAX_ID, RESOURCE, Path
from devicehub.messages.lwm2m.values import (
    MOST_VALUES,
    DataType,
    ObjectLink,
    Seen,
    TypeOf,
    Value,
    check_size,
    checked,
    typed,
    untimed,
)

OBJECT_INSTANCE, RESOURCE_INSTANCE, MULTIPLE_RESOURCE, SINGLE_RESOURCE = range(4)
# The number of ids in the path of an entry, by its kind.
LEVELS = (2, 4, RESOURCE, RESOURCE)
NAMES = ("an object instance", "a resource instance", "a multiple resource", "a resource with a value")
INTEGER_SIZES = (1, 2, 4, 8)
SINGLE, DOUBLE, LINK = struct.Struct(">f"), struct.Struct(">d"), struct.Struct(">HH")
MAX_LENGTH = (1 << 24) - 1


class Entry(NamedTuple):
    """One entry; its value is from byte *start* to byte *end*, and the entry begins at byte *position*."""

    kind: int
    id: int
    position: int
    start: int
    end: int


def decode(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the values of the entries in *payload*, the answer for path *base*. Raise CodecError.

    A resource without a type has its bytes as an opaque value. TLV has no times.
    """
    check_size(payload)
    if not base:
        raise CodecError("/", "TLV names no object: the base must be an object or a part of one")
    if not payload and len(base) > RESOURCE:
        raise CodecError("byte 0", "the payload is empty")
    found: list[Value] = []
    seen = Seen(base)
    for entry, path in _placed(payload, base):
        try:
            seen.add(path)
            kind, value = read_value(payload[entry.start : entry.end], type_of(path[0], path[2]))
        except ValueError as error:
            raise CodecError(f"byte {entry.position}", str(error)) from error
        found.append(Value(path, kind, value))
    return found


def _placed(payload: bytes, base: Path) -> Iterator[tuple[Entry, Path]]:
    """Yield the entries that have a value, with their paths. An entry holds those of the next level only."""
    containers: set[Path] = set()
    level = 0
    for entry in _entries(payload, 0, len(payload)):
        if level and LEVELS[entry.kind] != level:
            raise CodecError(
                f"byte {entry.position}", f"is {NAMES[entry.kind]} beside entries of another level"
            )
        level = LEVELS[entry.kind]
        above = base[: level - 1]
        if level == RESOURCE and len(base) == 1:
            above = (*base, 0)  # Resources that answer for a whole object are those of its only instance.
        if len(above) < level - 1:
            raise CodecError(f"byte {entry.position}", f"is {NAMES[entry.kind]}, not an answer for the base")
        yield from _within(payload, entry, (*above, entry.id), base, containers)


def _within(
    payload: bytes, entry: Entry, path: Path, base: Path, containers: set[Path]
) -> Iterator[tuple[Entry, Path]]:
    common = min(len(path), len(base))
    if path[:common] != base[:common]:
        raise CodecError(
            f"byte {entry.position}", f"{paths.write(path)} is not a part of {paths.write(base)}"
        )
    if entry.kind in (SINGLE_RESOURCE, RESOURCE_INSTANCE):
        yield entry, path
        return
    if path in containers:
        raise CodecError(f"byte {entry.position}", f"{paths.write(path)} is there twice")
    if len(containers) == MOST_VALUES:
        raise CodecError(f"byte {entry.position}", f"the payload has more than {MOST_VALUES} containers")
    containers.add(path)
    is_instance = entry.kind == OBJECT_INSTANCE
    fitting = (SINGLE_RESOURCE, MULTIPLE_RESOURCE) if is_instance else (RESOURCE_INSTANCE,)
    for inner in _entries(payload, entry.start, entry.end):
        if inner.kind not in fitting:
            raise CodecError(f"byte {inner.position}", f"is {NAMES[inner.kind]} in {NAMES[entry.kind]}")
        # Two levels at most: an object instance holds resources, and these hold resource instances.
        yield from _within(payload, inner, (*path, inner.id), base, containers)


def _entries(payload: bytes, position: int, end: int) -> Iterator[Entry]:
    while position < end:
        first = payload[position]
        wide = first >> 5 & 1
        size = first >> 3 & 3
        start = position + 2 + wide + size
        if start > end:
            raise CodecError(f"byte {position}", "the payload ends in the middle of an entry")
        number = payload[position + 1]
        if wide:
            number = number << 8 | payload[position + 2]
        length = int.from_bytes(payload[position + 2 + wide : start]) if size else first & 7
        if number > MAX_ID:
            raise CodecError(f"byte {position}", f"has an id above {MAX_ID}")
        if length > end - start:
            raise CodecError(f"byte {position}", f"has a value of {length} bytes, and {end - start} follow")
        yield Entry(first >> 6, number, position, start, start + length)
        position = start + length


def read_value(data: bytes, declared: DataType | None) -> tuple[DataType, Any]:
    """Return the value that *data* is for a resource of type *declared*. Raise ValueError."""
    if declared is None or declared == DataType.OPAQUE:
        return DataType.OPAQUE, data
    if declared == DataType.STRING or declared == DataType.CORELNK:
        try:
            return declared, data.decode()
        except UnicodeDecodeError as error:
            raise ValueError("a string is not UTF-8") from error
    size = len(data)
    if declared == DataType.FLOAT and size in (4, 8):
        return typed((SINGLE if size == 4 else DOUBLE).unpack(data)[0], declared)
    if declared in (DataType.INTEGER, DataType.TIME) and size in INTEGER_SIZES:
        return declared, int.from_bytes(data, signed=True)
    if declared == DataType.UNSIGNED_INTEGER and size in INTEGER_SIZES:
        return declared, int.from_bytes(data)
    if declared == DataType.BOOLEAN and data in (b"\0", b"\1"):
        return declared, data == b"\1"
    if declared == DataType.OBJLNK and size == 4:
        return declared, ObjectLink(*LINK.unpack(data))
    raise ValueError(f"{size} bytes ({data[:8].hex()}) are not a value of type {declared}")


def encode(values: Sequence[Value], base: Path) -> bytes:
    """Return *values* as the answer for *base*. Raise CodecError for one that is not in *base*, or has a time."""
    if not base:
        raise CodecError("/", "TLV names no object: the base must be an object or a part of one")
    instances: dict[int, dict[int, Any]] = {}
    seen = Seen(base)
    for value in map(checked, values):
        try:
            seen.add(value.path)
            data = write_value(untimed(value, "TLV"))
        except ValueError as error:
            raise CodecError(paths.write(value.path), str(error)) from error
        resources = instances.setdefault(value.path[1], {})
        if len(value.path) == RESOURCE:
            resources[value.path[2]] = data
        else:
            resources.setdefault(value.path[2], {})[value.path[3]] = data
    if len(base) == 1:
        return b"".join(
            _entry(OBJECT_INSTANCE, instance, _resources(resources))
            for instance, resources in instances.items()
        )
    resources = instances.get(base[1], {})
    if len(base) > RESOURCE:
        return _instances(resources.get(base[2], {}))
    return _resources(resources)


def _resources(resources: dict[int, Any]) -> bytes:
    return b"".join(
        _entry(SINGLE_RESOURCE, number, held)
        if isinstance(held, bytes)
        else _entry(MULTIPLE_RESOURCE, number, _instances(held))
        for number, held in resources.items()
    )


def _instances(instances: dict[int, bytes]) -> bytes:
    return b"".join(_entry(RESOURCE_INSTANCE, number, data) for number, data in instances.items())


def _entry(kind: int, number: int, data: bytes) -> bytes:
    length = len(data)
    if length > MAX_LENGTH:
        raise CodecError("/", f"a value of {length} bytes is too long for TLV")
    size = 0 if length < 8 else (length.bit_length() + 7) // 8
    wide = number > 255
    first = kind << 6 | wide << 5 | size << 3 | (0 if size else length)
    return (
        bytes([first]) + number.to_bytes(2 if wide else 1) + (length.to_bytes(size) if size else b"") + data
    )


def write_value(value: Value) -> bytes:
    """Return the bytes of a checked value in TLV. Raise ValueError for a time with a fraction."""
    held = value.value
    match value.type:
        case DataType.STRING | DataType.CORELNK:
            return bytes(held.encode())
        case DataType.OPAQUE:
            return bytes(held)
        case DataType.BOOLEAN:
            return b"\1" if held else b"\0"
        case DataType.OBJLNK:
            return LINK.pack(*held)
        case DataType.FLOAT:
            return _float(held)
    if type(held) is not int:
        raise ValueError("TLV cannot write a time with a fraction")
    is_signed = value.type != DataType.UNSIGNED_INTEGER
    bits = (held if held >= 0 else ~held).bit_length() + is_signed
    size = next(size for size in INTEGER_SIZES if bits <= 8 * size)
    return bytes(held.to_bytes(size, signed=is_signed))


def _float(number: float) -> bytes:
    try:
        short = SINGLE.pack(number)
    except OverflowError:
        return DOUBLE.pack(number)
    return short if SINGLE.unpack(short)[0] == number else DOUBLE.pack(number)
