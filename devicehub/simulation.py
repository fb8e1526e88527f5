"""Simulated devices: each logs in with its own generated credentials and behaves like a real one.

Their values come from the declarations of their type, so every type can be simulated.
"""

from __future__ import annotations

import base64
import contextlib
import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from devicehub import provisioning, topics
from devicehub.conf import settings
from devicehub.declare import Reading
from devicehub.models import BaseDevice
from devicehub.mqtt import BrokerAddress, Connection, MqttError, Outgoing
from devicehub.registry import Kind
from devicehub.topics import MessageType

MARK = {"simulated": True}  # in a device's metadata: its credentials may be issued anew without asking
HISTORY = 900  # seconds of buffered samples that a device sends when it first connects
HISTORY_STEP = 10
PERIOD = 240.0  # seconds of a day in this world, so that a chart moves while somebody looks
THREADS = 16


class NotSimulated(Exception):
    """A device of that id exists and is a real one: its credentials are not ours to change."""


@dataclass
class Login:
    """One simulated device and how it logs in, in clear text; in memory only."""

    device_id: str
    username: str
    password: str


def enlist(kind: Kind, prefix: str, count: int) -> list[Login]:
    """*count* simulated devices `{prefix}001`, ... with new credentials; made where they do not exist.

    Raises NotSimulated for a real device of that name.
    """
    logins = []
    for number in range(1, count + 1):
        device_id = f"{prefix}{number:03d}"
        device: BaseDevice | None = kind.device_model.objects.filter(device_id=device_id).first()
        if device is None:
            _, credentials = provisioning.create(kind, device_id, metadata=MARK)
        elif not device.metadata.get("simulated"):
            raise NotSimulated(f"{kind.key(device_id)} is a real device; choose another --prefix")
        else:
            credentials = provisioning.reissue(device)
        logins.append(Login(device_id, credentials["mqtt_username"], credentials["mqtt_password"]))
    return logins


