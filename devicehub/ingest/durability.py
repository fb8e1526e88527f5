"""Database settings of a process that stores: a commit is on the disk, and no wait lasts for ever.

They are set for its connections alone, or for its transactions where others may use the connection after it. Stricter
settings of the operator stay.
"""

from __future__ import annotations

import gc
import sys
import threading
from functools import cache
from typing import Any

import structlog
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

log = structlog.get_logger(__name__)

LOCK_SECONDS = 5  # A statement waits so long for another lock, before the batch is retried.
STATEMENT_SECONDS = 30  # One statement may take so long.
SQLITE_OPTIONS = {
    "timeout": LOCK_SECONDS,
    "transaction_mode": "IMMEDIATE",  # A batch reads before it writes, so it needs the writer's lock from the start.
}
# With these, a server that vanished is noticed after about ten seconds, while waiting or sending (libpq, TCP).
POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Settings of SQLite for large batches. Pages of indexes stay in the memory of the storing thread (96 MiB), and the
# write-ahead log is copied into the database every 200 MB instead of every 4: a page that changes with each batch is
# copied once for all of them. Commits are flushed to disk all the same.
SQLITE_PRAGMAS = ("wal_autocheckpoint = 50000",)
STORING_PRAGMAS = ("cache_size = -98304",)
# PRAGMA synchronous: each commit is flushed, with EXTRA also the folder from which a rollback journal is deleted. Lower
# values lose commits in a power failure: NORMAL (1) in WAL mode, FULL in the other modes.
FULL, EXTRA = 2, 3
# The network thread may go on for so many seconds when the database has answered a batch.
SWITCH = 0.0005


def settle() -> None:
    """Prepare this process for storing, before the first message."""
    for name in connections:
        connection = connections[name]
        options = connection.settings_dict.setdefault("OPTIONS", {})
        options.update(_OPTIONS.get(connection.vendor, {}))
    connection_created.connect(_demand, dispatch_uid="ingest")
    connections.close_all()  # The connection that the checks left is opened again with these options.
    # Imported objects stay, and those of a batch are freed at its end, so the garbage collector can run rarely.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(SWITCH)


def demand(connection: BaseDatabaseWrapper) -> None:
    """Have *connection* flush each commit on SQLite, in a process that does more than store. Raise DatabaseError."""
    if connection.vendor == "sqlite":
        _flush_on_sqlite(connection)


def demand_now(connection: BaseDatabaseWrapper) -> None:
    """Have the transaction of *connection* flush its commit on PostgreSQL, and not wait for ever. Raise DatabaseError.

    The settings end with the transaction: a pool lends the connection to requests, and a pooler to other processes.
    """
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(_FOR_THIS_TRANSACTION)
        if cursor.fetchone()[0] == "off":
            _say_not_durable()


def _demand(connection: BaseDatabaseWrapper, **_: Any) -> None:
    _DEMANDS.get(connection.vendor, lambda _: None)(connection)


def _of_sqlite(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        is_storing = threading.current_thread() is threading.main_thread()
        for pragma in SQLITE_PRAGMAS + (STORING_PRAGMAS if is_storing else ()):
            cursor.execute(f"PRAGMA {pragma}")
    _flush_on_sqlite(connection)


def _flush_on_sqlite(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        wanted = FULL if cursor.fetchone()[0] == "wal" else EXTRA
        cursor.execute("PRAGMA synchronous")
        if cursor.fetchone()[0] < wanted:
            cursor.execute(f"PRAGMA synchronous = {wanted}")


def _of_postgresql(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name = ANY(%s)", [list(_WANTED)])
        found = dict(cursor.fetchall())
        for name, (unwanted, wanted) in _WANTED.items():
            if found[name] == unwanted:
                cursor.execute("SELECT set_config(%s, %s, false)", [name, wanted])
        cursor.execute("SHOW fsync")
        if cursor.fetchone()[0] == "off":
            _say_not_durable()


@cache
def _say_not_durable() -> None:
    """Warn of fsync=off, once and not for each connection."""
    log.warning(
        "ingest.not_durable",
        hint="PostgreSQL runs with fsync=off: a power failure loses acknowledged messages",
    )


# By name: the insufficient value, and the value that replaces it.
_WANTED = {
    "synchronous_commit": ("off", "on"),
    "lock_timeout": ("0", f"{LOCK_SECONDS}s"),
    "statement_timeout": ("0", f"{STATEMENT_SECONDS}s"),
}
_OPTIONS: dict[str, dict[str, Any]] = {"sqlite": SQLITE_OPTIONS, "postgresql": POSTGRESQL_OPTIONS}
_DEMANDS = {"sqlite": _of_sqlite, "postgresql": _of_postgresql}
_FOR_THIS_TRANSACTION = "SELECT current_setting('fsync')" + "".join(
    f", CASE WHEN current_setting('{name}') = '{unwanted}' THEN set_config('{name}', '{wanted}', true) END"
    for name, (unwanted, wanted) in _WANTED.items()
)
