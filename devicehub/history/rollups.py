"""Rollups: lowest, highest, mean and number of each numeric reading, by hour and by day of UTC.

Rows are taken in by their ids, each once, up to an id below which nothing can appear any more, and added to the
hour and the day that they are in. So late and unordered data count where they belong, also where the rows of that
hour were pruned long ago, and what it costs follows from the new rows alone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from django.db import DataError, IntegrityError, transaction
from django.db.models import Subquery

from devicehub.db.batches import Pace
from devicehub.db.portions import batched
from devicehub.db.statements import as_time, quoted
from devicehub.history.rollup_sql import Bucket, Figures, Part, dialect
from devicehub.kinds.declare import NUMBERS
from devicehub.kinds.registry import Kind, registry
from devicehub.models import RolledUp, Rollup

log = structlog.get_logger(__name__)

STEP = 2_000  # rows taken in at once, at first
FEW, MANY = 500, 50_000  # rows taken in at once, at least and at most, by how long that takes
SHORT = 0.1  # seconds that writing may take: on SQLite nobody else writes meanwhile
REST = 1  # times as long as a step took are others left alone after it
SETTLE_SECONDS = 2.0  # how long writers of rows that may still appear are waited for
PERIODS = {Rollup.Period.HOUR: timedelta(hours=1), Rollup.Period.DAY: timedelta(days=1)}


class Shown(NamedTuple):
    """One bucket of a device, for a chart."""

    device: int
    start: datetime
    low: float
    mean: float
    high: float


def numeric(kind: Kind) -> list[str]:
    """Return the names of the readings of *kind* that are rolled up; none where they have no columns."""
    if kind.reading_model is None:
        return []
    return [name for name, reading in kind.readings.items() if reading.type in NUMBERS]


def roll_up(limit: int = 50_000, kinds: Iterable[Kind] | None = None, pace: Pace | None = None) -> int:
    """Take at most *limit* new rows of each kind into the rollups; how many were taken. 0: all are in.

    Any number of processes may do it at once, and it may be killed at any moment. With a *pace* it leaves time for
    others after each step, and raises Stopped between two of them.
    """
    return sum(_roll_up(kind, limit, pace) for kind in (registry if kinds is None else kinds))


def _roll_up(kind: Kind, limit: int, pace: Pace | None) -> int:
    names = numeric(kind)
    if not names:
        return 0
    _begin_anew(kind)
    taken, settled, most = 0, -1, STEP
    while taken < limit:
        if pace is not None:
            pace.check()
        began = time.monotonic()
        state, _ = RolledUp.objects.get_or_create(kind=kind.slug)
        if settled < 0:
            settled = _settled(kind, state.last_id)
        rows = dialect().next_rows(_table(kind), state.last_id, settled, min(most, limit - taken))
        if not rows.number:
            break
        try:
            # Outside a transaction, since it takes most of the time: on SQLite it would hold up every writer.
            hours = dialect().hours(_table(kind), names, state.last_id, rows.last_id)
            read = time.monotonic()
            done = _write(kind, names, state.last_id, rows.last_id, hours)
        except (DataError, IntegrityError) as error:
            # No row may hold up all others: ever fewer at once, until the one is found that cannot be added.
            if rows.number > 1:
                most = rows.number // 2
                continue
            log.warning("rollups.row_left_out", kind=kind.slug, row=rows.last_id, error=type(error).__name__)
            read = time.monotonic()
            done = _write(kind, names, state.last_id, rows.last_id, [])
        ended = time.monotonic()
        most = _next_step(most, ended - read)
        if done:
            taken += rows.number
        if pace is not None:
            pace.rest(REST * (ended - began))
    return taken


def _next_step(most: int, seconds: float) -> int:
    """How many rows to take in at once when writing *most* of them took so long.

    Rows of the same hours become a few rollups, and each row of a device that seldom speaks becomes several.
    """
    if seconds > SHORT:
        return max(most // 2, min(most, FEW))
    return min(most * 2, MANY) if seconds < SHORT / 3 else most


def _begin_anew(kind: Kind) -> None:
    """Take all rows in from the first one, if ids were given out that are below those taken in already.

    So it is when a table was truncated, made anew or restored. Which of its rows counted before cannot be told:
    a row that counts twice is better than one that goes uncounted.
    """
    if dialect().last_id(_table(kind))[0] >= last_rolled_up(kind):
        return
    with transaction.atomic():
        state = lock(kind)
        last, _ = dialect().last_id(_table(kind))
        if last < state.last_id:
            log.warning("rollups.ids_began_anew", kind=kind.slug, last_rolled_up=state.last_id, last_id=last)
            RolledUp.objects.filter(kind=kind.slug).update(last_id=0)


def _settled(kind: Kind, known: int) -> int:
    """The highest id up to which no row can appear any more; *known* if that cannot be said now.

    PostgreSQL gives out ids before their rows are committed. Whoever drew one holds a lock on the sequence until
    its transaction ends, so once those who held it when the last id was read have gone, all lower ids are there.
    """
    last, writers = dialect().last_id(_table(kind))
    if last <= known:
        return known
    end = time.monotonic() + SETTLE_SECONDS
    while writers and writers & dialect().last_id(_table(kind))[1]:
        if time.monotonic() > end:
            log.warning("rollups.wait_for_a_transaction", kind=kind.slug, rows_above=known)
            return known
        time.sleep(0.02)
    return last


def _write(kind: Kind, names: list[str], after: int, until: int, hours: list[Bucket]) -> bool:
    """Add *hours*, of the rows above *after*, if nobody took these in meanwhile; whether they were added."""
    with transaction.atomic():
        state = lock(kind)
        if state.last_id != after:
            return False
        keys = _keys(kind, {hour.device for hour in hours})
        kept = [hour for hour in hours if state.hours_from is None or hour.start >= state.hours_from]
        dialect().add(list(_parts(kept, names, keys, Rollup.Period.HOUR)))
        dialect().add(list(_parts(_by_day(hours), names, keys, Rollup.Period.DAY)))
        RolledUp.objects.filter(kind=kind.slug).update(last_id=until)
    return True


def lock(kind: Kind) -> RolledUp:
    """The state of *kind*, which nobody else changes until this transaction ends."""
    RolledUp.objects.get_or_create(kind=kind.slug)
    return RolledUp.objects.select_for_update().get(kind=kind.slug)


def _keys(kind: Kind, pks: Collection[int]) -> dict[int, str]:
    """The keys of the devices that still exist: what was computed for another is nobody's any more."""
    rows = kind.device_model.objects.order_by().values_list("pk", "device_id")
    found = (pair for some in batched(pks, 500) for pair in rows.filter(pk__in=some))
    return {pk: kind.key(device_id) for pk, device_id in found}


