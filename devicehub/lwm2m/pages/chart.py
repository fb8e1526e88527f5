"""The history of one resource: points of a chart if its values are numbers, and a table of the latest values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Avg, Max, Min

from devicehub.dashboard import display
from devicehub.history.series import BUCKETS, MAX_POINTS, STEPS, EpochSeconds
from devicehub.lwm2m.models import Endpoint, Resource, ResourceType, ResourceValue
from devicehub.lwm2m.pages import definitions
from devicehub.lwm2m.pages.place import RANGES, Place
from devicehub.lwm2m.pages.values import NUMBERS, Shown, number, shown
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
    rows = Resource.objects.select_related("resource_type")
    newest = rows.filter(device=endpoint, path=place.resource).first()
    if newest is None:
        return None
    known = newest.resource_type
    name, unit = (known.name, known.unit) if known else (f"Resource {newest.resource_id}", "")
    stored = ResourceValue.objects.filter(device=endpoint, path=place.resource)
    found = list(stored.order_by("-timestamp", "-pk")[: LATEST + 1])
    chart, description = None, ""
    if newest.type in NUMBERS:
        since, until = now - timedelta(seconds=place.seconds), now + EARLY
        step, series = _series(stored.filter(timestamp__gte=since, timestamp__lt=until), place.seconds)
        chart = {
            "reading": name,
            "whole": newest.type != DataType.FLOAT,
            "unit": display.unit(unit),
            "seconds": place.seconds,
            "step": step,
            "newest": newest.timestamp,
            "latest": "one",
            "series": [{"device": f"/{place.resource}", **series}] if series["t"] else [],
            "now": now.timestamp(),
        }
        description = _described(name, series, display.unit(unit), RANGES[place.range][0])
    return History(
        path=place.resource,
        name=name,
        unit=unit,
        known=known,
        kind=newest.type,
        chart=chart,
        description=description,
        latest=[(one.timestamp, shown(one.type, one.value)) for one in found[:LATEST]],
        ranges=[
            (label, f"{place.over(range=key)}#history", key == place.range)
            for key, (label, _) in RANGES.items()
        ],
        has_more=len(found) > LATEST,
    )


def _series(rows: Any, seconds: int) -> tuple[int, dict[str, list[Any]]]:
    """Return the seconds of a bucket, 0 for single values, and the columns of the points in *rows*."""
    numbers = rows.filter(number__isnull=False)
    if len(numbers.order_by().values("pk")[: MAX_POINTS + 1]) <= MAX_POINTS:
        found = list(numbers.order_by("timestamp", "pk").values_list("timestamp", "number"))
        return 0, {"t": [round(time.timestamp(), 3) for time, _ in found], "v": [value for _, value in found]}
    step = next((step for step in STEPS if seconds / step <= BUCKETS), STEPS[-1])
    second = EpochSeconds("timestamp")
    buckets = (
        numbers.order_by()
        .annotate(bucket=second - second % step)
        .values("bucket")
        .annotate(low=Min("number"), mean=Avg("number"), high=Max("number"))
        .order_by("bucket")
        .values_list("bucket", "low", "mean", "high")
    )
    columns: dict[str, list[Any]] = {"t": [], "low": [], "v": [], "high": []}
    for bucket, low, mean, high in buckets:
        for column, value in zip(columns.values(), (bucket + step / 2, low, mean, high), strict=True):
            column.append(value)
    return step, columns


def _described(name: str, series: dict[str, list[Any]], unit: str, span: str) -> str:
    """Return the chart in words, for readers who do not see it."""
    if not series["t"]:
        return f"{name}: no value in the last {span}"
    low, high = min(series.get("low", series["v"])), max(series.get("high", series["v"]))
    last = f"{datetime.fromtimestamp(series['t'][-1], UTC):%Y-%m-%d %H:%M:%S} UTC"
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
        ", ".join(word for letter, word in definitions.OPERATIONS.items() if letter in known.operations)
        or "none"
    )
