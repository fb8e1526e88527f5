"""What a conversion to partitions does to PostgreSQL: locks, mirrors, copies, and what belongs to a table."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, transaction

from devicehub.db.batches import Pace
from devicehub.db.statements import execute, query, quoted
from devicehub.errors import DevicehubError

LOCK_MS = 250  # waited for a lock at most: everybody else queues behind who waits
ATTEMPTS = 60
BUSY = frozenset({"55P03", "40P01"})  # lock not available, deadlock
MARK = "Being filled by DeviceHub: goes when that was stopped"  # the comment of a table that is ours to drop


class NotPartitioned(DevicehubError):
    """Why the table cannot be converted, in a sentence."""


@contextmanager
def alone(table: str) -> Iterator[bool]:
    """Whether nobody else makes partitions of *table*; until the end nobody does. The lock ends with its process."""
    key = f"devicehub partitions of {table}"
    [(free,)] = query("SELECT pg_try_advisory_lock(hashtext(%s))", [key])
    try:
        yield free
    finally:
        if free:
            query("SELECT pg_advisory_unlock(hashtext(%s))", [key])


def clear(table: str) -> None:
    """Drop a table that was being filled, with its mirror, if there is one. NotPartitioned if it is not ours."""
    refuse_foreign(table)
    with locked(""):
        execute(f"DROP FUNCTION IF EXISTS {quoted(f'{table}_mirror')}() CASCADE")
        execute(f"DROP TABLE IF EXISTS {quoted(table)}")


def refuse_foreign(table: str) -> None:
    """Raise NotPartitioned where *table* exists and was not made to be filled."""
    found = query("SELECT obj_description(to_regclass(%s), 'pg_class')", [quoted(table)])
    exists = query("SELECT 1 WHERE to_regclass(%s) IS NOT NULL", [quoted(table)])
    if exists and found != [(MARK,)]:
        raise NotPartitioned(f"There is a table {table} already, which is not ours to drop: rename it")


def mark(table: str) -> None:
    execute(f"COMMENT ON TABLE {quoted(table)} IS '{MARK}'")


def mirror(old: str, new: str, within: str = "true") -> None:
    """From here on every change of *old* is one of *new* as well, of rows that are *within* (of `{row}`)."""
    function, into = quoted(f"{new}_mirror"), quoted(new)
    names = ", ".join(columns(old))
    values = ", ".join(f"NEW.{column}" for column in columns(old))
    body = (
        "BEGIN IF TG_OP = 'TRUNCATE' THEN"
        f" TRUNCATE {into}; RETURN NULL; END IF;"
        f" IF TG_OP <> 'INSERT' THEN DELETE FROM {into} WHERE id = OLD.id AND timestamp = OLD.timestamp;"
        # Not copied yet: it will be, as it is then.
        f" IF TG_OP = 'DELETE' OR (NOT FOUND AND {within.format(row='OLD')}) THEN RETURN NULL; END IF; END IF;"
        f" IF {within.format(row='NEW')} THEN"
        f" INSERT INTO {into} ({names}) VALUES ({values}) ON CONFLICT DO NOTHING; END IF; RETURN NULL; END"
    )
    with locked(f"LOCK TABLE {quoted(old)} IN SHARE ROW EXCLUSIVE MODE"):
        execute(f"CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$")
        for name, event, level in (
            ("mirror", "INSERT OR UPDATE OR DELETE", "ROW"),
            ("mirror_truncate", "TRUNCATE", "STATEMENT"),
        ):
            execute(
                f"CREATE TRIGGER {name} AFTER {event} ON {quoted(old)}"
                f" FOR EACH {level} EXECUTE FUNCTION {function}()"
            )
            execute(f"ALTER TABLE {quoted(old)} ENABLE ALWAYS TRIGGER {name}")


def copy(old: str, new: str, pace: Pace, within: str = "true") -> None:
    """Copy the rows of *old* that are *within* to *new*, which mirrors the changes since. Raises Stopped."""
    table, names = quoted(old), ", ".join(columns(old))
    wanted = within.format(row=table)
    [(first, last)] = query(f"SELECT min(id), max(id) FROM {table} WHERE {wanted}")
    after = None if first is None else first - 1
    while after is not None and after < last:
        [(until,)] = query(
            f"SELECT max(id) FROM (SELECT id FROM {table} WHERE id > %s AND {wanted}"
            " ORDER BY id LIMIT %s) AS coming",
            [after, pace.rows],
        )
        if until is None:
            break
        pace.execute(
            f"INSERT INTO {quoted(new)} ({names}) SELECT {names} FROM {table}"
            f" WHERE id > %s AND id <= %s AND {wanted} FOR SHARE ON CONFLICT DO NOTHING",
            [after, until],
        )
        after = until


def own_like(table: str, like: str, *, parted: bool = False) -> None:
    """Give *table* the owner of *like*, and its storage parameters unless it is *parted*, which has none."""
    [(owner, options, mine)] = query(
        "SELECT relowner::regrole::text, (SELECT string_agg(format('%%I = %%L', option_name, option_value), ', ')"
        " FROM pg_options_to_table(reloptions)), relowner::regrole::text = quote_ident(current_user)"
        " FROM pg_class WHERE oid = %s::regclass",
        [quoted(like)],
    )
    if options and not parted:
        execute(f"ALTER TABLE {quoted(table)} SET ({options})")
    if not mine:
        execute(f"ALTER TABLE {quoted(table)} OWNER TO {owner}")


def foreign_keys(table: str) -> list[tuple[str, str]]:
    """Name and definition of each foreign key of *table*."""
    return query(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = %s::regclass AND contype = 'f'",
        [quoted(table)],
    )


def patiently(action: Callable[[], Any]) -> Any:
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
def locked(lock: str) -> Iterator[None]:
    """A transaction with *lock*, in which no lock is waited for longer than LOCK_MS."""
    with transaction.atomic():
        execute(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'")
        if lock:
            execute(lock)
        yield


def columns(table: str) -> list[str]:
    return [
        quoted(name)
        for (name,) in query(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
            " AND attgenerated = '' ORDER BY attnum",
            [quoted(table)],
        )
    ]


def indexes(table: str) -> list[tuple[str, str]]:
    """The indexes of *table* but the primary key's, as name (quoted where that is needed) and statement."""
    return query(
        "SELECT quote_ident(relname), pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid"
        " WHERE indrelid = %s::regclass AND NOT indisprimary ORDER BY relname",
        [quoted(table)],
    )


def obstacles(table: str) -> Iterator[tuple[str, list[str]]]:
    """What belongs to the table and would not survive."""
    for what, question in _OBSTACLES.items():
        names = [name for (name,) in query(question, {"table": quoted(table)})]
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
    "publications": (
        "SELECT pubname FROM pg_publication_tables WHERE (schemaname, tablename) = (SELECT nspname, relname"
        " FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = %(table)s::regclass)"
    ),
    "columns that were granted": (
        "SELECT attname FROM pg_attribute WHERE attrelid = %(table)s::regclass AND attacl IS NOT NULL"
        " AND attnum > 0 AND NOT attisdropped"
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
