"""Actions on devices by people and their programs, with the rules for their permissions and sites: add and change one.

Pages and API call these, so a rule holds for both. The actions beside them know no user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, transaction

from authsvc import audit
from devicehub import visibility
from devicehub.kinds.registry import Kind, registry
from devicehub.models import OPERATOR_STATES, BaseDevice, DeviceOptions, DeviceStatus
from devicehub.provisioning import devices, options, rows
from devicehub.provisioning.credentials import key_of
from devicehub.provisioning.names import IdentityTaken

ATTEMPTS = 5  # Another process may take the next free id first.
TAKEN = "This id is taken; choose another one"
COLUMNS = ("name", "metadata", "status")


def add_device(
    kind: Kind,
    device_id: str,
    user: Any,
    *,
    name: str = "",
    site: str = "",
    tags: Iterable[str] = (),
    **more: Any,
) -> tuple[BaseDevice, dict[str, str]]:
    """Create a device as *user* does; return it and its credentials in clear text, only once.

    Without *device_id* it gets the next free one. *more* is metadata and options, as change_device() takes them. Raise
    PermissionDenied, InvalidDeviceId, IdentityTaken, ValidationError.
    """
    if not visibility.may(user, visibility.ADD, kind.device_model):
        raise PermissionDenied(f"You may not add a {kind.name}.")
    visibility.check_site(user, site)
    with transaction.atomic():
        device, credentials = _create(kind, device_id, user, name=name, site=site)
        wanted = {**more, **({"tags": tags} if tags else {})}
        if wanted:
            _change(kind, device, user, wanted)
    return device, credentials


def _create(kind: Kind, device_id: str, user: Any, **fields: Any) -> tuple[BaseDevice, dict[str, str]]:
    for attempt in range(1, ATTEMPTS + 1):
        chosen = device_id or next_free_id(kind, user)
        try:
            with transaction.atomic():
                refuse_used(kind, chosen, user)
                return devices.create(kind, chosen, **fields)
        except (IdentityTaken, IntegrityError) as error:
            if not device_id and attempt < ATTEMPTS:
                continue
            # Another process may have taken the id between the check and the insert. People with a limit do not
            # learn by which device a name is taken.
            is_told = isinstance(error, IdentityTaken) and not visibility.is_limited(user)
            raise IdentityTaken(str(error) if is_told else TAKEN) from error
    raise AssertionError("the last attempt returns or raises")


def refuse_used(kind: Kind | None, device_id: str, user: Any) -> None:
    """Raise IdentityTaken if *user* has a limit, and an earlier device with this id left records."""
    if kind and visibility.is_limited(user) and visibility.with_records({kind.key(device_id)}):
        raise IdentityTaken("An earlier device had this id; choose another one.")


def next_free_id(kind: Kind, user: Any) -> str:
    """Return a free id after that of the newest device that *user* sees."""
    return devices.next_id(kind, visibility.devices(kind, user).order_by("-pk")[:1])


@transaction.atomic
def change_device(device: BaseDevice, user: Any, changes: Mapping[str, Any]) -> None:
    """Make *changes* to *device* as *user* does, those that differ from its present values.

    They are name, site, tags, metadata, is_active, status (a state of OPERATOR_STATES, or None for that of the
    device), expected_heartbeat and rate_limit. Raise PermissionDenied, ValidationError.
    """
    kind = registry.of(device)
    if kind is None:
        raise ValueError(f"{type(device).__name__} is not a registered kind of device")
    if not visibility.may(user, visibility.CHANGE, kind.device_model):
        raise PermissionDenied(f"You may not change a {kind.name}.")
    _change(kind, device, user, changes)


def _change(kind: Kind, device: BaseDevice, user: Any, changes: Mapping[str, Any]) -> None:
    key = key_of(device)
    if "site" in changes and changes["site"] != device.site:
        visibility.check_site(user, changes["site"])
        devices.move(device, changes["site"])
    _change_columns(device, {name: changes[name] for name in COLUMNS if name in changes})
    if "tags" in changes:
        _set_tags(key, user, changes["tags"])
    own = {name: changes[name] for name in options.FIELDS if name in changes}
    if own:
        _set_options(key, user, own)
    if "is_active" in changes and changes["is_active"] != device.is_active:
        (devices.enable if changes["is_active"] else devices.disable)(device)


def _change_columns(device: BaseDevice, changes: Mapping[str, Any]) -> None:
    changed = rows.locked(device)
    new = dict(changes)
    if "status" in new:
        new["status"] = chosen_status(changed, new["status"] or "")
    before = {name: getattr(changed, name) for name in new}
    old, after = audit.difference(before, new)
    if not after:
        return
    for name, value in after.items():
        setattr(changed, name, value)
    changed.full_clean(
        exclude=[field.name for field in changed._meta.fields if field.name not in after],
        validate_unique=False,
        validate_constraints=False,
    )
    rows.save(changed, device, (*after, "updated_at"))
    audit.record("device_changed", key_of(device), before=old, after=after)


def chosen_status(device: BaseDevice, chosen: str) -> str:
    """Return the status after an operator chose *chosen*; without a choice that of the device.

    It ends a state that an operator set before. Raise ValidationError for a status that only a device reports.
    """
    if chosen:
        if chosen not in OPERATOR_STATES:
            allowed = ", ".join(sorted(OPERATOR_STATES))
            raise ValidationError({"status": f"People set {allowed}; a device reports the others."})
        return chosen
    if device.status not in OPERATOR_STATES:
        return device.status
    if not device.connected:
        return DeviceStatus.OFFLINE
    said = device.reported_status
    return said if said and said != DeviceStatus.OFFLINE else DeviceStatus.ONLINE


def _set_tags(key: str, user: Any, tags: Iterable[str]) -> None:
    wanted = sorted(set(tags))
    if wanted == options.tags_of(key):
        return
    if not visibility.may_tag(user):
        raise PermissionDenied("You may not set tags: they can bring a device into a group.")
    try:
        options.set_tags(key, wanted)
    except ValidationError as error:
        raise ValidationError({"tags": error.messages}) from error


def _set_options(key: str, user: Any, changes: Mapping[str, Any]) -> None:
    row = DeviceOptions.objects.filter(device_key=key).first() or DeviceOptions()
    before = {name: getattr(row, name) for name in options.FIELDS}
    wanted = {**before, **changes}
    if wanted == before:
        return
    if not visibility.may(user, visibility.CHANGE, DeviceOptions):
        raise PermissionDenied("You may not change the options of devices.")
    options.set_options(key, **wanted)
