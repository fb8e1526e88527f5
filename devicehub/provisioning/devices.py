"""Actions on devices: create them with their credentials, find, disable and enable them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from authsvc import audit
from authsvc.credentials import UNTIL_USED
from authsvc.models import Account
from devicehub.errors import DevicehubError
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.topics import MessageType
from devicehub.models import BaseDevice, DisabledDevice, RemovalRequest
from devicehub.provisioning import rows
from devicehub.provisioning.credentials import key_of
from devicehub.provisioning.names import IdentityTaken, refuse_taken
from devicehub.signals import device_provisioned, send

FOLLOWING = 20  # A free id is searched for one by one among so many; after them the highest number decides.

RECORDED = ("mqtt_username", "mqtt_client_id", "name", "site")  # The columns of a new device in the audit.


class UnknownKind(DevicehubError):
    """There is no device type with that name."""


class UnknownDevice(DevicehubError):
    """There is no device with that id."""


def kind_of(slug: str) -> Kind:
    """Return the kind called *slug*. Raise UnknownKind, whose text lists the existing ones."""
    kind = registry.get(slug)
    if kind is None:
        existing = ", ".join(sorted(k.slug for k in registry)) or "none"
        raise UnknownKind(f"There is no device type {slug!r}; existing types: {existing}")
    return kind


@transaction.atomic
def create(kind: Kind, device_id: str, **fields: Any) -> tuple[BaseDevice, dict[str, str]]:
    """Create a device; return it and its credentials in clear text, only once.

    Raise InvalidDeviceId, IdentityTaken.
    """
    device = kind.device_model(device_id=device_id, **fields)
    return device, add(kind, device)


@transaction.atomic
def add(kind: Kind, device: BaseDevice) -> dict[str, str]:
    """Save *device*, which has no row yet, with new credentials; return them in clear text, only once.

    Raise InvalidDeviceId, IdentityTaken.
    """
    credentials = device.generate_credentials()
    _insert(kind, device)
    return credentials


@transaction.atomic
def add_without_credentials(kind: Kind, device: BaseDevice) -> None:
    """Save *device*, which has no row yet, without credentials: no broker lets it in until it gets a password.

    Raise InvalidDeviceId, IdentityTaken.
    """
    _insert(kind, device)


def _insert(kind: Kind, device: BaseDevice) -> None:
    refuse_taken([n for n in (device.device_id, device.mqtt_username, device.mqtt_client_id) if n])
    try:
        with transaction.atomic():
            device.save(force_insert=True)
    except IntegrityError:
        _refuse_equal(kind, device)
        raise
    given = {name: found for name in RECORDED if (found := getattr(device, name))}
    audit.record("device_created", kind.key(device.device_id), after=given)
    transaction.on_commit(lambda: announce(kind, device))


def _refuse_equal(kind: Kind, device: BaseDevice) -> None:
    """Raise IdentityTaken if another device has a value of *device* that only one may have.

    It may be one of its own kind, such as an endpoint name, or one that another process has just taken.
    """
    try:
        device.validate_unique()
    except ValidationError as error:
        reason = " ".join(error.messages).rstrip(".")
        raise IdentityTaken(f"{kind.key(device.device_id)}: {reason}") from error


def announce(kind: Kind, device: BaseDevice) -> None:
    """Send device_provisioned for a new device."""
    send(device_provisioned, kind.sender, device=device)


@transaction.atomic
def disable(device: BaseDevice) -> None:
    """Disable *device*: every question about it is denied from now on, and none of its messages is stored.

    The ingest worker clears the retained messages of the device at the broker, within about 15 seconds.
    """
    changed = rows.locked(device)
    changed.is_active = False
    rows.save(changed, device, ("is_active", "updated_at"))
    audit.record("device_disabled", key_of(device))


@transaction.atomic
def enable(device: BaseDevice) -> None:
    """Let *device* log in and send again. A requested removal is cancelled, and the remaining rows stay."""
    changed = rows.locked(device)
    changed.is_active = True
    rows.save(changed, device, ("is_active", "updated_at"))
    audit.record("device_enabled", key_of(device))
    kind = registry.of(device)
    if kind is not None:
        DisabledDevice.objects.filter(kind=kind.slug, device_pk=device.pk).delete()
        RemovalRequest.objects.filter(device_key=kind.key(device.device_id)).delete()


@transaction.atomic
def move(device: BaseDevice, site: str) -> None:
    """Put *device* at *site*; an empty text means none. People who are limited to other sites stop seeing it."""
    changed = rows.locked(device)
    before, changed.site = changed.site, site
    changed.full_clean(exclude=[field.name for field in changed._meta.fields if field.name != "site"])
    rows.save(changed, device, ("site", "updated_at"))
    audit.record("device_moved", key_of(device), before={"site": before}, after={"site": site})


@transaction.atomic
def set_expiry(row: BaseDevice | Account, expires_at: datetime | None) -> None:
    """Let the passwords of a device or an account end at *expires_at*; None is never.

    A previous one that is valid until a date ends at the earlier of both.
    """
    changed = rows.locked(row)
    before, changed.password_expires_at = changed.password_expires_at, expires_at
    until = changed.previous_valid_until
    if until not in (None, UNTIL_USED) and expires_at is not None:  # The first use still ends the other ones.
        changed.previous_valid_until = min(until, expires_at)
    rows.save(changed, row, ("password_expires_at", "previous_valid_until"))
    audit.record(
        "expiry_set",
        row.key if isinstance(row, Account) else key_of(row),
        before={"password_expires_at": before},
        after={"password_expires_at": expires_at},
    )


def find(kind: Kind, device_id: str) -> BaseDevice:
    """Return the device of *kind* with this id. Raise UnknownDevice."""
    device: BaseDevice | None = kind.device_model.objects.filter(device_id=device_id).first()
    if device is None:
        raise UnknownDevice(f"There is no {kind.key(device_id)}")
    return device


def next_ids(kind: Kind, prefix: str, count: int) -> Iterator[str]:
    """Return an iterator over *count* ids `{prefix}{number:03d}`, which continue after the highest existing one."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)")
    existing: Iterable[str] = kind.device_model.objects.filter(device_id__startswith=prefix).values_list(
        "device_id", flat=True
    )
    numbers = (int(match[1]) for device_id in existing if (match := pattern.fullmatch(device_id)))
    first = max(numbers, default=0) + 1
    return (f"{prefix}{number:03d}" for number in range(first, first + count))


def next_id(kind: Kind, devices: Iterable[BaseDevice]) -> str:
    """Return a free id that continues that of the first of *devices*, the newest first: after STATION-115 STATION-116.

    Without a device it continues the name of the type.
    """
    newest = next((device.device_id for device in devices), "")
    numbered = re.fullmatch(r"(.*?[^0-9])([0-9]{1,9})", newest)
    prefix = numbered[1] if numbered else f"{re.sub(r'[^A-Z0-9]', '', kind.slug.upper()) or 'DEVICE'}-"
    number = int(numbered[2]) if numbered else 0
    for following in range(number + 1, number + 1 + FOLLOWING):
        device_id = f"{prefix}{following:03d}"
        if not kind.device_model.objects.filter(device_id=device_id).exists():
            return device_id
    return next(next_ids(kind, prefix, 1))


def described(kind: Kind, device: BaseDevice, credentials: dict[str, str]) -> dict[str, Any]:
    """Return the data for the person or program that configures the device: id, credentials and topics."""
    return {
        "device_id": device.device_id,
        **credentials,
        "topics": {t.value: topics.build(kind, device.device_id, t) for t in MessageType},
    }
