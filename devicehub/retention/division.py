"""Division of a table of readings into partitions, in place: no row is copied.

The table becomes the first partition of a partitioned table that takes its name. The first partition holds all rows
before the next month or week. An index for the new primary key and a check of the bound are made first, while others
read and write; the division itself is one short transaction. The model does not change: only the primary key of the
table becomes (id, timestamp).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import DatabaseError, Error, connection
from django.template.defaultfilters import pluralize
from django.utils import timezone

from devicehub.db.batches import Pace
from devicehub.db.statements import as_time, execute, query, query_value, quoted
from devicehub.kinds.registry import Kind
from devicehub.retention import partition_sql, partitions
from devicehub.retention.partition_sql import NotPartitioned, alone, locked, patiently

log = structlog.get_logger(__name__)

# The bound of the first partition is at least this far ahead. No row beyond it can be stored until the division is
# done, or the remains of a killed one are cleared.
MARGIN = timedelta(days=3)
CLEARING = 10  # attempts; few, since an operator waits for the command to end


@dataclass(frozen=True)
class Plan:
    """A planned division: the approximate number of rows, and the starts of the partitions after the first one."""

    table: str
    by: str
    rows: int
    starts: tuple[datetime, ...]


def plan(kind: Kind, by: str) -> Plan:
    """Return the plan for dividing the reading table of *kind*. Raise NotPartitioned if it cannot be divided."""
    if connection.vendor != "postgresql":
        raise NotPartitioned("Partitions need PostgreSQL; this database is SQLite")
    if kind.history_model is None:
        raise NotPartitioned(f"{kind.slug} has no table of readings")
    table = kind.history_model._meta.db_table
    if query("SELECT 1 FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'p'", [quoted(table)]):
        raise NotPartitioned(f"{table} is partitioned already")
    for what, names in partition_sql.obstacles(table):
        raise NotPartitioned(
            f"{table} has {what}, which would be lost: {', '.join(names)}. Remove them first"
        )
    if query_value("SELECT to_regclass(%s)", [quoted(_first(table))]) is not None:
        raise NotPartitioned(f"There is another table {_first(table)} already: rename it first")
    starts = _starts(by)
    statement = f"SELECT count(*) FROM {quoted(table)} WHERE timestamp >= %s"
    if late := query_value(statement, [as_time(starts[0])]):
        raise NotPartitioned(
            f"{table} has {late} row{pluralize(late)} with a time from {starts[0]:%Y-%m-%d} on: correct or delete"
            f" {pluralize(late, 'it,them')} first"
        )
    rows = query_value(
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = %s::regclass", [quoted(table)]
    )
    return Plan(table, by, rows, starts)


def _starts(by: str) -> tuple[datetime, ...]:
    now = timezone.now()
    start, starts = partitions.next_period(partitions.period_of(now + MARGIN, by), by), []
    while start < partitions.end_ahead(now, by):
        starts.append(start)
        start = partitions.next_period(start, by)
    return tuple(starts)


def convert(made: Plan, pace: Pace) -> None:
    """Carry out a plan. Raise batches.Stopped or a database error; then the table is unchanged."""
    with alone(made.table) as free:
        if not free:
            raise NotPartitioned(f"Another process is dividing {made.table} already")
        patiently(lambda: partition_sql.clear(made.table))  # A killed division may have left its index.
        try:
            with partition_sql.cancelled_by(pace.stop):
                _prepare(made)
            pace.check()
            patiently(lambda: _divide(made))
        except BaseException:
            _clear_if_free(made.table)
            raise
    try:
        execute(f"ANALYZE {quoted(made.table)}")
    except DatabaseError as error:  # The table is divided, and autovacuum will analyze it.
        log.warning("partitions.not_analyzed", table=made.table, error=str(error))


def _clear_if_free(table: str) -> None:
    """Remove the new index and check. If a lock prevents it for seconds, leave it to processes that add partitions."""
    try:
        patiently(lambda: partition_sql.clear(table), attempts=CLEARING)
    except Error as error:
        log.warning("partitions.leftovers", table=table, error=str(error))


def _prepare(made: Plan) -> None:
    """Do the long steps, while others read and write: the index of the new key, and the check of the bound.

    Because of the check, the table can become a partition without a scan of its rows.
    """
    table, end = quoted(made.table), made.starts[0]
    execute(
        f"CREATE UNIQUE INDEX CONCURRENTLY {quoted(partition_sql.new_key(made.table))} ON {table} (id, timestamp)"
    )
    if timezone.now() > end - MARGIN / 2:
        raise NotPartitioned("The index took so long that a new period begins soon: run it again")
    patiently(lambda: _bound(table, end))
    execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {partition_sql.BOUND}")


def _bound(table: str, end: datetime) -> None:
    with locked(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
        check = f"CHECK (timestamp < '{end.isoformat()}') NOT VALID"
        execute(f"ALTER TABLE {table} ADD CONSTRAINT {partition_sql.BOUND} {check}")


def _divide(made: Plan) -> None:
    """Make the table the first partition of a new table, which takes its name and its indexes, keys and grants."""
    table, first = made.table, _first(made.table)
    new, old = quoted(table), quoted(first)
    with locked(f"LOCK TABLE {new} IN ACCESS EXCLUSIVE MODE"):
        keys = partition_sql.foreign_keys(table)
        for *_, referenced in keys:  # After the table itself: ingest locks them in this order.
            execute(f"LOCK TABLE {referenced} IN SHARE ROW EXCLUSIVE MODE")
        primary, sequence, last_id = partition_sql.primary_key(table)
        indexes = [
            index for index in partition_sql.indexes(table) if index[0] != partition_sql.new_key(table)
        ]
        execute(f"ALTER TABLE {new} RENAME TO {old}")
        execute(f"ALTER TABLE {old} DROP CONSTRAINT {quoted(primary)}")
        execute(
            f"ALTER TABLE {old} ADD CONSTRAINT {quoted(_of_first(primary))}"
            f" PRIMARY KEY USING INDEX {quoted(partition_sql.new_key(table))}"
        )
        execute(f"ALTER TABLE {old} ALTER COLUMN id DROP IDENTITY IF EXISTS")
        execute(f"DROP SEQUENCE IF EXISTS {quoted(sequence)} CASCADE")
        execute(
            f"CREATE TABLE {new} (LIKE {old} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED"
            " INCLUDING STORAGE INCLUDING COMMENTS) PARTITION BY RANGE (timestamp)"
        )
        execute(f"ALTER TABLE {new} DROP CONSTRAINT {partition_sql.BOUND}")
        # A sequence and not an identity column: partitions support those only since PostgreSQL 17.
        execute(f"CREATE SEQUENCE {quoted(sequence)} AS bigint OWNED BY {new}.id")
        query("SELECT setval(%s::regclass, %s, %s)", [quoted(sequence), *last_id])
        execute(f"ALTER TABLE {new} ALTER COLUMN id SET DEFAULT nextval('{quoted(sequence)}')")
        execute(f"ALTER TABLE {new} ADD CONSTRAINT {quoted(primary)} PRIMARY KEY (id, timestamp)")
        for name, definition in indexes:
            execute(f"ALTER INDEX {quoted(name)} RENAME TO {quoted(_of_first(name))}")
            execute(definition)
        for name, definition, _ in keys:
            execute(f"ALTER TABLE {new} ADD CONSTRAINT {quoted(name)} {definition}")
        partition_sql.move_comment(first, table)
        partition_sql.copy_owner(table, first)
        partition_sql.copy_grants(table, sequence, first)
        execute(f"ALTER TABLE {new} ATTACH PARTITION {old} {partitions.between(None, made.starts[0])}")
        execute(f"ALTER TABLE {old} DROP CONSTRAINT {partition_sql.BOUND}")
        for start in made.starts:
            bounds = partitions.between(start, partitions.next_period(start, made.by))
            _create(partitions.name_of(table, start), f"{new} {bounds}", first)
        _create(partitions.name_of(table, None), f"{new} DEFAULT", first)


def _create(name: str, of: str, like: str) -> None:
    execute(f"CREATE TABLE {quoted(name)} PARTITION OF {of}")
    partition_sql.own_like(name, like)


def _first(table: str) -> str:
    return f"{table[:50]}_first"


def _of_first(name: str) -> str:
    """Return the new name of an index of the first partition: the index of the new table takes the old name."""
    return f"partition_{hashlib.sha256(name.encode()).hexdigest()[:40]}"
