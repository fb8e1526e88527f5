"""The limits of JSON in the databases, and of the bytes of a payload."""

from __future__ import annotations

import re
from typing import Any

MAX_KEPT = 1 << 20  # The most bytes of a payload that are read, and that the quarantine keeps: 1 MiB.
JSON_INTEGERS = range(-(2**63), 2**64)
MAX_JSON_FLOAT = 1e16
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # PostgreSQL stores neither NUL nor a lone surrogate.


def fault_as_json(value: Any) -> str | None:
    """Return why *value* would not survive a JSON column unchanged, or None.

    PostgreSQL refuses NUL and half a surrogate pair, and turns 1e16 into an integer.
    """
    match value:
        case None | bool():
            return None
        case str():
            return "holds a NUL or half a surrogate pair" if UNSTORABLE.search(value) else None
        case int():
            return None if value in JSON_INTEGERS else "holds an integer beyond 64 bits"
        case float():
            return (
                None
                if abs(value) < MAX_JSON_FLOAT
                else "holds a number that is not finite, or of 1e16 and more"
            )
        case list():
            faults = map(fault_as_json, value)
        case dict():
            if not all(isinstance(name, str) for name in value):
                return "holds a name that is not a text"
            faults = map(fault_as_json, (*value, *value.values()))
        case _:
            return "holds what is not in JSON"
    return next((fault for fault in faults if fault is not None), None)
