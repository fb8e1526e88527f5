"""The values of one device over a time, in pages: each row of its table, one behind the other.

A page begins behind a place, the time and the id of a row, so rows that are added later move no page. Its cost does
not grow with the rows before it. Pages and REST read them here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import BinaryField, F, Func, IntegerField, JSONField, Q, QuerySet, TextField

from devicehub.db import together
from devicehub.db.statements import quoted, read_time
from devicehub.errors import DevicehubError
from devicehub.history.rows import under
from devicehub.kinds.declare import NUMBERS
from devicehub.kinds.registry import Kind

MOST_NAMES = 20  # names in a narrow table, of one page
HEAVIEST = 4 << 20  # bytes of long texts, JSON and bytes in a page; one row may have more
LONG = (TextField, JSONField, BinaryField)


class UnknownName(DevicehubError, ValueError):
    """A name of a reading that the device has not, or that is missing."""


class Place(NamedTuple):
    """The place of a row among those of a device."""

    timestamp: datetime
    id: int


class Row(NamedTuple):
    """One row: the place, the time of receipt if the table has it, and values by name."""

    place: Place
    received_at: datetime | None
    values: dict[str, Any]


class Range(NamedTuple):
    """A range of time, from *since* on and before *until*; None is open."""

    since: datetime | None = None
    until: datetime | None = None

    def of(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return those of *rows* whose timestamp is in the range."""
        if self.since is not None:
            rows = rows.filter(timestamp__gte=self.since)
        return rows if self.until is None else rows.filter(timestamp__lt=self.until)


class Length(Func):
    """The bytes of a column, or about as many; 0 for NULL."""

    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="COALESCE(LENGTH(%(expressions)s), 0)", **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "COALESCE(OCTET_LENGTH((%(expressions)s)::text), 0)"
        return self.as_sql(compiler, connection, template=template, **context)


def is_listed(kind: Kind) -> bool:
    """Return whether *kind* keeps its values in a table that pages can list."""
    return kind.history_model is not None


def names(kind: Kind, given: Sequence[str], *, numbers: bool = False) -> list[str]:
    """Return the names of a page: those *given*, or all declared ones; with *numbers*, those of numbers.

    Raise UnknownName. A narrow table has any number of names, so they have to be given.
    """
    if kind.reading_model is None:
        if not given:
            raise UnknownName("Name the values to return, separated by commas; `latest/` shows their names.")
        if len(given) > MOST_NAMES:
            raise UnknownName(f"Give at most {MOST_NAMES} names.")
        return list(given)
    possible = [name for name, one in kind.readings.items() if not numbers or one.type in NUMBERS]
    for name in given:
        if name not in kind.readings:
            raise UnknownName(f"There is no reading {name[:100]}; there are {', '.join(kind.readings)}.")
        if name not in possible:
            raise UnknownName(f"{name} is not a number, so it has no hours and days; use interval=raw.")
    return list(given) or possible


def rows(
    kind: Kind,
    device: int,
    wanted: Sequence[str],
    within: Range,
    most: int,
    *,
    behind: Place | None = None,
    descending: bool = False,
) -> tuple[list[Row], bool]:
    """Return the next rows of *device* (a primary key) with the values *wanted*, and whether more follow.

    They are at most *most*, and fewer if they are heavy. The row of a table of readings has all of *wanted*; one of a
    narrow table has one.
    """
    model = kind.history_model
    if kind.narrow is None and not long_columns(kind, wanted):
        return _light(kind, device, wanted, within, most, behind, descending)
    found = _places(kind, device, wanted, within, most + 1, behind, descending)
    has_more, found = len(found) > most, found[:most]
    if not found:
        return [], False
    own = model._default_manager.filter(
        pk__in=[place.id for place in found],
        # The times let PostgreSQL leave out the partitions of others.
        timestamp__gte=min(place.timestamp for place in found),
        timestamp__lte=max(place.timestamp for place in found),
    ).order_by()
    fitting = _fitting(kind, wanted, own, found)
    if len(fitting) < len(found):
        has_more, own = True, own.filter(pk__in=[place.id for place in fitting])
    by_id = _read(kind, wanted, own)
    # A row may have been deleted meanwhile.
    return [Row(place, *by_id[place.id]) for place in fitting if place.id in by_id], has_more


