"""Native range partitions of readings on PostgreSQL: create those of the next periods, and drop old ones.

A table has a first partition for the rows from before its division, one partition for each later month or week of
UTC, and one for the rest. `division` divides the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from django.db import DatabaseError, connection
from django.utils import timezone

from devicehub.db.batches import Pace
from devicehub.db.statements import as_time, execute, query, quoted
from devicehub.kinds.registry import Kind, registry
from devicehub.retention import partition_sql
from devicehub.retention.partition_sql import alone, locked, patiently

log = structlog.get_logger(__name__)

AHEAD = 3  # This many periods after the current one have a partition.


class Partition(NamedTuple):
    """A partition and its bounds. The first one has no start, the one for the rest has neither start nor end."""

    name: str
    start: datetime | None
    end: datetime | None


def partitions_of(table: str) -> list[Partition]:
    """Return the partitions of *table*, with the one for the rest last; empty if it is not divided, and on SQLite."""
    return _catalogue([table])[table][0] if connection.vendor == "postgresql" else []


def _catalogue(tables: list[str]) -> dict[str, tuple[list[Partition], bool]]:
    """Return for each table its partitions, and whether a killed division left an index behind."""
    found: dict[str, tuple[list[Partition], bool]] = {}
    for table, left, name, bounds in query(
        "SELECT wanted, to_regclass(quote_ident(made)) IS NOT NULL,"
        " child.relname, pg_get_expr(child.relpartbound, child.oid)"
        " FROM unnest(%s::text[], %s::text[]) AS tables (wanted, made)"
        " LEFT JOIN pg_inherits ON inhparent = to_regclass(quote_ident(wanted))"
        " LEFT JOIN pg_class AS child ON child.oid = inhrelid",
        [tables, [partition_sql.new_key(table) for table in tables]],
    ):
        parts, _ = found.setdefault(table, ([], left))
        if bounds is not None:
            parts.append(Partition(name, *_bounds(bounds)))
    for parts, _ in found.values():
        parts.sort(key=lambda one: (one.end is None, one.end))
    return found


def _bounds(text: str) -> tuple[datetime | None, datetime | None]:
    """Return the bounds of a partition from the text that PostgreSQL writes.

    >>> _bounds("FOR VALUES FROM (MINVALUE) TO ('2026-02-01 00:00:00+00')")
    (None, datetime.datetime(2026, 2, 1, 0, 0, tzinfo=datetime.timezone.utc))
    >>> _bounds("DEFAULT")
    (None, None)
    """
    times = [datetime.fromisoformat(time).astimezone(UTC) for time in re.findall(r"\('([^']+)'\)", text)]
    return (times[0] if len(times) == 2 else None), (times[-1] if times else None)


def extend_all(pace: Pace | None = None, kinds: Iterable[Kind] | None = None) -> int:
    """Create the partitions of the next periods, for all kinds; return how many were created.

    If there is nothing to do, it takes one query. Remains of a killed division are removed. A table that cannot be
    extended is logged. Raise Stopped.
    """
    if connection.vendor != "postgresql":
        return 0
    chosen = registry if kinds is None else kinds
    tables = [kind.history_model._meta.db_table for kind in chosen if kind.history_model is not None]
    made = 0
    for table, (parts, left) in _catalogue(tables).items():
        if not left and not _missing(parts):
            continue
        try:
            with alone(table) as free:
                made += _extend(table, pace or Pace()) if free else 0
        except DatabaseError as error:
            log.exception("partitions.not_extended", table=table, error=str(error))
    return made


def extend(kind: Kind, pace: Pace | None = None) -> int:
    """Create the partitions of the next periods for one kind, as extend_all() does."""
    return extend_all(pace, [kind])


def _extend(table: str, pace: Pace) -> int:
    parts, left = _catalogue([table])[table]  # Read again, since this process holds the lock now.
    if left:
        log.warning("partitions.leftovers_cleared", table=table)
        patiently(lambda: partition_sql.clear(table))
    missing = _missing(parts)
    # The name is read from the catalogue: the partitions of a renamed table keep its earlier name.
    rest = next((one.name for one in parts if one.end is None), name_of(table, None))
    for start, end in missing:
        pace.check()
        patiently(lambda start=start, end=end: _add(table, start, end, rest))  # type: ignore[misc]
    return len(missing)


def _missing(parts: list[Partition]) -> list[tuple[datetime, datetime]]:
    """Return the bounds of missing partitions of the next periods; empty for a table without partitions."""
    bounds = [(one.start, one.end) for one in parts if one.start and one.end]
    if not bounds:
        return []
    (begin, start), found = bounds[-1], []
    by = "week" if start - begin == timedelta(days=7) else "month"
    while start < end_ahead(timezone.now(), by):
        found.append((start, next_period(start, by)))
        start = next_period(start, by)
    return found


def _add(table: str, start: datetime, end: datetime, rest: str) -> None:
    """Create a partition, and move the rows of its period from *rest* into it."""
    name = name_of(table, start)
    new, waiting, columns = quoted(name), quoted(rest), partition_sql.columns(table)
    # Writers must wait at the table itself: a row routed to the rest before the new partition would be refused there.
    with locked(f"LOCK TABLE ONLY {quoted(table)} IN SHARE ROW EXCLUSIVE MODE"):
        execute(f"LOCK TABLE {waiting} IN ACCESS EXCLUSIVE MODE")
        execute(
            f"CREATE TABLE {new} (LIKE {quoted(table)} INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
            " INCLUDING GENERATED INCLUDING STORAGE)"
        )
        execute(
            f"WITH moved AS (DELETE FROM {waiting} WHERE timestamp >= %s AND timestamp < %s RETURNING {columns})"
            f" INSERT INTO {new} ({columns}) SELECT {columns} FROM moved",
            [as_time(start), as_time(end)],
        )
        execute(f"ALTER TABLE {quoted(table)} ATTACH PARTITION {new} {between(start, end)}")
        partition_sql.own_like(name, rest)


def drop_before(kind: Kind, before: datetime, rolled_up_to: int | None, pace: Pace) -> int:
    """Drop the partitions that end by *before*; return how many. Keep one with an id above *rolled_up_to*."""
    if kind.history_model is None:
        return 0
    table, dropped = kind.history_model._meta.db_table, 0
    for one in partitions_of(table):
        if one.end is not None and one.end <= before and not _has_newer(one.name, rolled_up_to):
            pace.check()
            dropped += patiently(lambda one=one: drop(table, one.name, rolled_up_to))  # type: ignore[misc]
    return dropped


def drop(table: str, name: str, rolled_up_to: int | None) -> bool:
    """Drop partition *name* of *table* unless it has an id above *rolled_up_to*; return whether it was dropped."""
    with locked(f"LOCK TABLE ONLY {quoted(table)}, {quoted(name)} IN ACCESS EXCLUSIVE MODE"):
        if _has_newer(name, rolled_up_to):
            return False
        execute(f"DROP TABLE {quoted(name)}")
    return True


def _has_newer(name: str, rolled_up_to: int | None) -> bool:
    if rolled_up_to is None:
        return False
    return bool(query(f"SELECT 1 FROM {quoted(name)} WHERE id > %s LIMIT 1", [rolled_up_to]))


def between(start: datetime | None, end: datetime) -> str:
    """Return the SQL of the bounds of a partition; without *start* it has no lower bound."""
    since = "MINVALUE" if start is None else f"'{start.isoformat()}'"
    return f"FOR VALUES FROM ({since}) TO ('{end.isoformat()}')"


def name_of(table: str, start: datetime | None) -> str:
    """Return the name of the partition that begins at *start*, or of the one for the rest (None)."""
    return f"{table[:50]}_{'rest' if start is None else f'{start:%Y_%m_%d}'}"


def period_of(moment: datetime, by: str) -> datetime:
    """Return the beginning of the month or the week (its Monday) that *moment* is in."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day.replace(day=1) if by == "month" else day - timedelta(days=day.weekday())


def next_period(start: datetime, by: str) -> datetime:
    """Return the start of the period after the one that begins at *start*."""
    return start + timedelta(days=7) if by == "week" else (start + timedelta(days=32)).replace(day=1)


def end_ahead(now: datetime, by: str) -> datetime:
    """Return the time up to which there should be partitions now."""
    end = next_period(period_of(now, by), by)
    for _ in range(AHEAD):
        end = next_period(end, by)
    return end
