"""Plausible values over time, made from declarations alone: the same for the same device and moment. Pure."""

from __future__ import annotations

import base64
import hashlib
import math
from datetime import UTC, datetime
from typing import Any

from devicehub.kinds.declare import Reading, StateField

PERIOD = 240.0  # seconds of a day in this world, so that a chart moves while somebody looks
SLOW = 3 * PERIOD  # of what changes rarely: switches, states, modes
STEP = 20.0  # seconds that an integer stays as it is
EPOCH = 1_767_225_600  # 2026-01-01: counters began then
WIDTH = 30  # of a range that is open at one end or both
INTEGERS = (-(2**63), 2**63 - 1)
BATTERY_HOUR = 6.0  # percent that a battery loses in an hour
BATTERY_EMPTY = 8.0  # percent at which somebody changes it


def value_at(reading: Reading, device_id: str, moment: float) -> Any:
    """A plausible value of *reading* at *moment* (Unix seconds), of its type and inside its declared range.

    None where there is no such value, as for an integer between 0.2 and 0.8.
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
    """A value that *state* may have: it changes every few minutes where there are choices, else hardly ever."""
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
    """Percent left in the battery, *seconds* after the device began: it falls slowly, and is changed in time."""
    begun = 60 + spread(device_id) * 40
    used = (100 - begun + seconds / 3600 * BATTERY_HOUR) % (100 - BATTERY_EMPTY)
    return round(100 - used, 1)


def spread(seed: str) -> float:
    """A number of 0 up to 1 that belongs to *seed*: what makes one device differ from the next."""
    return int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=6).digest(), "big") / (1 << 48)


def _float(reading: Reading, swing: float) -> float | None:
    """In the middle third of the range, where most real values are; two decimals where the range has room."""
    bottom, top = _bounds(reading)
    low, high = _ends(bottom, top)
    part = (1 + min(1.0, max(0.0, swing))) / 3
    value = low * (1 - part) + high * part  # and not low + (high - low) * part, which may overflow
    if high / 100 - low / 100 >= 0.01:
        value = round(value, 2)
    if bottom is not None and value < bottom:
        value = _float_inside(bottom, math.inf)
    if top is not None and value > top:
        value = _float_inside(top, -math.inf)
    return None if bottom is not None and value < bottom else value


def _float_inside(bound: float, inwards: float) -> float:
    """The float nearest to *bound*, which may be an integer that no float is equal to."""
    value = float(bound)
    outside = value < bound if inwards > 0 else value > bound
    return math.nextafter(value, inwards) if outside else value


def _integer(reading: Reading, seed: str, moment: float) -> int | None:
    """It counts up where its unit is `count` or nothing bounds it above; else it steps now and then."""
    bottom, top = _bounds(reading)
    # Where one end is open, the values are near the other one, which must be one that can be stored.
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
        pace = 20 + 100 * spread(seed)  # seconds from one to the next
        return first + int(max(0.0, moment - EPOCH) / pace) % (last - first + 1)
    part = (1 + _wave(seed, moment // STEP * STEP)) / 3
    return first + (last - first) * int(part * 1000) // 1000


def _bounds(reading: Reading) -> tuple[float | None, float | None]:
    """The declared bounds; an infinite one is none."""
    low, high = (
        None if end is not None and math.isinf(end) else end for end in reading.range or (None, None)
    )
    return low, high


def _ends(low: float | None, high: float | None) -> tuple[float, float]:
    """From where to where values go: what is open is WIDTH wide, from 0 where nothing is said."""
    if low is None:
        low = 0.0 if high is None else high - WIDTH
    return low, low + WIDTH if high is None else high


def _wave(seed: str, moment: float) -> float:
    """Between 0 and 1: a slow wave and a quicker one."""
    phase = spread(seed) * 2 * math.pi
    wave = 0.5 + 0.33 * math.sin(moment * 2 * math.pi / PERIOD + phase)
    return wave + 0.09 * math.sin(moment * 2 * math.pi / 31 + 2 * phase)


def _slow(seed: str, moment: float) -> float:
    """From 0 to 1 and back within SLOW, without noise: what is derived from it does not flutter."""
    return 0.5 + 0.5 * math.sin(moment * 2 * math.pi / SLOW + spread(seed) * 2 * math.pi)


def _noise(seed: str, moment: float) -> float:
    """A little, near 0 most of the time."""
    return (spread(f"{seed}{moment:.1f}") + spread(f"{moment:.1f}{seed}") - 1) * 0.03
