"""The rows that messages of endpoints make: events, the history of resources, and the latest value of each.

Endpoints are locked first, in the order of their keys, then resources in the order of endpoint and path: two workers
never wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from devicehub.db import bulk
from devicehub.ingest.items import NEWS, DeviceRow, Judged
from devicehub.lwm2m import events
from devicehub.lwm2m.composing import Arrived, compose
from devicehub.lwm2m.events import EventType, Made
from devicehub.lwm2m.inbox import registrations, resource_sql
from devicehub.lwm2m.inbox.registrations import Registration
from devicehub.lwm2m.models import Endpoint, Event, ResourceValue
from devicehub.lwm2m.models.resources import COLUMNS, columns
from devicehub.messages.lwm2m.paths import RESOURCE, Path
from devicehub.messages.lwm2m.values import DataType
from devicehub.models import DeviceStatus

EVENT = ("id", "device_id", "type", "detail", "timestamp", "earliest", "received_at")


class Placed(NamedTuple):
    """A value with its path, also as text, the key of its ResourceType, and its time; None is the time of receipt."""

    path: Path
    name: str
    resource_type: int | None
    type: DataType
    value: Any
    timestamp: datetime | None


class Parcel(NamedTuple):
    """The content of a message of an endpoint: one event, its values, and perhaps a registration.

    *timestamp* is the time of the newest value, *earliest* that of the oldest, or None if all have one time.
    *made* collects the events that were written, for listeners; it is None without a listener.
    """

    event: str
    timestamp: datetime
    values: Sequence[Placed]
    registration: Registration | None = None
    detail: str = ""
    made: list[Made] | None = None
    earliest: datetime | None = None


def settle(items: list[Judged]) -> list[Judged]:
    """Lock the endpoints of *items*, save their registrations, and return *items* with signs that follow from them.

    A message of a sleeping endpoint shows that it is awake.
    """
    pks = {item.device.pk for item in items if item.outcome in NEWS}
    if not pks:
        return items
    asleep = resource_sql.lock(pks)
    if asleep is None:
        asleep = {item.device.pk for item in items if _was_asleep(item.device)}
    registered = {
        item.device.pk for item in items if item.own is not None and item.own.registration is not None
    }
    if not asleep and not registered:
        return items
    rows: Any = Endpoint.objects.filter(pk__in=asleep | registered).only(*registrations.FIELDS)
    endpoints = {row.pk: row for row in rows}
    changed: set[int] = set()
    settled = []
    for item in items:
        endpoint = endpoints.get(item.device.pk)
        if endpoint is None or item.outcome not in NEWS:
            settled.append(item)
            continue
        registration = None if item.own is None else item.own.registration
        if registration is not None:
            item = _registered(item, registration, endpoint)
            changed.add(endpoint.pk)
        elif endpoint.sleeping:
            endpoint.sleeping = False
            changed.add(endpoint.pk)
        settled.append(item)
    if changed:
        Endpoint.objects.bulk_update([endpoints[pk] for pk in sorted(changed)], registrations.FIELDS)
    return settled


def _was_asleep(device: Any) -> bool:
    return bool(device.further[1] if isinstance(device, DeviceRow) else device.sleeping)


def _registered(item: Judged, registration: Registration, endpoint: Endpoint) -> Judged:
    detail = registrations.apply(registration, endpoint, item.message.received_at)
    sign = item.sign
    if sign is not None and detail in _SIGNS:
        sign = replace(sign, is_unclear=False, status=_SIGNS[detail])
    return item._replace(sign=sign, own=item.own._replace(detail=detail))


_SIGNS = {
    "registered": DeviceStatus.ONLINE.value,
    "updated": None,
    "awake": None,
    "deregistered": DeviceStatus.OFFLINE.value,
}


def write(items: Sequence[Judged], now: datetime) -> None:
    """Write the rows of *items*, which were received before *now*."""
    if not items:
        return
    as_time = bulk.time_writer()
    rows, numbers, others = [], [], []
    latest: dict[tuple[int, str], tuple[str, str, Placed]] = {}
    for item, key in zip(items, bulk.new_keys(Event, len(items)), strict=True):
        parcel, device = item.own, item.device.pk
        received = as_time(item.message.received_at)
        if parcel.made is not None:
            parcel.made.append(_made(key, item))
        earliest = None if parcel.earliest is None else as_time(parcel.earliest)
        rows.append((key, device, parcel.event, parcel.detail, as_time(parcel.timestamp), earliest, received))
        before: Any = None  # The time of the value before, which is written once.
        measured = received
        for placed in parcel.values:
            _, name, _, kind, value, timestamp = placed
            if timestamp is not before:
                before, measured = timestamp, received if timestamp is None else as_time(timestamp)
            held, number, integer, text, opaque = columns(kind, value)
            if text is None and opaque is None:
                numbers.append((device, name, held, number, integer, measured, received, key))
            else:
                others.append((device, name, held, number, integer, text, opaque, measured, received, key))
            place = (device, name)
            newest = latest.get(place)
            if newest is None or measured >= newest[0]:
                latest[place] = measured, received, placed
    bulk.insert(Event, EVENT, rows)
    # Most values are numbers, whose rows need no other column. In the order of the index, each of its pages is changed
    # once.
    for names, history in ((COLUMNS[:3], numbers), (COLUMNS, others)):
        history.sort(key=itemgetter(0, 1))
        bulk.insert(
            ResourceValue, ("device_id", "path", *names, "timestamp", "received_at", "event_id"), history
        )
    resource_sql.replace_older([_latest_row(place, *found) for place, found in sorted(latest.items())])
    if types := events.declared():
        _compose(types, items, now)


def _latest_row(place: tuple[int, str], measured: str, received: str, placed: Placed) -> tuple[Any, ...]:
    """Return the row of resource_sql.LATEST for one value."""
    path = placed.path if len(placed.path) > RESOURCE else (*placed.path, None)
    held = columns(placed.type, placed.value)
    return (*place, *held, placed.resource_type, *path, measured, received)


def _made(key: int, item: Judged) -> Made:
    parcel = item.own
    values = {placed.name: placed.value for placed in parcel.values}
    return Made(key, parcel.event, parcel.detail, parcel.timestamp, item.message.received_at, values)


def _compose(types: Sequence[EventType], items: Sequence[Judged], now: datetime) -> None:
    """Write the events of declared types that the values of *items* complete."""
    arrived = (
        Arrived(item.device.pk, placed.path, placed.timestamp or item.message.received_at, place)
        for place, item in enumerate(items)
        for placed in item.own.values
    )
    for composed in compose(types, arrived, now):
        made = items[composed.place].own.made
        if made is not None:
            made.append(composed.made)
