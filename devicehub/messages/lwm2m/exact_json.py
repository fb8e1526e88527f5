"""JSON read without loss: numbers with a fraction as decimals, and no name twice in an object. Pure."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any

import orjson

from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.values import check_size

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# With every digit and point as 0 and every E as e, two searches find the numbers that a float may not hold exactly.
DIGITS = bytes.maketrans(b"123456789.E", b"0000000000e")
TOO_LONG = b"0" * 17
OBJECT = frozenset({dict})


def load(payload: bytes) -> Any:
    """Return the JSON value in *payload*. Raise CodecError.

    The parser of the library refuses a document that is nested deeper than its recursion limit.
    """
    check_size(payload)
    found = _read_fast(payload)
    if found is not None:
        return found
    body = payload.removeprefix(BYTE_ORDER_MARK)
    skipped = len(payload) - len(body)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise CodecError(f"byte {skipped + error.start}", "is not UTF-8") from error
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = skipped + len(text[: error.pos].encode())
        raise CodecError(f"byte {place}", f"is not JSON: {error.msg}") from error
    except RecursionError as error:
        raise CodecError("byte 0", "the JSON is nested too deep") from error
    except (ValueError, ArithmeticError) as error:
        raise CodecError("byte 0", f"the JSON cannot be used: {str(error)[:100]}") from error


def _read_fast(payload: bytes) -> list[dict[str, Any]] | None:
    """Return an array of flat objects, which most packs are, or None if the slow parser could read it otherwise.

    A float is as exact as a decimal if it has no more than 15 digits and no exponent. There is one colon for each
    member unless a name stands twice, or a text holds one.
    """
    digits = payload.translate(DIGITS)
    if payload[:1] != b"[" or b"0e" in digits or TOO_LONG in digits:
        return None
    try:
        found = orjson.loads(payload)
        return (
            found if sum(map(len, found)) == payload.count(b":") and set(map(type, found)) == OBJECT else None
        )
    except (orjson.JSONDecodeError, TypeError):
        return None


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the name {twice[:40]!r} twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False)
_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_float=Decimal, parse_constant=_constant)


def scalar(value: str | bool | int | float | Decimal) -> str:
    """Return *value* as JSON, a number with all its digits."""
    return str(value) if type(value) is Decimal else _ENCODER.encode(value)
