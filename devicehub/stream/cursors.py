"""Cursors: the place of an event in all sources, as a text that any process can read, and none but them can write.

>>> read(write(5, 1_796_104_800, ((7, 9, 2), (0, 0, 0))))
Place(mark=5, at=1796104800, states=((7, 9, 2), (0, 0, 0)))
"""

from __future__ import annotations

import base64
import hmac
from typing import NamedTuple

from django.utils.crypto import salted_hmac

# Of each source: the floor up to which all rows were sent, the position of the last one, and a digest of those that
# were sent between both. A row that was committed late changes it.
State = tuple[int, int, int]
States = tuple[State, ...]

SIGNED = 8  # Bytes of a signature.
LONGEST = 4_000  # Characters of a cursor.
HIGHEST = 2**58  # Beyond all times before the year 9999, and all keys of rows.


class Place(NamedTuple):
    """A place in the stream at *at*, in seconds. *mark* names the sources, and *states* are those of each."""

    mark: int
    at: int
    states: States


def write(mark: int, at: int, states: States) -> str:
    """Return the cursor of the place with these values."""
    numbers = [mark, at]
    for floor, position, digest in states:
        numbers += [floor, position - floor, digest]
    body = b"".join(map(_varint, numbers))
    return base64.urlsafe_b64encode(body + _signature(body)).decode().rstrip("=")


def read(text: str) -> Place | None:
    """Return the place that a cursor names, or None for any other text."""
    if len(text) > LONGEST or not text.isascii():
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    body, signature = raw[:-SIGNED], raw[-SIGNED:]
    if not hmac.compare_digest(signature, _signature(body)):
        return None
    numbers = _numbers(body)
    if len(numbers) % 3 != 2 or max(numbers) > HIGHEST:
        return None
    floors, widths, digests = numbers[2::3], numbers[3::3], numbers[4::3]
    states = (
        (floor, floor + width, digest) for floor, width, digest in zip(floors, widths, digests, strict=True)
    )
    return Place(numbers[0], numbers[1], tuple(states))


def _signature(body: bytes) -> bytes:
    """Return the signature of a body with SECRET_KEY: a place that nobody was at could cost long queries."""
    return salted_hmac("devicehub.stream.cursors", body, algorithm="sha256").digest()[:SIGNED]


def _varint(number: int) -> bytes:
    """Return a whole number from 0 in groups of seven bits."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _numbers(body: bytes) -> list[int]:
    found, number, shift = [], 0, 0
    for byte in body:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(number)
            number, shift = 0, 0
    return found
