"""Changes of many devices: revoke, disable, enable, move to a site, send a command.

A change works in batches, each in a transaction of its own with its audit rows, so that its memory and its locks are
bounded. A run that breaks off has changed whole batches. The same call again finishes it: devices that are in the
wanted state already are left out. A command is the exception, as each call queues one more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from authsvc import audit
from devicehub import commands
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice, DisabledDevice, RemovalRequest

BATCH = 200  # Devices in one transaction.

Devices = QuerySet[Any]
Change = Callable[[list[BaseDevice]], int]


def revoke(kind: Kind, devices: Devices) -> int:
    """End passwords, API keys and tokens of *devices*; return how many had any."""

    def change(batch: list[BaseDevice]) -> int:
        having = [device for device in batch if device.mqtt_password_hash or device.api_key]
        now = timezone.now()
        _update(
            kind,
            having,
            mqtt_password_hash="",
            password_expires_at=None,
            previous_password_hash="",
            previous_valid_until=None,
            api_key=None,
            credentials_changed_at=now,
            updated_at=now,
        )
        return record(kind, having, "credentials_revoked")

    return _apply(kind, devices, change)


def disable(kind: Kind, devices: Devices) -> int:
    """Disable *devices*: no login, and none of their messages is stored. Return how many were enabled."""

    def change(batch: list[BaseDevice]) -> int:
        enabled = [device for device in batch if device.is_active]
        _update(kind, enabled, is_active=False, updated_at=timezone.now())
        return record(kind, enabled, "device_disabled")

    return _apply(kind, devices, change)


def enable(kind: Kind, devices: Devices) -> int:
    """Let *devices* log in and send again; requested removals are cancelled. Return how many were disabled."""

    def change(batch: list[BaseDevice]) -> int:
        disabled = [device for device in batch if not device.is_active]
        pks = [device.pk for device in disabled]
        DisabledDevice.objects.filter(kind=kind.slug, device_pk__in=pks).delete()
        keys = [kind.key(device.device_id) for device in disabled]
        RemovalRequest.objects.filter(device_key__in=keys).delete()
        _update(kind, disabled, is_active=True, updated_at=timezone.now())
        return record(kind, disabled, "device_enabled")

    return _apply(kind, devices, change)


def move(kind: Kind, devices: Devices, site: str) -> int:
    """Set the site of *devices*; return how many were elsewhere. The caller checks that the user may use *site*."""

    def change(batch: list[BaseDevice]) -> int:
        elsewhere = [device for device in batch if device.site != site]
        _update(kind, elsewhere, site=site, updated_at=timezone.now())
        moves = (
            audit.Change(kind.key(device.device_id), {"site": device.site}, {"site": site})
            for device in elsewhere
        )
        return audit.record_many("device_moved", moves)

    return _apply(kind, devices, change)


def send(kind: Kind, devices: Devices, name: str, payload: dict[str, Any]) -> int:
    """Queue a command for each of *devices* that is enabled; return how many got it.

    Raise ValueError or TypeError if their type does not declare the command with this payload.
    """
    return _apply(kind, devices, lambda batch: len(commands.send_many(batch, name, payload)))


def pages(devices: Devices) -> Iterator[list[int]]:
    """Yield the primary keys of *devices* in ascending order, BATCH at a time; each page is a query of its own."""
    last = 0
    while pks := list(devices.order_by("pk").filter(pk__gt=last).values_list("pk", flat=True)[:BATCH]):
        yield pks
        last = pks[-1]


def lock(kind: Kind, devices: Devices, pks: list[int]) -> list[BaseDevice]:
    """Return those of *devices* with these primary keys, locked in the caller's transaction.

    A device that does not fit the conditions of *devices* any more once it is locked is left out: it may have been
    moved to a site that the user must not touch.
    """
    rows = kind.device_model._base_manager.select_for_update().filter(pk__in=pks).order_by("pk")
    found = {device.pk: device for device in rows}
    fitting = set(devices.filter(pk__in=pks).values_list("pk", flat=True))
    return [device for pk, device in found.items() if pk in fitting]


def _apply(kind: Kind, devices: Devices, change: Change) -> int:
    changed = 0
    for pks in pages(devices):
        with transaction.atomic():
            changed += change(lock(kind, devices, pks))
    return changed


def record(kind: Kind, devices: Sequence[BaseDevice], action: str) -> int:
    """Record *action* in the audit for each of *devices*; return how many."""
    return audit.record_many(action, (audit.Change(kind.key(device.device_id)) for device in devices))


def _update(kind: Kind, devices: Sequence[BaseDevice], **values: Any) -> None:
    """Set *values* by the manager of devices, whose update() also places them in groups by their new site."""
    if devices:
        kind.device_model.objects.filter(pk__in=[device.pk for device in devices]).update(**values)
