"""Values against their declarations: exact type, finite, inside the range. A bad one is dropped with its reason."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from devicehub.declare import Reading, StateField

INTEGERS = range(-(2**63), 2**63)
MAX_STRING = 255


class InvalidReading(ValueError):
    """A value does not fit its declaration, for example 9999 Cel on a -40..80 sensor."""


def readings(values: Mapping[str, Any], declared: Mapping[str, Reading]) -> tuple[dict[str, Any], list[str]]:
    """The values that may be stored, and a note for each that may not. A null is an absent value."""
    accepted: dict[str, Any] = {}
    notes: list[str] = []
    for name, value in values.items():
        reading = declared.get(name)
        if reading is None:
            notes.append(f"{name[:64]}: not declared")
        elif value is not None:
            try:
                accepted[name] = check_reading(value, reading)
            except InvalidReading as error:
                notes.append(f"{name}: {error}")
    notes += [f"{n}: required and missing" for n, r in declared.items() if r.required and n not in accepted]
    return accepted, notes


def check_reading(value: Any, reading: Reading) -> Any:
    """*value* as it is stored. Raises InvalidReading."""
    checked = _CHECKS[reading.type](value)
    if reading.range is not None:
        low, high = reading.range
        if (low is not None and checked < low) or (high is not None and checked > high):
            raise InvalidReading(
                f"{checked:g} is outside {_bound(low)}..{_bound(high)} {reading.unit}".rstrip()
            )
    return checked


def check_state(value: Any, state: StateField) -> Any:
    """*value* of a state field as it is stored. Raises InvalidReading."""
    checked = _CHECKS[state.type](value)
    if state.choices is not None and checked not in state.values:
        raise InvalidReading(f"{str(checked)[:64]!r} is none of the choices")
    return checked


def check_text(value: Any, longest: int = MAX_STRING) -> str:
    if not isinstance(value, str):
        raise InvalidReading("is no text")
    if len(value) > longest:
        raise InvalidReading(f"is longer than {longest} characters")
    if "\x00" in value:
        raise InvalidReading("holds a NUL")
    return value


def check_number(value: Any) -> float:
    """A finite number, as a float. A boolean is none, nor is a text of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidReading("is no number")
    try:
        number = float(value)
    except OverflowError as error:
        raise InvalidReading("is no finite number") from error
    if not math.isfinite(number):
        raise InvalidReading("is no finite number")
    return number


def without_nul(value: Any) -> Any:
    """*value* with every NUL in its texts replaced by U+FFFD: PostgreSQL stores none."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, dict):
        return {name.replace("\x00", "\ufffd"): without_nul(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_nul(inner) for inner in value]
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidReading("is no integer")
    if value not in INTEGERS:
        raise InvalidReading("does not fit into 64 bits")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidReading("is no boolean")
    return value


def _json(value: Any) -> Any:
    if _holds_nul(value):
        raise InvalidReading("holds a NUL")  # which PostgreSQL cannot store in JSON
    return value


def _holds_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in name or _holds_nul(inner) for name, inner in value.items())
    if isinstance(value, list):
        return any(_holds_nul(inner) for inner in value)
    return False


def _binary(value: Any) -> bytes:
    if not isinstance(value, str):
        raise InvalidReading("is no base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidReading("is no base64 text") from error


def _datetime(value: Any) -> datetime:
    if not isinstance(value, str):
        raise InvalidReading("is no ISO 8601 time")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidReading("is no ISO 8601 time") from error
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise InvalidReading("is no time that exists in UTC") from error


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
