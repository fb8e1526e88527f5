"""Types for values that were stored before their object was known: of resources, their history, and a project's events.

The formats that name no types keep such a value raw: TLV as bytes, plain text as a string. A value that does not fit
its type stays as it was sent. A run that was stopped goes on at the next call: the history of a resource comes before
its latest value, which shows that both are done.

No value is missed that arrives meanwhile: a message that was read with older definitions is stored before these
change, or gets the new ones when it is stored (devicehub.lwm2m.inbox.renewal).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from django.db import transaction
from django.db.models import OuterRef, Subquery

from devicehub.db.batches import Pace
from devicehub.db.portions import batched
from devicehub.history import rollups
from devicehub.history.rollups import Late
from devicehub.lwm2m import catalogue
from devicehub.lwm2m.catalogue import Known
from devicehub.lwm2m.conversion import retyped
from devicehub.lwm2m.inbox import resource_sql
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, EventResource, Resource, ResourceValue
from devicehub.lwm2m.models.resources import COLUMNS, TypedValue, columns
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.values import DataType

KEYS = 5_000  # That one query reads.
AT_ONCE = 500  # Rows of one transaction.
REST_AFTER = 1_000  # Changed rows after which other writers get a moment.


class Placed(Protocol):
    """A row with the path of a resource."""

    device_id: int
    path: str


Row = TypeVar("Row", bound=Placed)


@dataclass
class Retyped:
    """The numbers of resources that got a definition or a type, and of values of history and events that got a type."""

    resources: int = 0
    values: int = 0
    event_values: int = 0


def retype(object_ids: Collection[int], pace: Pace | None = None) -> Retyped:
    """Give the values of objects the types that their definitions have now; return the numbers.

    A second call changes nothing more. Raise batches.Stopped if *pace* is stopped.
    """
    run = _Run(pace or Pace())
    for object_id in sorted(set(object_ids)):
        for keys in _keys(object_id):
            run.retype(keys)
    run.retype_events(frozenset(object_ids))
    return run.done


class _Run:
    """One call of retype(), with its numbers."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._since_rest = 0
        self.done = Retyped()

    def retype(self, keys: Sequence[int]) -> None:
        """Give the resources of primary keys *keys*, and their history, their types."""
        rows = Resource.objects.filter(pk__in=keys).order_by("device_id", "path")
        oldest = _oldest(rows)
        waiting = [
            (row, known)
            for row, known in _defined(rows)
            if row.resource_type_id != known.key
            or any(_is_raw(one, known) for one in (row, oldest.get(row.pk)))
        ]
        for row, known in waiting:
            if known.type is not None:
                self._retype_history(row, known.type)
        if not waiting:
            return
        self._pace.check()
        with transaction.atomic():
            # As the inbox does: a database may sort paths otherwise than the inbox, which writes them in their order.
            resource_sql.lock({row.device_id for row, _ in waiting})
            locked = rows.filter(pk__in=[row.pk for row, _ in waiting]).select_for_update(no_key=True)
            changed = [row for row, known in _defined(locked) if _set_definition(row, known)]
            Resource.objects.bulk_update(changed, ["resource_type", *COLUMNS], batch_size=100)
        self.done.resources += len(changed)
        self._count(len(changed))

    def _retype_history(self, resource: Resource, declared: DataType) -> None:
        """Change the history of a resource in portions, the newest first."""
        raw = ResourceValue.objects.filter(device=resource.device_id, path=resource.path)
        raw = raw.exclude(type=declared).order_by("-timestamp", "-pk")
        end: tuple[datetime, int] | None = None
        while found := list(_before(raw, end)):
            self._pace.check()
            numberless = {row.pk for row in found if row.number is None}
            changed = [row for row in found if _convert(row, declared)]
            numbered = [row for row in changed if row.number is not None and row.pk in numberless]
            rollups.reach(KIND, max((row.pk for row in numbered), default=0), self._pace)
            with transaction.atomic():
                _roll_up(numbered)
                ResourceValue.objects.bulk_update(changed, COLUMNS, batch_size=100)
            self.done.values += len(changed)
            self._count(len(changed))
            end = found[-1].timestamp, found[-1].pk

    def retype_events(self, object_ids: Collection[int]) -> None:
        """Change the values of events of the project, which are copies, also of resources that have no other value."""
        with transaction.atomic():
            catalogue.lock()  # A message may just compose an event of values that had no type yet.
        for keys in _raw_event_values(object_ids):
            self._pace.check()
            for some in batched(keys, AT_ONCE):
                rows = EventResource.objects.filter(pk__in=some).order_by("pk")
                with transaction.atomic():
                    changed = [row for row, known in _defined(rows) if _convert(row, known.type)]
                    EventResource.objects.bulk_update(changed, COLUMNS, batch_size=100)
                self.done.event_values += len(changed)
                self._count(len(changed))

    def _count(self, changed: int) -> None:
        self._pace.report(changed)
        self._since_rest += changed
        if self._since_rest >= REST_AFTER:
            self._since_rest = 0
            self._pace.rest(0)


