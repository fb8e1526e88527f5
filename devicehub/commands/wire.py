"""A command as it is on the wire, and who we are when we publish it."""

from __future__ import annotations

import os
import socket
from datetime import datetime
from typing import NamedTuple

import orjson

from devicehub import mqtt, topics
from devicehub.conf import settings
from devicehub.declare import DeviceType
from devicehub.models import BaseDevice, DeviceCommand
from devicehub.registry import registry
from devicehub.topics import MessageType

LONGEST_EXPIRY = (
    0xFFFFFFFF  # seconds: the message expiry interval is a four byte integer (MQTT 5.0, 3.3.2.3.3)
)


class Undeliverable(Exception):
    """There is nobody to send the command to, or it does not exist any more."""


class Envelope(NamedTuple):
    """A message, and the device it goes to."""

    device: BaseDevice
    device_type: type[DeviceType]
    message: mqtt.Outgoing


def envelope(command: DeviceCommand, now: datetime) -> Envelope:
    """The message of *command* as of *now*. Raises Undeliverable.

    On MQTT 5 the broker drops it at the deadline, and the device is told where to answer.
    """
    slug, _, device_id = command.device_key.partition("/")
    kind = registry.get(slug)
    if kind is None:
        raise Undeliverable(f"there is no device type {slug!r} any more")
    declared = kind.device_type._commands.get(command.name)
    if declared is None:
        raise Undeliverable(f"{kind.device_type.__name__} has no command {command.name!r} any more")
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
    return Envelope(device, kind.device_type, message)


def connect() -> mqtt.Connection:
    """A connection to the broker of MQTT_URL. Raises MqttError, InvalidAddress.

    It has an identity of its own: under the listener's client id it would throw the listener out.
    """
    address = mqtt.BrokerAddress.parse(settings.mqtt_url)
    client_id = f"{address.username or 'devicehub'}-commands-{_hostname()}-{os.getpid()}"
    return mqtt.Connection(address, client_id, version=settings.mqtt_version)


def _hostname() -> str:
    return "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname())[:32]
