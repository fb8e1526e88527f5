"""A fleet that publishes with QoS 1 and records the messages that it sent and that the broker acknowledged.

It speaks MQTT 3.1.1 by hand and never repeats a message by itself: a message on its way when a connection breaks
stays sent and not acknowledged. So the set of the acknowledged messages is exact.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x00\x00\x05fleet"  # clean, no keepalive, client id `fleet`
ACCEPTED = b"\x20\x02\x00\x00"
PUBLISH, DUPLICATE = 0x32, 0x3A  # with QoS 1
WINDOW = 200  # unacknowledged messages at most
RETRY = 0.1  # seconds between two attempts to connect
# Each message has its number as its rainfall, which has no range, also one that is not JSON.
NUMBER = re.compile(rb'"rainfall": ?(\d+)')


def number_in(payload: bytes) -> int | None:
    """Return the number of the message with *payload*, or None."""
    found = NUMBER.search(payload)
    return int(found[1]) if found else None


@dataclass(frozen=True)
class Sent:
    """A message. *timestamp* is the device time or None; *usable* is whether it can be stored as a reading."""

    topic: str
    payload: bytes
    timestamp: datetime | None
    usable: bool


class Sender(threading.Thread):
    """Publishes numbered messages in order, *rate* per second, until end()."""

    def __init__(self, port: int, topics: Sequence[str], draw: random.Random, rate: float = 150) -> None:
        super().__init__(name="sender", daemon=True)
        self._port, self._topics, self._draw = port, list(topics), draw
        self.rate = rate
        self.age: Callable[[], float] = lambda: 0.0  # seconds between measuring and sending
        self.padding = 0  # bytes to add to each payload
        self.sent: dict[int, Sent] = {}
        self.acknowledged: set[int] = set()
        self._first = 0  # acks count from this number on
        self._pending: dict[int, int] = {}  # numbers by packet id, on this connection
        self._again: list[int] = []
        self._running, self._ended = threading.Event(), threading.Event()
        self._packet_id = 0
        self._running.set()

    def start_counting(self) -> None:
        """Count messages from now on, because a worker is subscribed."""
        self._first = len(self.sent)
        self.acknowledged.clear()

    def pause(self, seconds: float = 10) -> None:
        """Stop sending, and wait until the broker has acknowledged all messages, at most *seconds*."""
        self._running.clear()
        end = time.monotonic() + seconds
        while self._pending and time.monotonic() < end:
            time.sleep(0.01)

    def resume(self) -> None:
        """Send again after pause()."""
        self._running.set()

    def repeat(self, count: int) -> None:
        """Send the last *count* acknowledged messages once more as duplicates, as if their acks had been lost.

        Only those with a time: two equal messages without one may be two measurements.
        """
        dated = [number for number in sorted(self.acknowledged) if self.sent[number].timestamp is not None]
        self._again += [number for number in dated if self.sent[number].usable][-count:]

    def end(self) -> None:
        """Stop the thread."""
        self._ended.set()
        self._running.set()
        if self.ident is not None:  # else it was never started
            self.join(10)

    def run(self) -> None:
        """Publish, with a new connection after each broken one."""
        while not self._ended.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=5) as broker:
                broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._publish(broker)
            self._pending.clear()
            self._ended.wait(RETRY)

    def _publish(self, broker: socket.socket) -> None:
        broker.sendall(CONNECT)
        if broker.recv(4) != ACCEPTED:
            return
        answered, due = b"", time.monotonic()
        while not self._ended.is_set():
            wait = min(max(due - time.monotonic(), 0), 0.05) if self._running.is_set() else 0.02
            if select.select([broker], [], [], wait)[0]:
                received = broker.recv(4096)
                if not received:
                    return
                answered = self._note(answered + received)
            if not self._running.is_set():
                due = time.monotonic()
            elif time.monotonic() >= due and len(self._pending) < WINDOW:
                broker.sendall(self._next())
                due = max(due, time.monotonic() - 0.1) + 1 / self.rate  # missed messages are not made up for

    def _note(self, answered: bytes) -> bytes:
        """Record the PUBACKs in *answered*, four bytes each, and return the incomplete rest."""
        whole = len(answered) // 4 * 4
        for at in range(0, whole, 4):
            number = self._pending.pop(int.from_bytes(answered[at + 2 : at + 4]), None)
            if number is not None and number >= self._first:
                self.acknowledged.add(number)
        return answered[whole:]

    def _next(self) -> bytes:
        first = PUBLISH
        if self._again:
            number, first = self._again.pop(0), DUPLICATE
        else:
            number = len(self.sent)
            self.sent[number] = self._message(number)
        self._packet_id = self._packet_id % 65_535 + 1
        self._pending[self._packet_id] = number
        message = self.sent[number]
        topic = message.topic.encode()
        body = len(topic).to_bytes(2) + topic + self._packet_id.to_bytes(2) + message.payload
        length, remaining = bytearray(), len(body)
        while remaining > 127:
            length.append(remaining & 127 | 128)
            remaining >>= 7
        return bytes((first, *length, remaining)) + body

    def _message(self, number: int) -> Sent:
        """Return message *number*; of fifty, two are unusable, and four or five of the others have no time."""
        topic = self._draw.choice(self._topics)
        reading: dict[str, object] = {
            "rainfall": number,
            "temperature": round(self._draw.uniform(-10, 35), 2),
        }
        if self.padding:
            reading["padding"] = "x" * self.padding
        if number % 50 == 23:  # broken off
            return Sent(topic, json.dumps(reading).encode()[:-1] + b', "humidity', None, usable=False)
        timestamp = None
        if number % 10 != 7:
            timestamp = datetime.now(UTC) - timedelta(seconds=self.age())
            reading["timestamp"] = timestamp.isoformat()
        if number % 50 == 41:
            stranger = topic.rsplit("/", 2)[0] + "/STRANGER/data"
            return Sent(stranger, json.dumps(reading).encode(), timestamp, usable=False)
        return Sent(topic, json.dumps(reading).encode(), timestamp, usable=True)
