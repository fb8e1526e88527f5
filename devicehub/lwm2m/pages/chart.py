"""The history of one resource: points of a chart if its values are numbers, and a table of the latest values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from devicehub.dashboard import display
from devicehub.history import series
from devicehub.lwm2m import labels
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, Resource, ResourceType, ResourceValue
from devicehub.lwm2m.pages.place import DEFAULT, RANGES, SHORTEST, Place
from devicehub.lwm2m.pages.values import NUMBERS, Shown, beginnings, number, shown_of
from devicehub.messages.lwm2m.values import DataType

LATEST = 20  # Values in the table.
EARLY = timedelta(minutes=5)  # Ingest accepts times that are this far ahead of our clock.


@dataclass(frozen=True)
class History:
    """The history of the resource at *path*. *chart* is for the script of the page; None without numbers."""

    path: str
    name: str
    unit: str
    known: ResourceType | None
    kind: str
    chart: dict[str, Any] | None
    description: str
    latest: list[tuple[datetime, Shown]]
    ranges: list[tuple[str, str, bool]]
    has_more: bool


def history(endpoint: Endpoint, place: Place, now: datetime) -> History | None:
    """Return the history of the resource that *place* names, or None if no value of it is stored."""
    rows = Resource.objects.select_related("resource_type").defer("text", "opaque")
    newest = rows.filter(device=endpoint, path=place.resource).first()
    if newest is None:
        return None
    known = newest.resource_type
    name = known.name if known else f"Resource {newest.resource_id}"
    place_of = (endpoint.pk, newest.path)
    unit = (known.unit if known else "") or labels.own_units([place_of]).get(place_of, "")
    stored = ResourceValue.objects.filter(device=endpoint, path=place.resource)
    found = list(beginnings(stored).order_by("-timestamp", "-pk")[: LATEST + 1])
    span = place.range or _fitting(stored, now)
    chart, description = None, ""
    if newest.type in NUMBERS:
        label, seconds = RANGES[span]
        step, columns = _series(endpoint, place.resource, now - timedelta(seconds=seconds), now)
        chart = {
            "reading": name,
            "whole": newest.type != DataType.FLOAT,
            "unit": display.unit(unit),
            "seconds": seconds,
            "step": step,
            "newest": newest.timestamp,
            "latest": "one",
            "series": [{"device": f"/{place.resource}", **columns}] if columns["t"] else [],
            "now": now.timestamp(),
        }
        description = _described(name, columns, display.unit(unit), label)
    return History(
        path=place.resource,
        name=name,
        unit=unit,
        known=known,
        kind=newest.type,
        chart=chart,
        description=description,
        latest=[(one.timestamp, shown_of(one)) for one in found[:LATEST]],
        ranges=[
            (label, f"{place.over(range=key)}#history", key == span) for key, (label, _) in RANGES.items()
        ],
        has_more=len(found) > LATEST,
    )


def _fitting(stored: Any, now: datetime) -> str:
    """Return the range of a chart that nobody chose: the shortest one if the whole history is in it."""
    oldest = stored.order_by("timestamp").values_list("timestamp", flat=True).first()
    return SHORTEST if oldest and now - oldest < timedelta(seconds=RANGES[SHORTEST][1]) else DEFAULT


def _series(
    endpoint: Endpoint, path: str, since: datetime, now: datetime
) -> tuple[int, dict[str, list[Any]]]:
    """Return the seconds of a bucket, 0 for single values, and the columns of the points."""
    one = {endpoint.pk: endpoint.device_id}
    given = series.resolution(KIND, one, path, since, now)
    columns: dict[str, list[Any]] = {"t": [], "low": [], "v": [], "high": []}
    for point in series.points(KIND, one, path, since, given, now + EARLY):
        values = (round(point.time.timestamp(), 3), point.low, point.value, point.high)
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return given.step, columns if given.step else {"t": columns["t"], "v": columns["v"]}


def _described(name: str, columns: dict[str, list[Any]], unit: str, span: str) -> str:
    """Return the chart in words, for readers who do not see it."""
    if not columns["t"]:
        return f"{name}: no value in the last {span}"
    low, high = min(columns.get("low", columns["v"])), max(columns.get("high", columns["v"]))
    last = display.in_utc(datetime.fromtimestamp(columns["t"][-1], UTC))
    return f"{name} in the last {span}: between {number(low)} and {number(high)} {unit}, the last at {last}"


def first_choice(endpoint: Endpoint) -> str:
    """Return the path of the resource whose history is shown at first: a sensor value, or another number; or ""."""
    rows = Resource.objects.filter(device=endpoint, type__in=NUMBERS).order_by("object_id", "object_instance")
    for some in (rows.filter(resource_id=5700), rows):
        path = some.values_list("path", flat=True).first()
        if path:
            return path
    return ""


def operations_in_words(known: ResourceType) -> str:
    """Return the operations of a resource: "read, write"; "none" if a server may do nothing with it."""
    return (
        ", ".join(word for letter, word in labels.OPERATIONS.items() if letter in known.operations) or "none"
    )
