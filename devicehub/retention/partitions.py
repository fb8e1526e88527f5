"""The readings of a type in native range partitions of PostgreSQL, one for each month or week of UTC.

The model stays as it is: only the primary key of the table becomes (id, timestamp). The partitioned table is
built beside the old one. From then on a trigger mirrors every change of a row, while what was there before is
copied in batches, its rows locked in share mode, so that a change waits for the copy and then finds it. Nothing
that is committed meanwhile is missing when the tables are swapped, under a lock of milliseconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from django.db import DatabaseError, connection
from django.utils import timezone

from devicehub.db.batches import Pace
from devicehub.db.statements import execute, query, quoted
from devicehub.kinds.registry import Kind, registry
from devicehub.retention import partition_sql
from devicehub.retention.partition_sql import (
    NotPartitioned,
    alone,
    locked,
    own_like,
    patiently,
)

log = structlog.get_logger(__name__)

AHEAD = 3  # periods after the present one that have a partition already
MOST = 400  # partitions; what is older than that goes into the one for the rest


class Partition(NamedTuple):
    """A partition and its bounds; both None for the one that takes the rest."""

    name: str
    start: datetime | None
    end: datetime | None


@dataclass
class Plan:
    """What a conversion does."""

    table: str
    by: str
    rows: int
    starts: list[datetime] = field(default_factory=list)

    @property
    def beside(self) -> str:
        return _beside_table(self.table)


def _beside_table(table: str) -> str:
    return f"{table[:45]}_partitioned"


def partitions_of(table: str) -> list[Partition]:
    """The partitions of *table*, the one of the rest last; empty where it has none, and on SQLite."""
    return _catalogue([table])[table][0] if connection.vendor == "postgresql" else []


def _catalogue(tables: list[str]) -> dict[str, tuple[list[Partition], bool]]:
    """The partitions of each table, the one of the rest last, and whether a conversion left something behind."""
    found: dict[str, tuple[list[Partition], bool]] = {}
    for table, left, name, bounds in query(
        "SELECT wanted, coalesce(obj_description(to_regclass(quote_ident(beside)), 'pg_class') = %s, false),"
        " child.relname, pg_get_expr(child.relpartbound, child.oid)"
        " FROM unnest(%s::text[], %s::text[]) AS tables (wanted, beside)"
        " LEFT JOIN pg_inherits ON inhparent = to_regclass(quote_ident(wanted))"
        " LEFT JOIN pg_class AS child ON child.oid = inhrelid",
        [partition_sql.MARK, tables, [_beside_table(table) for table in tables]],
    ):
        parts, _ = found.setdefault(table, ([], left))
        if name is None or bounds is None:
            continue
        times = re.findall(r"\('([^']+)'\)", bounds)
        start, end = (datetime.fromisoformat(t).astimezone(UTC) for t in times) if times else (None, None)
        parts.append(Partition(name, start, end))
    for parts, _ in found.values():
        parts.sort(key=lambda one: (one.start is None, one.start or datetime.min.replace(tzinfo=UTC)))
    return found


def plan(kind: Kind, by: str) -> Plan:
    """How the reading table of *kind* would be converted. Raises NotPartitioned."""
    if connection.vendor != "postgresql":
        raise NotPartitioned("Partitions need PostgreSQL; this database is SQLite")
    if kind.reading_model is None:
        raise NotPartitioned(f"{kind.slug} has no table of readings")
    table = kind.reading_model._meta.db_table
    if query("SELECT 1 FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'p'", [quoted(table)]):
        raise NotPartitioned(f"{table} is partitioned already")
    partition_sql.refuse_foreign(_beside_table(table))
    for what, names in partition_sql.obstacles(table):
        raise NotPartitioned(f"{table} has {what}, which would be lost: {', '.join(names)}")
    [(rows,)] = query(
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = %s::regclass", [quoted(table)]
    )
    [(oldest,)] = query(f"SELECT min(timestamp) FROM {quoted(table)}")
    end = _ahead(timezone.now(), by)
    starts, start = [], _period(min(oldest or timezone.now(), timezone.now()), by)
    while start < end:
        starts.append(start)
        start = _next(start, by)
    return Plan(table, by, rows, starts[-MOST:])


def convert(made: Plan, pace: Pace) -> None:
    """Do what plan() said. Raises batches.Stopped and database errors, and then all is as it was before."""
    with alone(made.table) as free:
        if not free:
            raise NotPartitioned(f"Somebody converts {made.table} already")
        patiently(lambda: partition_sql.clear(made.beside))  # what one that was killed left behind
        try:
            patiently(lambda: _build(made))
            patiently(lambda: partition_sql.mirror(made.table, made.beside))
            partition_sql.copy(made.table, made.beside, pace)
            patiently(lambda: _swap(made))
        except BaseException:
            patiently(lambda: partition_sql.clear(made.beside))
            raise
    try:
        execute(f"ANALYZE {quoted(made.table)}")
    except DatabaseError as error:  # the table is converted, and autovacuum will do it
        log.warning("partitions.not_analyzed", table=made.table, error=str(error))


def extend_all(pace: Pace | None = None, kinds: Iterable[Kind] | None = None) -> int:
    """Make the partitions of the periods to come, of all kinds; how many were made.

    One question to the database where there is nothing to do. What a conversion or a call that was killed left
    behind goes, and rows that wait in the rest move. A table that cannot be extended is logged. Raises Stopped.
    """
    if connection.vendor != "postgresql":
        return 0
    chosen = registry if kinds is None else kinds
    tables = [kind.reading_model._meta.db_table for kind in chosen if kind.reading_model is not None]
    made = 0
    for table, (parts, left) in _catalogue(tables).items():
        if not left and not _missing(parts):
            continue
        try:
            with alone(table) as free:
                made += _extend(table, pace or Pace()) if free else 0
        except (DatabaseError, NotPartitioned) as error:
            log.exception("partitions.not_extended", table=table, error=str(error))
    return made


def extend(kind: Kind, pace: Pace | None = None) -> int:
    """extend_all() of one kind."""
    return extend_all(pace, [kind])


def _extend(table: str, pace: Pace) -> int:
    parts, left = _catalogue([table])[table]  # again, since nobody else is at it now
    if left:
        log.warning("partitions.leftovers_cleared", table=table)
        patiently(lambda: partition_sql.clear(_beside_table(table)))
    missing = _missing(parts)
    for start, end in missing:
        _attach(table, start, end, pace)
    return len(missing)


def _missing(parts: list[Partition]) -> list[tuple[datetime, datetime]]:
    """The bounds of the partitions to come that are not there; none for a table without partitions."""
    bounds = [(one.start, one.end) for one in parts if one.start and one.end]
    if not bounds:
        return []
    (begin, start), found = bounds[-1], []
    by = "week" if start - begin == timedelta(days=7) else "month"
    while start < _ahead(timezone.now(), by):
        found.append((start, _next(start, by)))
        start = _next(start, by)
    return found


def drop_before(kind: Kind, before: datetime, taken_in: int | None, pace: Pace) -> int:
    """Drop the partitions that end by *before*; how many. One with a row above the id *taken_in* stays."""
    if kind.reading_model is None:
        return 0
    table, dropped = kind.reading_model._meta.db_table, 0
    for one in partitions_of(table):
        if one.end is not None and one.end <= before and not _has_newer(one.name, taken_in):
            pace.check()
            dropped += patiently(lambda one=one: _drop(table, one.name, taken_in))  # type: ignore[misc]
    return dropped


def _drop(table: str, name: str, taken_in: int | None) -> bool:
    with locked(f"LOCK TABLE ONLY {quoted(table)}, {quoted(name)} IN ACCESS EXCLUSIVE MODE"):
        if _has_newer(name, taken_in):
            return False
        execute(f"DROP TABLE {quoted(name)}")
    return True


def _has_newer(name: str, taken_in: int | None) -> bool:
    if taken_in is None:
        return False
    return bool(query(f"SELECT 1 FROM {quoted(name)} WHERE id > %s LIMIT 1", [taken_in]))


def _attach(table: str, start: datetime, end: datetime, pace: Pace) -> None:
    """Make a partition. Rows of it that are in the rest are copied first, and stay there to be seen until then."""
    name, rest = _name(table, start), _name(table, None)
    within = f"{{row}}.timestamp >= '{start.isoformat()}' AND {{row}}.timestamp < '{end.isoformat()}'"
    patiently(lambda: partition_sql.clear(name))
    try:
        patiently(lambda: _prepare(table, name, within))
        patiently(lambda: partition_sql.mirror(rest, name, within))
        # Not told to whoever counts what the pace does: no row is gone.
        partition_sql.copy(rest, name, Pace(rows=pace.rows, stop=pace.stop), within)
        patiently(
            lambda: _take_over(table, name, within, f"('{start.isoformat()}') TO ('{end.isoformat()}')")
        )
    except BaseException:
        patiently(lambda: partition_sql.clear(name))
        raise


def _prepare(table: str, name: str, within: str) -> None:
    """A table that needs no look at its rows to become a partition."""
    new = quoted(name)
    with locked(""):
        execute(
            f"CREATE TABLE {new} (LIKE {quoted(table)} INCLUDING DEFAULTS INCLUDING CONSTRAINTS"
            " INCLUDING GENERATED INCLUDING INDEXES)"
        )
        partition_sql.mark(name)
        execute(f"ALTER TABLE {new} ADD CONSTRAINT within CHECK ({within.format(row=new)})")
        for constraint, definition in partition_sql.foreign_keys(table):
            execute(f"ALTER TABLE {new} ADD CONSTRAINT {quoted(constraint)} {definition}")
        own_like(name, _name(table, None))


def _take_over(table: str, name: str, within: str, bounds: str) -> None:
    """From now on the rows are in the partition and not in the rest."""
    new, rest = quoted(name), quoted(_name(table, None))
    # Writers wait at the table itself: the rest refuses a row that was sent there before the partition was made.
    with locked(f"LOCK TABLE ONLY {quoted(table)} IN SHARE ROW EXCLUSIVE MODE"):
        execute(f"LOCK TABLE {rest} IN ACCESS EXCLUSIVE MODE")
        execute(f"DROP FUNCTION {quoted(f'{name}_mirror')}() CASCADE")
        execute(f"DELETE FROM {rest} WHERE {within.format(row=rest)}")
        execute(f"ALTER TABLE {quoted(table)} ATTACH PARTITION {new} FOR VALUES FROM {bounds}")
        execute(f"ALTER TABLE {new} DROP CONSTRAINT within")
        execute(f"COMMENT ON TABLE {new} IS NULL")


def _build(made: Plan) -> None:
    """The partitioned table, empty and complete: whoever fills it fills its indexes and is checked."""
    old, new, sequence = quoted(made.table), quoted(made.beside), quoted(f"{made.beside}_seq")
    with locked(""):  # the foreign key locks the table of devices against writers, for a moment
        execute(
            f"CREATE TABLE {new} (LIKE {old} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED"
            " INCLUDING STORAGE INCLUDING COMMENTS) PARTITION BY RANGE (timestamp)"
        )
        partition_sql.mark(made.beside)
        # A sequence and no identity: partitions have had one only since PostgreSQL 17.
        execute(f"CREATE SEQUENCE {sequence} AS bigint OWNED BY {new}.id")
        execute(f"ALTER TABLE {new} ALTER COLUMN id SET DEFAULT nextval('{sequence}')")
        execute(f"ALTER TABLE {new} ADD PRIMARY KEY (id, timestamp)")
        for start in made.starts:
            bounds = f"FROM ('{start.isoformat()}') TO ('{_next(start, made.by).isoformat()}')"
            execute(f"CREATE TABLE {quoted(_name(made.table, start))} PARTITION OF {new} FOR VALUES {bounds}")
        execute(f"CREATE TABLE {quoted(_name(made.table, None))} PARTITION OF {new} DEFAULT")
        for name, definition in partition_sql.indexes(made.table):
            execute(
                f"{re.sub(r' ON .*? USING ', f' ON {new} USING ', definition, count=1)}".replace(
                    f" {name} ON ", f" {quoted(_beside(name))} ON ", 1
                )
            )
        for name, definition in partition_sql.foreign_keys(made.table):
            execute(f"ALTER TABLE {new} ADD CONSTRAINT {quoted(name)} {definition}")
        for role, privilege, option in query(
            "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type, is_grantable"
            " FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = %s::regclass",
            [old],
        ):
            execute(f"GRANT {privilege} ON {new} TO {role}{' WITH GRANT OPTION' if option else ''}")
        for part in [*(_name(made.table, start) for start in made.starts), _name(made.table, None)]:
            own_like(part, made.table)
        own_like(made.beside, made.table, parted=True)


def _swap(made: Plan) -> None:
    """The new table takes the place and the names of the old one."""
    old, new, function = quoted(made.table), quoted(made.beside), quoted(f"{made.beside}_mirror")
    with locked(f"LOCK TABLE {old} IN ACCESS EXCLUSIVE MODE"):
        [(sequence, primary)] = query(
            "SELECT (SELECT relname FROM pg_class WHERE oid = pg_get_serial_sequence(%s, 'id')::regclass),"
            " (SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p')",
            [old, old],
        )
        names = [name for name, _ in partition_sql.indexes(made.table)]
        query(
            f"SELECT setval(%s::regclass, last_value, is_called) FROM {quoted(sequence)}",
            [quoted(f"{made.beside}_seq")],
        )
        [(comment,)] = query("SELECT quote_nullable(obj_description(%s::regclass, 'pg_class'))", [old])
        execute(f"COMMENT ON TABLE {new} IS {comment}")
        execute(f"DROP TABLE {old}")
        execute(f"DROP FUNCTION {function}()")
        execute(f"ALTER TABLE {new} RENAME TO {old}")
        execute(f"ALTER SEQUENCE {quoted(f'{made.beside}_seq')} RENAME TO {quoted(sequence)}")
        execute(f"ALTER INDEX {quoted(f'{made.beside}_pkey')} RENAME TO {quoted(primary)}")
        for name in names:
            execute(f"ALTER INDEX {quoted(_beside(name))} RENAME TO {name}")


def _beside(index: str) -> str:
    """The name of the new index until the old one, whose name it gets, is gone."""
    return f"partition_{hashlib.sha256(index.encode()).hexdigest()[:40]}"


def _name(table: str, start: datetime | None) -> str:
    return f"{table[:50]}_{'rest' if start is None else f'{start:%Y_%m_%d}'}"


def _period(moment: datetime, by: str) -> datetime:
    """The beginning of the month or the week (its Monday) that *moment* is in."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return day.replace(day=1) if by == "month" else day - timedelta(days=day.weekday())


def _next(start: datetime, by: str) -> datetime:
    return start + timedelta(days=7) if by == "week" else (start + timedelta(days=32)).replace(day=1)


def _ahead(now: datetime, by: str) -> datetime:
    end = _next(_period(now, by), by)
    for _ in range(AHEAD):
        end = _next(end, by)
    return end
