"""Values of readings as JSON, with all that they hold. Free of the database."""

from __future__ import annotations

import base64
from typing import Any

import orjson

AS_THEY_ARE = frozenset({float, int, str, bool, type(None), dict, list})


def as_json(value: Any) -> Any:
    """Return *value* as a value of JSON: bytes as base64, and as text a number that no float holds.

    >>> from decimal import Decimal
    >>> as_json(2**63), as_json(b"\\x00\\xff"), as_json(Decimal("0.1"))
    (9223372036854775808, 'AP8=', '0.1')
    """
    if type(value) in AS_THEY_ARE or isinstance(value, orjson.Fragment):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    return str(value)
