"""CBOR (RFC 8949) written item by item, in its shortest form. Pure."""

from __future__ import annotations

import struct
from decimal import Decimal
from typing import Any

from devicehub.messages.lwm2m.cbor_reader import (
    BIGNUM,
    BYTES,
    DECIMAL_FRACTION,
    EXPONENTS,
    MAX_BIGNUM,
    NEGATIVE,
    NEGATIVE_BIGNUM,
    SIMPLE,
    TAG,
    TEXT,
    UNSIGNED,
)
from devicehub.messages.lwm2m.errors import CodecError

MOST_DIGITS = len(str(256**MAX_BIGNUM)) - 1  # Of a decimal; any number of so many digits fits into a bignum.
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
    """Return one item: a str, bytes, bool, float, int or Decimal. Raise CodecError for one that no reader takes."""
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, str):
        data = value.encode()
        return head(TEXT, len(data)) + data
    return head(BYTES, len(value)) + bytes(value)


def _integer(value: int) -> bytes:
    argument = value if value >= 0 else -1 - value
    if argument.bit_length() <= 64:
        return head(UNSIGNED if value >= 0 else NEGATIVE, argument)
    size = (argument.bit_length() + 7) // 8
    if size > MAX_BIGNUM:
        raise CodecError("/", f"an integer has more than {MAX_BIGNUM} bytes")
    return head(TAG, BIGNUM if value >= 0 else NEGATIVE_BIGNUM) + head(BYTES, size) + argument.to_bytes(size)


def _decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if exponent not in EXPONENTS or len(digits) > MOST_DIGITS:
        raise CodecError("/", f"a decimal is not finite, or has more than {MOST_DIGITS} digits")
    mantissa = int("".join(map(str, digits))) * (-1 if sign else 1)
    return head(TAG, DECIMAL_FRACTION) + b"\x82" + _integer(int(exponent)) + _integer(mantissa)


def _float(value: float) -> bytes:
    for info, form in SHORT_FLOATS:
        try:
            data = form.pack(value)
        except OverflowError:
            continue
        if form.unpack(data)[0] == value:
            return bytes([SIMPLE << 5 | info]) + data
    return bytes([SIMPLE << 5 | 27]) + struct.pack(">d", value)
