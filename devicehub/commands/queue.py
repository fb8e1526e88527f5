"""The queue of commands: put a command in, cancel it, or delete it with its device."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.db import transaction
from django.utils import timezone

from authsvc import audit
from devicehub.commands import sender, transitions
from devicehub.conf import settings
from devicehub.errors import DevicehubError
from devicehub.kinds.declare import InvalidCommand
from devicehub.kinds.registry import registry
from devicehub.messages.json_limits import fault_as_json
from devicehub.models import OPEN_STATES, BaseDevice, DeviceCommand

LONGEST = timedelta(days=366)  # A deadline is within this time.
# Bytes of a payload: brokers and devices close the connection on a packet that is too large.
LARGEST = 256 << 10
HEAD_START = timedelta(seconds=2)  # The process that queued a command has this long before others send it.


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
    """Queue a command in the caller's transaction and publish it after the commit; return its id.

    *deadline* is the time from now until the answer (default: DEVICEHUB_COMMAND_DEADLINE). Without a transaction
    the call waits for the broker: up to about 30 s if the broker does not respond. If the broker does not accept
    the command, it stays queued and no error is raised. Otherwise raises as BaseDevice.send_command() does.
    """
    if broker_name != "default":
        raise ValueError(f"There is no broker {broker_name!r}; commands go over MQTT_URL, which is 'default'")
    command = _queue(device, name, payload, deadline, HEAD_START)
    # Robust: the row is committed, so an error is logged here, and the background sender retries.
    transaction.on_commit(lambda: sender.send_now(command.id), robust=True)
    return str(command.id)


def enqueue(
    device: BaseDevice,
    name: str,
    payload: dict[str, Any] | None = None,
    *,
    deadline: timedelta | None = None,
) -> DeviceCommand:
    """Queue a command as send() does, but leave it to the ingest worker to publish it; return its row.

    The call waits for no broker. A worker publishes the command within about a second of the commit.
    """
    return _queue(device, name, payload, deadline, timedelta(0))


def _queue(
    device: BaseDevice,
    name: str,
    payload: dict[str, Any] | None,
    deadline: timedelta | None,
    head_start: timedelta,
) -> DeviceCommand:
    """Store a command that is due after *head_start*, with its record; return its row."""
    device.check_command(name, payload)
    now = timezone.now()
    command = _command(device, name, _storable(payload or {}), _lifetime(deadline), now)
    command.due_at = now + head_start
    with transaction.atomic():
        command.save(force_insert=True)
        _record("command_sent", [command])
    return command


def send_many(
    devices: Sequence[BaseDevice],
    name: str,
    payload: dict[str, Any] | None = None,
    *,
    deadline: timedelta | None = None,
) -> list[str]:
    """Queue a command for each of *devices*, which are of one kind; return the keys of those that got it.

    Disabled devices are left out. The ingest worker publishes the commands: no call waits for a broker. It takes one
    statement, so the caller bounds the number of devices. Raise as send() does.
    """
    lifetime, now = _lifetime(deadline), timezone.now()
    for device in devices[:1]:
        device.check_command(name, payload)
    content = _storable(payload or {})
    queued = [_command(device, name, content, lifetime, now) for device in devices if device.is_active]
    with transaction.atomic():
        DeviceCommand.objects.bulk_create(queued)
        _record("command_sent", queued)
    return [command.device_key for command in queued]


def _lifetime(deadline: timedelta | None) -> timedelta:
    lifetime = settings.command_deadline if deadline is None else deadline
    if not timedelta(0) < lifetime <= LONGEST:
        raise InvalidCommand(f"A deadline must be above 0 and at most {LONGEST.days} days", "deadline")
    return lifetime


def _command(
    device: BaseDevice, name: str, payload: Any, lifetime: timedelta, now: datetime
) -> DeviceCommand:
    """Return the row of a command that is due now. Raise CommandNotSent if *device* is disabled."""
    kind = registry.of(device)
    if kind is None:
        raise ValueError(f"{type(device).__name__} is not a registered kind of device")
    key = kind.key(device.device_id)
    if not device.is_active:
        raise CommandNotSent(f"{key} is disabled")
    return DeviceCommand(
        device_key=key, name=name, payload=payload, queued_at=now, deadline=now + lifetime, due_at=now
    )


def cancel(command: DeviceCommand) -> bool:
    """Cancel a queued command; return False if it has ended, is being sent or may have arrived."""
    with transaction.atomic():
        is_cancelled = transitions.cancel(command, timezone.now())
        if is_cancelled:
            _record("command_cancelled", [command])
    return is_cancelled


def _record(action: str, some: Sequence[DeviceCommand]) -> None:
    """Record *action* without the parameters of the commands, which may hold secrets of the device."""
    audit.record_many(
        action, ((command.device_key, None, {"command": command.name, "id": command.pk}) for command in some)
    )


def delete_open(device_keys: Collection[str]) -> None:
    """Delete the open commands of these devices: a later device of the same id must not get or answer them."""
    DeviceCommand.objects.filter(device_key__in=device_keys, state__in=OPEN_STATES).delete()


def _storable(payload: dict[str, Any]) -> Any:
    """Return *payload* as JSON values.

    Raise TypeError for types that JSON lacks, ValueError for too many bytes and for values that databases change.
    """
    text = orjson.dumps(payload)
    if len(text) > LARGEST:
        raise InvalidCommand(f"The payload has {len(text)} bytes; at most {LARGEST} are allowed")
    if not _is_finite(payload):
        raise InvalidCommand("The payload holds NaN or an infinite number; JSON has neither")
    content = orjson.loads(text)
    fault = fault_as_json(content)
    if fault is not None:
        raise InvalidCommand(f"The payload {fault}, which not every database keeps unchanged")
    return content


def _is_finite(value: Any) -> bool:
    """Return whether all numbers in *value* are finite; orjson turns the others into null."""
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_is_finite, value.values()))
        case list() | tuple():
            return all(map(_is_finite, value))
    return True
