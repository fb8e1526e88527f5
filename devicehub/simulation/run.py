"""A whole simulation in one thread: devices connect, publish in turns until it ends, and disconnect."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from django.template.defaultfilters import pluralize

from devicehub.conf import settings
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.mqtt import BrokerAddress, Outgoing, Swarm, run
from devicehub.simulation.device import SimulatedDevice, Totals, class_of
from devicehub.simulation.faults import Faults
from devicehub.simulation.logins import Login

PATIENCE = 10.0  # After so many seconds without a new connection, the other devices are not waited for.
LAST_ACKS = 2.0  # Seconds from the end for last messages and outstanding acks.
LAST_BYES = 0.5  # More seconds to close all connections.
STEP = 0.2  # Seconds between two checks for a stop.
LINES = 5  # Different complaints that are reported before they are only counted.


@dataclass
class Result:
    """The result of a simulation: the work of the devices, and the broker's answers to their messages."""

    devices: int
    connected: int  # The most at the same time.
    connect_seconds: float  # Until all had connected, or failed once.
    seconds: float  # The time of publishing.
    acknowledged: int
    refused: int
    unacknowledged: int
    seed: int
    tally: Totals

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers by name, for JSON."""
        numbers = asdict(self)
        return {**numbers.pop("tally"), **numbers}

    def __str__(self) -> str:
        did = self.tally
        parts = [
            f"Published {_counted(did.published, 'message')} as {_counted(self.devices, 'device')}",
            f"{self.acknowledged} acknowledged",
            f"{self.refused} refused",
            f"{self.unacknowledged} never acknowledged",
        ]
        faults = [
            (did.bad_payloads, _counted(did.bad_payloads, "bad payload")),
            (did.duplicates, _counted(did.duplicates, "duplicate")),
            (
                did.late_batches,
                f"{_counted(did.late_samples, 'late sample')} in {_counted(did.late_batches, 'batch', 'es')}",
            ),
            (did.bursts, f"{_counted(did.burst_messages, 'message')} in {_counted(did.bursts, 'burst')}"),
            (did.commands, f"{_counted(did.commands, 'command')} obeyed"),
            (did.failures, f"{_counted(did.failures, 'connection')} lost or refused"),
            (did.skipped_turns, f"{_counted(did.skipped_turns, 'turn')} skipped"),
        ]
        return ", ".join(parts + [text for number, text in faults if number])


def _counted(number: int, thing: str, ending: str = "s") -> str:
    return f"{number} {thing}{pluralize(number, ending)}"


class Simulation:
    """Devices of one kind that publish every *interval* seconds until stopped, each with a login of its own.

    *misbehave*: the last one also tries the data topic of the first, which the broker must refuse. *history* is the
    time in seconds before the first connection for which a device sends samples. *report* is called with lines about
    failures, *progress* with the number of connected devices.
    """

    def __init__(
        self,
        kind: Kind,
        logins: list[Login],
        *,
        interval: float,
        misbehave: bool = False,
        history: int = 900,
        faults: Faults | None = None,
        report: Callable[[str], None],
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._interval, self._report, self._progress = interval, report, progress
        self._faults = faults or Faults()
        self._kind, self._logins = kind, logins
        self._stopped = False
        self._absent: set[str] = set()  # Devices that have not connected or failed yet.
        self._all_tried = asyncio.Event()  # It is set when no device is absent.
        self._broken: set[str] = set()  # Devices that complained and have not connected since.
        self._complaints: dict[str, int] = {}
        self._last_arrival = self._connect_seconds = self._seconds = 0.0
        self.tally = Totals()
        victim = logins[0].device_id if misbehave and len(logins) > 1 else ""
        simulated = class_of(kind)
        self._devices = [
            simulated(
                kind,
                login,
                self.tally,
                self._faults,
                history=history,
                complain=self._complain,
                arrived=self._arrived,
                victim=victim if login is logins[-1] else "",
            )
            for login in logins
        ]

    def stop(self) -> None:
        """Have run() end. Signal handlers and other threads may call this."""
        self._stopped = True

    def run(self, duration: float | None = None) -> Result:
        """Publish for *duration* seconds, once all devices have connected or failed. Raise MqttError."""
        swarm = Swarm(BrokerAddress.parse(settings.mqtt_url), settings.mqtt_version)
        return run(self._run(swarm, duration))

    async def _run(self, swarm: Swarm, duration: float | None) -> Result:
        async with swarm:
            await self._arrive(swarm)
            began = time.monotonic()
            for number, device in enumerate(self._devices):
                # The turns are spread over the interval, as in a real fleet.
                swarm.start(self._take_turns(device, began + self._interval * number / len(self._devices)))
            while not self._stopped and (duration is None or time.monotonic() - began < duration):
                rest = STEP if duration is None else duration - (time.monotonic() - began)
                await asyncio.sleep(min(STEP, max(0.0, rest)))
            self._seconds = time.monotonic() - began
            most_connected = swarm.counts.most_connected
            await self._leave(swarm)
            unacknowledged = swarm.outstanding + swarm.counts.lost
            await swarm.close(LAST_BYES)
        self._sum_up()
        return Result(
            devices=len(self._devices),
            connected=most_connected,
            connect_seconds=round(self._connect_seconds, 3),
            seconds=round(self._seconds, 3),
            acknowledged=swarm.counts.acknowledged,
            refused=swarm.counts.refused,
            unacknowledged=unacknowledged,
            seed=self._faults.seed,
            tally=self.tally,
        )

    async def _arrive(self, swarm: Swarm) -> None:
        """Connect all devices before the first one publishes: aMQTT 0.12 loses messages while clients subscribe."""
        began = self._last_arrival = time.monotonic()
        self._absent = {login.device_id for login in self._logins}
        for device, login in zip(self._devices, self._logins, strict=True):
            will = Outgoing(self._topic(login, MessageType.STATUS), b'{"status":"offline"}')
            device.client = swarm.add(
                device,
                login.username,
                login.password,
                client_id=login.username,
                will=will,
                topic_filter=self._topic(login, MessageType.CMD),
            )
        while self._absent and not self._stopped and time.monotonic() - self._last_arrival < PATIENCE:
            with suppress(TimeoutError):
                async with asyncio.timeout(STEP):
                    await self._all_tried.wait()
            self._progress(swarm.counts.connected)
        self._connect_seconds = time.monotonic() - began

    async def _take_turns(self, device: SimulatedDevice, due: float) -> None:
        """Have *device* take its turn when it is *due*, by time.monotonic(), and every interval from then on."""
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            device.turn()
            due += self._interval
            behind = int((time.monotonic() - due) / self._interval)
            if behind > 0:  # The machine is too slow for these turns: they are left out, and counted.
                self.tally.skipped_turns += behind
                due += behind * self._interval

    async def _leave(self, swarm: Swarm) -> None:
        """Send the last messages of all devices, and wait for all acks, for LAST_ACKS seconds at most."""
        swarm.settle()
        end = time.monotonic() + LAST_ACKS
        for number, device in enumerate(self._devices):
            if time.monotonic() > end:
                break
            if device.client.ready:
                device.leave()
            if number % 100 == 0:
                await asyncio.sleep(0)
        await swarm.acknowledged(end)

    def _arrived(self, device: SimulatedDevice) -> None:
        self._last_arrival = time.monotonic()
        self._tried(device)
        self._broken.discard(device.device_id)
        if not self._broken:
            self._sum_up()

    def _tried(self, device: SimulatedDevice) -> None:
        self._absent.discard(device.device_id)
        if not self._absent:
            self._all_tried.set()

    def _complain(self, device: SimulatedDevice, reason: str) -> None:
        """Report *reason* once for all devices that have it: five thousand may lose the same broker."""
        self._tried(device)
        if device.device_id in self._broken:
            return
        self._broken.add(device.device_id)
        if reason not in self._complaints and len(self._complaints) < LINES:
            self._report(f"{device.device_id}: {reason}")
            self._complaints[reason] = 0
        else:
            reason = reason if reason in self._complaints else "other reasons"
            self._complaints[reason] = self._complaints.get(reason, 0) + 1

    def _sum_up(self) -> None:
        for reason, more in self._complaints.items():
            if more:
                self._report(f"{_counted(more, 'more device')}: {reason}")
        self._complaints.clear()

    def _topic(self, login: Login, about: MessageType) -> str:
        return topics.build(self._kind, login.device_id, about)


def any_seed() -> int:
    """Return a seed for a run without one; it is reported at the end, so that the run can be repeated."""
    return random.SystemRandom().randrange(2**31)
