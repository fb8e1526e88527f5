"""The deliberate faults of simulated devices: how often they happen, and bad payloads. Pure."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from devicehub.errors import DevicehubError
from devicehub.kinds.declare import Reading

DEEP = 5_000  # Levels of nesting, beyond the limit of all parsers here.
JUNK = 100_000  # Bytes of random data.
SHORTEST, LONGEST = 3, 10  # Samples that a device keeps before it sends them late.
MEAN = (SHORTEST + LONGEST) / 2
ONE_TURN_IN = 50  # One turn in so many has a burst.
AGAIN_WITHIN = 5  # A duplicate comes at most so many turns later.
WRONG: Mapping[str, Any] = {
    "float": "warm",
    "integer": 1.5,
    "boolean": "yes",
    "string": 12,
    "binary": "no base64!",
}


class InvalidFaults(DevicehubError, ValueError):
    """The frequency of a fault is not a percentage, or not a number of messages."""


@dataclass(frozen=True)
class Plan:
    """The faults in one turn of one device. *keep*: so many samples are kept from now on, to be sent late."""

    bad: bool = False
    duplicate: bool = False
    again_after: int = 0  # In turns; 0 means at once.
    keep: int = 0
    shuffled: bool = False
    burst: bool = False
    dice: random.Random | None = None


NOTHING = Plan()


@dataclass(frozen=True)
class Faults:
    """The frequency of faults. The same *seed* gives the same faults in the same turns.

    *bad_payloads* and *duplicates* are percentages of a device's data messages, *late* of its samples. *burst* is the
    number of messages that a device sends at once, in one turn of fifty.
    """

    bad_payloads: float = 0
    duplicates: float = 0
    late: float = 0
    burst: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("bad_payloads", "duplicates", "late"):
            if not 0 <= getattr(self, name) <= 100:
                raise InvalidFaults(f"--{name.replace('_', '-')} must be a percentage, 0 to 100")
        if self.burst < 0:
            raise InvalidFaults("--burst must be a number of messages, 0 or more")

    def plan(self, device_id: str, turn: int) -> Plan:
        """Return the faults of *device_id* in its turn number *turn*."""
        if not (self.bad_payloads or self.duplicates or self.late or self.burst):
            return NOTHING
        dice = random.Random(f"{self.seed}/{device_id}/{turn}")  # noqa: S311 - no secret
        # All numbers are drawn in every turn, so that one option does not change the faults of another.
        bad, duplicate, late, burst = (dice.random() for _ in range(4))
        length, after, shuffled = (
            dice.randint(SHORTEST, LONGEST),
            dice.randint(1, AGAIN_WITHIN),
            dice.random() < 0.5,
        )
        return Plan(
            bad=bad * 100 < self.bad_payloads,
            duplicate=duplicate * 100 < self.duplicates,
            again_after=after if dice.random() < 0.5 else 0,
            keep=length if late < self._begins_to_keep() else 0,
            shuffled=shuffled,
            burst=bool(self.burst) and burst * ONE_TURN_IN < 1,
            dice=dice,
        )

    def _begins_to_keep(self) -> float:
        """Return the chance that a turn begins a late batch, so that *late* percent of all samples are late."""
        part = self.late / 100
        return part / (part + MEAN * (1 - part)) if part else 0.0


def junk(dice: random.Random, declared: Mapping[str, Reading], sample: dict[str, Any]) -> tuple[str, bytes]:
    """Return the name of a fault and a payload with it; *sample* is the payload without a fault."""
    for maker in dice.sample(MAKERS, len(MAKERS)):
        payload = maker(dice, declared, sample)
        if payload is not None:
            return maker.__name__.strip("_"), payload
    raise LookupError("no maker had a payload, though most of them need nothing")


Maker = Callable[[random.Random, Mapping[str, Reading], dict[str, Any]], bytes | None]


def _not_json(dice: random.Random, _declared: Mapping[str, Reading], sample: dict[str, Any]) -> bytes:
    whole = orjson.dumps(sample)
    return dice.choice([whole[: len(whole) // 2], b"OK", b"temperature=21.5", whole + b"}"])


def _nan(dice: random.Random, declared: Mapping[str, Reading], _sample: dict[str, Any]) -> bytes:
    name = dice.choice([*declared] or ["value"])
    return f'{{"{name}": {dice.choice(["NaN", "Infinity", "-Infinity", "1e999"])}}}'.encode()


def _wrong_type(dice: random.Random, declared: Mapping[str, Reading], sample: dict[str, Any]) -> bytes | None:
    """Return *sample* with a value of a wrong type; None for a device type whose readings accept all types."""
    names = [name for name, reading in declared.items() if reading.type in WRONG]
    if not names:
        return None
    name = dice.choice(names)
    return orjson.dumps({**sample, name: WRONG[declared[name].type]})


def _out_of_range(
    dice: random.Random, declared: Mapping[str, Reading], sample: dict[str, Any]
) -> bytes | None:
    """Return *sample* with a value outside its range; None for a device type without a range."""
    beyond: dict[str, float] = {}
    for name, reading in declared.items():
        low, high = reading.range or (None, None)
        if high is not None:
            beyond[name] = high + abs(high) + 1
        elif low is not None:
            beyond[name] = low - abs(low) - 1
    names = [name for name, value in beyond.items() if math.isfinite(value)]
    if not names:
        return None
    name = dice.choice(names)
    value = int(beyond[name]) if declared[name].type == "integer" else beyond[name]
    return json.dumps({**sample, name: value}).encode()  # orjson cannot write an integer beyond 64 bits.


def _unknown_names(dice: random.Random, _declared: Mapping[str, Reading], sample: dict[str, Any]) -> bytes:
    return orjson.dumps({**sample, f"unknown_{dice.randrange(1000)}": 1, "": 2, "x" * 300: 3})


def _deep_nesting(dice: random.Random, _declared: Mapping[str, Reading], _sample: dict[str, Any]) -> bytes:
    opening, closing = dice.choice([(b"[", b"]"), (b'{"a":', b"}")])
    return opening * DEEP + b"1" + closing * DEEP


def _huge_integer(dice: random.Random, declared: Mapping[str, Reading], _sample: dict[str, Any]) -> bytes:
    name = dice.choice([*declared] or ["value"])
    return f'{{"{name}": {dice.choice(["1" + "0" * 30, str(2**63), "9" * 5000])}}}'.encode()


def _empty(_dice: random.Random, _declared: Mapping[str, Reading], _sample: dict[str, Any]) -> bytes:
    return b""


def _not_utf8(_dice: random.Random, declared: Mapping[str, Reading], _sample: dict[str, Any]) -> bytes:
    return b'{"' + next(iter(declared), "value").encode() + b'": "\xff\xfe\xe9"}'


def _long_junk(dice: random.Random, _declared: Mapping[str, Reading], _sample: dict[str, Any]) -> bytes:
    return dice.randbytes(JUNK)


MAKERS: tuple[Maker, ...] = (
    _not_json,
    _nan,
    _wrong_type,
    _out_of_range,
    _unknown_names,
    _deep_nesting,
    _huge_integer,
    _empty,
    _not_utf8,
    _long_junk,
)
