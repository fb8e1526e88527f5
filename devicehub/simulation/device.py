"""One simulated device: what it says in its turns, what it does wrong, and how it obeys."""

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

HISTORY_STEP = 10  # seconds between two samples from before the first connection
STATUS_EVERY = 120.0  # seconds between two reports of battery and state
TRESPASS = (10, 4)  # of ten turns the fourth


@dataclass
class Totals:
    """What all devices did, in numbers of messages if not said otherwise."""

    published: int = 0
    samples: int = 0  # values of one moment, however many of them were in a message
    bad_payloads: int = 0
    bad_by_kind: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    late_batches: int = 0
    late_samples: int = 0
    bursts: int = 0
    burst_messages: int = 0
    skipped_turns: int = 0  # turns in which the device was not connected, or not done with the one before
    commands: int = 0
    trespasses: int = 0
    connections: int = 0
    failures: int = 0  # connections that broke or did not come about


class SimulatedDevice:
    """A device of *kind*: the owner of a client. *complain* is told why it has no connection."""

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
        self._kept: list[dict[str, Any]] = []  # samples that are to be late
        self._to_keep = 0
        self._shuffler: random.Random | None = None
        self._again: list[tuple[int, bytes]] = []  # turn, and what is sent a second time then

    # What the client tells

    def ready(self) -> None:
        self._tally.connections += 1
        self._status_due = 0.0  # the will has said offline meanwhile
        self._arrived(self)

    def lost(self, reason: str) -> None:
        self._tally.failures += 1
        self._complain(self, reason)

    def received(self, message: Received) -> None:
        """Do as told: answer on the reply topic, or where the command says (MQTT 5.0, 4.10.1)."""
        try:
            command = orjson.loads(message.payload)
        except orjson.JSONDecodeError:
            return  # no command: a device has nobody to tell
        if not isinstance(command, dict) or "id" not in command:
            return
        self._tally.commands += 1
        reply = {"id": command["id"], "ok": True, "result": command.get("command")}
        topic = message.response_topic or topics.build(self._kind, self.device_id, MessageType.REPLY)
        self._send(topic, orjson.dumps(reply), correlation_data=message.correlation_data)

    # What it does

    def turn(self) -> None:
        """Publish what is due. Without a connection the turn is skipped."""
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
        """Send what was kept, and say goodbye."""
        if self._kept:
            self._send_kept()
        for _, payload in self._again:
            self._repeat(payload, 0)
        self._status_due = 0.0
        self._report_status("offline")

    def _speak(self, plan: Plan) -> bytes | None:
        """The data message of this turn: what was sent, or None while samples are kept."""
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
        """When it first comes: what was measured while it was not there."""
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
        # The first one after a part of the time, or all would report in the same moment for ever.
        self._status_due = now + STATUS_EVERY * (spread(self.device_id) if first else 1)
        document: dict[str, Any] = {"status": status}
        if status == "online":
            document["battery_level"] = battery_at(self.device_id, now - self._began)
            moment = time.time()
            states = self._kind.state_fields.items()
            document |= {name: state_at(state, self.device_id, moment) for name, state in states}
        self._send(topics.build(self._kind, self.device_id, MessageType.STATUS), orjson.dumps(document))

    def _send_kept(self) -> bytes:
        kept, self._kept, self._to_keep = self._kept, [], 0
        if self._shuffler is not None:
            self._shuffler.shuffle(kept)
        self._tally.late_batches += 1
        self._tally.late_samples += len(kept)
        return self._send_samples(kept)

    def _repeat(self, payload: bytes, after: int) -> None:
        """The very same bytes again, now or in a later turn."""
        if after:
            self._again.append((self._turns + after, payload))
        elif self._send(self._data, payload):
            self._tally.duplicates += 1

    def _burst(self) -> None:
        """Samples a millisecond apart, as fast as the network takes them."""
        now, count = time.time(), self._faults.burst
        self._tally.bursts += 1
        for number in range(count):
            before = self._tally.published
            self._send_samples(self._sample(now - (count - number) / 1000))
            self._tally.burst_messages += self._tally.published - before

    def _trespass(self) -> None:
        """Claim a heat wave in the neighbour's name. The broker may hang up on us for it.

        At QoS 0: nobody acknowledges what is refused in MQTT 3.1.1.
        """
        topic = topics.build(self._kind, self._victim, MessageType.DATA)
        self._tally.trespasses += self.client.publish(Outgoing(topic, b'{"temperature": 79.9}', qos=0))

    def _send_samples(self, samples: dict[str, Any] | list[dict[str, Any]]) -> bytes:
        payload = orjson.dumps(samples)
        if self._send(self._data, payload):
            self._tally.samples += len(samples) if isinstance(samples, list) else 1
        return payload

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
