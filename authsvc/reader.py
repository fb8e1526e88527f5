"""Single reads outside the ORM: what the authorization path asks the database, in microseconds.

Django's ORM costs 100 us and more a query and may not be used from a coroutine. These reads go over a
connection of their own, in autocommit, to the database that Django calls `default`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import weakref
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

Row = tuple[Any, ...]
CONNECT_TIMEOUT = 2  # seconds; a broker gives up after five
# In OPTIONS for Django, not for libpq.
OF_DJANGO = frozenset({"assume_role", "isolation_level", "pool", "server_side_binding"})
RETRY_PAUSE = 0.5  # seconds without another attempt after a connection was refused
_held = threading.local()
_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _PostgreSQL] = weakref.WeakKeyDictionary()


async def fetch(sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """All rows of *sql* (placeholders are `%s`). Raises what the driver raises when the database is away."""
    config = connections.settings["default"]  # the same dict that the ORM's connection holds
    engine = config["ENGINE"]  # by its name, so that PostGIS and instrumented engines count too
    if "sqlite" in engine or "spatialite" in engine:
        return _sqlite(str(config["NAME"]), sql, parameters)
    if "postg" in engine:
        loop = asyncio.get_running_loop()
        pool = _pools.get(loop)
        if pool is None:
            pool = _pools[loop] = _PostgreSQL()
        return await pool.fetch(config, sql, parameters)
    raise ImproperlyConfigured(f"DeviceHub runs on SQLite and PostgreSQL, not on {engine}")


async def close() -> None:
    """Let go of the connections of this thread and of the running event loop."""
    held = getattr(_held, "sqlite", None)
    if held is not None:
        _held.sqlite = None
        held[1].close()
    pool = _pools.pop(asyncio.get_running_loop(), None)
    if pool is not None:
        await pool.close()


def moment(value: Any) -> float | None:
    """A timestamp column as Unix seconds: SQLite holds text, PostgreSQL gives a datetime."""
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return float((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def connection_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """What libpq is told: all that DATABASE_URL says (TLS, service, ...), and our own limits."""
    options = {name: v for name, v in config.get("OPTIONS", {}).items() if name not in OF_DJANGO}
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        **options,
        "dbname": config["NAME"],
        "user": config["USER"] or None,
        "password": config["PASSWORD"] or None,
        "host": config["HOST"] or None,
        "port": config["PORT"] or None,
        "options": f"{options.get('options', '')} -c statement_timeout=2000".strip(),
        "application_name": "devicehub authsvc",
    }


def _sqlite(name: str, sql: str, parameters: Sequence[Any]) -> list[Row]:
    """Read without a thread: an indexed read takes less time than a switch to one."""
    held: tuple[str, sqlite3.Connection] | None = getattr(_held, "sqlite", None)
    if held is None or held[0] != name:
        uri = name if name.startswith("file:") else f"{Path(name).absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1)
        held = _held.sqlite = (name, connection)
    try:
        return held[1].execute(_qmarks(sql), tuple(parameters)).fetchall()
    except sqlite3.Error:
        _held.sqlite = None
        held[1].close()
        raise


@cache
def _qmarks(sql: str) -> str:
    return sql.replace("%s", "?")


class _PostgreSQL:
    """One connection of one event loop, opened when asked for and again after it broke."""

    def __init__(self) -> None:
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._lock = asyncio.Lock()
        self._refused_until = 0.0

    async def fetch(self, config: dict[str, Any], sql: str, parameters: Sequence[Any]) -> list[Row]:
        async with self._lock:
            for last in (False, True):
                connection = await self._open(config)
                try:
                    cursor = await connection.execute(sql, parameters)
                    return list(await cursor.fetchall())
                except psycopg.Error:
                    if last or not connection.broken:
                        raise
        raise AssertionError("the loop above returns or raises")

    async def close(self) -> None:
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()

    async def _open(self, config: dict[str, Any]) -> psycopg.AsyncConnection[Row]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        if time.monotonic() < self._refused_until:
            raise psycopg.OperationalError("the database refused a connection a moment ago")
        try:
            self._connection = await psycopg.AsyncConnection.connect(
                **connection_arguments(config), autocommit=True, prepare_threshold=1
            )
        except psycopg.Error:
            self._refused_until = time.monotonic() + RETRY_PAUSE
            raise
        return self._connection
