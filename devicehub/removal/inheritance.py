"""Protection of new devices from the data of earlier devices with the same id.

Grants, memberships, tags, options, the last login, open commands, rollups and requests are deleted in the transaction
that deletes the device. If SQL deleted the device, they remain; they are then deleted in the transaction that creates
another device with the id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import structlog
from django.db import DEFAULT_DB_ALIAS, models, transaction

from authsvc import audit, granting
from authsvc.models import Grant, LastLogin
from devicehub import commands, provisioning
from devicehub.db.statements import query
from devicehub.history import rollups
from devicehub.kinds.registry import Kind, registry
from devicehub.models import (
    NAMES,
    OPEN_STATES,
    BaseDevice,
    DeviceCommand,
    DeviceOptions,
    DeviceTag,
    GroupMember,
    RemovalRequest,
    Rollup,
    new_names,
    register_naming,
)
from devicehub.removal import retained

# Tables of operators with rows by device key.
ADDITIONS: tuple[Any, ...] = (GroupMember, DeviceTag, DeviceOptions)

log = structlog.get_logger(__name__)


def watch() -> None:
    """Connect the checks to all kinds: they run when a device gets names, and when Django deletes it."""
    register_naming(check_names)
    models.signals.pre_save.connect(before_save, dispatch_uid="devicehub.removal.before_save")
    for kind in registry:
        # One receiver per model: with a receiver for all models Django would load every row that it deletes.
        models.signals.pre_delete.connect(
            before_delete, sender=kind.device_model, dispatch_uid=f"devicehub.removal.{kind.slug}"
        )


def check_names(model: type[BaseDevice], device_ids: set[str], names: set[str], using: str) -> None:
    """Raise IdentityTaken if one of *names* belongs to an account; delete the data that *device_ids* would inherit."""
    kind = registry.of(model)
    if kind is None or using != DEFAULT_DB_ALIAS:  # A copy in another database cannot log in.
        return
    if names:
        provisioning.refuse_claimed(names)
    keys = {kind.key(device_id): device_id for device_id in device_ids}
    found = _left_over(list(keys)) if keys else set()
    if not found:
        return  # Even a deletion of zero grants would raise the policy revision.
    with transaction.atomic():
        rollups.lock(kind)
        _disinherit(kind, [keys[key] for key in found])
    for key in sorted(found):
        log.warning("removal.left_over", device=key)


def before_save(
    sender: type[models.Model],
    instance: models.Model,
    raw: bool,
    using: str,
    update_fields: Collection[str] | None,
    **_: Any,
) -> None:
    """Check the new names of a device before they are saved.

    Fixtures (*raw*) are not checked: they restore devices together with their grants, in any order.
    """
    if raw or not isinstance(instance, BaseDevice):
        return
    kind = registry.of(instance)
    if kind is not None and (update_fields is None or not set(NAMES).isdisjoint(update_fields)):
        check_names(kind.device_model, *new_names(kind.device_model, [instance], using), using)


def before_delete(sender: type[BaseDevice], instance: BaseDevice, using: str, **_: Any) -> None:
    """Delete the data that a later device of this id would inherit, in the transaction that deletes the device."""
    kind = registry.of(sender)
    if kind is None or using != DEFAULT_DB_ALIAS:
        return
    device_id = lock(kind, instance)
    if device_id is not None:
        _disinherit(kind, [device_id])
        audit.record("device_removed", kind.key(device_id))


def lock(kind: Kind, device: BaseDevice) -> str | None:
    """Lock the row of *device* until this transaction ends; return its device id, or None if the row is gone.

    The row is found by primary key: an instance of a deleted device must not affect another device of the same id.
    Rollups and ingest wait for this transaction, and then find the device gone.
    """
    rollups.lock(kind)  # Every deletion locks rollups before the row, so that no two wait for each other.
    rows = type(device)._base_manager.filter(pk=device.pk).select_for_update()
    return rows.values_list("device_id", flat=True).first()


def grants_of(keys: Iterable[str]) -> models.QuerySet[Grant]:
    """Return the grants of the devices of *keys*."""
    return Grant.objects.filter(subject__in=[f"key:{key}" for key in keys])


def delete_grants(keys: Iterable[str]) -> int:
    """Delete the grants of the devices of *keys*; return how many."""
    return granting.delete_grants_of([f"key:{key}" for key in keys])


def _left_over(keys: list[str]) -> set[str]:
    """Return those of *keys* with data that a new device would inherit.

    It takes one query, in SQL, because every new device waits for it.
    """
    given = ", ".join(["%s"] * len(keys))
    arms = [
        f"SELECT {column} FROM {model._meta.db_table} WHERE {column} IN ({given})"
        for model, column in (
            (LastLogin, "key"),
            *((model, "device_key") for model in (RemovalRequest, Rollup, *ADDITIONS)),
        )
    ]
    opened = ", ".join(f"'{state}'" for state in OPEN_STATES)
    arms += [
        f"SELECT device_key FROM {DeviceCommand._meta.db_table}"
        f" WHERE device_key IN ({given}) AND state IN ({opened})",
        f"SELECT subject FROM {Grant._meta.db_table} WHERE subject IN ({given})",
    ]
    subjects = [f"key:{key}" for key in keys]
    found = query(" UNION ".join(arms), [*keys * (len(arms) - 1), *subjects])
    return {text.removeprefix("key:") for (text,) in found}


def _disinherit(kind: Kind, device_ids: list[str]) -> None:
    """Delete the data that later devices of these ids would inherit, and enqueue their retained topics."""
    keys = [kind.key(device_id) for device_id in device_ids]
    Rollup.objects.filter(device_key__in=keys).delete()
    RemovalRequest.objects.filter(device_key__in=keys).delete()
    delete_grants(keys)
    LastLogin.objects.filter(key__in=keys).delete()
    for model in ADDITIONS:
        model.objects.filter(device_key__in=keys).delete()
    commands.delete_open(keys)
    retained.enqueue(kind, device_ids)
