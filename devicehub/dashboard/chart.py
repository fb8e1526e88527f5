"""The points of the chart: one reading of the devices heard last, and its new points.

Short ranges are given as raw values or in buckets of the rows, long ones from the rollups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Max, QuerySet

from devicehub import visibility
from devicehub.dashboard import devices, display
from devicehub.dashboard.selection import Plotted
from devicehub.history import latest, series
from devicehub.history.rows import under
from devicehub.history.series import Point, Resolution
from devicehub.kinds.registry import Kind

MAX_SERIES = 8
EARLY = timedelta(minutes=5)  # Ingest accepts times that are this far ahead of our clock.
LATE_BUCKETS = 30  # A late point further back than this appears when the page is loaded again.
MAX_NEWS = 5_000  # One look returns at most this many rows.
OVERLAP = 3  # Looks that overlap: PostgreSQL assigns ids before the commit, so a lower id can appear later.

Series = dict[str, Any]


class Tail:
    """The rows of one kind's readings that were stored since the last look."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._rows = kind.history_model.objects
        newest = self._newest()
        self._floors = deque([newest], maxlen=OVERLAP)
        self._seen: set[int] = set()

    def _newest(self) -> int:
        return int(self._rows.aggregate(newest=Max("pk"))["newest"] or 0)

    def look(self, of: Collection[int] | None, *names: str) -> list[Any]:
        """Return new rows as tuples of pk, device, timestamp and *names*, oldest first.

        Only rows of the devices *of* are returned; None means all devices. Of a narrow table give at most one name:
        then only rows of this name are returned, with their value.
        """
        newest = self._newest()
        if newest == self._floors[-1] == self._floors[0]:
            self._seen.clear()
            return []
        rows = self._rows.filter(pk__gt=self._floors[0], pk__lte=newest).order_by("pk")
        if of is not None:
            rows = rows.filter(device_id__in=list(of))
        columns = []
        for name in names:
            rows, column = under(self._kind, name, rows)
            columns.append(column)
        found = list(rows.values_list("pk", "device_id", "timestamp", *columns)[:MAX_NEWS])
        fresh = [row for row in found if row[0] not in self._seen]
        if len(found) == MAX_NEWS:  # There are more rows: continue after these, without the overlap.
            self._floors.extend([found[-1][0]] * OVERLAP)
        else:
            self._floors.append(newest)
        self._seen = {row[0] for row in found if row[0] > self._floors[0]}
        return fresh


class Chart:
    """One reading over a range of time, for at most MAX_SERIES devices of those that *user* may see.

    With *device_id* it shows that device alone.
    """

    def __init__(self, plotted: Plotted, seconds: int, user: Any, device_id: str = "") -> None:
        self.kind, self.reading = plotted
        self._user, self._device_id = user, device_id
        self.seconds = seconds
        self.resolution = Resolution()
        self.names: dict[int, str] = {}  # The ids of the devices in the chart, by primary key.

    @property
    def step(self) -> int:
        """Return the seconds of a bucket, or 0 for raw points."""
        return self.resolution.step

    @property
    def has_room(self) -> bool:
        return len(self.names) < MAX_SERIES

    def load(self, now: datetime) -> dict[str, Any]:
        """Return the whole chart in the form that the page's script reads."""
        since = now - timedelta(seconds=self.seconds)
        until = now + EARLY
        if self.kind.narrow is not None:
            self.reading = self.kind.described(self.reading.name)
        visible = self._visible()
        self._name(latest.heard_last(self.kind, self.reading.name, since, until, MAX_SERIES, visible))
        self.resolution = series.resolution(self.kind, self.names, self.reading.name, since, now)
        return {
            "reading": devices.title(self.reading),
            "whole": self.reading.type == "integer",
            "unit": display.unit(self.reading.unit),
            "seconds": self.seconds,
            "step": self.step,
            "newest": latest.measured_at(self.kind, visible),
            "series": self._points(since),
        }

    def add(self, rows: Iterable[Any], now: datetime) -> list[Series]:
        """Return the points of new rows of `Tail.look(..., reading)`, or the buckets that they are in."""
        measured = [row for row in rows if row[3] is not None]
        new_devices = {row[1] for row in measured} - self.names.keys()
        if new_devices and self.has_room:
            self._name(new_devices)
        since = now - timedelta(seconds=self.seconds)
        measured = [row for row in measured if row[1] in self.names and since <= row[2] <= now + EARLY]
        if not measured:
            return []
        if not self.step:
            return self._series(Point(device, time, None, value, None) for _, device, time, value in measured)
        earliest = max(min(row[2] for row in measured), now - timedelta(seconds=LATE_BUCKETS * self.step))
        second = int(earliest.timestamp()) // self.step * self.step
        return self._points(datetime.fromtimestamp(second, UTC))

    def _visible(self) -> QuerySet[Any]:
        visible = visibility.devices(self.kind, self._user)
        return visible.filter(device_id=self._device_id) if self._device_id else visible

    def _name(self, pks: Iterable[int]) -> None:
        found = self._visible().filter(pk__in=list(pks)).order_by("device_id")
        room = MAX_SERIES - len(self.names)
        self.names |= dict(found.values_list("pk", "device_id")[:room])

    def _points(self, since: datetime) -> list[Series]:
        points = series.points(self.kind, self.names, self.reading.name, since, self.resolution)
        return self._series(points)

    def _series(self, points: Iterable[Point]) -> list[Series]:
        """Return one series for each device, in the order of the legend. Times are Unix seconds."""
        by_device: dict[int, Series] = {}
        for device, time, low, value, high in points:
            one = by_device.setdefault(device, {"device": self.names[device], "t": [], "v": []})
            one["t"].append(round(time.timestamp(), 3))
            one["v"].append(value)
            if self.step:
                one.setdefault("low", []).append(low)
                one.setdefault("high", []).append(high)
        return [by_device[device] for device in self.names if device in by_device]