def _roll_up(numbered: Sequence[ResourceValue]) -> None:
    """Add the numbers that rows have got to the rollups, unless another call gave them these numbers meanwhile."""
    if not numbered:
        return
    rollups.lock(KIND)
    rows = ResourceValue.objects.filter(pk__in=[row.pk for row in numbered], number=None)
    still = set(rows.values_list("pk", flat=True))
    rollups.add_late(
        KIND,
        [
            Late(row.pk, row.device_id, row.path, row.timestamp, row.number)
            for row in numbered
            if row.pk in still and row.number is not None
        ],
    )


def _keys(object_id: int) -> Iterator[list[int]]:
    """Yield the primary keys of the resources of an object, in portions."""
    last = 0
    rows = Resource.objects.filter(object_id=object_id).order_by("pk")
    while keys := list(rows.filter(pk__gt=last).values_list("pk", flat=True)[:KEYS]):
        yield from batched(keys, AT_ONCE)
        last = keys[-1]


def _raw_event_values(object_ids: Collection[int]) -> Iterator[list[int]]:
    """Yield the primary keys of values of events that have another type than their definition, in portions.

    There is no index by object, and seldom a need for one: all values of events are looked through.
    """
    last = 0
    rows: Any = EventResource.objects.order_by("pk").values_list(
        "pk", "device_id", "path", "type", named=True
    )
    while found := list(rows.filter(pk__gt=last)[:KEYS]):
        wanted = [row for row in found if int(row.path.partition("/")[0]) in object_ids]
        yield [row.pk for row, known in _defined(wanted) if known.type not in (None, row.type)]
        last = found[-1].pk


def _before(rows: Any, end: tuple[datetime, int] | None) -> Any:
    """Return the next portion of *rows*, which begins behind the row *end* with its time and primary key."""
    if end is not None:
        at, key = end
        rows = rows.filter(timestamp__lte=at).exclude(timestamp=at, pk__gte=key)
    return rows[:AT_ONCE]


def _is_raw(row: TypedValue | None, known: Known) -> bool:
    """Return whether the value of *row* can have the type of its definition, and has not."""
    if row is None or known.type is None or row.type == known.type:
        return False
    return retyped(row.type, row.value, known.type) is not None


def _oldest(rows: Any) -> dict[int, ResourceValue]:
    """Return the oldest value in the history of each of the resources *rows*, by their primary keys.

    It gets its type last. A message may replace the latest value between a change of its definition and its retyping.
    """
    history = ResourceValue.objects.filter(device=OuterRef("device"), path=OuterRef("path"))
    first = Subquery(history.order_by("timestamp", "pk").values("pk")[:1])
    keys = dict(rows.annotate(first=first).values_list("pk", "first"))
    found = {value.pk: value for value in ResourceValue.objects.filter(pk__in=keys.values())}
    return {key: found[value] for key, value in keys.items() if value in found}


def _defined(rows: Iterable[Row]) -> list[tuple[Row, Known]]:
    """Return those of *rows* that have a definition now, with it, each in the version of its endpoint."""
    found = list(rows)
    current = catalogue.current()
    endpoints: Any = Endpoint.objects.filter(pk__in={row.device_id for row in found}).order_by()
    versions = dict(endpoints.values_list("pk", "object_versions"))
    defined = (
        (row, current.of_path(paths.parse(f"/{row.path}"), versions.get(row.device_id) or {}))
        for row in found
    )
    return [(row, known) for row, known in defined if known is not None]


def _set_definition(row: Resource, known: Known) -> bool:
    """Give *row* its definition and the type of that; return whether it changed."""
    is_new = row.resource_type_id != known.key
    row.resource_type_id = known.key
    return _convert(row, known.type) or is_new


def _convert(row: TypedValue, declared: DataType | None) -> bool:
    """Give the value of *row* the type *declared* if it can have it, and return whether it changed."""
    found = retyped(row.type, row.value, declared) if declared and row.type != declared else None
    if found is None:
        return False
    for column, held in zip(COLUMNS, columns(*found), strict=True):
        setattr(row, column, held)
    return True
