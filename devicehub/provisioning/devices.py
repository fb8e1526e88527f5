"""Create devices with their credentials, and find them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.db import transaction

from devicehub.errors import DevicehubError
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.topics import MessageType
from devicehub.models import BaseDevice, DisabledDevice, RemovalRequest
from devicehub.provisioning.names import refuse_taken
from devicehub.signals import device_provisioned, send


class UnknownKind(DevicehubError):
    """There is no device type of that name."""


class UnknownDevice(DevicehubError):
    """There is no device of that id."""


def kind_of(slug: str) -> Kind:
    """The kind called *slug*. Raises UnknownKind, which names those that exist."""
    kind = registry.get(slug)
    if kind is None:
        known = ", ".join(sorted(k.slug for k in registry)) or "none"
        raise UnknownKind(f"There is no device type {slug!r}; known: {known}")
    return kind


@transaction.atomic
def create(kind: Kind, device_id: str, **fields: Any) -> tuple[BaseDevice, dict[str, str]]:
    """A new device and its credentials in clear text, shown this once. Raises InvalidDeviceId, IdentityTaken."""
    device = kind.device_model(device_id=device_id, **fields)
    credentials = device.generate_credentials()
    refuse_taken([n for n in (device.device_id, device.mqtt_username, device.mqtt_client_id) if n])
    device.save(force_insert=True)
    transaction.on_commit(lambda: announce(kind, device))
    return device, credentials


def announce(kind: Kind, device: BaseDevice) -> None:
    send(device_provisioned, kind.sender, device=device)


def disable(device: BaseDevice) -> None:
    """Have every question about *device* denied from now on, and nothing stored that it sends.

    The ingest worker has the broker forget what it retains of the device, within about 15 seconds.
    """
    device.is_active = False
    device.save(update_fields=["is_active", "updated_at"])


@transaction.atomic
def enable(device: BaseDevice) -> None:
    """Let *device* log in and send again. A removal that was requested ends, and the rows that are left stay."""
    device.is_active = True
    device.save(update_fields=["is_active", "updated_at"])
    kind = registry.of(device)
    if kind is not None:
        DisabledDevice.objects.filter(kind=kind.slug, device_pk=device.pk).delete()
        RemovalRequest.objects.filter(device_key=kind.key(device.device_id)).delete()


def find(kind: Kind, device_id: str) -> BaseDevice:
    """The device. Raises UnknownDevice."""
    device: BaseDevice | None = kind.device_model.objects.filter(device_id=device_id).first()
    if device is None:
        raise UnknownDevice(f"There is no {kind.key(device_id)}")
    return device


def next_ids(kind: Kind, prefix: str, count: int) -> Iterator[str]:
    """*count* ids `{prefix}{number:03d}`, continuing after the highest that exists."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)")
    existing: Iterable[str] = kind.device_model.objects.filter(device_id__startswith=prefix).values_list(
        "device_id", flat=True
    )
    numbers = (int(match[1]) for known in existing if (match := pattern.fullmatch(known)))
    first = max(numbers, default=0) + 1
    return (f"{prefix}{number:03d}" for number in range(first, first + count))


def described(kind: Kind, device: BaseDevice, credentials: dict[str, str]) -> dict[str, Any]:
    """What goes to the person or program that will configure the device."""
    return {
        "device_id": device.device_id,
        **credentials,
        "topics": {t.value: topics.build(kind, device.device_id, t) for t in MessageType},
    }
