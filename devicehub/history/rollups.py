"""Rollups: lowest, highest, mean and number of each numeric reading, by hour and by day of UTC.

The values of a narrow table are rolled up by the name in their row.

Each row is rolled up once, in the order of ids, up to an id below which no further row can appear. It is added to its
hour and its day. So late and unordered data count where they belong, even if the rows of that hour were pruned long
ago, and the cost depends on the new rows only.
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
from devicehub.history.rollup_sql import LARGEST, Bucket, Figures, Part, Source, dialect
from devicehub.kinds.declare import NUMBERS
from devicehub.kinds.registry import Kind, registry
from devicehub.models import RolledUp, Rollup

log = structlog.get_logger(__name__)

STEP = 2_000  # rows of the first step
FEW, MANY = 500, 50_000  # least and most rows of a later step, which depends on the time of the step before
SHORT = 0.1  # seconds; the writing of a step should not take longer, since it blocks other writers on SQLite
REST = 1  # The pause after a step is this many times as long as the step.
SETTLE_SECONDS = 2.0  # seconds to wait for open transactions whose rows may still appear
PERIODS = {Rollup.Period.HOUR: timedelta(hours=1), Rollup.Period.DAY: timedelta(days=1)}


class Late(NamedTuple):
    """The number that a row, by its id, has now and had not when it was stored."""

    row: int
    device: int
    name: str
    timestamp: datetime
    number: float


class Shown(NamedTuple):
    """One bucket of a device for a chart."""

    device: int
    start: datetime
    low: float
    mean: float
    high: float


def source(kind: Kind) -> Source | None:
    """Return the table of *kind* that is rolled up; None if it has no column of numbers."""
    if kind.reading_model is not None:
        names = [name for name, reading in kind.readings.items() if reading.type in NUMBERS]
        return Source(_table(kind), names) if names else None
    if kind.narrow is None:
        return None
    return Source(_table(kind), [kind.narrow.value_column], kind.narrow.name_column)


def roll_up(limit: int = 50_000, kinds: Iterable[Kind] | None = None, pace: Pace | None = None) -> int:
    """Roll up at most *limit* new rows of each kind; return how many. 0 means that all rows are rolled up.

    Any number of processes may call it at once, and it may be killed at any moment. With a *pace* it pauses after
    each step, and raises Stopped between two steps.
    """
    return sum(_roll_up(kind, limit, pace) for kind in (registry if kinds is None else kinds))


def _roll_up(kind: Kind, limit: int, pace: Pace | None) -> int:
    rows_of = source(kind)
    if rows_of is None:
        return 0
    _begin_anew(kind)
    count, settled, most = 0, -1, STEP
    while count < limit:
        if pace is not None:
            pace.check()
        began = time.monotonic()
        state, _ = RolledUp.objects.get_or_create(kind=kind.slug)
        if settled < 0:
            settled = _settled(kind, state.last_id)
        rows = dialect().next_rows(rows_of.table, state.last_id, settled, min(most, limit - count))
        if not rows.number:
            break
        try:
            # Outside a transaction, since it takes most of the time, and would block every writer on SQLite.
            hours = dialect().hours(rows_of, state.last_id, rows.last_id)
            read = time.monotonic()
            done = _write(kind, state.last_id, rows.last_id, hours)
        except (DataError, IntegrityError) as error:
            # One row must not block the others: the steps are halved until the row is found that cannot be added.
            if rows.number > 1:
                most = rows.number // 2
                continue
            log.warning("rollups.row_left_out", kind=kind.slug, row=rows.last_id, error=type(error).__name__)
            read = time.monotonic()
            done = _write(kind, state.last_id, rows.last_id, [])
        ended = time.monotonic()
        most = _next_step(most, ended - read)
        if done:
            count += rows.number
        if pace is not None:
            pace.rest(REST * (ended - began))
    return count


def _next_step(most: int, seconds: float) -> int:
    """Return the number of rows of the next step, if writing *most* rows took *seconds*.

    The times differ: many rows of the same hours become a few rollups, one row of a slow device becomes several.
    """
    if seconds > SHORT:
        return max(most // 2, min(most, FEW))
    return min(most * 2, MANY) if seconds < SHORT / 3 else most


def _begin_anew(kind: Kind) -> None:
    """Start again from the first row, if the last id of the table is below the last one that was rolled up.

    That happens when a table was truncated, created anew or restored. Some of its rows may have counted before: a row
    that counts twice is better than a row that does not count.
    """
    if dialect().last_id(_table(kind))[0] >= last_rolled_up(kind):
        return
    with transaction.atomic():
        state = lock(kind)
        last, _ = dialect().last_id(_table(kind))
        if last < state.last_id:
            log.warning("rollups.ids_began_anew", kind=kind.slug, last_rolled_up=state.last_id, last_id=last)
            RolledUp.objects.filter(kind=kind.slug).update(last_id=0)


def _settled(kind: Kind, rolled_up: int) -> int:
    """Return the highest id up to which no further row can appear; *rolled_up* if that cannot be determined now.

    PostgreSQL assigns ids before their rows are committed. A transaction that took an id holds a lock on the sequence
    until it ends. So once the transactions that held it when the last id was read have ended, all lower ids exist.
    """
    last, writers = dialect().last_id(_table(kind))
    if last <= rolled_up:
        return rolled_up
    end = time.monotonic() + SETTLE_SECONDS
    while writers and writers & dialect().last_id(_table(kind))[1]:
        if time.monotonic() > end:
            log.warning("rollups.wait_for_a_transaction", kind=kind.slug, rows_above=rolled_up)
            return rolled_up
        time.sleep(0.02)
    return last


def _write(kind: Kind, after: int, until: int, hours: list[Bucket]) -> bool:
    """Add *hours* of the rows above *after*; return False if another process rolled these up meanwhile."""
    with transaction.atomic():
        state = lock(kind)
        if state.last_id != after:
            return False
        _add(kind, state, hours)
        RolledUp.objects.filter(kind=kind.slug).update(last_id=until)
    return True


def _add(kind: Kind, state: RolledUp, hours: list[Bucket]) -> None:
    """Add *hours*, and the days that they are in."""
    keys = _keys(kind, {hour.device for hour in hours})
    kept = [hour for hour in hours if state.hours_from is None or hour.start >= state.hours_from]
    dialect().add(list(_parts(kept, keys, Rollup.Period.HOUR)))
    dialect().add(list(_parts(_by_day(hours), keys, Rollup.Period.DAY)))


def reach(kind: Kind, row: int, pace: Pace | None = None) -> None:
    """Roll up the rows of *kind* up to the id *row*, unless an open transaction prevents it. Raise Stopped."""
    while last_rolled_up(kind) < row and roll_up(kinds=[kind], pace=pace):
        pass


def add_late(kind: Kind, values: Iterable[Late]) -> None:
    """Add the numbers that rows got after they were rolled up; call it in the transaction that changes the rows.

    Rows that are not rolled up yet are left out, since they will be rolled up with their numbers: reach() them before.
    """
    state, hours = lock(kind), dict[tuple[int, datetime], Bucket]()
    for one in values:
        if one.row <= state.last_id and abs(one.number) <= float(LARGEST):
            at = one.device, start_of(one.timestamp, Rollup.Period.HOUR)
            figures = hours.setdefault(at, Bucket(*at, {})).figures
            own = (one.number, one.number, one.number, 1)
            figures[one.name] = together(figures[one.name], own) if one.name in figures else own
    if hours:
        _add(kind, state, list(hours.values()))


def lock(kind: Kind) -> RolledUp:
    """Return the state of *kind*, locked until this transaction ends."""
    RolledUp.objects.get_or_create(kind=kind.slug)
    return RolledUp.objects.select_for_update().get(kind=kind.slug)


def _keys(kind: Kind, pks: Collection[int]) -> dict[int, str]:
    """Return the keys of those devices that still exist; the figures of deleted devices are dropped."""
    rows = kind.device_model.objects.order_by().values_list("pk", "device_id")
    found = (pair for some in batched(pks, 500) for pair in rows.filter(pk__in=some))
    return {pk: kind.key(device_id) for pk, device_id in found}


def _parts(buckets: Iterable[Bucket], keys: Mapping[int, str], period: Rollup.Period) -> Iterable[Part]:
    for bucket in buckets:
        if bucket.device not in keys:
            continue
        for name, (low, high, mean, count) in bucket.figures.items():
            yield keys[bucket.device], name, period.value, bucket.start, low, high, mean, count


def _by_day(hours: Iterable[Bucket]) -> list[Bucket]:
    """Return *hours* merged into days, so that each row of a day is written once."""
    found: dict[tuple[int, datetime], Bucket] = {}
    for hour in hours:
        at = hour.device, _day(hour.start)
        day = found.setdefault(at, Bucket(*at, {})).figures
        for name, figures in hour.figures.items():
            day[name] = together(day[name], figures) if name in day else figures
    return list(found.values())


def _day(moment: datetime) -> datetime:
    return moment.replace(hour=0)


def last_rolled_up(kind: Kind) -> int:
    """Return the id up to which rows are rolled up, and may be deleted."""
    state = RolledUp.objects.filter(kind=kind.slug).first()
    return state.last_id if state else 0


def set_hours_from(kind: Kind, before: datetime) -> None:
    """Record that hours before this midnight are deleted: later rows of that time count in their day only."""
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
    """Return the buckets of reading *name* of *devices* (ids by primary key) from the one that contains *since*.

    Buckets that begin at *until* or later are left out. They are complete up to now: rows that are not rolled up yet
    are added from their table.
    """
    rows_of, start = source(kind), start_of(since, period)
    if rows_of is None:
        return []
    rolled_up, found = _stored(kind, devices, name, period, start, until)
    # Rows that are rolled up from now on stay in their table too.
    fresh = dialect().fresh(rows_of, name, list(devices), rolled_up, as_time(start), period.value)
    for device, moment, low, high, mean, count in fresh:
        if until is not None and moment >= until:
            continue
        old = found.get((device, moment))
        found[device, moment] = together(old, (low, high, mean, count)) if old else (low, high, mean, count)
    return [
        Shown(device, moment, low, mean, high)
        for (device, moment), (low, high, mean, _) in sorted(found.items(), key=lambda item: item[0][::-1])
    ]


def _stored(
    kind: Kind,
    devices: Mapping[int, str],
    name: str,
    period: Rollup.Period,
    start: datetime,
    until: datetime | None,
) -> tuple[int, dict[tuple[int, datetime], Figures]]:
    """Return the id up to which rows are rolled up, and the rollups.

    One statement reads both, since more rows may be rolled up between two statements.
    """
    by_key = {kind.key(device_id): pk for pk, device_id in devices.items()}
    before = last_rolled_up(kind)  # Used if there are no rollups: then no row up to it counts in one.
    rows = Rollup.objects.filter(device_key__in=list(by_key), name=name, period=period, start__gte=start)
    if until is not None:
        rows = rows.filter(start__lt=until)
    last_id = Subquery(RolledUp.objects.filter(kind=kind.slug).values("last_id"))
    columns = ("device_key", "start", "low", "high", "mean", "count")
    found = list(rows.order_by().values_list(last_id, *columns))
    stored = {(by_key[key], moment): figures for _, key, moment, *figures in found}
    return (found[0][0] if found else before), stored


def together(one: Figures, other: Figures) -> Figures:
    """Return lowest, highest, mean and number of both together."""
    count = one[3] + other[3]
    mean = one[2] + (other[2] - one[2]) * (other[3] / count)
    return min(one[0], other[0]), max(one[1], other[1]), mean, count


def start_of(moment: datetime, period: Rollup.Period) -> datetime:
    """Return the beginning of the hour or day that *moment* is in."""
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour if period == Rollup.Period.HOUR else _day(hour)


def _table(kind: Kind) -> str:
    return quoted(kind.history_model._meta.db_table)
