"""One simulated device: its messages, its faults, and its answers to commands."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from devicehub.kinds import topics
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.mqtt import Outgoing, Received, SwarmClient
from devicehub.simulation.faults import Faults, Plan, junk
from devicehub.simulation.logins import Login
from devicehub.simulation.series import battery_at, spread, state_at, value_at

HISTORY_STEP = 10  # Seconds between two samples from before the first connection.
STATUS_EVERY = 120.0  # Seconds between two reports of battery and state.
TRESPASS = (10, 4)  # The fourth of ten turns.


@dataclass
class Totals:
    """The totals of all devices, in messages if not said otherwise."""

    published: int = 0
    samples: int = 0  # Samples, each with the values of one moment; a message may hold several.
    bad_payloads: int = 0
    bad_by_kind: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    late_batches: int = 0
    late_samples: int = 0
    bursts: int = 0
    burst_messages: int = 0
    skipped_turns: int = 0  # Turns without a connection, or left out because the machine is too slow.
    commands: int = 0
    trespasses: int = 0
    connections: int = 0
    failures: int = 0  # Connections that broke or could not be made.


class SimulatedDevice:
    """A device of *kind*: the owner of a client. *complain* is called with the reason of a missing connection."""

    def __init__(
        self,
        kind: Kind,
        login: Login,
        tally: Totals,
        faults: Faults,
        *,
        history: int,
        complain: Callable[[SimulatedDevice, str], None],
        arrived: Callable[[SimulatedDevice], None],
        victim: str = "",
    ) -> None:
        self.device_id = login.device_id
        self.client: SwarmClient
        self._kind, self._tally, self._faults = kind, tally, faults
        self._complain, self._arrived = complain, arrived
        self._history, self._victim = history, victim
        self._data = topics.build(kind, login.device_id, MessageType.DATA)
        self._turns = 0
        self._greeted = False
        self._began = time.monotonic()
        self._status_due = 0.0
        self._kept: list[dict[str, Any]] = []  # Samples that shall be late.
        self._to_keep = 0
        self._shuffler: random.Random | None = None
        self._again: list[tuple[int, bytes]] = []  # Turns, and payloads that are sent a second time then.

    # Calls of the client

    def ready(self) -> None:
        """Count the connection, and report the status in the next turn."""
        self._tally.connections += 1
        self._status_due = 0.0  # The broker has published the will, which says offline.
        self._arrived(self)

    def lost(self, reason: str) -> None:
        """Count the failure, and complain of it."""
        self._tally.failures += 1
        self._complain(self, reason)

    def received(self, message: Received) -> None:
        """Answer a command on the reply topic, or on the response topic of the command (MQTT 5.0, 4.10.1)."""
        try:
            command = orjson.loads(message.payload)
        except orjson.JSONDecodeError:
            return  # It is not a command, and a device has no place to report that.
        if not isinstance(command, dict) or "id" not in command:
            return
        self._tally.commands += 1
        reply = {"id": command["id"], "ok": True, "result": command.get("command")}
        topic = message.response_topic or topics.build(self._kind, self.device_id, MessageType.REPLY)
        self._send(topic, orjson.dumps(reply), correlation_data=message.correlation_data)

    # Turns

    def turn(self) -> None:
        """Publish all that is due. Skip the turn without a connection."""
        self._turns += 1
        if not self.client.ready:
            self._tally.skipped_turns += 1
            return
        self._greet()
        self._report_status("online")
        plan = self._faults.plan(self.device_id, self._turns)
        sent = self._speak(plan)
        if sent is not None and plan.duplicate:
            self._repeat(sent, plan.again_after)
        due = [payload for turn, payload in self._again if turn <= self._turns]
        self._again = [(turn, payload) for turn, payload in self._again if turn > self._turns]
        for payload in due:
            self._repeat(payload, 0)
        if plan.burst:
            self._burst()
        if self._victim and self._turns % TRESPASS[0] == TRESPASS[1]:
            self._trespass()

    def leave(self) -> None:
        """Send the samples that were kept, and report offline."""
        if self._kept:
            self._send_kept()
        for _, payload in self._again:
            self._repeat(payload, 0)
        self._status_due = 0.0
        self._report_status("offline")

    def _speak(self, plan: Plan) -> bytes | None:
        """Send the data message of this turn and return its payload; return None while samples are kept."""
        sample = self._sample(time.time())
        if self._to_keep == 0 and plan.keep:
            self._to_keep, self._shuffler = plan.keep, plan.dice if plan.shuffled else None
        if self._to_keep:
            self._kept.append(sample)
            return self._send_kept() if len(self._kept) >= self._to_keep else None
        if plan.bad and plan.dice is not None:
            kind, payload = junk(plan.dice, self._kind.readings, sample)
            if self._send(self._data, payload):
                self._tally.bad_payloads += 1
                self._tally.bad_by_kind[kind] = self._tally.bad_by_kind.get(kind, 0) + 1
            return payload
        return self._send_samples(sample)

    def _greet(self) -> None:
        """Send the samples from before the first connection, once."""
        if self._greeted:
            return
        self._greeted = True
        now = int(time.time())
        moments = range(now - self._history, now, HISTORY_STEP)
        if moments:
            self._send_samples([self._sample(moment) for moment in moments])

    def _report_status(self, status: str) -> None:
        now = time.monotonic()
        if now < self._status_due:
            return
        first = self._status_due == 0.0
        # The second report comes after a part of the time; otherwise all would always report at the same moment.
        self._status_due = now + STATUS_EVERY * (spread(self.device_id) if first else 1)
        self._send_status(self._status(status, is_first=first))

    def _status(self, status: str, *, is_first: bool) -> dict[str, Any]:
        """Return the report of *status*, `online` or `offline`; *is_first* since the connection."""
        document: dict[str, Any] = {"status": status}
        if status == "online":
            document["battery_level"] = self._battery()
            moment = time.time()
            states = self._kind.state_fields.items()
            document |= {name: state_at(state, self.device_id, moment) for name, state in states}
        return document

    def _battery(self) -> float:
        return battery_at(self.device_id, time.monotonic() - self._began)

    def _send_status(self, document: dict[str, Any]) -> None:
        self._send(topics.build(self._kind, self.device_id, MessageType.STATUS), orjson.dumps(document))

    def _send_kept(self) -> bytes:
        kept, self._kept, self._to_keep = self._kept, [], 0
        if self._shuffler is not None:
            self._shuffler.shuffle(kept)
        self._tally.late_batches += 1
        self._tally.late_samples += len(kept)
        return self._send_samples(kept)

    def _repeat(self, payload: bytes, after: int) -> None:
        """Send *payload* again, now or *after* so many turns."""
        if after:
            self._again.append((self._turns + after, payload))
        elif self._send(self._data, payload):
            self._tally.duplicates += 1

    def _burst(self) -> None:
        """Send samples a millisecond apart, as fast as the network accepts them."""
        now, count = time.time(), self._faults.burst
        self._tally.bursts += 1
        for number in range(count):
            before = self._tally.published
            self._send_samples(self._sample(now - (count - number) / 1000))
            self._tally.burst_messages += self._tally.published - before

    def _trespass(self) -> None:
        """Publish a false temperature on the data topic of the victim. The broker may close the connection for it.

        The QoS is 0: in MQTT 3.1.1 a refused message may stay without an ack.
        """
        topic = topics.build(self._kind, self._victim, MessageType.DATA)
        self._tally.trespasses += self.client.publish(Outgoing(topic, b'{"temperature": 79.9}', qos=0))

    def _send_samples(self, samples: dict[str, Any] | list[dict[str, Any]]) -> bytes:
        payload = self._encode(samples)
        if self._send(self._data, payload):
            self._tally.samples += len(samples) if isinstance(samples, list) else 1
        return payload

    def _encode(self, samples: dict[str, Any] | list[dict[str, Any]]) -> bytes:
        return orjson.dumps(samples)

    def _send(self, topic: str, payload: bytes, *, correlation_data: bytes = b"") -> bool:
        sent = self.client.publish(Outgoing(topic, payload, correlation_data=correlation_data))
        self._tally.published += sent
        return sent

    def _sample(self, moment: float) -> dict[str, Any]:
        readings = self._kind.readings.items()
        values = ((name, value_at(reading, self.device_id, moment)) for name, reading in readings)
        sample = {name: value for name, value in values if value is not None}
        sample["timestamp"] = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
        return sample


_classes: dict[str, type[SimulatedDevice]] = {}


def register(slug: str, simulated: type[SimulatedDevice]) -> None:
    """Have devices of the kind *slug* simulated by a class of their own, whose messages are not those of a type."""
    _classes[slug] = simulated


def class_of(kind: Kind) -> type[SimulatedDevice]:
    """Return the class that simulates devices of *kind*."""
    return _classes.get(kind.slug, SimulatedDevice)
