"""What puts a command into the queue, and what takes it out again before it was published."""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import orjson
from django.db import transaction
from django.utils import timezone

from devicehub.commands import sender, transitions
from devicehub.conf import settings
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import registry
from devicehub.messages.json_limits import fault_as_json
from devicehub.models import OPEN_STATES, BaseDevice, DeviceCommand

LONGEST = timedelta(days=366)  # of a deadline
LARGEST = 256 << 10  # bytes of a payload: brokers and devices hang up on a packet that is too large for them
HEAD_START = timedelta(seconds=2)  # for the process that queued it, before others look for work


class CommandNotSent(DevicehubError):
    """The command was not queued: its device is disabled."""


def send(
    device: BaseDevice,
    name: str,
    payload: dict[str, Any] | None = None,
    broker_name: str = "default",
    *,
    deadline: timedelta | None = None,
) -> str:
    """Queue a command in the caller's transaction and publish it when that commits; returns its id.

    *deadline* counts from now until the answer; DEVICEHUB_COMMAND_DEADLINE if not given. Without a transaction
    this waits for the broker: up to about 30 s when it hangs. What the broker does not take stays queued, and
    nothing is raised for it. Raises what BaseDevice.send_command() raises.
    """
    if broker_name != "default":
        raise ValueError(f"There is no broker {broker_name!r}; commands go over MQTT_URL, which is 'default'")
    device.check_command(name, payload)
    kind = registry.of(device)
    if kind is None:
        raise ValueError(f"{type(device).__name__} is no registered kind of device")
    lifetime = settings.command_deadline if deadline is None else deadline
    if not timedelta(0) < lifetime <= LONGEST:
        raise ValueError(f"A deadline is later than now and within {LONGEST.days} days")
    if not device.is_active:
        raise CommandNotSent(f"{kind.key(device.device_id)} is disabled")
    now = timezone.now()
    command = DeviceCommand(
        device_key=kind.key(device.device_id),
        name=name,
        payload=_storable(payload or {}),
        queued_at=now,
        deadline=now + lifetime,
        due_at=now + HEAD_START,
    )
    command.save(force_insert=True)
    # Robust: the row is committed, so what goes wrong now is logged, and the background sender's to mend.
    transaction.on_commit(lambda: sender.send_now(command.id), robust=True)
    return str(command.id)


def cancel(command: DeviceCommand) -> bool:
    """Take a queued command out of the queue; False when it is over, on its way, or may have arrived."""
    return transitions.cancel(command, timezone.now())


def delete_open(device_keys: Collection[str]) -> None:
    """Delete the open commands of devices that end: one made again under an id must not get or answer them."""
    DeviceCommand.objects.filter(device_key__in=device_keys, state__in=OPEN_STATES).delete()


def _storable(payload: dict[str, Any]) -> Any:
    """*payload* as JSON has it. TypeError for what JSON has not; ValueError for too much, or what is not kept alike."""
    text = orjson.dumps(payload)
    if len(text) > LARGEST:
        raise ValueError(f"The payload has {len(text)} bytes, and may have {LARGEST}")
    if not _is_finite(payload):
        raise ValueError("The payload holds a number that is not finite")
    content = orjson.loads(text)
    fault = fault_as_json(content)
    if fault is not None:
        raise ValueError(f"The payload {fault}, which databases do not keep alike")
    return content


def _is_finite(value: Any) -> bool:
    """Whether all numbers in *value* are finite: orjson makes null of the others."""
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_finite, value.values()))
        case list() | tuple():
            return all(map(_is_finite, value))
    return True