class Simulation:
    """Devices of one kind that publish every *interval* seconds until stopped.

    *misbehave*: the last one also tries the data topic of its neighbour, which the broker must refuse.
    """

    def __init__(
        self,
        kind: Kind,
        logins: list[Login],
        *,
        interval: float,
        misbehave: bool = False,
        report: Callable[[str], None],
    ) -> None:
        self._kind, self._interval, self._misbehave, self._report = kind, interval, misbehave, report
        self._logins = logins
        self._stop = threading.Event()
        self._connections: dict[str, Connection] = {}
        self._broken: set[str] = set()
        self._greeted: set[str] = set()
        self.published = 0

    def stop(self) -> None:
        self._stop.set()

    def run(self, duration: float | None = None) -> None:
        """Publish in rounds; every device says goodbye in the end. A lost connection is made again."""
        end = None if duration is None else time.monotonic() + duration
        with ThreadPoolExecutor(THREADS) as pool:
            # All connect before the first one speaks: aMQTT 0.12 loses a message while clients subscribe.
            list(pool.map(self._arrive, self._logins))
            number = 0
            while not self._stop.is_set() and (end is None or time.monotonic() < end):
                began = time.monotonic()
                list(pool.map(self._turn, self._logins))
                if self._misbehave and number % 10 == 3 and len(self._logins) > 1:
                    self._trespass(self._logins[-1], self._logins[0])
                number += 1
                self._stop.wait(max(0.0, self._interval - (time.monotonic() - began)))
            list(pool.map(self._leave, self._logins))

    def _arrive(self, login: Login) -> None:
        try:
            self._connect(login)
        except MqttError as error:
            self._report(f"{login.device_id}: {error}")
            self._broken.add(login.device_id)

    def _turn(self, login: Login) -> None:
        try:
            connection = self._connections.get(login.device_id)
            if connection is None or not connection.connected:
                connection = self._connect(login)
            if login.device_id not in self._greeted:
                self._greet(connection, login)
            self._publish(connection, login, MessageType.DATA, self._sample(login, time.time()))
            self._broken.discard(login.device_id)
        except MqttError as error:
            if login.device_id not in self._broken:
                self._report(f"{login.device_id}: {error}")
            self._broken.add(login.device_id)
            self._close(login)

    def _connect(self, login: Login) -> Connection:
        self._close(login)
        base = BrokerAddress.parse(settings.mqtt_url)
        address = BrokerAddress(base.host, base.port, login.username, login.password, base.tls)
        will = Outgoing(self._topic(login, MessageType.STATUS), b'{"status":"offline"}')
        connection = Connection(
            address,
            login.username,
            version=settings.mqtt_version,
            will=will,
            on_message=lambda _, payload: self._obey(login, payload),
        )
        self._connections[login.device_id] = connection
        connection.subscribe(self._topic(login, MessageType.CMD))
        return connection

    def _greet(self, connection: Connection, login: Login) -> None:
        """Say that it is there, and send what was measured while it was not."""
        status = {"status": "online", "battery_level": round(60 + _spread(login.device_id) * 40, 1)}
        self._publish(connection, login, MessageType.STATUS, status)
        now = int(time.time())
        buffered = [self._sample(login, moment) for moment in range(now - HISTORY, now, HISTORY_STEP)]
        self._publish(connection, login, MessageType.DATA, buffered)
        self._greeted.add(login.device_id)

    def _leave(self, login: Login) -> None:
        connection = self._connections.get(login.device_id)
        if connection is not None and connection.connected:
            with contextlib.suppress(MqttError):  # it goes anyway, and its will says the same
                self._publish(connection, login, MessageType.STATUS, {"status": "offline"})
        self._close(login)

    def _close(self, login: Login) -> None:
        connection = self._connections.get(login.device_id)
        if connection is not None:
            connection.close()

    def _publish(self, connection: Connection, login: Login, about: MessageType, document: Any) -> None:
        connection.publish(Outgoing(self._topic(login, about), orjson.dumps(document)))
        self.published += 1

    def _trespass(self, thief: Login, neighbour: Login) -> None:
        """Claim a heat wave in the neighbour's name. The broker may hang up on us for it."""
        connection = self._connections.get(thief.device_id)
        if connection is not None and connection.connected:
            forged = Outgoing(self._topic(neighbour, MessageType.DATA), b'{"temperature": 79.9}')
            with contextlib.suppress(MqttError):
                connection.publish(forged, timeout=2)

    def _obey(self, login: Login, payload: bytes) -> None:
        """Do as told: acknowledge on the reply topic. Runs on the network thread, so it waits for nothing."""
        with contextlib.suppress(orjson.JSONDecodeError, AttributeError, TypeError):
            command = orjson.loads(payload)
            reply = {"id": command["id"], "ok": True, "result": command.get("command")}
            threading.Thread(target=self._reply, args=(login, reply), daemon=True).start()

    def _reply(self, login: Login, reply: dict[str, Any]) -> None:
        with contextlib.suppress(MqttError):
            self._publish(self._connections[login.device_id], login, MessageType.REPLY, reply)

    def _topic(self, login: Login, about: MessageType) -> str:
        return topics.build(self._kind, login.device_id, about)

    def _sample(self, login: Login, moment: float) -> dict[str, Any]:
        sample: dict[str, Any] = {
            name: value_at(reading, login.device_id, moment)
            for name, reading in self._kind.device_type._readings.items()
        }
        sample["timestamp"] = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
        return sample


def value_at(reading: Reading, device_id: str, moment: float) -> Any:
    """A plausible value of *reading* at *moment* (Unix seconds), always inside its declared range."""
    swing = _swing(f"{device_id}/{reading.name}", moment)
    if reading.type == "float":
        low, high = _span(reading)
        return round(low + (high - low) * swing, 2)
    if reading.type == "integer":
        low, high = _span(reading)
        return round(low + (high - low) * swing)
    if reading.type == "boolean":
        return swing > 0.5
    if reading.type == "json":
        return {"level": round(swing, 3)}
    if reading.type == "binary":
        return base64.b64encode(round(swing * 255).to_bytes(2, "big")).decode()
    return "high" if swing > 0.5 else "low"


def _span(reading: Reading) -> tuple[float, float]:
    """The middle third of the declared range, where most real values are."""
    low, high = reading.range or (0, 30)
    low = 0.0 if low is None else low
    high = low + 30 if high is None else high
    return low + (high - low) / 3, low + (high - low) * 2 / 3


def _swing(seed: str, moment: float) -> float:
    """Between 0 and 1: a slow wave, a quicker one, and a little noise; the same for the same moment."""
    phase = _spread(seed) * 2 * math.pi
    wave = 0.5 + 0.33 * math.sin(moment * 2 * math.pi / PERIOD + phase)
    wave += 0.09 * math.sin(moment * 2 * math.pi / 31 + 2 * phase)
    return min(1.0, max(0.0, wave + random.Random(f"{seed}{moment:.1f}").gauss(0, 0.012)))  # noqa: S311


def _spread(seed: str) -> float:
    """A number between 0 and 1 that belongs to *seed*."""
    return random.Random(seed).random()  # noqa: S311 - no secret
