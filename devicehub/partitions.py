"""The readings of a type in native range partitions of PostgreSQL, one for each month or week of UTC.

The model stays as it is: only the primary key of the table becomes (id, timestamp). The partitioned table is
built beside the old one. From then on a trigger mirrors every change of a row, while what was there before is
copied in batches, its rows locked in share mode, so that a change waits for the copy and then finds it. Nothing
that is committed meanwhile is missing when the tables are swapped, under a lock of milliseconds.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import OperationalError, connection, transaction
from django.utils import timezone

from devicehub.batches import Pace, quoted
from devicehub.registry import Kind

AHEAD = 3  # periods after the present one that have a partition already
MOST = 400  # partitions; what is older than that goes into the one for the rest
LOCK_MS = 250  # waited for a lock at most: everybody else queues behind who waits
ATTEMPTS = 60
BUSY = frozenset({"55P03", "40P01"})  # lock not available, deadlock


class NotPartitioned(Exception):
    """Why the table cannot be converted, in a sentence."""


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
        return f"{self.table[:45]}_partitioned"


def partitions_of(table: str) -> list[Partition]:
    """The partitions of *table*, the one of the rest last; empty where it has none, and on SQLite."""
    if connection.vendor != "postgresql":
        return []
    found = []
    for name, bounds in _ask(
        "SELECT child.relname, pg_get_expr(child.relpartbound, child.oid) FROM pg_inherits"
        " JOIN pg_class AS child ON child.oid = inhrelid WHERE inhparent = to_regclass(%s)",
        [quoted(table)],
    ):
        times = re.findall(r"\('([^']+)'\)", bounds)
        start, end = (datetime.fromisoformat(t).astimezone(UTC) for t in times) if times else (None, None)
        found.append(Partition(name, start, end))
    return sorted(found, key=lambda one: (one.start is None, one.start or datetime.min.replace(tzinfo=UTC)))


def plan(kind: Kind, by: str) -> Plan:
    """How the reading table of *kind* would be converted. Raises NotPartitioned."""
    if connection.vendor != "postgresql":
        raise NotPartitioned("Partitions need PostgreSQL; this database is SQLite")
    table = kind.reading_model._meta.db_table
    if _ask("SELECT 1 FROM pg_class WHERE oid = to_regclass(%s) AND relkind = 'p'", [quoted(table)]):
        raise NotPartitioned(f"{table} is partitioned already")
    for what, names in _obstacles(table):
        raise NotPartitioned(f"{table} has {what}, which would be lost: {', '.join(names)}")
    [(rows,)] = _ask(
        "SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = %s::regclass", [quoted(table)]
    )
    [(oldest,)] = _ask(f"SELECT min(timestamp) FROM {quoted(table)}")  # noqa: S608
    end = _ahead(timezone.now(), by)
    starts, start = [], _period(min(oldest or timezone.now(), timezone.now()), by)
    while start < end:
        starts.append(start)
        start = _next(start, by)
    return Plan(table, by, rows, starts[-MOST:])


def convert(made: Plan, pace: Pace) -> None:
    """Do what plan() said. Raises batches.Stopped and database errors, and then all is as it was before."""
    [(alone,)] = _ask("SELECT pg_try_advisory_lock(hashtext(%s))", [made.beside])
    if not alone:
        raise NotPartitioned(f"Somebody converts {made.table} already")
    try:
        _clear(made)  # what a conversion that was killed left behind
        _patiently(lambda: _build(made))
        _patiently(lambda: _mirror(made))
        _copy(made, pace)
        _patiently(lambda: _swap(made))
    except BaseException:
        _patiently(lambda: _clear(made))
        raise
    finally:
        _ask("SELECT pg_advisory_unlock(hashtext(%s))", [made.beside])
    _do(f"ANALYZE {quoted(made.table)}")


def extend(kind: Kind) -> int:
    """Make the partitions of the periods to come; how many were made. Rows that wait in the rest move there."""
    table = kind.reading_model._meta.db_table
    bounds = [(one.start, one.end) for one in partitions_of(table) if one.start and one.end]
    if not bounds:
        return 0
    (begin, start), made = bounds[-1], 0
    by = "week" if start - begin == timedelta(days=7) else "month"
    while start < _ahead(timezone.now(), by):
        begin, end = start, _next(start, by)
        _patiently(lambda begin=begin, end=end: _attach(table, begin, end))  # type: ignore[misc]
        start, made = end, made + 1
    return made


def drop_before(kind: Kind, before: datetime, taken_in: int | None, pace: Pace) -> int:
    """Drop the partitions that end by *before*; how many. One with a row above the id *taken_in* stays."""
    table, dropped = kind.reading_model._meta.db_table, 0
    for one in partitions_of(table):
        if one.end is not None and one.end <= before and not _has_newer(one.name, taken_in):
            pace.check()
            dropped += _patiently(lambda one=one: _drop(table, one.name, taken_in))  # type: ignore[misc]
    return dropped


def _drop(table: str, name: str, taken_in: int | None) -> bool:
    with _locked(f"LOCK TABLE ONLY {quoted(table)}, {quoted(name)} IN ACCESS EXCLUSIVE MODE"):
        if _has_newer(name, taken_in):
            return False
        _do(f"DROP TABLE {quoted(name)}")
    return True


def _has_newer(name: str, taken_in: int | None) -> bool:
    if taken_in is None:
        return False
    return bool(_ask(f"SELECT 1 FROM {quoted(name)} WHERE id > %s LIMIT 1", [taken_in]))  # noqa: S608


def _attach(table: str, start: datetime, end: datetime) -> None:
    name, rest = _name(table, start), quoted(_name(table, None))
    with _locked(f"LOCK TABLE {rest} IN ACCESS EXCLUSIVE MODE"):
        _do(f"CREATE TABLE {quoted(name)} (LIKE {quoted(table)} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        _do(
            f"WITH moved AS (DELETE FROM {rest} WHERE timestamp >= %s AND timestamp < %s RETURNING *)"  # noqa: S608
            f" INSERT INTO {quoted(name)} SELECT * FROM moved",
            [start, end],
        )
        bounds = f"FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
        _do(f"ALTER TABLE {quoted(table)} ATTACH PARTITION {quoted(name)} FOR VALUES {bounds}")


def _obstacles(table: str) -> Iterator[tuple[str, list[str]]]:
    """What belongs to the table and would not survive."""
    for what, question in _OBSTACLES.items():
        names = [name for (name,) in _ask(question, {"table": quoted(table)})]
        if names:
            yield what, names


_OBSTACLES = {
    "foreign keys of other tables": (
        "SELECT conrelid::regclass::text FROM pg_constraint WHERE confrelid = %(table)s::regclass"
    ),
    "views": (
        "SELECT DISTINCT ev_class::regclass::text FROM pg_depend JOIN pg_rewrite ON pg_rewrite.oid = objid"
        " WHERE classid = 'pg_rewrite'::regclass AND refobjid = %(table)s::regclass"
    ),
    "triggers": (
        "SELECT tgname FROM pg_trigger WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal"
        " AND tgname NOT IN ('mirror', 'mirror_truncate')"
    ),
    "policies": "SELECT polname FROM pg_policy WHERE polrelid = %(table)s::regclass",
    "unique indexes without the timestamp": (
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND"
        " attname = 'timestamp' WHERE indrelid = %(table)s::regclass AND indisunique AND NOT indisprimary"
        " AND NOT attnum = ANY (indkey)"
    ),
    "tables that inherit": (
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE %(table)s::regclass IN (inhparent, inhrelid)"
    ),
}


def _build(made: Plan) -> None:
    """The partitioned table, empty and complete: whoever fills it fills its indexes and is checked."""
    old, new, sequence = quoted(made.table), quoted(made.beside), quoted(f"{made.beside}_seq")
    with _locked(""):  # the foreign key locks the table of devices against writers, for a moment
        _do(
            f"CREATE TABLE {new} (LIKE {old} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED"
            " INCLUDING STORAGE INCLUDING COMMENTS) PARTITION BY RANGE (timestamp)"
        )
        # A sequence and no identity: partitions have had one only since PostgreSQL 17.
        _do(f"CREATE SEQUENCE {sequence} AS bigint OWNED BY {new}.id")
        _do(f"ALTER TABLE {new} ALTER COLUMN id SET DEFAULT nextval('{sequence}')")
        _do(f"ALTER TABLE {new} ADD PRIMARY KEY (id, timestamp)")
        for start in made.starts:
            bounds = f"FROM ('{start.isoformat()}') TO ('{_next(start, made.by).isoformat()}')"
            _do(f"CREATE TABLE {quoted(_name(made.table, start))} PARTITION OF {new} FOR VALUES {bounds}")
        _do(f"CREATE TABLE {quoted(_name(made.table, None))} PARTITION OF {new} DEFAULT")
        for name, definition in _indexes(made.table):
            _do(
                f"{re.sub(r' ON .*? USING ', f' ON {new} USING ', definition, count=1)}".replace(
                    f" {name} ON ", f" {quoted(_beside(name))} ON ", 1
                )
            )
        for name, definition in _ask(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conrelid = %s::regclass AND contype = 'f'",
            [old],
        ):
            _do(f"ALTER TABLE {new} ADD CONSTRAINT {quoted(name)} {definition}")
        for role, privilege, option in _ask(
            "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type, is_grantable"
            " FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = %s::regclass",
            [old],
        ):
            _do(f"GRANT {privilege} ON {new} TO {role}{' WITH GRANT OPTION' if option else ''}")


def _indexes(table: str) -> list[tuple[str, str]]:
    """The indexes of *table* but the primary key's, as name (quoted where that is needed) and statement."""
    return _ask(
        "SELECT quote_ident(relname), pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid"
        " WHERE indrelid = %s::regclass AND NOT indisprimary ORDER BY relname",
        [quoted(table)],
    )


