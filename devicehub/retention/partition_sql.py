"""The SQL of partitions on PostgreSQL: locks, and the indexes, keys and grants of a table."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection, transaction

from devicehub.db.batches import Stopped
from devicehub.db.statements import execute, query, query_value, quoted
from devicehub.errors import DevicehubError

# Time-out of a lock in milliseconds. It is short, since all other sessions queue behind one that waits for a lock.
LOCK_MS = 250
ATTEMPTS = 60
BUSY = frozenset({"55P03", "40P01"})  # lock not available, deadlock
BOUND = "devicehub_division"  # The name of the constraint of a table that is being divided.
LOOK = 0.1  # seconds between two checks whether to stop


class NotPartitioned(DevicehubError):
    """The table cannot be divided, for the reason in the text."""


@contextmanager
def alone(table: str) -> Iterator[bool]:
    """Yield True if this process now holds the lock for partitions of *table*, False if another one does.

    A lock is released at the end of the block, or with its process.
    """
    key = f"devicehub partitions of {table}"
    free = bool(query_value("SELECT pg_try_advisory_lock(hashtext(%s))", [key]))
    try:
        yield free
    finally:
        if free:
            query("SELECT pg_advisory_unlock(hashtext(%s))", [key])


def patiently(action: Callable[[], Any], attempts: int = ATTEMPTS) -> Any:
    """Call *action* and return its result; retry up to *attempts* times while a lock that it needs is held."""
    for attempt in range(1, attempts + 1):
        try:
            return action()
        except OperationalError as error:
            if attempt == attempts or getattr(error.__cause__, "sqlstate", None) not in BUSY:
                raise
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - nothing to guess
    raise AssertionError("unreachable")


@contextmanager
def locked(lock: str) -> Iterator[None]:
    """Open a transaction that begins with *lock*, in which waiting for a lock times out after LOCK_MS."""
    with transaction.atomic():
        execute(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'")
        execute(lock)
        yield


@contextmanager
def cancelled_by(stop: threading.Event) -> Iterator[None]:
    """Cancel the running statement of the block as soon as *stop* is set, and raise Stopped instead."""
    done, running = threading.Event(), connection.connection

    def watch() -> None:
        while not done.wait(LOOK):
            if stop.is_set():
                running.cancel()  # It repeats, since the first one may come between two statements.

    watcher = threading.Thread(target=watch, name="cancel", daemon=True)
    watcher.start()
    try:
        yield
    except OperationalError as error:
        if stop.is_set():
            raise Stopped from error
        raise
    finally:
        done.set()
        watcher.join()


def new_key(table: str) -> str:
    """Return the name that the index of the new primary key has until the table is divided."""
    return f"division_{hashlib.sha256(table.encode()).hexdigest()[:40]}"


def clear(table: str) -> None:
    """Remove the index and the constraint that an unfinished division left, if there are any."""
    if query_value("SELECT to_regclass(%s)", [quoted(new_key(table))]) is None:
        return
    with locked(f"LOCK TABLE {quoted(table)} IN ACCESS EXCLUSIVE MODE"):
        execute(f"ALTER TABLE {quoted(table)} DROP CONSTRAINT IF EXISTS {BOUND}")
        execute(f"DROP INDEX {quoted(new_key(table))}")


def copy_owner(table: str, like: str) -> None:
    """Give *table* the owner of *like*."""
    [(owner, is_mine)] = query(
        "SELECT relowner::regrole::text, relowner::regrole::text = quote_ident(current_user)"
        " FROM pg_class WHERE oid = %s::regclass",
        [quoted(like)],
    )
    if not is_mine:
        execute(f"ALTER TABLE {quoted(table)} OWNER TO {owner}")


def own_like(partition: str, like: str) -> None:
    """Give *partition* the storage parameters and the owner of *like*. A partitioned table has no parameters."""
    options = query_value(
        "SELECT string_agg(format('%%I = %%L', option_name, option_value), ', ')"
        " FROM pg_class, pg_options_to_table(reloptions) WHERE oid = %s::regclass",
        [quoted(like)],
    )
    if options:
        execute(f"ALTER TABLE {quoted(partition)} SET ({options})")
    copy_owner(partition, like)


def move_comment(old: str, new: str) -> None:
    """Give the comment of table *old* to *new*."""
    comment = query_value("SELECT quote_nullable(obj_description(%s::regclass, 'pg_class'))", [quoted(old)])
    execute(f"COMMENT ON TABLE {quoted(new)} IS {comment}")
    execute(f"COMMENT ON TABLE {quoted(old)} IS NULL")


def copy_grants(table: str, sequence: str, like: str) -> None:
    """Copy the grants on *like* to *table*; roles that may insert there may also use *sequence*."""
    for role, privilege, option in query(
        "SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, privilege_type, is_grantable"
        " FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = %s::regclass AND grantee <> relowner",
        [quoted(like)],
    ):
        execute(f"GRANT {privilege} ON {quoted(table)} TO {role}{' WITH GRANT OPTION' if option else ''}")
        if privilege == "INSERT":
            execute(f"GRANT USAGE, SELECT ON SEQUENCE {quoted(sequence)} TO {role}")


def primary_key(table: str) -> tuple[str, str, tuple[int, bool]]:
    """Return the names of the primary key's constraint and of its sequence, and the sequence's state for setval()."""
    [(constraint, sequence)] = query(
        "SELECT (SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'p'),"
        " (SELECT relname FROM pg_class WHERE oid = pg_get_serial_sequence(%s, 'id')::regclass)",
        [quoted(table), quoted(table)],
    )
    [(last, is_called)] = query(f"SELECT last_value, is_called FROM {quoted(sequence)}")
    return constraint, sequence, (last, is_called)


def columns(table: str) -> str:
    """Return the columns of *table* that are not generated, quoted and separated by commas for a statement."""
    found = query(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " AND attgenerated = '' ORDER BY attnum",
        [quoted(table)],
    )
    return ", ".join(quoted(name) for (name,) in found)


def indexes(table: str) -> list[tuple[str, str]]:
    """Return name and statement of each valid index of *table*, except that of the primary key."""
    return query(
        "SELECT relname, pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid"
        " WHERE indrelid = %s::regclass AND NOT indisprimary AND indisvalid ORDER BY relname",
        [quoted(table)],
    )


def foreign_keys(table: str) -> list[tuple[str, str, str]]:
    """Return name, definition and referenced table of each foreign key of *table*."""
    return query(
        "SELECT conname, pg_get_constraintdef(oid), confrelid::regclass::text FROM pg_constraint"
        " WHERE conrelid = %s::regclass AND contype = 'f'",
        [quoted(table)],
    )


def obstacles(table: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the kinds and names of objects that a division would lose or leave on the first partition only."""
    for what, statement in _OBSTACLES.items():
        names = [name for (name,) in query(statement, {"table": quoted(table)})]
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
    "triggers": "SELECT tgname FROM pg_trigger WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal",
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
