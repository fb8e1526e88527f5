"""LwM2M CBOR (content format 11544), maps of ids; and plain CBOR of one value (content format 60). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from devicehub.messages.lwm2m import cbor_writer, paths
from devicehub.messages.lwm2m.cbor_reader import ARRAY, MAP, UNSIGNED, Reader
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import MAX_ID, MOST_IDS, Path
from devicehub.messages.lwm2m.values import (
    DataType,
    Moment,
    Seen,
    TypeOf,
    Value,
    checked,
    link,
    one,
    resource_of,
    typed,
    untimed,
)


class OpenMap:
    """A map at *path* whose entries are being read."""

    __slots__ = ("count", "keys", "path")

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self.keys: set[Path] = set()


def decode(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the values of the nested maps in *payload*, in *base*. Raise CodecError. The format has no times.

    A key is an id or an array of ids. Each level adds an id at least, so at most four maps are open at once.
    """
    reader = Reader(payload)
    found: list[Value] = []
    seen = Seen(base)
    open_maps = [OpenMap((), _enter(reader))]
    while open_maps:
        above = open_maps[-1]
        if not reader.more(above.count, len(above.keys)):
            open_maps.pop()
            continue
        start = reader.position
        key = _key(reader)
        if key in above.keys:
            raise reader.fault("a map has a key twice", start)
        above.keys.add(key)
        path = above.path + key
        if len(path) > MOST_IDS:
            raise reader.fault(f"a path has more than {MOST_IDS} ids", start)
        if reader.position < reader.end and payload[reader.position] >> 5 == MAP:
            if len(path) == MOST_IDS:
                raise reader.fault("a resource instance holds a map")
            open_maps.append(OpenMap(path, _enter(reader)))
            continue
        position = reader.position
        raw = reader.scalar()
        try:
            seen.add(path)
            kind, value = _typed(raw, type_of(path[0], path[2]))
        except ValueError as error:
            raise reader.fault(str(error), position) from error
        found.append(Value(path, kind, value))
    reader.finish()
    return found


def decode_one(payload: bytes, base: Path, type_of: TypeOf, now: int | Decimal = 0) -> list[Value]:
    """Return the value of the resource *base*, the only item in *payload*. Raise CodecError."""
    path = resource_of(base, "CBOR")
    reader = Reader(payload)
    raw = reader.scalar()
    reader.finish()
    try:
        return [Value(path, *_typed(raw, type_of(path[0], path[2])))]
    except ValueError as error:
        raise CodecError("byte 0", str(error)) from error


def _enter(reader: Reader) -> int:
    return reader.enter(MAP, "a map of ids")


def _key(reader: Reader) -> Path:
    start = reader.position
    if start < reader.end and reader.payload[start] >> 5 == ARRAY:
        count = reader.enter(ARRAY, "an array of ids")
        ids: list[int] = []
        while reader.more(count, len(ids)):
            if len(ids) == MOST_IDS:
                raise reader.fault(f"a path has more than {MOST_IDS} ids", start)
            ids.append(_id(reader))
        if not ids:
            raise reader.fault("a key has no id", start)
        return tuple(ids)
    return (_id(reader),)


def _id(reader: Reader) -> int:
    start = reader.position
    major, _, number = reader.head()
    if major != UNSIGNED or number > MAX_ID:
        raise reader.fault(f"is not an id from 0 to {MAX_ID}", start)
    return number


def _typed(raw: Any, declared: DataType | None) -> tuple[DataType, Any]:
    if declared == DataType.OBJLNK and type(raw) is str:
        return declared, link(raw)
    if declared is not None and type(raw) is Moment:
        raw = raw.seconds
    return typed(raw, declared)


def encode(values: Sequence[Value], base: Path = ()) -> bytes:
    """Return *values* as nested maps. Raise CodecError for one that is not in *base*, or has a time."""
    root: dict[int, Any] = {}
    seen = Seen(base)
    for value in map(checked, values):
        try:
            seen.add(value.path)
        except ValueError as error:
            raise CodecError(paths.write(value.path), str(error)) from error
        level = root
        for number in value.path[:-1]:
            level = level.setdefault(number, {})
        level[value.path[-1]] = _item(untimed(value, "LwM2M CBOR"))
    return _map(root)


def encode_one(values: Sequence[Value], base: Path = ()) -> bytes:
    """Return the only one of *values* as an item. Raise CodecError."""
    return _item(one(values, "CBOR"))


def _map(level: dict[int, Any]) -> bytes:
    """Return the map of a level, and of those below: there are four."""
    items = [
        cbor_writer.scalar(number) + (_map(held) if isinstance(held, dict) else held)
        for number, held in level.items()
    ]
    return cbor_writer.head(MAP, len(items)) + b"".join(items)


def _item(value: Value) -> bytes:
    return cbor_writer.scalar(str(value.value) if value.type == DataType.OBJLNK else value.value)
