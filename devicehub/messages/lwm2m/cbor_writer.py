"""CBOR (RFC 8949) written item by item, in its shortest form. Pure."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

from devicehub.messages.lwm2m.cbor_reader import (
    BYTES,
    DECIMAL_FRACTION,
    NEGATIVE,
    SIMPLE,
    TAG,
    TEXT,
    UNSIGNED,
)

SHORT_FLOATS = ((25, struct.Struct(">e")), (26, struct.Struct(">f")))


def head(major: int, argument: int) -> bytes:
    """Return the first bytes of an item: of an array or map, with *argument* entries, the items follow."""
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | info]) + argument.to_bytes(size)
    return bytes([major << 5 | 27]) + argument.to_bytes(8)


def scalar(value: Any) -> bytes:
    """Return one item: a str, bytes, bool, float, Decimal, or an int of at most 64 bits."""
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head(UNSIGNED, value) if value >= 0 else head(NEGATIVE, -1 - value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        mantissa = int("".join(map(str, digits))) * (-1 if sign else 1)
        return head(TAG, DECIMAL_FRACTION) + b"\x82" + scalar(exponent) + scalar(mantissa)
    if isinstance(value, str):
        data = value.encode()
        return head(TEXT, len(data)) + data
    return head(BYTES, len(value)) + bytes(value)


def _float(value: float) -> bytes:
    for info, form in SHORT_FLOATS:
        try:
            data = form.pack(value)
        except OverflowError:
            continue
        if form.unpack(data)[0] == value:
            return bytes([SIMPLE << 5 | info]) + data
    return bytes([SIMPLE << 5 | 27]) + struct.pack(">d", value)
