"""Fills a database with the readings and messages of a year before a bench begins.

The rows equal those of ingest: in order of time, of all devices in turn, each message with its own payload and
digest. Indexes are dropped before, and created from their definitions after. The readings count as rolled up, as
after a year; their rollups are left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connection

from bench.filling_sql import POSTGRESQL, SQLITE

READINGS, MESSAGES = "fleet_weatherstationreading", "fleet_weatherstationmessage"
YEAR = 365 * 24 * 3600.0
PARTS = 100  # statements per table, for the progress bar
STEPS = 2 * PARTS + 40  # the last 40 for indexes and statistics
CACHE_KIB = 2_000_000  # SQLite cannot drop its unique index, so that must stay in memory

Advance = Callable[[int], Any]


def fill(count: int, fleet: int, advance: Advance) -> None:
    """Store *count* readings and messages of devices with the keys 1 to *fleet*; *advance* gets STEPS in all."""
    apps.get_model("devicehub", "RolledUp").objects.create(kind="weatherstation", last_id=count)
    {"sqlite": _fill_sqlite, "postgresql": _fill_postgresql}[connection.vendor](count, fleet, advance)


def _fill_sqlite(count: int, fleet: int, advance: Advance) -> None:
    file = connection.settings_dict["NAME"]
    with connection.cursor() as cursor:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{CACHE_KIB}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute("PRAGMA foreign_keys = OFF")
        with _without_indexes_on_sqlite(cursor):
            _insert(cursor, SQLITE, count, fleet, advance)
        advance(20)
        cursor.execute("PRAGMA analysis_limit = 1000")
        cursor.execute("ANALYZE")
        cursor.execute("PRAGMA journal_mode = WAL")
    connection.close()  # which resets the settings of the filling
    _flush(file)
    advance(20)


def _insert(cursor: Any, statements: dict[str, str], count: int, fleet: int, advance: Advance) -> None:
    begin = time.time() - YEAR
    for table in (READINGS, MESSAGES):
        for part in range(PARTS):
            first, last = count * part // PARTS + 1, count * (part + 1) // PARTS
            if first <= last:
                values = {"first": first, "last": last, "fleet": fleet, "begin": begin, "step": YEAR / count}
                cursor.execute(statements[table].format(table=table, **values))
            advance(1)


@contextmanager
def _without_indexes_on_sqlite(cursor: Any) -> Iterator[None]:
    """Drop the indexes of both tables, and restore them at the end."""
    cursor.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN (%s, %s)",
        [READINGS, MESSAGES],
    )
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f'DROP INDEX "{name}"')
    yield
    for _, definition in indexes:
        cursor.execute(definition)


def _flush(file: str) -> None:
    """Write the pages of *file* to the disk, so that the kernel does not write them during a measurement."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill_postgresql(count: int, fleet: int, advance: Advance) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute("SET maintenance_work_mem = '1GB'")
        with _without_indexes_on_postgresql(cursor):
            _insert(cursor, POSTGRESQL, count, fleet, advance)
        advance(20)
        for table in (READINGS, MESSAGES):
            cursor.execute(f"VACUUM (ANALYZE) {table}")
        # DROP DATABASE runs a checkpoint, for which CHECKPOINT needs more rights.
        cursor.execute("CREATE DATABASE checkpoint")
        cursor.execute("DROP DATABASE checkpoint")
    connection.close()
    advance(20)


@contextmanager
def _without_indexes_on_postgresql(cursor: Any) -> Iterator[None]:
    """Drop indexes and foreign keys, which would be checked row by row, and restore them; primary keys stay."""
    tables = [[READINGS, MESSAGES]]
    cursor.execute(
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = ANY(%s::regclass[]) AND contype IN ('f', 'u') ORDER BY contype DESC",
        tables,
    )
    constraints = cursor.fetchall()
    for table, name, _ in constraints:
        cursor.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    cursor.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = ANY(%s::regclass[]) AND NOT indisprimary",
        tables,
    )
    indexes = cursor.fetchall()
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    yield
    for _, definition in indexes:
        cursor.execute(definition)
    for table, name, definition in constraints:
        cursor.execute(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition}')
