"""The hours or days of one device in pages: lowest, mean, highest and number of each reading, from the rollups.

They are complete up to now: rows that are not rolled up yet are added from their table. Buckets are in the order of
their beginnings, then of the names of readings. Pages and REST read them here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Subquery

from devicehub.db import together
from devicehub.db.statements import read_time
from devicehub.history import rollups
from devicehub.history.pages import Range
from devicehub.history.rollup_sql import Figures, Wanted, dialect
from devicehub.kinds.registry import Kind
from devicehub.models import RolledUp, Rollup

COLUMNS = ("start", "name", "low", "high", "mean", "count")


class Place(NamedTuple):
    """The place of a bucket among those of a device."""

    start: datetime
    name: str


class Bucket(NamedTuple):
    """One hour or day of UTC of a reading."""

    place: Place
    low: float
    mean: float
    high: float
    number: int


def buckets(
    kind: Kind,
    device: Any,
    names: Sequence[str],
    period: Rollup.Period,
    within: Range,
    most: int,
    *,
    behind: Place | None = None,
    descending: bool = False,
) -> tuple[list[Bucket], bool]:
    """Return the next *most* buckets of *device* that begin within a range, and whether more follow.

    The first bucket of the range is the one that contains its beginning. It takes a handful of queries for any number
    of names and buckets.
    """
    rows_of = rollups.source(kind)
    if rows_of is None or not names:
        return [], False
    since = None if within.since is None else rollups.start_of(within.since, period)
    until = within.until
    if until is not None and (start := rollups.start_of(until, period)) != until:
        until = _end(start, period)
    if behind is not None and not descending:
        since = behind.start if since is None else max(since, behind.start)
    if behind is not None and descending:
        ends = [moment for moment in (_end(behind.start, period), until) if moment is not None]
        until = min(ends, default=None)
    wanted = Wanted(rows_of, device.pk, names, period.value, since, until, descending)
    # Some beginnings are shared by all names, and some buckets of the first one are before the place.
    enough = most + 1 + 2 * len(names)
    rolled_up, found = _stored(kind, kind.key(device.device_id), wanted, enough)
    if len(found) == enough:
        last = next(reversed(found)).start
        wanted = wanted._replace(since=last) if descending else wanted._replace(until=_end(last, period))
    for fresh in dialect().fresh_of(wanted, rolled_up, enough):
        for name, figures in fresh.figures.items():
            place = Place(fresh.start, name)
            found[place] = rollups.together(found[place], figures) if place in found else figures
    places = sorted(found, reverse=descending)
    if behind is not None:
        places = [place for place in places if (place < behind if descending else place > behind)]
    return [_bucket(place, found[place]) for place in places[:most]], len(places) > most


def _end(start: datetime, period: Rollup.Period) -> datetime | None:
    """Return the end of the bucket that begins at *start*; None for the last one of the year 9999."""
    try:
        return start + rollups.PERIODS[period]
    except OverflowError:
        return None


def _bucket(place: Place, figures: Figures) -> Bucket:
    low, high, mean, number = figures
    return Bucket(place, low, mean, high, number)


def _stored(kind: Kind, key: str, wanted: Wanted, most: int) -> tuple[int, dict[Place, Figures]]:
    """Return the id up to which rows are rolled up, and the first *most* rollups.

    One statement reads both, since more rows may be rolled up between two statements.
    """
    before = rollups.last_rolled_up(kind)  # Used if there are no rollups: then no row up to it counts in one.
    rows = Rollup.objects.filter(device_key=key, period=wanted.period)
    if wanted.since is not None:
        rows = rows.filter(start__gte=wanted.since)
    if wanted.until is not None:
        rows = rows.filter(start__lt=wanted.until)
    progress = RolledUp.objects.filter(kind=kind.slug).values("last_id")
    rows = rows.annotate(rolled_up=Subquery(progress)).values_list("rolled_up", *COLUMNS)
    order = f"start{' DESC' if wanted.descending else ''}"
    # Each name is one walk along the index.
    arms = [
        rows.filter(name=name).order_by("-start" if wanted.descending else "start")[:most]
        for name in wanted.names
    ]
    found = together.first(arms, order, most)
    stored = {Place(read_time(start), name): tuple(figures) for _, start, name, *figures in found}
    return (found[0][0] if found else before), stored
