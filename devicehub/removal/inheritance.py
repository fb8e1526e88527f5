"""A device id passes nothing on: grants, open commands, rollups and requests end with the device that had them.

They are deleted in the transaction that deletes the device. A device that SQL deleted leaves them; they are then
deleted in the transaction in which another device begins under the id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import structlog
from django.db import DEFAULT_DB_ALIAS, models, transaction

from authsvc.models import Grant
from devicehub import commands, provisioning
from devicehub.history import rollups
from devicehub.kinds.registry import Kind, registry
from devicehub.models import (
    NAMES,
    OPEN_STATES,
    BaseDevice,
    DeviceCommand,
    RemovalRequest,
    Rollup,
    new_names,
    register_naming,
)
from devicehub.removal import retained

log = structlog.get_logger(__name__)


def watch() -> None:
    """Follow the devices of every kind that exists: which names they get, and when Django deletes them."""
    register_naming(check_names)
    models.signals.pre_save.connect(before_save, dispatch_uid="devicehub.removal.before_save")
    for kind in registry:
        # By model: with a receiver for all models Django would load every row that it deletes.
        models.signals.pre_delete.connect(
            before_delete, sender=kind.device_model, dispatch_uid=f"devicehub.removal.{kind.slug}"
        )


def check_names(model: type[BaseDevice], device_ids: set[str], names: set[str], using: str) -> None:
    """Raise IdentityTaken if one of *names* is an account's; delete what *device_ids* would inherit."""
    kind = registry.of(model)
    if kind is None or using != DEFAULT_DB_ALIAS:  # a copy elsewhere is not a device that may log in
        return
    if names:
        provisioning.refuse_claimed(names)
    keys = {kind.key(device_id): device_id for device_id in device_ids}
    found = _left_over(list(keys)) if keys else set()
    if not found:
        return  # nothing is written: a deletion of no grant would still raise the policy revision
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
    """Check the names that a device gets, before the save that gives them.

    Not for a fixture (*raw*): it restores devices together with their grants, in any order.
    """
    if raw or not isinstance(instance, BaseDevice):
        return
    kind = registry.of(instance)
    if kind is not None and (update_fields is None or not set(NAMES).isdisjoint(update_fields)):
        check_names(kind.device_model, *new_names(kind.device_model, [instance], using), using)


def before_delete(sender: type[BaseDevice], instance: BaseDevice, using: str, **_: Any) -> None:
    """Delete what the device's id would pass on, in the transaction that deletes the device."""
    kind = registry.of(sender)
    if kind is None or using != DEFAULT_DB_ALIAS:
        return
    device_id = lock(kind, instance)
    if device_id is not None:
        _disinherit(kind, [device_id])


def lock(kind: Kind, device: BaseDevice) -> str | None:
    """Return the device id of the row of *device*, which no other transaction changes until this one ends; or None.

    By primary key: an instance of a device that is gone must not touch another one of the same id. Rollups and
    ingest wait for this transaction, and then find the device gone.
    """
    rollups.lock(kind)  # before the row, in every deletion: two of them must not wait for each other
    rows = type(device)._base_manager.filter(pk=device.pk).select_for_update()
    return rows.values_list("device_id", flat=True).first()


def grants_of(keys: Iterable[str]) -> models.QuerySet[Grant]:
    """Return the grants of the devices of *keys*."""
    return Grant.objects.filter(subject__in=[f"key:{key}" for key in keys])


def _left_over(keys: list[str]) -> set[str]:
    """Return those of *keys* that something hangs on which a device would inherit. One query."""
    rows: tuple[models.QuerySet[Any], ...] = (
        DeviceCommand.objects.filter(device_key__in=keys, state__in=OPEN_STATES),
        RemovalRequest.objects.filter(device_key__in=keys),
        Rollup.objects.filter(device_key__in=keys),
    )
    found = grants_of(keys).order_by().values_list("subject")
    found = found.union(*(each.order_by().values_list("device_key") for each in rows))
    return {text.removeprefix("key:") for (text,) in found}


def _disinherit(kind: Kind, device_ids: list[str]) -> None:
    """Delete what ended devices would pass on by their ids, and have the broker clear what it retains of them."""
    keys = [kind.key(device_id) for device_id in device_ids]
    Rollup.objects.filter(device_key__in=keys).delete()
    RemovalRequest.objects.filter(device_key__in=keys).delete()
    grants_of(keys).delete()
    commands.delete_open(keys)
    retained.enqueue(kind, device_ids)
