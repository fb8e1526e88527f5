"""The message of a command, and the connection and client id with which this process publishes it."""

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

# Seconds: the message expiry interval is a four byte integer (MQTT 5.0, 3.3.2.3.3).
LONGEST_EXPIRY = 0xFFFFFFFF
LONGEST_HOST = 32  # characters
LONGEST_CLIENT_ID = 100  # characters; a broker has to take 23 and may refuse more (MQTT 5.0, 3.1.3.1)


class Undeliverable(DevicehubError):
    """The device or the declaration of the command is gone, or the device is disabled."""


class Envelope(NamedTuple):
    """A message, and the device it goes to."""

    device: BaseDevice
    sender: type[Any]  # The sender of the signal device_command_sent.
    message: mqtt.Outgoing


def envelope(command: DeviceCommand, now: datetime) -> Envelope:
    """Return the message of *command* as of *now*. Raises Undeliverable.

    With MQTT 5 the broker drops it at the deadline, and it names the response topic.
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

    Each connection has a client id of its own: a broker closes the older of two under one client id.
    """
    address = mqtt.BrokerAddress.parse(settings.mqtt_url)
    return mqtt.Connection(address, client_id(address.username, more), version=settings.mqtt_version)


def client_id(username: str | None, more: str = "") -> str:
    """Return `<username>-commands-<host>-<pid>-<random><more>`, unique to this process and constant until it ends.

    An account may use all client ids that begin with its name and `-`. The host is the end of the host name, where
    pods of one deployment differ: at most 32 characters, and fewer if the id would have more than 100.
    """
    first, last = f"{username or 'devicehub'}-commands-", f"-{os.getpid()}-{_random}{more}"
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname())
    room = max(0, min(LONGEST_HOST, LONGEST_CLIENT_ID - len(first) - len(last)))
    return first + (host[-room:] if room else "") + last


def _draw() -> None:
    """Draw random digits for the client id: two containers may share a host name and the process id 1."""
    global _random
    _random = secrets.token_hex(4)


_random = secrets.token_hex(4)
os.register_at_fork(after_in_child=_draw)
