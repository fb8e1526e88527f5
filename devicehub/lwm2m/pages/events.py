"""The events of endpoints: a list with filters, and one event with all its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from authsvc.text import make_storable
from devicehub.dashboard import devices, links
from devicehub.lwm2m import event_rows, labels
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Event
from devicehub.lwm2m.models.events import NOTIFICATION, REGISTRATION, SEND
from devicehub.lwm2m.pages.access import endpoint_page, visible
from devicehub.lwm2m.pages.values import Shown, beginnings, shown_of

PAGE = 25
FIRST = 6  # Values of each event in the list.
MOST = 500  # Values on the page of one event.
LONGEST = 128
MOST_ENDPOINTS = 100  # That fit a text.
PERIODS: Mapping[str, tuple[str, timedelta | None]] = {
    "1h": ("1 h", timedelta(hours=1)),
    "24h": ("24 h", timedelta(days=1)),
    "7d": ("7 d", timedelta(days=7)),
    "30d": ("30 d", timedelta(days=30)),
    "all": ("Any time", None),
}
DAY = "24h"
ORDER = ("-timestamp", "path")  # Of the values of an event.
ICONS = {NOTIFICATION: "eye", SEND: "up", REGISTRATION: "link"}


@dataclass(frozen=True)
class Filter:
    """The filters in the address. *before* is the number of the last event of the page before."""

    type: str = ""
    endpoint: str = ""
    period: str = DAY
    before: int = 0

    @property
    def is_set(self) -> bool:
        return bool(self.type or self.endpoint)

    def over(self, **changes: Any) -> str:
        """Return the query of these filters with *changes*."""
        new = replace(self, **changes)
        named = {
            "type": new.type,
            "endpoint": new.endpoint,
            "since": "" if new.period == DAY else new.period,
            "before": new.before or "",
        }
        return "?" + urlencode({name: value for name, value in named.items() if value != ""})


class Valued(NamedTuple):
    """One value of an event."""

    path: str
    object: str
    name: str
    unit: str
    value: Shown
    measured_at: datetime
    url: str


@dataclass(frozen=True)
class Row:
    """An event with its first values."""

    event: Event
    word: str
    icon: str
    values: list[Valued]
    has_more: bool
    url: str
    endpoint_url: str
    alias: str


def _parse(query: Mapping[str, str]) -> Filter:
    before = query.get("before", "")
    period = query.get("since", DAY)
    return Filter(
        type=make_storable(query.get("type", ""), 64),
        endpoint=make_storable(query.get("endpoint", "").strip(), LONGEST),
        period=period if period in PERIODS else DAY,
        before=int(before) if before.isascii() and before.isdecimal() and len(before) < 19 else 0,
    )


@endpoint_page
@require_safe
def show_list(request: HttpRequest) -> HttpResponse:
    """Return the events that the filters let through, the newest first."""
    asked = _parse(request.GET)
    events = event_rows.visible(request.user)
    found = list(_filtered(events, asked, request.user)[: PAGE + 1])
    more = asked.over(before=found[PAGE - 1].pk) if len(found) > PAGE else ""
    context = {
        "rows": _rows(found[:PAGE]),
        "filter": asked,
        "types": event_rows.types(events, asked.type),
        "periods": [(key, words) for key, (words, _) in PERIODS.items()],
        "period": PERIODS[asked.period][0],
        "newest": asked.over(before=0) if asked.before else "",
        "older": more,
        "any_time": asked.over(period="all", before=0),
    }
    return render(request, "devicehub/lwm2m/events.html", context)


@endpoint_page
@require_safe
def show_one(request: HttpRequest, number: int) -> HttpResponse:
    """Return one event with its values, at most MOST."""
    event = event_rows.visible(request.user).filter(pk=number).first() if number < 2**63 else None
    if event is None:
        raise Http404
    [row] = _rows([event], MOST)
    return render(request, "devicehub/lwm2m/event.html", {"row": row, "most": MOST})


def _filtered(events: QuerySet[Event], asked: Filter, user: Any) -> QuerySet[Event]:
    length = PERIODS[asked.period][1]
    events = event_rows.selected(
        events,
        of_type=asked.type,
        endpoints=_endpoints(user, asked.endpoint) if asked.endpoint else None,
        since=None if length is None else timezone.now() - length,
    )
    if asked.before:
        last = Event.objects.filter(pk=asked.before).values_list("timestamp", flat=True).first()
        if last is not None:
            events = events.filter(Q(timestamp__lt=last) | Q(timestamp=last, pk__lt=asked.before))
    return events


def _endpoints(user: Any, text: str) -> list[int]:
    """Return the endpoints called *text*; without one, those whose names it fits."""
    chosen = event_rows.named(user, text)
    if not chosen:
        like = visible(user).filter(devices.named_like(KIND, text)).order_by("device_id")
        chosen = list(like.values_list("pk", flat=True)[:MOST_ENDPOINTS])
    return chosen


def _rows(events: list[Event], most: int = FIRST) -> list[Row]:
    """Return *events* as rows with at most *most* values each, by as many queries for one as for many."""
    values = _values(events, most + 1)
    pairs = [(event.device, one.path) for event in events for one in values[event.pk][:most]]
    known = labels.of_paths(pairs)
    units = labels.units_of([(endpoint.pk, path) for endpoint, path in pairs], known)
    return [
        Row(
            event=event,
            word=event_rows.WORDS.get(event.type, event.type),
            icon=ICONS.get(event.type, "star"),
            values=[_valued(event, one, known, units) for one in values[event.pk][:most]],
            has_more=len(values[event.pk]) > most,
            url=links.address("devicehub:lwm2m_event", event.pk),
            endpoint_url=links.device_page(KIND, event.device.device_id),
            alias=devices.alias_of(KIND, event.device),
        )
        for event in events
    ]


def _values(events: list[Event], most: int) -> dict[int, list[Any]]:
    """Return at most *most* values of each of *events*, those measured last first, by the primary key of the event."""
    found: dict[int, list[Any]] = {event.pk: [] for event in events}
    placed = event_rows.places(events, most)
    for model in {one.model for one in placed}:
        keys = [one.key for one in placed if one.model is model]
        for row in beginnings(model.objects.filter(pk__in=keys)).order_by(*ORDER):
            found[row.event_id].append(row)
    return found


def _valued(
    event: Event, one: Any, known: Mapping[tuple[int, str], Any], units: Mapping[tuple[int, str], str]
) -> Valued:
    found = known.get((event.device_id, one.path))
    page = links.device_page(KIND, event.device.device_id)
    return Valued(
        path=one.path,
        object=found.object.name if found else "",
        name=found.name if found else "",
        unit=units.get((event.device_id, one.path), ""),
        value=shown_of(one),
        measured_at=one.timestamp,
        url=f"{page}?resource={one.path}#history" if page else "",
    )
