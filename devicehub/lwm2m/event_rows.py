"""The events that a person may see, the filters over them, and their values: one way for pages, admin and API."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Q, QuerySet

from devicehub import visibility
from devicehub.db.statements import PerVendor, query, quoted
from devicehub.lwm2m.events import declared
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, Event, EventResource, Resource, ResourceValue
from devicehub.lwm2m.models.events import NOTIFICATION, OURS, REGISTRATION, SEND

WORDS: Mapping[str, str] = {NOTIFICATION: "Notification", SEND: "Send", REGISTRATION: "Registration"}
LOOKED_THROUGH = 1_000  # The newest events, in which the types of a project are found.
NAMES = frozenset({"id", "device_id", "name", "endpoint_name", "object_versions"})  # Read of each endpoint.


class Place(NamedTuple):
    """A value of an event: the key of the event, and the model and key of the row with the value.

    *size* is the length of its text or bytes.
    """

    event: int
    model: type[Any]
    key: int
    size: int


def visible(user: Any) -> QuerySet[Event]:
    """Return the events of the endpoints that *user* may see, the newest first, each with the names of its endpoint."""
    if not visibility.may(user, visibility.VIEW, Endpoint):
        return Event.objects.none()
    events = Event.objects.select_related("device").order_by("-timestamp", "-pk")
    events = events.defer(
        *(f"device__{field.name}" for field in Endpoint._meta.concrete_fields if field.name not in NAMES)
    )
    sites = visibility.sites_of(user)
    return events if sites is None else events.filter(device__site__in=sites)


def named(user: Any, name: str) -> list[int]:
    """Return the primary keys of the endpoints that *user* may see and that have the endpoint name or device id *name*.

    Two endpoints may have one name: it is the endpoint name of one, and the device id of another.
    """
    rows = visibility.devices(KIND, user).filter(Q(device_id=name) | Q(endpoint_name=name))
    return list(rows.order_by().values_list("pk", flat=True))


def selected(
    events: QuerySet[Event],
    *,
    of_type: str = "",
    endpoints: Collection[int] | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[Event]:
    """Return those of *events* of a type, of *endpoints* (primary keys), from *since* on and before *until*."""
    if of_type:
        events = events.filter(type=of_type)
    if endpoints is not None:
        events = events.filter(device__in=endpoints)
    if since is not None:
        events = events.filter(timestamp__gte=since)
    return events if until is None else events.filter(timestamp__lt=until)


def types(visible_events: QuerySet[Event], chosen: str) -> list[tuple[str, str]]:
    """Return the types to choose from: ours, the declared ones, those of the newest events, and the chosen one."""
    newest = visible_events.order_by("-timestamp").values_list("type", flat=True)[:LOOKED_THROUGH]
    others = sorted({*newest, *(one.name for one in declared()), *filter(None, [chosen])} - OURS)
    return [*WORDS.items(), *((name, name) for name in others)]


def places(events: Iterable[Event], most: int) -> list[Place]:
    """Return the places of at most *most* values of each of *events*, those measured last first; by one statement.

    The values of our own types are found along the index of the history, by the paths of the endpoint and the time.
    """
    keys = {event.pk: event.type for event in events if event.type != REGISTRATION}
    parts, parameters = [], list[Any]()
    for number, is_own in enumerate((False, True)):
        chosen = [key for key, name in keys.items() if (name not in OURS) is is_own]
        if chosen:
            marks = ", ".join(["%s"] * len(chosen))
            parts.append(_statement(number, is_own).replace("%s", marks, 1))
            parameters += chosen
    if not parts:
        return []
    rows = query(
        f"SELECT event, model, id, size FROM ({' UNION ALL '.join(parts)}) AS found"
        " WHERE place <= %s ORDER BY event, place",
        [*parameters, most],
    )
    return [Place(event, MODELS[model], key, size) for event, model, key, size in rows]


MODELS: Sequence[type[Any]] = (ResourceValue, EventResource)


def _statement(number: int, is_own: bool) -> str:
    """Return the query for the numbered values of events, whose keys stand in place of its only parameter."""
    event, resource, value, own = (
        quoted(model._meta.db_table) for model in (Event, Resource, ResourceValue, EventResource)
    )
    columns = (
        f"{number} AS model, v.id AS id, COALESCE(LENGTH(v.text), 0) + COALESCE(LENGTH(v.opaque), 0) AS size,"
        " ROW_NUMBER() OVER (PARTITION BY v.event_id ORDER BY v.timestamp DESC, v.path, v.id) AS place"
    )
    if is_own:
        return f"SELECT v.event_id AS event, {columns} FROM {own} v WHERE v.event_id IN (%s)"
    within = "BETWEEN COALESCE(e.earliest, e.timestamp) AND e.timestamp"
    joined = JOINED().format(value=value, resource=resource, within=within)
    return f"SELECT v.event_id AS event, {columns} FROM {event} e {joined}"


# The values of each event are found along the index of the history. SQLite joins tables in the given order; PostgreSQL
# would choose another one, such as the whole history first, if OFFSET did not keep it from it.
JOINED = PerVendor(
    sqlite=(
        "CROSS JOIN {resource} r CROSS JOIN {value} v WHERE e.id IN (%s) AND r.device_id = e.device_id"
        " AND v.device_id = e.device_id AND v.path = r.path AND v.timestamp {within} AND v.event_id = e.id"
    ),
    postgresql=(
        "CROSS JOIN LATERAL (SELECT path FROM {resource} WHERE device_id = e.device_id OFFSET 0) r"
        " CROSS JOIN LATERAL (SELECT * FROM {value} v WHERE v.device_id = e.device_id AND v.path = r.path"
        " AND v.timestamp {within} AND v.event_id = e.id OFFSET 0) v WHERE e.id IN (%s)"
    ),
)
