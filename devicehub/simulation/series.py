"""Plausible values over time, made from declarations alone: equal for the same device and moment. Pure."""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from typing import Any

from devicehub.kinds.declare import Reading, StateField

PERIOD = 240.0  # Seconds of a simulated day, short so that a chart changes while it is watched.
SLOW = 3 * PERIOD  # The period of values that change rarely: switches, states, modes.
STEP = 20.0  # Seconds between two changes of an integer.
EPOCH = 1_767_225_600  # Counters began on 2026-01-01.
WIDTH = 30  # The width of a range that is open at one end or both.
INTEGERS = (-(2**63), 2**63 - 1)
BATTERY_HOUR = 6.0  # Percent that a battery loses in an hour.
BATTERY_EMPTY = 8.0  # The battery is changed at so many percent.


def value_at(reading: Reading, device_id: str, moment: float) -> Any:
    """Return a plausible value of *reading* at *moment* (Unix seconds), of its type and inside its declared range.

    Return None if there is no such value, as for an integer between 0.2 and 0.8.
    """
    seed = f"{device_id}/{reading.name}"
    match reading.type:
        case "float":
            return _float(reading, _wave(seed, moment) + _noise(seed, moment))
        case "integer":
            return _integer(reading, seed, moment)
        case "boolean":
            return _slow(seed, moment) > 0.8
        case "json":
            return {"level": round(_wave(seed, moment), 3)}
        case "binary":
            return base64.b64encode(round(_wave(seed, moment) * 255).to_bytes(2, "big")).decode()
    return ("low", "normal", "high")[min(2, int(_slow(seed, moment) * 3))]


def state_at(state: StateField, device_id: str, moment: float) -> Any:
    """Return a value that *state* may have. It changes every few minutes if there are choices, else very rarely."""
    seed = f"{device_id}/{state.name}"
    part = _slow(seed, moment)
    if state.choices:
        values = state.values
        return values[min(len(values) - 1, int(part * len(values)))]
    match state.type:
        case "boolean":
            return part > 0.8
        case "integer":
            return int(part * 4)
        case "float":
            return round(part, 2)
        case "json":
            return {"level": int(part * 4)}
        case "datetime":
            days = int(spread(seed) * 90)
            return datetime.fromtimestamp(EPOCH - days * 86_400, UTC).isoformat()
    return state.default or "normal"


def battery_at(device_id: str, seconds: float) -> float:
    """Return the percent left in the battery, *seconds* after the device began; an empty battery is changed."""
    begun = 60 + spread(device_id) * 40
    used = (100 - begun + seconds / 3600 * BATTERY_HOUR) % (100 - BATTERY_EMPTY)
    return round(100 - used, 1)


def spread(seed: str) -> float:
    """Return the number of 0 up to 1 that belongs to *seed*, by which devices differ from each other."""
    return int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=6).digest(), "big") / (1 << 48)


def _float(reading: Reading, swing: float) -> float | None:
    """Return a value in the middle third of the range, like most real values; with two decimals if there is room."""
    bottom, top = _bounds(reading)
    low, high = _ends(bottom, top)
    part = (1 + min(1.0, max(0.0, swing))) / 3
    value = low * (1 - part) + high * part  # The form low + (high - low) * part could overflow.
    if high / 100 - low / 100 >= 0.01:
        value = round(value, 2)
    if bottom is not None and value < bottom:
        value = _float_inside(bottom, math.inf)
    if top is not None and value > top:
        value = _float_inside(top, -math.inf)
    return None if bottom is not None and value < bottom else value


def _float_inside(bound: float, inwards: float) -> float:
    """Return the float nearest to *bound* inside the range; *bound* may be an integer without an equal float."""
    value = float(bound)
    outside = value < bound if inwards > 0 else value > bound
    return math.nextafter(value, inwards) if outside else value


def _integer(reading: Reading, seed: str, moment: float) -> int | None:
    """Return a count if the unit is `count` or only the lower end is bounded; else a value that changes in steps."""
    bottom, top = _bounds(reading)
    # If one end is open, the values are near the other end, which must be a number that can be stored.
    bottom = None if bottom is None else max(bottom, INTEGERS[0])
    top = None if top is None else min(top, INTEGERS[1])
    counts = reading.unit == "count" or (bottom is not None and top is None)
    if counts and bottom is None and (top is None or top >= 0):
        bottom = 0
    low, high = _ends(bottom, INTEGERS[1] if counts and top is None else top)
    first, last = max(INTEGERS[0], math.ceil(low)), min(INTEGERS[1], math.floor(high))
    if first > last:
        return None
    if counts:
        pace = 20 + 100 * spread(seed)  # Seconds between two counts.
        return first + int(max(0.0, moment - EPOCH) / pace) % (last - first + 1)
    part = (1 + _wave(seed, moment // STEP * STEP)) / 3
    return first + (last - first) * int(part * 1000) // 1000


def _bounds(reading: Reading) -> tuple[float | None, float | None]:
    """Return the declared bounds; None for an infinite one."""
    low, high = (
        None if end is not None and math.isinf(end) else end for end in reading.range or (None, None)
    )
    return low, high


def _ends(low: float | None, high: float | None) -> tuple[float, float]:
    """Return the least and the greatest value: an open range is WIDTH wide, and begins at 0 without bounds."""
    if low is None:
        low = 0.0 if high is None else high - WIDTH
    return low, low + WIDTH if high is None else high


def _wave(seed: str, moment: float) -> float:
    """Return a value between 0 and 1: the sum of a slow wave and a quicker one."""
    phase = spread(seed) * 2 * math.pi
    wave = 0.5 + 0.33 * math.sin(moment * 2 * math.pi / PERIOD + phase)
    return wave + 0.09 * math.sin(moment * 2 * math.pi / 31 + 2 * phase)


def _slow(seed: str, moment: float) -> float:
    """Return a value that moves from 0 to 1 and back within SLOW seconds, without noise."""
    return 0.5 + 0.5 * math.sin(moment * 2 * math.pi / SLOW + spread(seed) * 2 * math.pi)


def _noise(seed: str, moment: float) -> float:
    """Return a small random number, mostly near 0."""
    return (spread(f"{seed}{moment:.1f}") + spread(f"{moment:.1f}{seed}") - 1) * 0.03
