"""Validation of values against their declarations: exact type, finite, inside the range. Bad values are dropped."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from devicehub.errors import DevicehubError
from devicehub.kinds.declare import Reading, StateField
from devicehub.messages import times
from devicehub.messages.json_limits import UNSTORABLE, fault_as_json
from devicehub.messages.message import Notes

INTEGERS = range(-(2**63), 2**63)
MAX_STRING = 255


class InvalidReading(DevicehubError, ValueError):
    """A value does not fit its declaration, for example 9999 Cel on a -40..80 sensor."""


def readings(values: Mapping[str, Any], declared: Mapping[str, Reading]) -> tuple[dict[str, Any], Notes]:
    """Return the values that may be stored, and a note for each that may not. A null is an absent value."""
    accepted: dict[str, Any] = {}
    notes = Notes()
    for name, value in values.items():
        reading = declared.get(name)
        if reading is None:
            notes.append(f"{str(name)[:64]}: not declared")
        elif value is not None:
            try:
                accepted[name] = check_reading(value, reading)
            except InvalidReading as error:
                notes.append(f"{name}: {error}")
    notes += [f"{n}: required and missing" for n, r in declared.items() if r.required and n not in accepted]
    return accepted, notes


def check_reading(value: Any, reading: Reading) -> Any:
    """Return *value* as it is stored. Raise InvalidReading."""
    checked = _CHECKS[reading.type](value)
    if reading.range is not None:
        low, high = reading.range
        if (low is not None and checked < low) or (high is not None and checked > high):
            raise InvalidReading(
                f"{checked:g} is outside {_bound(low)}..{_bound(high)} {reading.unit}".rstrip()
            )
    return checked


def check_state(value: Any, state: StateField) -> Any:
    """Return *value* of a state field as it is stored. Raise InvalidReading."""
    checked = _CHECKS[state.type](value)
    if state.choices is not None and checked not in state.values:
        raise InvalidReading(f"{str(checked)[:64]!r} is not one of the choices")
    return checked


def check_text(value: Any, longest: int = MAX_STRING) -> str:
    """Return *value*, a text of at most *longest* characters that databases can store. Raise InvalidReading."""
    if not isinstance(value, str):
        raise InvalidReading("is not a text")
    if len(value) > longest:
        raise InvalidReading(f"is longer than {longest} characters")
    if UNSTORABLE.search(value):
        raise InvalidReading("holds a NUL or half a surrogate pair")
    return value


def check_number(value: Any) -> float:
    """Return *value* as a finite float, without minus zero, which SQLite does not keep. Raise InvalidReading.

    A boolean is not a number, and neither is a text of digits.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidReading("is not a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise InvalidReading("is not a finite number") from error
    if not math.isfinite(number):
        raise InvalidReading("is not a finite number")
    return number or 0.0


def replace_unstorable(value: Any) -> Any:
    """Return *value* with all parts replaced that JSON or a database cannot hold."""
    match value:
        case str():
            return UNSTORABLE.sub("\ufffd", value)
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int():
            return value
        case dict():
            return {replace_unstorable(str(name)): replace_unstorable(inner) for name, inner in value.items()}
        case list():
            return [replace_unstorable(inner) for inner in value]
        case bytes():
            return base64.b64encode(value).decode()
    return replace_unstorable(str(value))


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidReading("is not an integer")
    if value not in INTEGERS:
        raise InvalidReading("does not fit into 64 bits")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidReading("is not a boolean")
    return value


def _json(value: Any) -> Any:
    fault = fault_as_json(value)
    if fault is not None:
        raise InvalidReading(fault)
    return value


def _binary(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value  # CBOR and SenML have a type for bytes.
    if not isinstance(value, str):
        raise InvalidReading("is not a base64 text")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidReading("is not a base64 text") from error
    if base64.b64encode(data).decode() != value:
        raise InvalidReading("is not a base64 text")  # It has bits or signs that the decoder ignores.
    return data


def _datetime(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value  # CBOR has a type for times.
    if not isinstance(value, str):
        raise InvalidReading("is not an ISO 8601 time")
    try:
        return times.moment(value)
    except ValueError as error:
        raise InvalidReading("is not an ISO 8601 time") from error


def _bound(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "float": check_number,
    "integer": _integer,
    "boolean": _boolean,
    "string": check_text,
    "json": _json,
    "binary": _binary,
    "datetime": _datetime,
}
