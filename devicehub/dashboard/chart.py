"""The points of the chart: one reading of the devices heard last, and what is new of it.

Short ranges come raw or in buckets of the rows, long ones from the rollups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Avg, Count, Func, IntegerField, Max, Min

from devicehub.dashboard import devices, display
from devicehub.dashboard.selection import Plotted
from devicehub.history import rollups
from devicehub.kinds.registry import Kind
from devicehub.models import Rollup

MAX_SERIES = 8
MAX_POINTS = 2_000  # of one device; above that the chart shows buckets
BUCKETS = 720  # about, in one range
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 86_400)
ROLLED_UP = 7 * 86_400  # seconds of a range from which on it is shown by hours or days
HEARD = 5_000  # newest rows in which the devices heard last are looked for
EARLY = timedelta(minutes=5)  # how far ahead of ours ingest lets a device's clock be
LATE_BUCKETS = 30  # a late point further back than this shows with the next loading
MAX_NEWS = 5_000  # rows of one look
OVERLAP = 3  # looks: PostgreSQL gives out ids before the commit, so a lower one can show up later

Series = dict[str, Any]


class EpochSeconds(Func):
    """A time as whole seconds since 1970."""

    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(strftime('%%%%s', %(expressions)s) AS INTEGER)"  # %s, after two formattings
        return self.as_sql(compiler, connection, template=template, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "FLOOR(EXTRACT(EPOCH FROM %(expressions)s))::bigint"
        return self.as_sql(compiler, connection, template=template, **context)


class Tail:
    """The rows of one kind's readings that were stored since the last look."""

    def __init__(self, kind: Kind) -> None:
        self._rows = kind.reading_model.objects
        newest = self._newest()
        self._floors = deque([newest], maxlen=OVERLAP)
        self._seen: set[int] = set()

    def _newest(self) -> int:
        return int(self._rows.aggregate(newest=Max("pk"))["newest"] or 0)

    def look(self, of: Collection[int] | None, *names: str) -> list[Any]:
        """Tuples of pk, device, timestamp and *names*, oldest first; *of* are the devices, None is all."""
        newest = self._newest()
        if newest == self._floors[-1] == self._floors[0]:
            self._seen.clear()
            return []
        rows = self._rows.filter(pk__gt=self._floors[0], pk__lte=newest).order_by("pk")
        if of is not None:
            rows = rows.filter(device_id__in=list(of))
        found = list(rows.values_list("pk", "device_id", "timestamp", *names)[:MAX_NEWS])
        fresh = [row for row in found if row[0] not in self._seen]
        if len(found) == MAX_NEWS:  # more than we can show: go on from here, without the overlap
            self._floors.extend([found[-1][0]] * OVERLAP)
        else:
            self._floors.append(newest)
        self._seen = {row[0] for row in found if row[0] > self._floors[0]}
        return fresh


