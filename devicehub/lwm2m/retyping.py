"""Types for values that were stored before their object was known: the latest values of resources, and their history.

The formats that name no types keep such a value raw: TLV as bytes, plain text as a string.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from django.db import transaction

from devicehub.db.portions import batched
from devicehub.lwm2m import catalogue
from devicehub.lwm2m.catalogue import Known
from devicehub.lwm2m.models import Endpoint, Resource, ResourceValue
from devicehub.lwm2m.models.resources import COLUMNS, TypedValue, columns
from devicehub.messages.lwm2m import paths, text_opaque, tlv
from devicehub.messages.lwm2m.values import DataType, typed

AT_ONCE = 500  # Rows of one transaction.


def type_values(object_ids: Collection[int]) -> int:
    """Give the values of objects that had no definition their types, and return the number of resources.

    A value that is not of its type stays as it was sent.
    """
    untyped = Resource.objects.filter(object_id__in=object_ids, resource_type=None)
    count = 0
    for keys in batched(list(untyped.order_by().values_list("pk", flat=True)), AT_ONCE):
        count += _type_portion(keys)
    return count


def retyped(kind: str, held: Any, declared: DataType) -> tuple[DataType, Any] | None:
    """Return *held*, a value of type *kind*, as one of type *declared*; None if it is not one.

    >>> retyped("Opaque", bytes.fromhex("41a40000"), DataType.FLOAT)
    (<DataType.FLOAT: 'Float'>, 20.5)
    >>> retyped("String", "on", DataType.BOOLEAN) is None
    True
    """
    try:
        if kind == DataType.OPAQUE:
            return tlv.read_value(held, declared)
        if kind == DataType.STRING:
            return text_opaque.read_text(held, declared)
        return typed(held, declared)
    except (ValueError, ArithmeticError):
        return None


def _type_portion(keys: Sequence[int]) -> int:
    with transaction.atomic():
        # In the order in which the inbox locks resources.
        locked = Resource.objects.filter(pk__in=keys, resource_type=None).select_for_update()
        rows = list(locked.order_by("device_id", "path"))
        known = _definitions(rows)
        for row in rows:
            if definition := known.get(row.pk):
                row.resource_type_id = definition.key
                _convert(row, definition.type)
        Resource.objects.bulk_update([row for row in rows if row.pk in known], ["resource_type", *COLUMNS])
    for row in rows:
        if row.pk in known:
            _type_history(row, known[row.pk].type)
    return len(known)


def _definitions(rows: Iterable[Resource]) -> dict[int, Known]:
    """Return the definitions of *rows* that are known now, by primary key, each in the version of its endpoint."""
    current = catalogue.current()
    endpoints: Any = Endpoint.objects.filter(pk__in={row.device_id for row in rows}).order_by()
    versions = dict(endpoints.values_list("pk", "object_versions"))
    found = {}
    for row in rows:
        known = catalogue.finder(current, versions[row.device_id])(paths.parse(f"/{row.path}"))
        if known is not None:
            found[row.pk] = known
    return found


def _convert(row: TypedValue, declared: DataType | None) -> bool:
    """Give the value of *row* the type *declared* if it can have it, and return whether it changed."""
    found = retyped(row.type, row.value, declared) if declared and row.type != declared else None
    if found is None:
        return False
    for column, held in zip(COLUMNS, columns(*found), strict=True):
        setattr(row, column, held)
    return True


def _type_history(resource: Resource, declared: DataType | None) -> None:
    if declared is None:
        return
    history = ResourceValue.objects.filter(device=resource.device_id, path=resource.path)
    raw = history.exclude(type=declared).order_by()
    for keys in batched(list(raw.values_list("pk", flat=True)), AT_ONCE):
        rows = [
            row for row in ResourceValue.objects.filter(pk__in=keys).order_by() if _convert(row, declared)
        ]
        ResourceValue.objects.bulk_update(rows, COLUMNS)
