"""The devices of one kind, a page at a time, each with the latest value of every declared reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from devicehub import states, visibility
from devicehub.dashboard import display, links
from devicehub.dashboard.selection import CONNECTED, Place, Selection
from devicehub.db import clock
from devicehub.history import latest
from devicehub.kinds.declare import NUMBERS, Reading
from devicehub.kinds.registry import Kind
from devicehub.kinds.store import Latest
from devicehub.models import BaseDevice
from devicehub.states import State

PAGE = 50
SHOWN = ("device_id", "name", "status", "is_active", "connected", "last_seen")


@dataclass(frozen=True)
class Cell:
    """The latest value of one reading, and when it was measured."""

    text: str
    unit: str
    measured_at: datetime | None
    is_number: bool


@dataclass(frozen=True)
class Row:
    """One device in a table."""

    key: str
    device_id: str
    name: str
    state: State
    last_seen: datetime | None
    cells: list[Cell]
    url: str = ""
    alias: str = ""


@dataclass(frozen=True)
class Column:
    """The head of a column of readings."""

    name: str
    is_number: bool


@dataclass(frozen=True)
class Page:
    """One page of a table: its rows, and the addresses of the pages beside it."""

    kind: Kind
    columns: list[Column]
    rows: list[Row]
    pks: list[int]
    previous: str
    next: str


def page(kind: Kind, selection: Selection, user: Any) -> Page:
    """Return the page of *kind* that *selection* names, or the first one if that is empty, as *user* may see it."""
    place = selection.places.get(kind.slug)
    found, more = _slice(kind, shown(kind, user), selection, place)
    if not found and place is not None:
        place = None
        found, more = _slice(kind, shown(kind, user), selection, None)
    forward = place is None or place.forward
    has_previous = place is not None and (forward or more)
    has_next = more if forward else True
    slug = kind.slug
    return Page(
        kind=kind,
        columns=[Column(title(reading), reading.type in NUMBERS) for reading in kind.columns.values()],
        rows=rows(kind, found),
        pks=[device.pk for device in found],
        previous=selection.at(slug, Place(False, found[0].device_id)).query if has_previous and found else "",
        next=selection.at(slug, Place(True, found[-1].device_id)).query if has_next and found else "",
    )


def row_url(kind: Kind, device_id: str) -> str:
    """Return the address of the page of a device, or while there is none of its credentials."""
    return links.device_page(kind, device_id) or links.address("devicehub:credentials", kind.slug, device_id)


def title(reading: Reading) -> str:
    return str(reading.verbose_name or reading.name.replace("_", " "))


def _slice(
    kind: Kind, devices: QuerySet[Any], selection: Selection, place: Place | None
) -> tuple[list[BaseDevice], bool]:
    """Return at most PAGE of *devices* in the order of their ids, and whether there are more in that direction."""
    if selection.status == CONNECTED:
        devices = devices.filter(connected=True)
    elif selection.status:
        devices = devices.filter(status=selection.status)
    if selection.search:
        devices = devices.filter(named_like(kind, selection.search))
    if place is not None and not place.forward:
        found = list(devices.filter(device_id__lt=place.device_id).order_by("-device_id")[: PAGE + 1])
        return found[:PAGE][::-1], len(found) > PAGE
    if place is not None:
        devices = devices.filter(device_id__gt=place.device_id)
    found = list(devices.order_by("device_id")[: PAGE + 1])
    return found[:PAGE], len(found) > PAGE


def shown(kind: Kind, user: Any, *more: str) -> QuerySet[Any]:
    """Return the devices of *kind* that *user* may see, with the columns of a row and *more*, so without any secret."""
    columns = (*SHOWN, *more, *filter(None, [kind.pages.alias]))
    return states.for_a_list(kind, visibility.devices(kind, user)).only(*columns)


def named_like(kind: Kind, text: str) -> Q:
    """Return the condition that *text* is in the id, the name or the alias of a device of *kind*."""
    names = ("device_id", "name", *filter(None, [kind.pages.alias]))
    return Q(*((f"{name}__icontains", text) for name in names), _connector=Q.OR)


def alias_of(kind: Kind, device: BaseDevice) -> str:
    """Return the other name of *device*, or "" if its kind has none or it is the device id."""
    alias = str(getattr(device, kind.pages.alias)) if kind.pages.alias else ""
    return "" if alias == device.device_id else alias


def rows(kind: Kind, devices: Sequence[BaseDevice]) -> list[Row]:
    """Return *devices* as rows with their latest values, by two queries for any number of devices."""
    now = timezone.now()
    declared = kind.columns
    newest = latest.values(kind, [device.pk for device in devices], list(declared))
    return [
        Row(
            key=kind.key(device.device_id),
            device_id=device.device_id,
            name=device.name,
            state=states.of(kind, device),
            last_seen=clock.plausible(device.last_seen, now),
            cells=[_cell(reading, newest.get((device.pk, reading.name))) for reading in declared.values()],
            url=row_url(kind, device.device_id),
            alias=alias_of(kind, device),
        )
        for device in devices
    ]


def _cell(reading: Reading, newest: Latest | None) -> Cell:
    is_number = reading.type in NUMBERS
    if newest is None:
        return Cell("–", "", None, is_number)
    return Cell(display.value(newest.value), display.unit(reading.unit), newest.measured_at, is_number)
