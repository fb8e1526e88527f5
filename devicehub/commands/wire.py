"""A command as it is on the wire, and who we are when we publish it."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from devicehub import mqtt
from devicehub.conf import settings
from devicehub.errors import DevicehubError
from devicehub.kinds import topics
from devicehub.kinds.registry import UnknownKey, registry
from devicehub.kinds.topics import MessageType
from devicehub.models import BaseDevice, DeviceCommand

LONGEST_EXPIRY = (
    0xFFFFFFFF  # seconds: the message expiry interval is a four byte integer (MQTT 5.0, 3.3.2.3.3)
)
LONGEST_HOST = 32  # characters
LONGEST_CLIENT_ID = 100  # characters; a broker has to take 23 and may refuse more (MQTT 5.0, 3.1.3.1)


class Undeliverable(DevicehubError):
    """There is nobody to send the command to, or it does not exist any more."""


class Envelope(NamedTuple):
    """A message, and the device it goes to."""

    device: BaseDevice
    sender: type[Any]  # of the signal that tells of it
    message: mqtt.Outgoing


def envelope(command: DeviceCommand, now: datetime) -> Envelope:
    """The message of *command* as of *now*. Raises Undeliverable.

    On MQTT 5 the broker drops it at the deadline, and the device is told where to answer.
    """
    try:
        kind, device_id = registry.resolve(command.device_key)
    except UnknownKey as error:
        raise Undeliverable(f"{error} any more") from error
    declared = kind.commands.get(command.name)
    if declared is None:
        raise Undeliverable(f"{kind.sender.__name__} has no command {command.name!r} any more")
    device: BaseDevice | None = kind.device_model.objects.filter(device_id=device_id).first()
    if device is None:
        raise Undeliverable(f"there is no {command.device_key} any more")
    if not device.is_active:
        raise Undeliverable(f"{command.device_key} is disabled")
    document = {"id": str(command.id), "command": command.name, "payload": command.payload}
    left = int((command.deadline - now).total_seconds())
    message = mqtt.Outgoing(
        topics.build(kind, device_id, MessageType.CMD),
        orjson.dumps(document),
        qos=declared.qos,
        correlation_data=str(command.id).encode(),
        response_topic=topics.build(kind, device_id, MessageType.REPLY),
        expiry=min(max(left, 1), LONGEST_EXPIRY),
    )
    return Envelope(device, kind.sender, message)


def connect(more: str = "") -> mqtt.Connection:
    """Connect to the broker of MQTT_URL, under a client id that ends with *more*. Raises MqttError, InvalidAddress.

    Each connection has a client id of its own: of two under one client id each throws the other out.
    """
    address = mqtt.BrokerAddress.parse(settings.mqtt_url)
    return mqtt.Connection(address, client_id(address.username, more), version=settings.mqtt_version)


def client_id(username: str | None, more: str = "") -> str:
    """`<username>-commands-<host>-<pid>-<random><more>`: of this process alone, and the same until it ends.

    An account has all ids that begin with its name and `-`. The host is the end of its name, where pods of one
    deployment differ: at most 32 characters, and fewer where the id would have more than 100.
    """
    first, last = f"{username or 'devicehub'}-commands-", f"-{os.getpid()}-{_random}{more}"
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname())
    room = max(0, min(LONGEST_HOST, LONGEST_CLIENT_ID - len(first) - len(last)))
    return first + (host[-room:] if room else "") + last


def _draw() -> None:
    """Two containers may have one host name and the process id 1, so that these alone name no process."""
    global _random
    _random = secrets.token_hex(4)


_random = secrets.token_hex(4)
os.register_at_fork(after_in_child=_draw)
