"""The values of one reading over a range of time, in bounded number: each value, buckets, or rollups for long ranges.

Pages and REST read them here. Devices are given as a mapping of primary keys to ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import Avg, Count, FloatField, Func, IntegerField, Max, Min, QuerySet

from devicehub.history import rollups
from devicehub.history.rollup_sql import LARGEST
from devicehub.history.rows import under
from devicehub.kinds.registry import Kind
from devicehub.models import Rollup

MAX_POINTS = 2_000  # A range with more values of one device is given in buckets.
BUCKETS = 720  # A range has about this many buckets at most.
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 86_400)
ROLLED_UP = 7 * 86_400  # seconds; a range of this length or more is given by hours or days


class Point(NamedTuple):
    """One value of a device, or the mean, lowest and highest of a bucket, at the middle of the bucket."""

    device: int
    time: datetime
    low: Any
    value: Any
    high: Any


@dataclass(frozen=True)
class Resolution:
    """The resolution of a series: buckets of *step* seconds, from the rollups if there is a *period*.

    With a step of 0 each value is given.
    """

    step: int = 0
    period: Rollup.Period | None = None


class EpochSeconds(Func):
    """A time as whole seconds since 1970."""

    output_field = IntegerField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(strftime('%%%%s', %(expressions)s) AS INTEGER)"  # %s, after two formattings
        return self.as_sql(compiler, connection, template=template, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "FLOOR(EXTRACT(EPOCH FROM %(expressions)s))::bigint"
        return self.as_sql(compiler, connection, template=template, **context)


def resolution(
    kind: Kind, devices: Mapping[int, str], name: str, since: datetime, until: datetime
) -> Resolution:
    """Return the resolution in which reading *name* of *devices* is given from *since* to *until*.

    A range below ROLLED_UP is given value by value unless one device has more than MAX_POINTS of them.
    """
    seconds = (until - since).total_seconds()
    if seconds >= ROLLED_UP:
        period = Rollup.Period.HOUR if seconds / 3_600 <= BUCKETS else Rollup.Period.DAY
        return Resolution(int(rollups.PERIODS[period].total_seconds()), period)
    rows, _ = _measured(kind, devices, name, since, until)
    counted = rows.order_by().values("device_id")
    longest = max((row["points"] for row in counted.annotate(points=Count("pk"))), default=0)
    if longest <= MAX_POINTS:
        return Resolution()
    return Resolution(next(step for step in STEPS if seconds / step <= BUCKETS))


def points(
    kind: Kind,
    devices: Mapping[int, str],
    name: str,
    since: datetime,
    given: Resolution,
    until: datetime | None = None,
) -> list[Point]:
    """Return the points of reading *name* of *devices* from *since* on, before *until*, in the order of time.

    The first bucket is the one that contains *since*. It is complete only if it begins at *since*, or if it is a
    rollup.
    """
    if given.period is not None:
        half = timedelta(seconds=given.step / 2)
        found = rollups.buckets(kind, devices, name, given.period, since, until)
        return [Point(one.device, one.start + half, one.low, one.mean, one.high) for one in found]
    rows, column = _measured(kind, devices, name, since, until)
    if not given.step:
        raw = rows.order_by("timestamp").values_list("device_id", "timestamp", column)
        return [Point(device, time, None, value, None) for device, time, value in raw]
    second = EpochSeconds("timestamp")
    buckets = (
        _summable(rows, column)
        .order_by()
        .annotate(series_bucket=second - second % given.step)
        .values("device_id", "series_bucket")
        .annotate(series_low=Min(column), series_mean=Avg(column), series_high=Max(column))
        .order_by("series_bucket")
        .values_list("device_id", "series_bucket", "series_low", "series_mean", "series_high")
    )
    return [
        Point(device, datetime.fromtimestamp(bucket + given.step / 2, UTC), low, mean, high)
        for device, bucket, low, mean, high in buckets
    ]


def _summable(rows: QuerySet[Any], column: str) -> QuerySet[Any]:
    """Return those of *rows* that rollups would count. PostgreSQL refuses a sum beyond every float."""
    if not isinstance(rows.model._meta.get_field(column), FloatField):
        return rows
    return rows.filter(**{f"{column}__range": (-float(LARGEST), float(LARGEST))})


def _measured(
    kind: Kind, devices: Mapping[int, str], name: str, since: datetime, until: datetime | None
) -> tuple[QuerySet[Any], str]:
    """Return the rows with a value under *name*, and the column of the value."""
    rows, column = under(kind, name)
    rows = rows.filter(device_id__in=list(devices), timestamp__gte=since, **{f"{column}__isnull": False})
    return (rows if until is None else rows.filter(timestamp__lt=until)), column
