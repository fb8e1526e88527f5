"""Reading of messages from a broker's socket, in large pieces instead of packet by packet."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import paho.mqtt.client as paho

from devicehub.messages.json_limits import MAX_KEPT

PAUSE = 0.01  # Seconds until the network thread checks again whether the queue has room.
PUBLISH = 3  # The type of the packet.
LONG = MAX_KEPT + (1 << 17)  # A PUBLISH of more bytes is not held whole.
MOST_PROPERTIES = 1 << 16  # The most bytes of properties that are read.
MOST_PAIRS = 32  # The most user properties that are read.
FEW_PROPERTIES = 512  # The most bytes of properties that are cached.


class Delivery(NamedTuple):
    """A message from the broker, which waits for the ack."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    received_at: float  # The time is in Unix seconds.
    content_type: str
    correlation_data: bytes
    user_properties: tuple[tuple[str, str], ...]
    packet_id: int
    generation: int  # The number of the connection: packet ids start again on the next one.


class Intake:
    """A connection as paho sees it, read in large pieces: messages go to *deliver*, all other packets to paho.

    paho reads a packet by three or more system calls, which cost as much as storing the message. Unusual packets are
    left to paho: QoS 2, and wrong framing. Nothing is read while *full* returns True; paho goes on sending acks and
    pings. A message of any length takes no more memory than one of LONG bytes: see LongPublish.
    """

    PIECE = 1 << 18  # Bytes that are read at once.
    PIECES = 16  # Pieces that are read before paho may send and check its clock again.

    def __init__(
        self,
        connection: Any,
        version: int,
        generation: int,
        deliver: Callable[[Delivery], None],
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection, self._generation, self._deliver, self._full = connection, generation, deliver, full
        self._has_properties = version == paho.MQTTv5
        self.heard_at = time.monotonic()  # The time of the last bytes from the broker.
        self._rest = bytearray()  # The beginning of a packet that is not complete yet.
        self._missing = 0  # Bytes, at least, until that packet is complete.
        self._others = bytearray()  # Packets for paho.
        self._long: LongPublish | None = None  # The packet that arrives now, if it is too long to be held.

    def recv(self, size: int) -> bytes:
        """Return bytes for paho, none at the end of the connection. Raise BlockingIOError if there are none yet."""
        for _ in range(self.PIECES):
            if self._others:
                break
            if self._full():
                time.sleep(PAUSE)
                break
            piece = self._connection.recv(self.PIECE)
            if not piece:
                return b""
            self.heard_at = time.monotonic()
            self._take(piece)
        if not self._others:
            raise BlockingIOError
        taken = bytes(self._others[:size])
        del self._others[:size]
        return taken

    def pending(self) -> int:
        """Return how many bytes are here already, for which paho must not wait."""
        decrypted = self._connection.pending() if hasattr(self._connection, "pending") else 0
        return len(self._others) + int(decrypted)

    def fileno(self) -> int:
        return int(self._connection.fileno())

    def send(self, data: bytes) -> int:
        return int(self._connection.send(data))

    def setblocking(self, flag: bool) -> None:
        self._connection.setblocking(flag)

    def close(self) -> None:
        self._connection.close()

    def _take(self, piece: bytes) -> None:
        if self._long is not None:
            piece = self._long.feed(piece)
            if self._long.missing:
                return
            piece = self._long.shortened() + piece
            self._long = None
        if self._rest:
            self._rest += piece
            self._missing -= len(piece)
            if self._missing > 0:
                return
            piece = bytes(self._rest)
        now = time.time()
        position, end = 0, len(piece)
        self._missing = 1
        while end - position >= 2:
            start, length = position + 2, piece[position + 1]
            if length > 127:
                found = _long_length(piece, position + 1)
                if found is None:
                    break
                start, length = found
            stop = start + length
            if stop > end:
                if length > LONG and piece[position] >> 4 == PUBLISH:
                    self._long = LongPublish(piece[position], length, self._has_properties)
                    self._long.feed(piece[start:])
                    position = end
                    break
                self._missing = stop - end
                break
            delivery = None
            if piece[position] >> 4 == PUBLISH and start > position + 1:
                delivery = self._delivery(piece[position], piece[start:stop], now)
            if delivery is None:
                self._others += piece[position:stop]
            else:
                self._deliver(delivery)
            position = stop
        self._rest = bytearray(piece[position:])

    def _delivery(self, flags: int, body: bytes, now: float) -> Delivery | None:
        """Return the message in a PUBLISH packet (MQTT 5.0, 3.3); None if paho shall read it."""
        qos = flags >> 1 & 3
        at = 2 + int.from_bytes(body[:2])
        topic = body[2:at].decode("utf-8", "replace")
        packet_id = 0
        described = _NOTHING
        if qos:
            packet_id = int.from_bytes(body[at : at + 2])
            at += 2
        if self._has_properties:
            found = _varint(body, at)
            if found is None:
                return None
            start, length = found
            at = start + length
            if 0 < length <= FEW_PROPERTIES:
                described = _described(body[start:at])
            elif 0 < length <= MOST_PROPERTIES:
                described = _describe(body[start:at])
        if qos > 1 or at > len(body) or not topic:
            return None
        return Delivery(
            topic,
            body[at:],
            qos,
            bool(flags & 1),
            bool(flags & 8),
            now,
            *described,
            packet_id,
            self._generation,
        )


class LongPublish:
    """A PUBLISH that is too long to be held, read to its end.

    Its topic, its packet id and the first bytes of its payload are kept: one more than MAX_KEPT, which makes the
    message too large. Its properties are dropped.
    """

    def __init__(self, flags: int, length: int, has_properties: bool) -> None:
        self.missing = length  # Bytes until it is complete.
        self._length, self._flags, self._has_properties = length, flags, has_properties
        self._head = bytearray()
        self._payload = bytearray()
        self._payload_at: int | None = None  # None until the head is here.

    def feed(self, piece: bytes) -> bytes:
        """Add the bytes of this packet in *piece*; return the bytes that follow it."""
        at = self._length - self.missing
        mine, rest = piece[: self.missing], piece[self.missing :]
        self.missing -= len(mine)
        if self._payload_at is None:
            self._head += mine
            at, mine = 0, bytes(self._head)
            self._find_payload()
        if self._payload_at is not None:
            skipped, room = max(0, self._payload_at - at), MAX_KEPT + 1 - len(self._payload)
            self._payload += mine[skipped : skipped + room]
        return rest

    def shortened(self) -> bytes:
        """Return a complete PUBLISH with the parts that were kept."""
        body = self._head + self._payload
        left, length = len(body), bytearray()
        while not length or left:
            left, digit = left >> 7, left & 127
            length.append(digit | (128 if left else 0))
        return bytes([self._flags]) + length + body

    def _find_payload(self) -> None:
        """Shorten the head to topic and packet id once it is complete. Wrong framing stays, for paho to refuse."""
        at = 2 + int.from_bytes(self._head[:2]) + (2 if self._flags & 6 else 0)
        if len(self._head) < at + 4:  # The length of the properties takes up to 4 bytes.
            return
        self._payload_at = at
        if self._has_properties:
            start, length = _varint(self._head, at) or (at, self._length)
            self._payload_at = start + length
        is_sound = self._payload_at <= self._length
        self._head = self._head[:at] + (
            b"" if not self._has_properties else b"\0" if is_sound else b"\xff" * 4
        )


_NOTHING: tuple[str, bytes, tuple[tuple[str, str], ...]] = ("", b"", ())


# The properties of a PUBLISH (MQTT 5.0, 3.3.2.3) by identifier: the bytes of the value, or the form of its length.
TEXT, BINARY, PAIR, VARINT = "text", "binary", "pair", "varint"
PROPERTIES = {
    0x01: 1,  # payload format indicator
    0x02: 4,  # message expiry interval
    0x03: TEXT,  # content type
    0x08: TEXT,  # response topic
    0x09: BINARY,  # correlation data
    0x0B: VARINT,  # subscription identifier
    0x23: 2,  # topic alias
    0x26: PAIR,  # user property
}


def _describe(encoded: bytes) -> tuple[str, bytes, tuple[tuple[str, str], ...]]:
    """Return content type, correlation data and user properties from the properties of a PUBLISH.

    The reading is lenient, since a device chose the properties and the message must not be lost for them: texts that
    are not UTF-8, or that paho would refuse, are read with replacements, and reading stops at an unreadable property.
    """
    content_type, correlation = "", b""
    pairs: list[tuple[str, str]] = []
    at = 0
    while at < len(encoded):
        identifier, form = encoded[at], PROPERTIES.get(encoded[at])
        at += 1
        if form is None:
            break
        if isinstance(form, int):
            at += form
        elif form == VARINT:
            at = (_varint(encoded, at) or (len(encoded), 0))[0]
        else:
            parts = []
            for _ in range(2 if form == PAIR else 1):
                end = at + 2 + int.from_bytes(encoded[at : at + 2])
                parts.append(encoded[at + 2 : end])
                at = end
            if at > len(encoded):
                break
            if form == PAIR:
                if len(pairs) < MOST_PAIRS:
                    pairs.append((parts[0].decode("utf-8", "replace"), parts[1].decode("utf-8", "replace")))
            elif identifier == CONTENT_TYPE:
                content_type = parts[0].decode("utf-8", "replace")
            elif identifier == CORRELATION_DATA:
                correlation = parts[0]
    return content_type, correlation, tuple(pairs)


CONTENT_TYPE, CORRELATION_DATA = 0x03, 0x09
_described = functools.lru_cache(maxsize=256)(_describe)  # Most messages of a fleet have equal properties.


def _varint(encoded: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Return the end and the value of a variable byte integer (MQTT 5.0, 1.5.5); None if it does not end."""
    value = 0
    for place, byte in enumerate(encoded[at : at + 4]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return at + place + 1, value
    return None


def held(delivery: Delivery) -> int:
    """Return the bytes in memory that a device chose: payload, topic, correlation data and user properties."""
    pairs = delivery.user_properties
    described = sum([len(name) + len(value) for name, value in pairs]) if pairs else 0
    return len(delivery.payload) + len(delivery.topic) + len(delivery.correlation_data) + described


def described_by(properties: Any) -> tuple[str, bytes, tuple[tuple[str, str], ...]]:
    """Return content type, correlation data and user properties from paho's *properties*."""
    return (
        getattr(properties, "ContentType", ""),
        getattr(properties, "CorrelationData", b""),
        tuple(getattr(properties, "UserProperty", ())[:MOST_PAIRS]),
    )


def _long_length(piece: bytes, at: int) -> tuple[int, int] | None:
    """Return the start and the length of a packet's body (MQTT 5.0, 1.5.5); None if the length is not here yet.

    For a length that never ends, return all bytes that are here, itself included, for paho to refuse.
    """
    if (found := _varint(piece, at)) is not None:
        return found
    return (at, len(piece) - at) if len(piece) >= at + 4 else None