def _mirror(made: Plan) -> None:
    """From here on every change of the old table is one of the new table as well."""
    new, function = quoted(made.beside), quoted(f"{made.beside}_mirror")
    columns = _columns(made.table)
    names, values = ", ".join(columns), ", ".join(f"NEW.{column}" for column in columns)
    body = (
        "BEGIN IF TG_OP = 'TRUNCATE' THEN"  # noqa: S608
        f" TRUNCATE {new}; RETURN NULL; END IF;"
        f" IF TG_OP <> 'INSERT' THEN DELETE FROM {new} WHERE id = OLD.id AND timestamp = OLD.timestamp;"
        # Not copied yet: it will be, as it is then.
        " IF TG_OP = 'DELETE' OR NOT FOUND THEN RETURN NULL; END IF; END IF;"
        f" INSERT INTO {new} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING; RETURN NULL; END"
    )
    with _locked(f"LOCK TABLE {quoted(made.table)} IN SHARE ROW EXCLUSIVE MODE"):
        _do(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        for name, event, level in (
            ("mirror", "INSERT OR UPDATE OR DELETE", "ROW"),
            ("mirror_truncate", "TRUNCATE", "STATEMENT"),
        ):
            _do(
                f"CREATE TRIGGER {name} AFTER {event} ON {quoted(made.table)}"
                f" FOR EACH {level} EXECUTE FUNCTION {function}()"
            )
            _do(f"ALTER TABLE {quoted(made.table)} ENABLE ALWAYS TRIGGER {name}")


def _copy(made: Plan, pace: Pace) -> None:
    old, names = quoted(made.table), ", ".join(_columns(made.table))
    [(last,)] = _ask(f"SELECT max(id) FROM {old}")  # noqa: S608
    after = 0
    while last is not None and after < last:
        [(until,)] = _ask(
            f"SELECT max(id) FROM (SELECT id FROM {old} WHERE id > %s ORDER BY id LIMIT %s) AS coming",  # noqa: S608
            [after, pace.rows],
        )
        if until is None:
            break
        pace.execute(
            f"INSERT INTO {quoted(made.beside)} ({names}) SELECT {names} FROM {old}"  # noqa: S608
            " WHERE id > %s AND id <= %s FOR SHARE ON CONFLICT DO NOTHING",
            [after, until],
        )
        after = until


def _swap(made: Plan) -> None:
    """The new table takes the place and the names of the old one."""
    old, new, function = quoted(made.table), quoted(made.beside), quoted(f"{made.beside}_mirror")
    with _locked(f"LOCK TABLE {old} IN ACCESS EXCLUSIVE MODE"):
        [(sequence, primary)] = _ask(
            "SELECT (SELECT relname FROM pg_class WHERE oid = pg_get_serial_sequence(%s, 'id')::regclass),"
            " (SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p')",
            [old, old],
        )
        names = [name for name, _ in _indexes(made.table)]
        _ask(
            f"SELECT setval(%s::regclass, last_value, is_called) FROM {quoted(sequence)}",  # noqa: S608
            [quoted(f"{made.beside}_seq")],
        )
        _do(f"DROP TABLE {old}")
        _do(f"DROP FUNCTION {function}()")
        _do(f"ALTER TABLE {new} RENAME TO {old}")
        _do(f"ALTER SEQUENCE {quoted(f'{made.beside}_seq')} RENAME TO {quoted(sequence)}")
        _do(f"ALTER INDEX {quoted(f'{made.beside}_pkey')} RENAME TO {quoted(primary)}")
        for name in names:
            _do(f"ALTER INDEX {quoted(_beside(name))} RENAME TO {name}")


def _clear(made: Plan) -> None:
    """Take away the table beside, with its triggers on the old one, if there are any."""
    with _locked(""):
        _do(f"DROP FUNCTION IF EXISTS {quoted(f'{made.beside}_mirror')}() CASCADE")
        _do(f"DROP TABLE IF EXISTS {quoted(made.beside)}")


def _columns(table: str) -> list[str]:
    return [
        quoted(name)
        for (name,) in _ask(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' ORDER BY attnum",
            [quoted(table)],
        )
    ]


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


def _patiently(action: Callable[[], Any]) -> Any:
    """*action*, again and again while somebody holds a lock that it needs."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except OperationalError as error:
            if attempt == ATTEMPTS or getattr(error.__cause__, "sqlstate", None) not in BUSY:
                raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - nothing to guess
    raise AssertionError("unreachable")


@contextmanager
def _locked(lock: str) -> Iterator[None]:
    """A transaction with *lock*, in which no lock is waited for longer than LOCK_MS."""
    with transaction.atomic():
        _do(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'")
        if lock:
            _do(lock)
        yield


def _do(statement: str, parameters: list[Any] | None = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def _ask(statement: str, parameters: list[Any] | dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())
