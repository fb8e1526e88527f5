"""The JSON in which a Leshan server shows the objects, resources and values of an endpoint. Pure.

Version 2.0.0-M4 of its demo server names neither the kind nor the type of a node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from devicehub.messages import times
from devicehub.messages.lwm2m import paths, text_opaque, tlv
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import MAX_ID, Path
from devicehub.messages.lwm2m.values import DataType, ObjectLink, Seen, TypeOf, Value, link, typed

MEDIA_TYPE = "application/vnd.devicehub.leshan+json"  # Of messages with such nodes, inside DeviceHub only.
# The number of ids in the path of a node, by its kind.
LEVELS = {"root": 0, "obj": 1, "instance": 2, "singleResource": 3, "multiResource": 3, "resourceInstance": 4}
INNER = {"root": "objects", "obj": "instances", "instance": "resources"}
TYPES = {
    "STRING": DataType.STRING,
    "INTEGER": DataType.INTEGER,
    "UNSIGNED_INTEGER": DataType.UNSIGNED_INTEGER,
    "FLOAT": DataType.FLOAT,
    "BOOLEAN": DataType.BOOLEAN,
    "OPAQUE": DataType.OPAQUE,
    "TIME": DataType.TIME,
    "OBJLNK": DataType.OBJLNK,
    "CORELINK": DataType.CORELNK,
}
NUMBERS = frozenset({DataType.INTEGER, DataType.UNSIGNED_INTEGER, DataType.FLOAT})
TEXTS = frozenset({DataType.STRING, DataType.CORELNK})
NO_TYPE = "NONE"  # Executable resources.


def decode(
    node: Any, path: Path | None, type_of: TypeOf, notes: Callable[[str], None] | None = None
) -> list[Value]:
    """Return the values in *node*, the node at *path*. Raise CodecError.

    Without a path, an object names itself by its id. A value has the type of its resource where it fits, and else
    the type that Leshan names: bytes of an object without a model there are read with the model here. With *notes*, a
    value that cannot be read is left out with a note, and costs no other.
    """
    if node is None:
        return []  # A path without a value.
    kind = _kind(node, path)
    if path is None:
        path = () if kind == "root" else (_id(node, ()),) if kind == "obj" else None
        if path is None:
            raise CodecError("/", f"a node of kind {kind} does not name its object")
    elif len(path) != LEVELS[kind]:
        raise CodecError(paths.write(path), f"is not a path of a node of kind {kind}")
    elif path and node.get("id", path[-1]) != path[-1]:
        raise CodecError(paths.write(path), "the node has another id")
    seen = Seen(path)
    found = []
    for place, form, raw in _raw_values(node, kind, path):
        try:
            seen.add(place)
        except ValueError as error:
            raise CodecError(paths.write(place), str(error)) from error
        try:
            value = _typed(raw, form, type_of(place[0], place[2]))
        except (ValueError, ArithmeticError) as error:
            if notes is None:
                raise CodecError(paths.write(place), str(error)) from error
            notes(f"{paths.write(place)}: {error}")
            continue
        if value is not None:
            found.append(Value(place, *value))
    return found


def decode_composite(found: Any, type_of: TypeOf, notes: Callable[[str], None] | None = None) -> list[Value]:
    """Return the values in a map of path to node, or in one node that names itself, as decode(). Raise CodecError."""
    if not isinstance(found, Mapping):
        raise CodecError("/", "is neither a node nor a map of nodes")
    if "kind" in found or any(name in found for name in INNER.values()):
        return decode(found, None, type_of, notes)
    values: list[Value] = []
    seen = Seen(())
    for name, node in found.items():
        try:
            path = paths.parse(name)
        except ValueError as error:
            raise CodecError("/", str(error)) from error
        for value in decode(node, path, type_of, notes):
            try:
                seen.add(value.path)
            except ValueError as error:
                raise CodecError(paths.write(value.path), str(error)) from error
            values.append(value)
    return values


def _kind(node: Any, path: Path | None) -> str:
    if not isinstance(node, Mapping):
        raise CodecError(paths.write(path or ()), "is not a node")
    kind = node.get("kind")
    if kind is None:
        if path and len(path) == LEVELS["resourceInstance"]:
            return "resourceInstance"
        kind = next((kind for kind, inner in INNER.items() if inner in node), None)
        kind = kind or ("multiResource" if "values" in node else "singleResource")
    if not isinstance(kind, str) or kind not in LEVELS:
        raise CodecError(paths.write(path or ()), f"{str(kind)[:40]!r} is not a kind of node")
    return kind


def _raw_values(top: Mapping[str, Any], kind: str, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    """Yield path, named type and value of each resource. A node holds nodes of the next level only."""
    waiting = [(top, kind, path)]
    while waiting:
        node, kind, path = waiting.pop()
        if kind in INNER:
            inner = node.get(INNER[kind], ())
            if not isinstance(inner, list | tuple):
                raise CodecError(paths.write(path), f"{INNER[kind]} is not a list")
            for part in reversed(inner):
                of = _kind(part, None)
                place = (*path, _id(part, path))
                if len(place) != LEVELS[of]:
                    raise CodecError(paths.write(place), f"is a node of kind {of} in one of kind {kind}")
                waiting.append((part, of, place))
        elif kind == "multiResource":
            values = node.get("values")
            if not isinstance(values, Mapping):
                raise CodecError(paths.write(path), "values is not a map")
            for number, raw in values.items():
                yield (*path, _instance(number, path)), node.get("type"), raw
        else:
            yield path, node.get("type"), node.get("value")


def _id(node: Mapping[str, Any], path: Path) -> int:
    number = node.get("id")
    if type(number) is not int or not 0 <= number <= MAX_ID:
        raise CodecError(paths.write(path), f"a node has no id from 0 to {MAX_ID}")
    return number


def _instance(number: Any, path: Path) -> int:
    try:
        (found,) = paths.parse(f"/{number}")
    except ValueError as error:
        raise CodecError(paths.write(path), f"{str(number)[:40]!r} is not an id") from error
    return found


def _typed(raw: Any, form: Any, declared: DataType | None) -> tuple[DataType, Any] | None:
    """Return type and value; None without a value. Raise ValueError."""
    if raw is None or form == NO_TYPE:
        return None
    if form is None:
        return _untyped(raw, declared)
    if not isinstance(form, str) or form not in TYPES:
        raise ValueError(f"{str(form)[:40]!r} is not a type")
    kind, value = _read(raw, TYPES[form])
    if declared is None or declared == kind:
        return kind, value
    try:
        return tlv.read_value(value, declared) if kind == DataType.OPAQUE else typed(value, declared)
    except ValueError:
        return kind, value


def _read(raw: Any, kind: DataType) -> tuple[DataType, Any]:
    """Return the value of a type that Leshan names. Raise ValueError."""
    if kind in NUMBERS and isinstance(raw, str):
        return text_opaque.read_text(raw, kind)
    if kind == DataType.OPAQUE:
        return kind, _bytes(raw)
    if kind == DataType.TIME:
        return typed(_seconds(raw), kind)
    if kind == DataType.OBJLNK:
        return typed(_link(raw), kind)
    return typed(raw, kind)


def _untyped(raw: Any, declared: DataType | None) -> tuple[DataType, Any]:
    """Return the value of a node without a type, with the declared type where it fits."""
    if isinstance(raw, Mapping):
        return DataType.OBJLNK, _link(raw)
    if declared is not None:
        try:
            if not isinstance(raw, str) or declared in TEXTS:
                return _read(raw, declared)
            return _from_text(raw, declared)
        except ValueError:
            pass
    if type(raw) not in (str, int, float, Decimal, bool):
        raise ValueError("is not a value")
    return typed(raw, None)


def _from_text(raw: str, declared: DataType) -> tuple[DataType, Any]:
    """Return the value of a text that is a time, or bytes of TLV. Raise ValueError."""
    if declared == DataType.TIME and "-" in raw:
        return typed(_seconds(raw), declared)
    return tlv.read_value(_bytes(raw), declared)


def _bytes(raw: Any) -> bytes:
    if not isinstance(raw, str) or not raw.isalnum():
        if raw == "":
            return b""
        raise ValueError("is not hexadecimal digits")
    return bytes.fromhex(raw)


def _seconds(raw: Any) -> Any:
    """Return milliseconds or an ISO 8601 time as seconds. Raise ValueError."""
    if isinstance(raw, str) and "-" in raw[1:]:
        return Decimal(str(times.moment(raw).timestamp()))
    if isinstance(raw, str):
        raw = text_opaque.read_text(raw, DataType.INTEGER)[1]
    if type(raw) is int:
        return raw // 1000 if raw % 1000 == 0 else Decimal(raw) / 1000
    raise ValueError("is not a time in milliseconds")


def _link(raw: Any) -> ObjectLink:
    match raw:
        case str():
            return link(raw)
        case {"objectId": object_id, "objectInstanceId": instance_id} if (
            type(object_id) is type(instance_id) is int
        ):
            return ObjectLink(object_id, instance_id)
    raise ValueError("is not an object link")
