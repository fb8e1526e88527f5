"""A fleet that publishes: `python -m bench.publisher` sends as fast as the broker acknowledges.

It speaks MQTT 3.1.1 by hand and builds all packets before it sends the first one, because a client library would
cost more than the measured worker. Each connection has a fixed number of unacknowledged messages, and sends the next
one after an acknowledgement, like a gateway in front of many devices.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import cbor2

from bench import apart

CONNECT = (
    b"\x10\x15\x00\x04MQTT\x04\x02\x00\x00\x00\x09"  # clean, no keepalive, a client id of nine characters
)
PUBACK_LENGTH = 4
PUBLISH_QOS_1 = 0x32
PACKET_IDS = 65_535
UNACKNOWLEDGED = 50  # messages per connection at most
TIMEOUT_SECONDS = 120
FLAT = "flat"
VALUES = 4  # of one notification
LABELS = {"bn": -2, "bt": -3, "n": 0, "v": 2}  # RFC 8428, section 6


def payloads(begin: float, count: int, form: str = FLAT) -> list[bytes]:
    """Return *count* payloads of a form, measured one after the other from *begin* on (Unix seconds).

    They are readings of weather stations, or notifications of LwM2M endpoints in SenML. Equal arguments give equal
    payloads, and no two payloads are equal, because each has its time.
    """
    draw, first, write = random.Random(begin), datetime.fromtimestamp(begin, UTC), FORMS[form]
    return [write(draw, first + timedelta(milliseconds=number)) for number in range(count)]


def _flat(draw: random.Random, moment: datetime) -> bytes:
    return json.dumps(
        {
            "timestamp": moment.isoformat(),
            "temperature": round(draw.uniform(-10, 35), 2),
            "humidity": round(draw.uniform(20, 95), 1),
            "rainfall": round(draw.uniform(0, 4), 1),
        }
    ).encode()


def _notification(draw: random.Random, moment: datetime) -> list[dict[str, Any]]:
    """Return the records of four values: temperature and its minimum, humidity, and the level of the battery."""
    return [
        {"bn": "/3303/0/", "bt": moment.timestamp(), "n": "5700", "v": round(draw.uniform(-10, 35), 2)},
        {"n": "5601", "v": round(draw.uniform(-10, 0), 2)},
        {"bn": "/3304/0/", "n": "5700", "v": round(draw.uniform(20, 95), 1)},
        {"bn": "/3/0/", "n": "9", "v": draw.randrange(101)},
    ]


def _senml_json(draw: random.Random, moment: datetime) -> bytes:
    return json.dumps(_notification(draw, moment)).encode()


def _senml_cbor(draw: random.Random, moment: datetime) -> bytes:
    records = _notification(draw, moment)
    return cbor2.dumps([{LABELS[name]: held for name, held in record.items()} for record in records])


FORMS = {FLAT: _flat, "senml+json": _senml_json, "senml+cbor": _senml_cbor}


def packet(topic: bytes, payload: bytes, packet_id: int) -> bytes:
    """Return a PUBLISH with QoS 1 (MQTT 3.1.1, 3.3)."""
    body = len(topic).to_bytes(2) + topic + packet_id.to_bytes(2) + payload
    length, remaining = bytearray(), len(body)
    while remaining > 127:
        length.append(remaining & 127 | 128)
        remaining >>= 7
    return bytes((PUBLISH_QOS_1, *length, remaining)) + body


class Gateway(asyncio.Protocol):
    """One connection with its packets."""

    transport: asyncio.Transport

    def __init__(self, number: int, packets: list[bytes]) -> None:
        self._number, self._packets = number, packets
        self._sent = self._acknowledged = self._bytes = 0
        loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(CONNECT + f"gate{self._number:05d}".encode())

    def data_received(self, data: bytes) -> None:
        if not self.accepted.done():
            if data[:4] != b"\x20\x02\x00\x00":
                self.fail(f"the broker answered a CONNECT with {data!r}")
                return
            self.accepted.set_result(None)
            return  # publishing starts, and with it the clock, when all connections are accepted
        self._bytes += len(data)  # only PUBACKs come on a connection without a subscription
        self._acknowledged = self._bytes // PUBACK_LENGTH
        if self._acknowledged == len(self._packets):
            if not self.done.done():
                self.done.set_result(None)
            return
        self.publish()

    def publish(self) -> None:
        """Send packets until UNACKNOWLEDGED of them are on their way."""
        until = min(self._acknowledged + UNACKNOWLEDGED, len(self._packets))
        if until > self._sent:
            self.transport.write(b"".join(self._packets[self._sent : until]))
            self._sent = until

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"a connection was closed: {exc or 'by the broker'}")

    def fail(self, why: str) -> None:
        """End the connection with ConnectionError."""
        for future in (self.accepted, self.done):
            if not future.done():
                future.set_exception(ConnectionError(why))


async def publish(
    port: int, connections: int, topics: Sequence[str], begin: float, count: int, form: str = FLAT
) -> dict[str, float]:
    """Publish *count* messages on *topics* in turn; return the times of the first and of the last acknowledged one."""
    encoded = [topic.encode() for topic in topics]
    packets: list[list[bytes]] = [[] for _ in range(connections)]
    for number, payload in enumerate(payloads(begin, count, form)):
        device = number % len(encoded)
        mine = packets[device % connections]
        mine.append(packet(encoded[device], payload, len(mine) % PACKET_IDS + 1))
    loop = asyncio.get_running_loop()
    gateways = [
        (await loop.create_connection(lambda n=n, p=p: Gateway(n, p), "127.0.0.1", port))[1]  # type: ignore[misc]
        for n, p in enumerate(packets)
        if p
    ]
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await asyncio.gather(*(gateway.accepted for gateway in gateways))
        began = time.time()
        for gateway in gateways:
            gateway.publish()
        await asyncio.gather(*(gateway.done for gateway in gateways))
        ended = time.time()
    for gateway in gateways:
        gateway.transport.close()
    return {"began": began, "ended": ended}


if __name__ == "__main__":
    sys.exit(apart.answer(publish, TIMEOUT_SECONDS))
