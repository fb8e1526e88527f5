"""CBOR (RFC 8949) read item by item, with positions: nothing is hashed, kept or allocated ahead of its bytes. Pure.

`devicehub.messages.cbor` decodes whole payloads of typed devices, into dicts and floats. The codecs here need
decimals as they were sent, keys of any type, and the byte of a fault.
"""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from devicehub.messages import times
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.values import Moment, check_size
from devicehub.messages.message import MAX_DEPTH

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
INTEGERS = frozenset({UNSIGNED, NEGATIVE})
STRINGS = frozenset({BYTES, TEXT})
CONTAINERS = frozenset({ARRAY, MAP})
INDEFINITE = -1
BREAK = 0xFF
FALSE, TRUE = 20, 21
BOOLEANS = frozenset({FALSE, TRUE})
FLOATS = {25: struct.Struct(">e"), 26: struct.Struct(">f"), 27: struct.Struct(">d")}
DOUBLE = FLOATS[27]
SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
DATE, EPOCH, BIGNUM, NEGATIVE_BIGNUM, DECIMAL_FRACTION, BIG_FLOAT = range(6)
FRACTIONS = frozenset({DECIMAL_FRACTION, BIG_FLOAT})
MEANT = frozenset({DATE, EPOCH, BIGNUM, NEGATIVE_BIGNUM, DECIMAL_FRACTION, BIG_FLOAT})
MAX_BIGNUM = 128  # The most bytes of a bignum; every float has fewer.
EXPONENTS = range(-(2**16), 2**16)  # Of decimal fractions and of big floats.
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class Reader:
    """One payload, read from its first byte to its last. Every method raises CodecError."""

    __slots__ = ("end", "payload", "position")

    def __init__(self, payload: bytes) -> None:
        check_size(payload)
        self.payload = payload
        self.position = 0
        self.end = len(payload)

    def fault(self, reason: str, position: int | None = None) -> CodecError:
        """Return the error for the byte at *position*, or for the next one."""
        return CodecError(f"byte {self.position if position is None else position}", reason)

    def head(self) -> tuple[int, int, int]:
        """Return major type, additional information and argument of the next item; INDEFINITE for an open length."""
        position = self.position
        if position >= self.end:
            raise self.fault("the payload ends in the middle")
        first = self.payload[position]
        major, info = first >> 5, first & 31
        if info < 24:
            self.position = position + 1
            return major, info, info
        size = SIZES.get(info)
        if size is None:
            if info == 31 and major not in (UNSIGNED, NEGATIVE, TAG):
                self.position = position + 1
                return major, info, INDEFINITE
            raise self.fault("is not CBOR: a reserved length")
        after = position + 1 + size
        if after > self.end:
            raise self.fault("the payload ends in the middle")
        self.position = after
        return major, info, int.from_bytes(self.payload[position + 1 : after])

    def finish(self) -> None:
        """Check that no byte is left."""
        if self.position < self.end:
            raise self.fault("bytes follow the item")

    def at_break(self) -> bool:
        """Return whether the next byte closes an open array or map, and skip it."""
        if self.position < self.end and self.payload[self.position] == BREAK:
            self.position += 1
            return True
        return False

    def enter(self, major: int, kind: str) -> int:
        """Return the number of entries of the next item, an array or a map, or INDEFINITE."""
        start = self.position
        first = self.payload[start] if start < self.end else BREAK
        if first >> 5 == major and first & 31 < 24:  # A short way for few entries.
            self.position, count = start + 1, first & 31
        else:
            found, _, count = self.head()
            if found != major:
                raise self.fault(f"is not {kind}", start)
        if count > self.end - self.position:
            raise self.fault("the payload ends in the middle", start)
        return count

    def more(self, count: int, done: int) -> bool:
        """Return whether an array or map of *count* entries has another one after *done* of them."""
        return not self.at_break() if count == INDEFINITE else done < count

    def scalar(self) -> Any:
        """Return the next item: int, float, Decimal, bool, str, bytes or Moment."""
        start = self.position
        first = self.payload[start] if start < self.end else BREAK
        if (
            first < 24
        ):  # A short way for the most frequent items: small numbers, short texts and floats of 64 bits.
            self.position = start + 1
            return first
        if 0x60 <= first < 0x78:
            self.position = start + 1
            return self._chunk(TEXT, first - 0x60, start)
        if first == 0xFB and start + 9 <= self.end:
            number = DOUBLE.unpack_from(self.payload, start + 1)[0]
            if math.isfinite(number):
                self.position = start + 9
                return number
        major, info, argument = self.head()
        if major == UNSIGNED:
            return argument
        if major == NEGATIVE:
            return -1 - argument
        if major in STRINGS:
            return self._string(major, argument, start)
        if major == SIMPLE:
            return self._simple(info, argument, start)
        if major == TAG:
            return self._tagged(argument, start)
        raise self.fault("is an array or a map, not a value", start)

    def skip(self) -> None:
        """Skip the next item, whatever it holds. Open containers are counted, so nothing is recursive."""
        open_items = [1]  # The items that each open container still has; INDEFINITE until its break.
        while open_items:
            if open_items[-1] == INDEFINITE and self.at_break():
                open_items.pop()
                continue
            if open_items[-1] == 0:
                open_items.pop()
                continue
            if open_items[-1] > 0:
                open_items[-1] -= 1
            start = self.position
            major, info, argument = self.head()
            if major in STRINGS:
                self._string(major, argument, start)
            elif major in CONTAINERS:
                if argument > self.end - self.position:
                    raise self.fault("the payload ends in the middle", start)
                open_items.append(argument * 2 if major == MAP and argument > 0 else argument)
            elif major == TAG:
                open_items.append(1)
            elif info == 31:
                raise self.fault("is a break without an open item", start)
            if len(open_items) > MAX_DEPTH:
                raise self.fault(f"is nested deeper than {MAX_DEPTH} levels", start)

    def _string(self, major: int, length: int, start: int) -> Any:
        if length != INDEFINITE:
            return self._chunk(major, length, start)
        data = bytearray()  # A list of small chunks would take many times the memory of their bytes.
        while not self.at_break():
            at = self.position
            found, _, length = self.head()
            if found != major or length == INDEFINITE:
                raise self.fault("is not a chunk of the string", at)
            self._chunk(major, length, at)
            data += self.payload[self.position - length : self.position]
        return data.decode() if major == TEXT else bytes(data)

    def _chunk(self, major: int, length: int, start: int) -> Any:
        after = self.position + length
        if after > self.end:
            raise self.fault("the payload ends in the middle of a string", start)
        data = self.payload[self.position : after]
        self.position = after
        if major == BYTES:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise self.fault("is not UTF-8", after - length + error.start) from error

    def _simple(self, info: int, argument: int, start: int) -> Any:
        if info in BOOLEANS:
            return info == TRUE
        form = FLOATS.get(info)
        if form is None:
            raise self.fault("is neither a boolean nor a number", start)
        number = form.unpack_from(self.payload, start + 1)[0]
        if not math.isfinite(number):
            raise self.fault(f"{number} is not a finite number", start)
        return number

    def _tagged(self, tag: int, start: int) -> Any:
        """Return the item behind a tag. Tags without a meaning for values are passed over."""
        while tag not in MEANT:
            at = self.position
            major, _, tag = self.head()
            if major != TAG:
                self.position = at
                return self.scalar()
        if tag == EPOCH:
            return Moment(self._plain_number())
        if tag == DATE:
            return self._date(self._plain_string(TEXT, "a date and time"), start)
        if tag in FRACTIONS:
            return self._fraction(10 if tag == DECIMAL_FRACTION else 2, start)
        return self._bignum(self._plain_string(BYTES, "a bignum"), tag == NEGATIVE_BIGNUM, start)

    def _plain_string(self, major: int, kind: str) -> Any:
        start = self.position
        found, _, length = self.head()
        if found != major:
            raise self.fault(f"is not {kind}", start)
        return self._string(major, length, start)

    def _plain_number(self) -> int | float:
        start = self.position
        major, info, argument = self.head()
        if major in INTEGERS:
            return argument if major == UNSIGNED else -1 - argument
        if major == SIMPLE and info in FLOATS:
            number: float = self._simple(info, argument, start)
            return number
        raise self.fault("is not a number of seconds", start)

    def _date(self, text: str, start: int) -> Moment:
        try:
            since = times.moment(text) - BEGINNING
        except ValueError as error:
            raise self.fault("is not a date and time", start) from error
        seconds = since.days * 86400 + since.seconds
        return Moment(seconds + Decimal(since.microseconds) / 10**6 if since.microseconds else seconds)

    def _bignum(self, content: bytes, negative: bool, start: int) -> int:
        if len(content) > MAX_BIGNUM:
            raise self.fault(f"a bignum has more than {MAX_BIGNUM} bytes", start)
        number = int.from_bytes(content)
        return -1 - number if negative else number

    def _fraction(self, base: int, start: int) -> Decimal | float:
        """Return the number of an exponent of *base* and a mantissa, which an array holds."""
        count = self.enter(ARRAY, "an array of exponent and mantissa")
        parts: list[int] = []
        while self.more(count, len(parts)):
            if len(parts) == 2:
                raise self.fault("is not an exponent and a mantissa", start)
            parts.append(self._integer())
        if len(parts) != 2 or parts[0] not in EXPONENTS:
            raise self.fault("is not an exponent and a mantissa", start)
        exponent, mantissa = parts
        if base == 10:
            return Decimal(f"{mantissa}e{exponent}")
        try:
            return math.ldexp(mantissa, exponent)
        except OverflowError as error:
            raise self.fault("is not a finite number", start) from error

    def _integer(self) -> int:
        start = self.position
        major, _, argument = self.head()
        if major in INTEGERS:
            return argument if major == UNSIGNED else -1 - argument
        if major == TAG and argument in (BIGNUM, NEGATIVE_BIGNUM):
            return self._bignum(self._plain_string(BYTES, "a bignum"), argument == NEGATIVE_BIGNUM, start)
        raise self.fault("is not an integer", start)