def _light(
    kind: Kind,
    device: int,
    wanted: Sequence[str],
    within: Range,
    most: int,
    behind: Place | None,
    descending: bool,
) -> tuple[list[Row], bool]:
    """Return what rows() does, by one query: of a table of readings without heavy values."""
    own = _ordered(kind, device, within, behind, descending)
    read = own.values_list("timestamp", "id", "received_at", *wanted)[: most + 1]
    found = [
        Row(Place(moment, key), at, dict(zip(wanted, held, strict=True))) for moment, key, at, *held in read
    ]
    return found[:most], len(found) > most


def _ordered(kind: Kind, device: int, within: Range, behind: Place | None, descending: bool) -> QuerySet[Any]:
    """Return the rows of *device* behind a place, in their order."""
    own = within.of(kind.history_model._default_manager.filter(device_id=device))
    if behind is not None:
        own = own.filter(_behind(behind, descending))
    order = ("-timestamp", "-pk") if descending else ("timestamp", "pk")
    return own.order_by(*order)


def _places(
    kind: Kind,
    device: int,
    wanted: Sequence[str],
    within: Range,
    most: int,
    behind: Place | None,
    descending: bool,
) -> list[Place]:
    """Return the places of the next *most* rows. Each name of a narrow table is one walk along its index."""
    own = _ordered(kind, device, within, behind, descending).values_list("timestamp", "id")
    if kind.narrow is None:
        return [Place(*row) for row in own[:most]]
    arms = [under(kind, name, own)[0][:most] for name in wanted]
    direction = " DESC" if descending else ""
    ordered = ", ".join(f"{quoted(column)}{direction}" for column in ("timestamp", "id"))
    return [Place(read_time(moment), pk) for moment, pk in together.first(arms, ordered, most)]


def _behind(place: Place, descending: bool) -> Q:
    """Return the condition of the rows behind *place*. Its first part lets an index begin at the right place."""
    word = "lt" if descending else "gt"
    same = Q(("timestamp", place.timestamp), (f"pk__{word}", place.id))
    return Q((f"timestamp__{word}e", place.timestamp)) & (Q((f"timestamp__{word}", place.timestamp)) | same)


def _columns(kind: Kind, wanted: Sequence[str]) -> Sequence[str]:
    """Return the columns that hold the values."""
    return wanted if kind.narrow is None else kind.narrow.exact


def long_columns(kind: Kind, wanted: Sequence[str]) -> list[str]:
    """Return those columns of the values *wanted* that may hold long texts, JSON or bytes."""
    field = kind.history_model._meta.get_field
    return [column for column in _columns(kind, wanted) if isinstance(field(column), LONG)]


def _fitting(kind: Kind, wanted: Sequence[str], own: QuerySet[Any], found: list[Place]) -> list[Place]:
    """Return the first of *found* that weigh at most HEAVIEST together, and at least one."""
    heavy = long_columns(kind, wanted)
    if not heavy:
        return found
    weight = sum((Length(F(column)) for column in heavy[1:]), start=Length(F(heavy[0])))
    weights = dict(own.annotate(page_row_weight=weight).values_list("pk", "page_row_weight"))
    total = 0
    for number, place in enumerate(found):
        total += weights.get(place.id, 0)
        if total > HEAVIEST and number:
            return found[:number]
    return found


def _read(
    kind: Kind, wanted: Sequence[str], own: QuerySet[Any]
) -> Mapping[int, tuple[datetime | None, dict[str, Any]]]:
    """Return the time of receipt and the values of each row, by its id."""
    has_receipt = any(field.name == "received_at" for field in kind.history_model._meta.concrete_fields)
    head = ("pk", "received_at" if has_receipt else "timestamp")
    if kind.narrow is None:
        read = own.values_list(*head, *wanted)
        return {pk: (at, dict(zip(wanted, held, strict=True))) for pk, at, *held in read}
    exact = kind.narrow.read
    read = own.values_list(*head, kind.narrow.name_column, *kind.narrow.exact)
    return {pk: (at if has_receipt else None, {name: exact(*held)}) for pk, at, name, *held in read}