class Chart:
    """One reading over a time, of at most MAX_SERIES devices."""

    def __init__(self, plotted: Plotted, seconds: int) -> None:
        self.kind, self.reading = plotted
        self.seconds = seconds
        self.step = 0  # seconds of a bucket; 0: raw points
        self.period: Rollup.Period | None = None  # of the rollups that are shown
        if seconds >= ROLLED_UP:
            self.period = Rollup.Period.HOUR if seconds / 3_600 <= BUCKETS else Rollup.Period.DAY
            self.step = int(rollups.PERIODS[self.period].total_seconds())
        self.names: dict[int, str] = {}  # of the devices shown, by their key

    @property
    def has_room(self) -> bool:
        return len(self.names) < MAX_SERIES

    def load(self, now: datetime) -> dict[str, Any]:
        """The whole chart, as the page wants it."""
        since = now - timedelta(seconds=self.seconds)
        self._name(self._heard(since, now))
        if self.period is None and self._longest(since) > MAX_POINTS:
            self.step = next(step for step in STEPS if self.seconds / step <= BUCKETS)
        newest = self.kind.reading_model.objects.order_by("-timestamp").values_list("timestamp", flat=True)
        return {
            "reading": devices.title(self.reading),
            "whole": self.reading.type == "integer",
            "unit": display.unit(self.reading.unit),
            "seconds": self.seconds,
            "step": self.step,
            "newest": newest.first(),
            "series": self._points(since),
        }

    def add(self, rows: Iterable[Any], now: datetime) -> list[Series]:
        """What rows of `Tail.look(..., reading)` change: their points, or the buckets that they are in."""
        told = [row for row in rows if row[3] is not None]
        unknown = {row[1] for row in told} - self.names.keys()
        if unknown and self.has_room:
            self._name(sorted(unknown)[: MAX_SERIES - len(self.names)])
        since = now - timedelta(seconds=self.seconds)
        told = [row for row in told if row[1] in self.names and since <= row[2] <= now + EARLY]
        if not told:
            return []
        if not self.step:
            return self._series((device, time, None, value, None) for _, device, time, value in told)
        earliest = max(min(row[2] for row in told), now - timedelta(seconds=LATE_BUCKETS * self.step))
        second = int(earliest.timestamp()) // self.step * self.step
        return self._points(datetime.fromtimestamp(second, UTC))

    def _heard(self, since: datetime, now: datetime) -> list[int]:
        """The devices heard last. Of a small fleet it is all of them, without a look."""
        few = list(self.kind.device_model.objects.order_by("device_id").values_list("pk", flat=True)[:9])
        if len(few) <= MAX_SERIES:
            return few
        rows = self.kind.reading_model.objects.filter(timestamp__gte=since, timestamp__lte=now + EARLY)
        newest = rows.order_by("-timestamp").values_list("device_id", self.reading.name)[:HEARD]
        return list(dict.fromkeys(device for device, value in newest if value is not None))[:MAX_SERIES]

    def _name(self, pks: Iterable[int]) -> None:
        found = self.kind.device_model.objects.filter(pk__in=list(pks)).order_by("device_id")
        self.names |= dict(found.values_list("pk", "device_id"))

    def _rows(self, since: datetime) -> Any:
        return self.kind.reading_model.objects.filter(
            device_id__in=list(self.names), timestamp__gte=since, **{f"{self.reading.name}__isnull": False}
        )

    def _longest(self, since: datetime) -> int:
        counted = self._rows(since).order_by().values("device_id").annotate(points=Count("pk"))
        return max((row["points"] for row in counted), default=0)

    def _points(self, since: datetime) -> list[Series]:
        name = self.reading.name
        if self.period is not None:
            half = timedelta(seconds=self.step / 2)
            found = rollups.buckets(self.kind, self.names, name, self.period, since)
            return self._series((one.device, one.start + half, one.low, one.mean, one.high) for one in found)
        if not self.step:
            raw = self._rows(since).order_by("timestamp").values_list("device_id", "timestamp", name)
            return self._series((device, time, None, value, None) for device, time, value in raw)
        second = EpochSeconds("timestamp")
        buckets = (
            self._rows(since)
            .order_by()
            .annotate(chart_bucket=second - second % self.step)
            .values("device_id", "chart_bucket")
            .annotate(chart_low=Min(name), chart_mean=Avg(name), chart_high=Max(name))
            .order_by("chart_bucket")
            .values_list("device_id", "chart_bucket", "chart_low", "chart_mean", "chart_high")
        )
        return self._series(
            (device, datetime.fromtimestamp(bucket + self.step / 2, UTC), low, mean, high)
            for device, bucket, low, mean, high in buckets
        )

    def _series(self, points: Iterable[tuple[int, datetime, Any, Any, Any]]) -> list[Series]:
        """One for each device, in the order of the legend. Times are Unix seconds."""
        series: dict[int, Series] = {}
        for device, time, low, value, high in points:
            one = series.setdefault(device, {"device": self.names[device], "t": [], "v": []})
            one["t"].append(round(time.timestamp(), 3))
            one["v"].append(value)
            if self.step:
                one.setdefault("low", []).append(low)
                one.setdefault("high", []).append(high)
        return [series[device] for device in self.names if device in series]
