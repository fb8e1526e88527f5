"""CBOR (RFC 8949) decoded to plain values: a tag is a number, a time, or not used. Pure.

A map with keys other than text can be built so that the keys collide (filling a dict then takes quadratic time), so
such maps are read only in a payload of at most MAX_LABELLED bytes; SenML has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from cbor2 import CBORDecoder, CBORError, CBORTag

from devicehub.messages import times
from devicehub.messages.message import MAX_DEPTH

MAX_LABELLED = 1 << 16  # 64 KiB
MAX_BIGNUM = 128  # More bytes make a number beyond every float.
SELF_DESCRIBED = b"\xd9\xd9\xf7"


def begins(payload: bytes) -> bool:
    """Return whether *payload* begins like a CBOR array or map: with a continuation byte of UTF-8, as no JSON can."""
    return b"\x80" <= payload[:1] <= b"\xbf" or payload.startswith(SELF_DESCRIBED)


def read(payload: bytes) -> tuple[Any, bool]:
    """Return the one item in *payload*, and whether a map in it has a key twice. Raise ValueError."""
    error: Exception = ValueError("empty")
    for text_keys in (True, False):
        if not text_keys and len(payload) > MAX_LABELLED:
            break
        for unique_keys in (True, False):
            try:
                return _read(payload, text_keys, unique_keys), not unique_keys
            except CBORError as refused:
                error = refused
    raise ValueError(str(error)) from error


def _read(payload: bytes, text_keys: bool, unique_keys: bool) -> Any:
    stream = BytesIO(payload)
    found = CBORDecoder(
        stream,
        semantic_decoders=TAGS,
        max_depth=MAX_DEPTH,
        allow_duplicate_keys=not unique_keys,
        strict_hashable_types=text_keys,
    ).decode()
    if stream.tell() != len(payload):
        left = len(payload) - stream.tell()
        raise ValueError("1 byte follows the item" if left == 1 else f"{left} bytes follow the item")
    return found


def _integer(content: Any, negative: bool) -> Any:
    if not isinstance(content, bytes):
        return None
    if len(content) > MAX_BIGNUM:
        return -math.inf if negative else math.inf
    number = int.from_bytes(content)
    return -1 - number if negative else number


def _fraction(content: Any, base: int) -> Any:
    """Return the float of an exponent of *base*, 10 or 2, and a mantissa; None for other content."""
    if not isinstance(content, list | tuple) or [type(part) for part in content] != [int, int]:
        return None
    exponent, mantissa = content
    if base == 10:
        return float(f"{mantissa}e{exponent}")
    try:
        return math.ldexp(mantissa, exponent)
    except OverflowError:
        return math.copysign(math.inf, mantissa)


def _date(content: Any) -> Any:
    try:
        return times.moment(content) if isinstance(content, str) else None
    except ValueError:
        return None


def _seconds(content: Any) -> Any:
    if isinstance(content, bool) or not isinstance(content, int | float):
        return None
    try:
        return datetime.fromtimestamp(content, UTC)
    except (ValueError, OverflowError, OSError):
        return None


# The meaning of a tag; a function returns None for content without a meaning.
MEANINGS: dict[int, Callable[[Any], Any]] = {
    0: _date,
    1: _seconds,
    2: lambda content: _integer(content, negative=False),
    3: lambda content: _integer(content, negative=True),
    4: lambda content: _fraction(content, 10),
    5: lambda content: _fraction(content, 2),
    55799: lambda content: content,  # Self-described CBOR.
}
# Tags that the library would decode by itself: references, sets, patterns, addresses, fractions of integers, ...
UNWANTED = (25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000)


def _decoder(number: int) -> Callable[[Any, bool], Any]:
    meaning = MEANINGS.get(number)

    def decode(content: Any, _immutable: bool) -> Any:
        plain = meaning(content) if meaning is not None else None
        return CBORTag(number, content) if plain is None else plain

    return decode


TAGS = {number: _decoder(number) for number in (*MEANINGS, *UNWANTED)}
