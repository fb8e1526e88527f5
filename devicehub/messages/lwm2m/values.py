"""Values of LwM2M resources: their types, and the check of a value against the type of its resource. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from decimal import Context, Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.message import MAX_KEPT

SIGNED = range(-(2**63), 2**63)
UNSIGNED = range(2**64)
MOST_VALUES = 1 << 16  # In one payload. A value takes three bytes of it at least, and 300 in memory.
LINK_FORM = re.compile(r"(0|[1-9][0-9]{0,4}):(0|[1-9][0-9]{0,4})")
MAX_LINK_ID = 65535  # 65535:65535 links to no object.
# Sums of decimals keep this many digits: 64-bit integers, and seconds with a fraction, are exact.
ARITHMETIC = Context(prec=60, traps=[])


class DataType(StrEnum):
    """The type of a resource, as object definitions name it. An executable resource has none."""

    STRING = "String"
    INTEGER = "Integer"
    UNSIGNED_INTEGER = "Unsigned Integer"
    FLOAT = "Float"
    BOOLEAN = "Boolean"
    OPAQUE = "Opaque"
    TIME = "Time"
    OBJLNK = "Objlnk"
    CORELNK = "Corelnk"

    __hash__ = str.__hash__  # That of an enum is not the one of the text that it equals, and slow.


class ObjectLink(NamedTuple):
    """A link to an object instance."""

    object_id: int
    instance_id: int

    def __str__(self) -> str:
        return f"{self.object_id}:{self.instance_id}"


class Moment(NamedTuple):
    """A number that CBOR marks as seconds since 1970."""

    seconds: int | float | Decimal


class Value(NamedTuple):
    """The value of one resource or resource instance.

    *value* is a str, int, float, bool, bytes or ObjectLink; a Decimal where a float would lose digits. *time* is
    seconds since 1970, or None if the payload names no time.
    """

    path: Path
    type: DataType
    value: Any
    time: int | Decimal | None = None


# Returns the type of a resource by object id and resource id, or None for one that is not known.
TypeOf = Callable[[int, int], DataType | None]


def typed(raw: Any, declared: DataType | None) -> tuple[DataType, Any]:
    """Return *raw*, a value as a format holds it, with its type. Raise ValueError if it is not of type *declared*.

    Without a declared type, the value has the type that its encoding suggests.
    """
    if declared is None:
        return _SUGGESTED[type(raw)](raw)
    if type(raw) is float and declared is DataType.FLOAT and math.isfinite(raw):
        return declared, raw  # A short way for most values.
    try:
        return declared, _CHECKS[declared](raw)
    except KeyError:
        raise ValueError(f"{declared} is not a type of values") from None


def checked(value: Value) -> Value:
    """Return *value* as a decoder would have made it. Raise CodecError if its path, type, value or time is wrong."""
    if not paths.holds_value(value.path):
        raise CodecError(paths.write(value.path), "is neither a resource nor a resource instance")
    if not all(type(number) is int and 0 <= number <= paths.MAX_ID for number in value.path):
        raise CodecError(paths.write(value.path), f"has an id that is not a number from 0 to {paths.MAX_ID}")
    try:
        kind = value.type if type(value.type) is DataType else DataType(value.type)
        found = typed(value.value, kind)[1]
        time = None if value.time is None else _time(value.time)
    except (ValueError, ArithmeticError) as error:  # A comparison with the Decimal NaN is the latter.
        raise CodecError(paths.write(value.path), str(error)) from error
    return Value(value.path, kind, found, time)


def one(values: Iterable[Value], form: str) -> Value:
    """Return the only one of *values*, checked. Raise CodecError if there are more, or it has a time."""
    found = list(values)
    if len(found) != 1:
        raise CodecError("/", f"{form} holds one value, not {len(found)}")
    return untimed(checked(found[0]), form)


def untimed(value: Value, form: str) -> Value:
    """Return *value*. Raise CodecError if it has a time, which *form* cannot write."""
    if value.time is not None:
        raise CodecError(paths.write(value.path), f"{form} cannot write the time of a value")
    return value


def check_size(payload: bytes) -> None:
    """Raise CodecError if *payload* is larger than any payload that is read."""
    if len(payload) > MAX_KEPT:
        raise CodecError(f"byte {MAX_KEPT}", f"the payload has more than {MAX_KEPT} bytes")


def resource_of(base: Path, form: str) -> Path:
    """Return *base*. Raise CodecError if it cannot have a value, the only one that *form* holds."""
    if not paths.holds_value(base):
        raise CodecError(paths.write(base), f"{form} holds one value: the base must be a resource")
    return base


class Seen:
    """The paths of one payload and time so far. A value must have a place of its own."""

    def __init__(self, base: Path) -> None:
        self.base = base
        # A short way for most payloads, which have one value each of a few resources: by path, its time.
        self.alone: dict[Path, Any] | None = None if base else {}
        self.values: set[Any] = set()
        self.resources: set[Any] = set()  # Those with resource instances.

    def add(self, path: Path, time: Any = None) -> None:
        """Raise ValueError if a value at *path* is outside of the base, or contradicts another one."""
        if self.alone is not None:
            if len(path) == paths.RESOURCE and path not in self.alone and len(self.alone) < MOST_VALUES:
                self.alone[path] = time
                return
            self.values.update(_key(*item) for item in self.alone.items())
            self.alone = None
        if not paths.RESOURCE <= len(path) <= paths.MOST_IDS:
            raise ValueError(f"{paths.write(path)} is neither a resource nor a resource instance")
        if self.base and path[: len(self.base)] != self.base:
            raise ValueError(f"{paths.write(path)} is not a part of {paths.write(self.base)}")
        key = _key(path, time)
        if key in self.values:
            raise ValueError(f"{paths.write(path)} has two values of one time")
        if len(self.values) == MOST_VALUES:
            raise ValueError(f"the payload has more than {MOST_VALUES} values")
        self.values.add(key)
        if len(path) > paths.RESOURCE:
            above = path[: paths.RESOURCE]
            key = _key(above, time)
            self.resources.add(key)
            if key in self.values:
                raise ValueError(f"{paths.write(above)} has a value and instances")
        elif key in self.resources:
            raise ValueError(f"{paths.write(path)} has a value and instances")


def _key(path: Path, time: Any) -> Any:
    """Return the place of a value in its payload. Most payloads name no time."""
    return path if time is None else (path, time)


def link(text: str) -> ObjectLink:
    """Return the object link that *text* names. Raise ValueError.

    >>> link("66:0")
    ObjectLink(object_id=66, instance_id=0)
    """
    found = LINK_FORM.fullmatch(text)
    if not found:
        raise ValueError(f"{text[:40]!r} is not an object link such as 66:0")
    ids = ObjectLink(int(found[1]), int(found[2]))
    if max(ids) > MAX_LINK_ID:
        raise ValueError(f"{text} has an id above {MAX_LINK_ID}")
    return ids


def total(one: int | float | Decimal, other: int | float | Decimal) -> int | float | Decimal:
    """Return the sum. Numbers with a fraction are added as decimals: 0.1 and 0.2 make 0.3."""
    if type(one) is int and type(other) is int:
        return one + other
    if not other:
        return one
    if not one:
        return other
    return ARITHMETIC.add(decimal(one), decimal(other))


def decimal(number: int | float | Decimal) -> Decimal:
    """Return *number* as a decimal, a float by its shortest digits."""
    return Decimal(repr(number)) if type(number) is float else Decimal(number)


def seconds(number: int | float | Decimal) -> int | Decimal:
    """Return a time as an int, or as a Decimal if it has a fraction. Raise ValueError if it is beyond 64 bits."""
    if type(number) is not int:
        exact = decimal(number)
        if not (exact.is_finite() and SIGNED.start <= exact < SIGNED.stop):
            raise ValueError("a time does not fit into 64 bits")
        return int(exact) if exact == exact.to_integral_value() else exact
    if number not in SIGNED:
        raise ValueError("a time does not fit into 64 bits")
    return number


def _string(raw: Any) -> str:
    if type(raw) is not str:
        raise _mismatch(raw, DataType.STRING)
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string holds half a surrogate pair") from error
    return raw


def _whole(raw: Any, fitting: range, kind: DataType) -> int:
    number: int
    if type(raw) is int:
        number = raw
    elif type(raw) is float or type(raw) is Decimal:
        if not fitting.start <= raw < fitting.stop or raw != raw // 1:
            raise ValueError(f"{_shown(raw)} is not a value of type {kind}")
        number = int(raw)
    else:
        raise _mismatch(raw, kind)
    if number not in fitting:
        raise ValueError(f"{_shown(raw)} is not a value of type {kind}")
    return number


def _integer(raw: Any) -> int:
    return _whole(raw, SIGNED, DataType.INTEGER)


def _unsigned(raw: Any) -> int:
    return _whole(raw, UNSIGNED, DataType.UNSIGNED_INTEGER)


def _float(raw: Any) -> float:
    if type(raw) is not float and type(raw) is not int and type(raw) is not Decimal:
        raise _mismatch(raw, DataType.FLOAT)
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{_shown(raw)} is not a finite number")
    return number


def _boolean(raw: Any) -> bool:
    if type(raw) is not bool:
        raise _mismatch(raw, DataType.BOOLEAN)
    return raw


def _opaque(raw: Any) -> bytes:
    if type(raw) is not bytes:
        raise _mismatch(raw, DataType.OPAQUE)
    return raw


def _time(raw: Any) -> int | Decimal:
    if type(raw) is Moment:
        raw = raw.seconds
    if type(raw) is not int and type(raw) is not float and type(raw) is not Decimal:
        raise _mismatch(raw, DataType.TIME)
    return seconds(raw)


def _object_link(raw: Any) -> ObjectLink:
    if type(raw) is not ObjectLink:
        raise _mismatch(raw, DataType.OBJLNK)
    if not 0 <= min(raw) <= max(raw) <= MAX_LINK_ID:
        raise ValueError(f"{raw} is not an object link")
    return raw


def _number(raw: int | Decimal | float) -> tuple[DataType, Any]:
    """Return a number of no known type as it was sent, an int or a float; a Decimal if a float loses digits."""
    if type(raw) is int:
        if raw in SIGNED:
            return DataType.INTEGER, raw
        if raw in UNSIGNED:
            return DataType.UNSIGNED_INTEGER, raw
        raise ValueError(f"{_shown(raw)} does not fit into 64 bits")
    number = _float(raw)
    is_exact = type(raw) is float or Decimal(repr(number)) == raw
    return DataType.FLOAT, number if is_exact else raw


def _mismatch(raw: Any, kind: DataType) -> ValueError:
    return ValueError(f"{_shown(raw)} is not a value of type {kind}")


def _shown(raw: Any) -> str:
    """Return *raw* for an error, cut short; a number of very many digits is not written out."""
    if type(raw) is int and raw.bit_length() > 200:
        return "the number"
    if type(raw) is bytes:
        return raw[:20].hex() or "nothing"
    return repr(raw[:40]) if type(raw) is str else str(raw)[:40]


_CHECKS: dict[DataType, Callable[[Any], Any]] = {
    DataType.STRING: _string,
    DataType.INTEGER: _integer,
    DataType.UNSIGNED_INTEGER: _unsigned,
    DataType.FLOAT: _float,
    DataType.BOOLEAN: _boolean,
    DataType.OPAQUE: _opaque,
    DataType.TIME: _time,
    DataType.OBJLNK: _object_link,
    DataType.CORELNK: _string,
}
_SUGGESTED: dict[type, Callable[[Any], tuple[DataType, Any]]] = {
    str: lambda raw: (DataType.STRING, _string(raw)),
    int: _number,
    float: _number,
    Decimal: _number,
    bool: lambda raw: (DataType.BOOLEAN, raw),
    bytes: lambda raw: (DataType.OPAQUE, raw),
    Moment: lambda raw: (DataType.TIME, _time(raw)),
    ObjectLink: lambda raw: (DataType.OBJLNK, _object_link(raw)),
}
