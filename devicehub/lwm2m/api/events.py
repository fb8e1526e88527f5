"""`/api/lwm2m/events/`: the events of endpoints, each with its values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet, Value
from django.http import Http404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import visibility
from devicehub.api import paging
from devicehub.api.base import ApiView, ListView
from devicehub.api.fields import Moment, Selectable, SelectedOne
from devicehub.api.operations import documented
from devicehub.lwm2m import event_rows, labels
from devicehub.lwm2m.api import values
from devicehub.lwm2m.api.history import Between
from devicehub.lwm2m.api.values import Lwm2mEventValueSerializer
from devicehub.lwm2m.event_rows import Place
from devicehub.lwm2m.models import Endpoint, Event, ResourceType
from devicehub.lwm2m.models.resources import COLUMNS, read

FIRST = 100  # Values of each event in a list.
HELD = ("path", "timestamp", *COLUMNS)  # The columns of an EventValue.
MOST = 10_000  # Values of one event, and of all events of a page.


@dataclass(slots=True)
class EventValue:
    """A value of an event, with the definition and the unit of its resource."""

    path: str
    timestamp: datetime
    type: str
    number: float | None
    integer: int | None
    text: str | None
    opaque: bytes | None
    known: ResourceType | None = None
    unit: str = ""

    @property
    def value(self) -> Any:
        """The value, as that of a row."""
        return read(self.type, self.number, self.integer, self.text, self.opaque)


class Lwm2mEventSerializer(Selectable):
    """An event with its values."""

    id = serializers.IntegerField()
    endpoint = serializers.CharField(source="device.endpoint_name", help_text="The name of the endpoint.")
    device_id = serializers.CharField(source="device.device_id")
    type = serializers.CharField(help_text="notification, send, registration, or a type of the project.")
    detail = serializers.CharField(
        help_text=(
            "Of a registration: registered, updated, deregistered, expired, outdated, awake or sleeping. "
            "Otherwise an empty text."
        )
    )
    timestamp = Moment(help_text="The time of its newest value.")
    earliest = Moment(
        allow_null=True, help_text="The time of its oldest value; null if all its values have one time."
    )
    received_at = Moment(help_text="The time of receipt.")
    values = Lwm2mEventValueSerializer(many=True, source="shown", help_text="Those measured last come first.")
    has_more_values = serializers.BooleanField(
        help_text=f"Whether it has more values: a list shows {FIRST} of each event, and one event {MOST:,}."
    )


class EventQuery(Between):
    """The parameters of the list of events."""

    type = serializers.CharField(
        required=False, default="", max_length=64, help_text="The type, such as notification."
    )
    endpoint = serializers.CharField(
        required=False, default="", max_length=255, help_text="The endpoint name, or the device id."
    )


class Events(ListView):
    """The events of the endpoints that the caller may see."""

    scopes = {"GET": "telemetry:read"}
    tag = "LwM2M"
    query = EventQuery
    serializer_class = Lwm2mEventSerializer
    order = ("-timestamp", "-id")

    @documented(
        operation_id="list_lwm2m_events",
        summary="List LwM2M events",
        responses=Lwm2mEventSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """Return the events with their values, the newest first. A page ends early if its values are many or long."""
        return self.list()

    def rows(self) -> QuerySet[Any]:
        """Return the events that the parameters select."""
        self.require(visibility.VIEW, Endpoint)
        user, asked = self.request.user, self.params
        return event_rows.selected(
            event_rows.visible(user),
            of_type=asked["type"],
            endpoints=event_rows.named(user, asked["endpoint"]) if asked["endpoint"] else None,
            since=asked["from"],
            until=asked["to"],
        )

    def get_queryset(self) -> QuerySet[Any]:
        """Return no rows of the model, for the schema."""
        return Event.objects.none()

    def cut(self, rows: QuerySet[Any]) -> paging.Page:
        """Return the page of *rows* that the parameters name, or fewer rows if their values are many or long."""
        cursor = self.params["cursor"]
        page = super().cut(rows)
        places = event_rows.places(page.rows, FIRST + 1)
        at = paging.parse(cursor, len(self.order))
        read = page.rows[::-1] if at is not None and at.backward else page.rows
        fitting = max(1, _fitting(read, places))
        if fitting < len(page.rows):
            page = paging.of_rows(rows, self.order, cursor, fitting)
        add_values(page.rows, places, FIRST)
        return page


class OneEvent(ApiView):
    """One event."""

    scopes = {"GET": "telemetry:read"}
    tag = "LwM2M"
    query = SelectedOne

    @documented(operation_id="get_lwm2m_event", summary="Read an LwM2M event", responses=Lwm2mEventSerializer)
    def get(self, request: Request, number: int) -> Response:
        """Return one event with its values."""
        self.require(visibility.VIEW, Endpoint)
        rows = event_rows.visible(request.user)
        event = rows.filter(pk=number).first() if number < 2**63 else None
        if event is None:
            raise Http404
        add_values([event], event_rows.places([event], MOST + 1), MOST)
        return Response(Lwm2mEventSerializer(event, context=self.context()).data)


def _fitting(events: Sequence[Event], places: Sequence[Place]) -> int:
    """Return how many of *events*, from the first on, have values that fit on one page."""
    sizes, counts = dict[int, int](), dict[int, int]()
    for place in places:
        sizes[place.event] = sizes.get(place.event, 0) + place.size
        counts[place.event] = counts.get(place.event, 0) + 1
    return min(
        values.fit((sizes.get(event.pk, 0) for event in events), values.MOST_SIZE),
        values.fit((counts.get(event.pk, 0) for event in events), MOST),
    )


def add_values(events: Sequence[Any], places: Sequence[Place], most: int) -> None:
    """Give each of *events* the values at its *places*, at most *most*, with their definitions and units."""
    by_event: dict[int, list[Place]] = {event.pk: [] for event in events}
    for place in places:
        if place.event in by_event:
            by_event[place.event].append(place)
    shown = {pk: some[:most] for pk, some in by_event.items()}
    rows = _rows([place for some in shown.values() for place in some])
    endpoints = {event.pk: event.device for event in events}
    pairs = [
        (endpoints[place.event], rows[place].path)
        for some in shown.values()
        for place in some
        if place in rows
    ]
    known = labels.of_paths(pairs) if pairs else {}
    units = labels.units_of([(endpoint.pk, path) for endpoint, path in pairs], known)
    for event in events:
        event.shown = [rows[place] for place in shown[event.pk] if place in rows]
        event.has_more_values = len(by_event[event.pk]) > most
        for row in event.shown:
            row.known = known.get((event.device_id, row.path))
            row.unit = units.get((event.device_id, row.path), "")


def _rows(places: Sequence[Place]) -> dict[Place, EventValue]:
    """Return the rows at *places*, by one query; one may have been deleted meanwhile."""
    by_model = {model: [place.key for place in places if place.model is model] for model in event_rows.MODELS}
    parts = [
        model._default_manager.filter(pk__in=keys).order_by().values_list(Value(number), "pk", *HELD)
        for number, (model, keys) in enumerate(by_model.items())
        if keys
    ]
    if not parts:
        return {}
    found = {}
    for number, key, *held in parts[0].union(*parts[1:], all=True):
        model = event_rows.MODELS[number]
        found[model, key] = EventValue(*held)
    return {place: found[place.model, place.key] for place in places if (place.model, place.key) in found}
