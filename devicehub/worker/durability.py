"""What an ingest worker asks of its database: that a commit is on the disk, and that no wait lasts for ever.

Set for the connections of this process alone. What the operator set more strictly stays.
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

LOCK_SECONDS = 5  # that a statement waits for somebody else's lock, before the batch is tried again
STATEMENT_SECONDS = 30  # that one statement may take
SQLITE_OPTIONS = {
    "timeout": LOCK_SECONDS,
    "transaction_mode": "IMMEDIATE",  # a batch reads before it writes: it must have the writer's lock from the start
}
# A server that vanished without a word is noticed after about ten seconds, waiting or sending (libpq, TCP).
POSTGRESQL_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# How SQLite stores much at once: pages of indexes stay in memory (96 MiB) for who stores, and the write-ahead log is
# copied into the database every 200 MB instead of every 4: a page that changes with each batch is copied once for all
# of them. What is committed is flushed to disk all the same.
SQLITE_PRAGMAS = ("wal_autocheckpoint = 50000",)
STORING_PRAGMAS = ("cache_size = -98304",)
# PRAGMA synchronous: each commit is flushed, with EXTRA also the folder that a rollback journal is removed from. Less
# loses commits with the power, NORMAL (1) in WAL mode and FULL in the others.
FULL, EXTRA = 2, 3
# Seconds for which the thread that reads the network may go on when the database has answered a batch.
SWITCH = 0.0005


def settle() -> None:
    """Prepare this process for storing and nothing else, before the first message."""
    for name in connections:
        connection = connections[name]
        options = connection.settings_dict.setdefault("OPTIONS", {})
        options.update(_OPTIONS.get(connection.vendor, {}))
    connection_created.connect(_demand, dispatch_uid="ingest")
    connections.close_all()  # the one that the checks left is made anew
    # What was imported stays, and what a batch makes is gone by its end: nothing for the collector to look at.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(SWITCH)


def _demand(connection: BaseDatabaseWrapper, **_: Any) -> None:
    _DEMANDS.get(connection.vendor, lambda _: None)(connection)


def _of_sqlite(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        is_storing = threading.current_thread() is threading.main_thread()
        for pragma in SQLITE_PRAGMAS + (STORING_PRAGMAS if is_storing else ()):
            cursor.execute(f"PRAGMA {pragma}")
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
    """Once, and not for each connection."""
    log.warning(
        "ingest.not_durable",
        hint="PostgreSQL runs with fsync=off: what is acknowledged is lost with the power",
    )


# By name: the value that would not do, and what takes its place.
_WANTED = {
    "synchronous_commit": ("off", "on"),
    "lock_timeout": ("0", f"{LOCK_SECONDS}s"),
    "statement_timeout": ("0", f"{STATEMENT_SECONDS}s"),
}
_OPTIONS: dict[str, dict[str, Any]] = {"sqlite": SQLITE_OPTIONS, "postgresql": POSTGRESQL_OPTIONS}
_DEMANDS = {"sqlite": _of_sqlite, "postgresql": _of_postgresql}
