"""The deletion of a device with many rows: first its rows, in small portions, and the device last.

Rows go by SQL that names the device, so none of them is loaded. What a project's models refer to is left to Django,
which deletes it with the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.db import models, transaction

from devicehub.db import batches
from devicehub.db.batches import Pace, Where
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice, Rollup
from devicehub.removal import inheritance

SHOWN = 10  # rows of each model that an error names


class EnabledAgain(DevicehubError):
    """The device was enabled while it was being removed: what is left of it stays."""


class Gone(NamedTuple):
    """How many rows of each sort were deleted."""

    readings: int
    messages: int
    rollups: int


class _Reference(NamedTuple):
    """How rows of *model* lead to a device: by the foreign keys of *lookup*, of which the first has *on_delete*."""

    model: type[models.Model]
    lookup: str
    on_delete: Any


def check_deletable(devices: Sequence[BaseDevice]) -> None:
    """Raise ProtectedError or RestrictedError where rows of a project keep one of *devices* from being deleted.

    Django raises the same when it deletes them. This looks without loading the rows that would go, and calls no
    receiver; it does not follow a model that refers to itself.
    """
    found = list(_references(type(devices[0]))) if devices else []
    for reference in found:
        if reference.on_delete is models.PROTECT:
            _refuse(models.ProtectedError, reference, _rows(reference, devices))
        elif reference.on_delete is models.RESTRICT:
            going = [
                models.Q((f"{other.lookup}__in", devices))
                for other in found
                if other.model is reference.model and other.on_delete is models.CASCADE
            ]
            rows = _rows(reference, devices)
            for also in going:  # a restricted row does not refuse where it goes as well
                rows = rows.exclude(also)
            _refuse(models.RestrictedError, reference, rows)


def _rows(reference: _Reference, devices: Sequence[BaseDevice]) -> models.QuerySet[Any]:
    return reference.model._base_manager.filter(**{f"{reference.lookup}__in": devices})


def _refuse(error: type[Any], reference: _Reference, rows: models.QuerySet[Any]) -> None:
    kept = set(rows[:SHOWN])
    if kept:
        name = reference.model._meta.verbose_name
        raise error(f"a {name} refers to it by {reference.lookup.replace('__', ' of its ')}", kept)


def _references(
    model: type[models.Model], path: str = "", seen: tuple[models.Field[Any, Any], ...] = ()
) -> Iterator[_Reference]:
    """Yield how rows refer to *model*, and to rows that go with it."""
    for relation in relations(model):
        field = relation.field
        if field in seen:
            continue
        lookup = f"{field.name}__{path}" if path else field.name
        yield _Reference(relation.related_model, lookup, relation.on_delete)
        if relation.on_delete is models.CASCADE:
            yield from _references(relation.related_model, lookup, (*seen, field))


def relations(model: type[models.Model]) -> list[Any]:
    """Return the relations by which rows of other tables refer to rows of *model*."""
    return [
        relation
        for relation in model._meta.get_fields(include_hidden=True)
        if relation.auto_created and not relation.concrete and (relation.one_to_one or relation.one_to_many)
    ]


def drain_rows(kind: Kind, device: BaseDevice, pace: Pace) -> Gone:
    """Delete readings, messages and rollups in small portions."""
    of, messages = Where("device_id = %s", [device.pk]), kind.message_model
    return Gone(
        sum(
            batches.delete_by_time(model._meta.db_table, "timestamp", of, pace)
            for model in kind.value_models
            if not _is_referred_to(model, device)
        ),
        0 if _is_referred_to(messages, device) else batches.drain(messages._meta.db_table, *of, pace),
        batches.drain(Rollup._meta.db_table, "device_key = %s", [kind.key(device.device_id)], pace),
    )


def _is_referred_to(model: type[models.Model], device: BaseDevice) -> bool:
    """Return whether rows of a project refer to rows of *model* that are of *device*."""
    return any(
        relation.related_model._base_manager.filter(**{f"{relation.field.name}__device": device}).exists()
        for relation in relations(model)
    )


def delete_row(kind: Kind, device: BaseDevice, *, only_disabled: bool = False) -> dict[str, int]:
    """Delete the device and the few rows that came meanwhile, in one transaction; return how many by model label.

    Nothing is deleted, and no receiver called, where the device is gone already. With *only_disabled* it raises
    EnabledAgain for one that is active, also after waiting for a transaction that enables it.
    """
    with transaction.atomic():
        # Before Django looks for what goes: a row that is stored after that would be in the way.
        if inheritance.lock(kind, device) is None:
            return {}
        if only_disabled and is_active(device):
            raise EnabledAgain
        return device.delete()[1]


def is_active(device: BaseDevice) -> bool:
    """Return whether the row of *device* says that it is active; an instance may be old."""
    return type(device)._base_manager.filter(pk=device.pk, is_active=True).exists()
