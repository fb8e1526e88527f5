"""The devices of a simulation in the database, and their logins, which are new at every start."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from django.db import transaction

from authsvc import audit
from devicehub import provisioning
from devicehub.db.portions import batched
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice, validate_device_id

MARK = {
    "simulated": True
}  # With this in its metadata a device may get new credentials without a confirmation.
AT_ONCE = 500  # Devices in one transaction: SQLite has one writer, and others wait for it.


class NotSimulated(DevicehubError):
    """A device of that id exists and is a real one, so its credentials must not change."""


@dataclass
class Login:
    """One simulated device and its login in clear text; kept in memory only."""

    device_id: str
    username: str
    password: str = field(repr=False)


def issue_logins(
    kind: Kind, prefix: str, count: int, progress: Callable[[int], None] = lambda _: None
) -> list[Login]:
    """Return logins with new credentials for *count* devices `{prefix}001`, ...; create devices that do not exist.

    *progress* is called with the number of finished devices. Raise NotSimulated for a real device of that name, before
    any change; InvalidDeviceId; and IdentityTaken for a name of another identity.
    """
    validate_device_id(f"{prefix}{count:03d}")
    ids = [f"{prefix}{number:03d}" for number in range(1, count + 1)]
    for some in batched(ids, AT_ONCE):
        _refuse_real(kind, kind.device_model.objects.filter(device_id__in=some))
    logins: list[Login] = []
    for some in batched(ids, AT_ONCE):
        logins += _issue_some(kind, some)
        progress(len(logins))
    return logins


@transaction.atomic
def _issue_some(kind: Kind, ids: list[str]) -> list[Login]:
    """Return the logins of *ids*, in one transaction.

    Existing rows are locked before they are checked, so that none becomes a real device meanwhile.
    """
    model = kind.device_model
    existing: dict[str, BaseDevice] = {
        device.device_id: device
        for device in model.objects.select_for_update().filter(device_id__in=ids).order_by("pk")
    }
    _refuse_real(kind, existing.values())
    new = [model(device_id=device_id, metadata=MARK) for device_id in ids if device_id not in existing]
    devices: dict[str, BaseDevice] = {**existing, **{device.device_id: device for device in new}}
    secrets = {device_id: devices[device_id].generate_credentials() for device_id in ids}
    if new:
        provisioning.refuse_taken([name for d in new for name in (d.device_id, d.mqtt_username)])
        model.objects.bulk_create(new)
        transaction.on_commit(lambda: _announce(kind, new))
    if existing:
        # The rows exist and are locked, so each conflicts with itself only; bulk_update() takes five times as long.
        fields = provisioning.CREDENTIAL_FIELDS
        model.objects.bulk_create(
            existing.values(), update_conflicts=True, unique_fields=["pk"], update_fields=fields
        )
    audit.record_many("device_created", [audit.Change(kind.key(device.device_id)) for device in new])
    audit.record_many("password_rotated", [audit.Change(kind.key(device_id)) for device_id in existing])
    return [Login(name, s["mqtt_username"], s["mqtt_password"]) for name, s in secrets.items()]


def _refuse_real(kind: Kind, devices: Iterable[BaseDevice]) -> None:
    for device in devices:
        if not isinstance(device.metadata, dict) or not device.metadata.get("simulated"):
            raise NotSimulated(f"{kind.key(device.device_id)} is a real device; choose another --prefix")


def _announce(kind: Kind, devices: Iterable[BaseDevice]) -> None:
    for device in devices:
        provisioning.announce(kind, device)
