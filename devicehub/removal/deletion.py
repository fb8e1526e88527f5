"""The deletion of a device with many rows: first its rows, in small portions, and the device last.

SQL deletes the rows by device, without loading them. Rows that a project's models refer to are left to Django, which
deletes them with the device.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.db import models, transaction

from devicehub.db import batches
from devicehub.db.batches import Pace, Where
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice, Rollup
from devicehub.removal import inheritance

SHOWN = 10  # An error names at most this many rows of each model.


class EnabledAgain(DevicehubError):
    """The device was enabled while it was being removed; its remaining rows stay."""


class _Reference(NamedTuple):
    """A path from rows of *model* to a device: the foreign keys of *lookup*, of which the first has *on_delete*."""

    model: type[models.Model]
    lookup: str
    on_delete: Any


def check_deletable(devices: Sequence[BaseDevice]) -> None:
    """Raise ProtectedError or RestrictedError if rows of a project prevent the deletion of one of *devices*.

    Django raises the same errors when it deletes them. This check does not load the rows that would be deleted, and
    calls no receivers. It does not follow a model that refers to itself.
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
            for also in going:  # A restricted row that is deleted as well does not prevent the deletion.
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
    """Yield the references of rows to *model*, and to rows that are deleted with it."""
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


def drain_rows(kind: Kind, device: BaseDevice, pace: Pace) -> Counter[str]:
    """Delete the rows of values, messages and rollups in small portions; return the numbers by name."""
    of, done = Where("device_id = %s", [device.pk]), Counter[str]()
    for model in kind.value_models:
        if not _is_referred_to(kind, model, device):
            count = batches.delete_in_order(model._meta.db_table, _order(model), of, pace)
            done[kind.counted_as(model)] += count
    for name, model in (
        ("messages", kind.message_model),
        *((kind.counted_as(model), model) for model in kind.current_models),
    ):
        if not _is_referred_to(kind, model, device):
            done[name] += batches.drain(model._meta.db_table, *of, pace)
    key = [kind.key(device.device_id)]
    done["rollups"] += batches.drain(Rollup._meta.db_table, "device_key = %s", key, pace)
    return done


def _order(model: type[models.Model]) -> list[str]:
    """Return the columns after `device`, up to `timestamp`, of the index that finds the rows of a device."""
    for index in model._meta.indexes:
        first, *others = (field.lstrip("-") for field in index.fields)
        if first == "device" and "timestamp" in others:
            fields: list[Any] = [model._meta.get_field(name) for name in others]
            return [field.column for field in fields[: others.index("timestamp") + 1]]
    return ["timestamp"]


def tables_of(kind: Kind, device: BaseDevice) -> Iterator[tuple[str, models.QuerySet[Any]]]:
    """Yield the rows of values and messages of *device*, each table with the name under which they are counted."""
    named = [(kind.counted_as(model), model) for model in (*kind.value_models, *kind.current_models)]
    for name, model in (*named, ("messages", kind.message_model)):
        yield name, model._base_manager.filter(device=device)


def _is_referred_to(kind: Kind, model: type[models.Model], device: BaseDevice) -> bool:
    """Return whether rows of a project, outside of the tables of *kind*, refer to rows of *model* of *device*."""
    own = {*kind.value_models, *kind.current_models}
    return any(
        relation.related_model._base_manager.filter(**{f"{relation.field.name}__device": device}).exists()
        for relation in relations(model)
        if relation.related_model not in own
    )


def delete_row(kind: Kind, device: BaseDevice, *, only_disabled: bool = False) -> dict[str, int]:
    """Delete the device and the few rows that were added meanwhile, in one transaction; return counts by model label.

    If the device is gone already, nothing is deleted and no receiver is called. With *only_disabled*, raise
    EnabledAgain if it is active, also after waiting for a transaction that enables it.
    """
    with transaction.atomic():
        # The lock comes before Django collects the rows: a row that is stored after that would block the deletion.
        if inheritance.lock(kind, device) is None:
            return {}
        if only_disabled and is_active(device):
            raise EnabledAgain
        return device.delete()[1]


def is_active(device: BaseDevice) -> bool:
    """Return whether *device* is active in the database; its instance may be outdated."""
    return type(device)._base_manager.filter(pk=device.pk, is_active=True).exists()
