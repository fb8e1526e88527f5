"""Commands to devices: published over a connection of their own, and followed to the broker's ack."""

from __future__ import annotations

import os
import socket
import uuid
from typing import Any

import orjson
from django.utils import timezone

from devicehub import mqtt, topics
from devicehub.conf import settings
from devicehub.models import BaseDevice, SentCommand
from devicehub.registry import registry
from devicehub.signals import device_command_sent, tell
from devicehub.topics import MessageType

TIMEOUT = 10.0  # seconds for connect, publish and ack together


class CommandNotSent(Exception):
    """The broker did not take the command."""


class CommandUnconfirmed(CommandNotSent):
    """The command went out and the broker did not confirm it: the device may get it, and its reply counts."""


def send(device: BaseDevice, name: str, payload: dict[str, Any], broker_name: str = "default") -> str:
    """Publish a validated command and wait for the broker's ack; returns its id.

    Raises CommandNotSent, and CommandUnconfirmed where it may have been sent all the same.
    """
    if broker_name != "default":
        raise ValueError(f"There is no broker {broker_name!r}; commands go over MQTT_URL, which is 'default'")
    kind = registry.of(device)
    if kind is None:
        raise ValueError(f"{type(device).__name__} is no registered kind of device")
    if not device.is_active:
        raise CommandNotSent(f"{kind.key(device.device_id)} is disabled")
    command = SentCommand(
        device_key=kind.key(device.device_id), name=name, payload=payload, sent_at=timezone.now()
    )
    document: dict[str, Any] = {"id": str(command.id), "command": name, "payload": payload}
    qos = kind.device_type._commands[name].qos
    command.save(force_insert=True)  # before it is sent, so that a quick reply finds it
    try:
        _publish(
            mqtt.Outgoing(
                topics.build(kind, device.device_id, MessageType.CMD),
                orjson.dumps(document),
                qos=qos,
                correlation_data=str(command.id).encode(),
                response_topic=topics.build(kind, device.device_id, MessageType.REPLY),
            )
        )
    except mqtt.Unacknowledged as error:
        raise CommandUnconfirmed(f"{name} may have reached {kind.key(device.device_id)}: {error}") from error
    except mqtt.MqttError as error:
        command.delete()
        raise CommandNotSent(f"{name} was not sent to {kind.key(device.device_id)}: {error}") from error
    tell(device_command_sent, kind.device_type, device=device, command=name, payload=payload)
    return str(command.id)


def answered(device_key: str, reply: dict[str, Any]) -> SentCommand | None:
    """The command of *device_key* that *reply* answers, marked as answered; None for nobody's command.

    A second reply to one command changes nothing and is nobody's.
    """
    try:
        command_id = uuid.UUID(str(reply.get("id")))
    except ValueError:
        return None
    open_commands = SentCommand.objects.filter(id=command_id, device_key=device_key, answered_at=None)
    if not open_commands.update(answered_at=timezone.now(), response=reply):
        return None
    return SentCommand.objects.get(id=command_id)


def _publish(message: mqtt.Outgoing) -> None:
    address = mqtt.BrokerAddress.parse(settings.mqtt_url)
    # An identity of its own: a sender under the listener's client id would throw the listener out.
    client_id = f"{address.username or 'devicehub'}-commands-{_hostname()}-{os.getpid()}"
    mqtt.publish(address, client_id, message, version=settings.mqtt_version, timeout=TIMEOUT)


def _hostname() -> str:
    return "".join(c if c.isalnum() or c == "-" else "-" for c in socket.gethostname())[:32]