def _parts(
    buckets: Iterable[Bucket], names: list[str], keys: Mapping[int, str], period: Rollup.Period
) -> Iterable[Part]:
    for bucket in buckets:
        if bucket.device not in keys:
            continue
        for name, (low, high, mean, count) in zip(names, bucket.figures, strict=True):
            if count:
                yield keys[bucket.device], name, period.value, bucket.start, low, high, mean, count


def _by_day(hours: Iterable[Bucket]) -> list[Bucket]:
    """*hours* put together, so that each row of a day is written once."""
    found: dict[tuple[int, datetime], Bucket] = {}
    for hour in hours:
        at = hour.device, _day(hour.start)
        known = found.get(at)
        figures = hour.figures if known is None else list(map(_together, known.figures, hour.figures))
        found[at] = Bucket(*at, figures)
    return list(found.values())


def _day(moment: datetime) -> datetime:
    return moment.replace(hour=0)


def last_rolled_up(kind: Kind) -> int:
    """The id up to which rows are in the rollups, and may be taken away."""
    state = RolledUp.objects.filter(kind=kind.slug).first()
    return state.last_id if state else 0


def set_hours_from(kind: Kind, before: datetime) -> None:
    """Say that hours before this midnight go: what comes late counts in its day only."""
    with transaction.atomic():
        state = lock(kind)
        state.hours_from = max(before, state.hours_from or before)
        state.save(update_fields=["hours_from"])


def buckets(
    kind: Kind,
    devices: Mapping[int, str],
    name: str,
    period: Rollup.Period,
    since: datetime,
    until: datetime | None = None,
) -> list[Shown]:
    """The buckets of reading *name* of *devices* (ids by primary key) from the one that *since* is in.

    Those that begin at *until* or later are left out. Complete up to now: rows that are not taken in yet are added
    from their table.
    """
    start = _start_of(since, period)
    taken, known = _stored(kind, devices, name, period, start, until)
    # What is taken in from now on stays in its table too.
    fresh = dialect().fresh(_table(kind), name, list(devices), taken, as_time(start), period.value)
    for device, moment, low, high, mean, count in fresh:
        if until is not None and moment >= until:
            continue
        old = known.get((device, moment))
        known[device, moment] = _together(old, (low, high, mean, count)) if old else (low, high, mean, count)
    return [
        Shown(device, moment, low, mean, high)
        for (device, moment), (low, high, mean, _) in sorted(known.items(), key=lambda item: item[0][::-1])
    ]


def _stored(
    kind: Kind,
    devices: Mapping[int, str],
    name: str,
    period: Rollup.Period,
    start: datetime,
    until: datetime | None,
) -> tuple[int, dict[tuple[int, datetime], Figures]]:
    """The rollups, and the id up to which rows are in them, by one statement: between two more may be taken in."""
    by_key = {kind.key(device_id): pk for pk, device_id in devices.items()}
    before = last_rolled_up(kind)  # where there are no rollups: then none of the rows up to it counts in one
    rows = Rollup.objects.filter(device_key__in=list(by_key), name=name, period=period, start__gte=start)
    if until is not None:
        rows = rows.filter(start__lt=until)
    taken = Subquery(RolledUp.objects.filter(kind=kind.slug).values("last_id"))
    columns = ("device_key", "start", "low", "high", "mean", "count")
    found = list(rows.order_by().values_list(taken, *columns))
    known = {(by_key[key], moment): figures for _, key, moment, *figures in found}
    return (found[0][0] if found else before), known


def _together(one: Figures, other: Figures) -> Figures:
    """Lowest, highest, mean and number of both."""
    if not one[3] or not other[3]:
        return one if one[3] else other
    count = one[3] + other[3]
    mean = one[2] + (other[2] - one[2]) * (other[3] / count)
    return min(one[0], other[0]), max(one[1], other[1]), mean, count


def _start_of(moment: datetime, period: Rollup.Period) -> datetime:
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour if period == Rollup.Period.HOUR else _day(hour)


def _table(kind: Kind) -> str:
    return quoted(kind.reading_model._meta.db_table)
