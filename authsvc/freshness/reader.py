"""Single queries outside the ORM, for the authorization path, in microseconds.

Django's ORM costs 100 us and more per query and must not be used in a coroutine. These queries use their own
connection, in autocommit, to the database `default` of Django.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import threading
import time
import weakref
from collections.abc import Coroutine, Hashable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from authsvc.errors import AuthsvcError
from authsvc.freshness import wal_index

T = TypeVar("T")
Row = tuple[Any, ...]
CONNECT_TIMEOUT = 2  # Seconds for the listening connection; no broker waits for it.
READ_SECONDS = 0.8  # For one query, including a new connection; mosquitto waits 1 s for the answer.
# Keys of OPTIONS that are for Django, not for libpq.
OF_DJANGO = frozenset({"assume_role", "isolation_level", "pool", "server_side_binding"})
ATTEMPTS = 3  # Attempts to open an SQLite database while its files are being replaced.
LOG_SECONDS = 0.1  # Between two checks of the log of SQLite while nothing is committed.
RETRY_PAUSE = 0.5  # Back-off in seconds after the database did not answer.
_serials = count(1)
_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _PostgreSQL] = weakref.WeakKeyDictionary()


class DatabaseAway(AuthsvcError):
    """PostgreSQL refused or closed the connection, or did not answer in time."""


async def fetch(sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
    """Return all rows of *sql* (placeholders are `%s`). Raise DatabaseAway, or errors of the driver."""
    config = connections.settings["default"]  # The same dict as in the ORM's connection.
    if is_sqlite(config["ENGINE"]):
        return _sqlite(config["NAME"]).fetch(sql, parameters)
    if is_postgresql(config["ENGINE"]):
        loop = asyncio.get_running_loop()
        pool = _pools.get(loop)
        if pool is None:
            pool = _pools[loop] = _PostgreSQL()
        return await pool.fetch(config, sql, parameters)
    raise ImproperlyConfigured(f"DeviceHub runs on SQLite and PostgreSQL, not on {config['ENGINE']}")


def sqlite_version(name: str | Path) -> tuple[int, int]:
    """Return a pair that changes with each commit to the SQLite database *name*, by any program; about 4 us.

    Raise sqlite3.Error if the database is missing.
    """
    held = _held.sqlite
    if held is None or held.closed or held.name is not name:
        held = _sqlite(name)
    return held.version()


def sqlite_file() -> Hashable:
    """Return the identity of the SQLite files that this thread reads, or None if it reads none."""
    return None if _held.sqlite is None else _held.sqlite.file


@cache
def is_sqlite(engine: str) -> bool:
    """Return whether *engine* is SQLite by its name, so that SpatiaLite and instrumented engines count too."""
    return "sqlite" in engine or "spatialite" in engine


@cache
def is_postgresql(engine: str) -> bool:
    """Return whether *engine* is PostgreSQL by its name, so that PostGIS counts too."""
    return "postg" in engine


async def close() -> None:
    """Close the connections of this thread and of the running event loop."""
    if _held.sqlite is not None:
        _held.sqlite.close()
        _held.sqlite = None
    pool = _pools.pop(asyncio.get_running_loop(), None)
    if pool is not None:
        await pool.close()


def moment(value: Any) -> float | None:
    """Return a timestamp column as Unix seconds. SQLite returns text, PostgreSQL a datetime."""
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return float((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def connection_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments for libpq: all parts of DATABASE_URL (TLS, service, ...), and our own limits."""
    options = {name: v for name, v in config.get("OPTIONS", {}).items() if name not in OF_DJANGO}
    return {
        "connect_timeout": CONNECT_TIMEOUT,
        **options,
        "dbname": config["NAME"] or None,
        "user": config["USER"] or None,
        "password": config["PASSWORD"] or None,
        "host": config["HOST"] or None,
        "port": config["PORT"] or None,
        "options": f"{options.get('options', '')} -c statement_timeout=2000".strip(),
        "application_name": "devicehub authsvc",
    }


async def in_time(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Return the result of *work*. Raise DatabaseAway after *seconds*.

    The work is abandoned then and ends later: psycopg waits for the server even when it is cancelled, and a server
    that hangs does not answer the cancellation either.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        _abandon(task)
        raise
    if not done:
        _abandon(task)
        raise DatabaseAway(f"no answer within {seconds} s")
    return task.result()


_abandoned: set[asyncio.Future[Any]] = set()


def _abandon(task: asyncio.Future[Any]) -> None:
    """Cancel *task* without waiting for it, and keep a reference to it until it ends."""
    if task.done():  # It ended in the moment in which its caller was cancelled.
        _drop(task)
        return
    _abandoned.add(task)
    task.add_done_callback(_drop)
    task.cancel()


def _drop(task: asyncio.Future[Any]) -> None:
    """Retrieve the error of *task*, which asyncio would log otherwise; close a connection that it made after all."""
    _abandoned.discard(task)
    if task.cancelled() or task.exception() is not None:
        return
    if isinstance(made := task.result(), psycopg.AsyncConnection):
        made.pgconn.finish()


class _Held(threading.local):
    sqlite: _SQLite | None = None


_held = _Held()


def _sqlite(name: str | Path) -> _SQLite:
    held = _held.sqlite
    if held is None or held.name != name or held.closed:
        held = _held.sqlite = _SQLite(name)
    return held


_inherited: list[object] = []


def _after_fork() -> None:
    """Drop the connections in a child process without closing them, which would end them for the parent."""
    _inherited.append((_held.sqlite, dict(_pools)))
    _held.sqlite = None
    _pools.clear()


os.register_at_fork(after_in_child=_after_fork)


class _SQLite:
    """The connection of one thread. It reads in that thread: an indexed read takes less time than a switch."""

    def __init__(self, name: str | Path, before: _Files | None = None) -> None:
        """Open the database. *before* are the files of the connection that was closed for this one."""
        self.name = name
        self.closed = False
        self._serial = next(_serials)
        in_uri = str(name).startswith("file:")
        # A URI may name no file (a shared in-memory database); its identity is then None.
        path = unquote(urlsplit(str(name)).path) if in_uri else str(name)
        self._uri = str(name) if in_uri else f"{Path(name).absolute().as_uri()}?mode=ro"
        beside = os.path.realpath(path)  # SQLite puts its log beside the target of a symlink.
        self._path, self._log, self._shared = path, f"{beside}-wal", f"{beside}-shm"
        self._connection = self._open(before)
        self._count = self._connection.cursor().execute  # A separate cursor keeps its prepared statement.
        self._commits, self._look_at = -1, 0.0
        self._header = wal_index.header(self._shared) if self._has_log else None
        self._seen = b""  # The header at the last count.

    @property
    def file(self) -> Hashable:
        """The identity of the files, which changes when one of them is replaced."""
        return self._files, self._log_inode

    def _open(self, before: _Files | None) -> sqlite3.Connection:
        """Return a connection to the present files, and store their identity.

        Raise sqlite3.OperationalError if this process has a removed log open: SQLite shares it among all connections
        of a process, so commits of other processes are not visible until the last connection is closed.
        """
        opened: list[sqlite3.Connection] = []
        try:
            for _ in range(ATTEMPTS):
                files, log = _identity(self._path, self._shared), _inode(self._log)
                opened.append(
                    sqlite3.connect(self._uri, uri=True, isolation_level=None, timeout=READ_SECONDS)
                )
                # The first read opens or creates the log.
                opened[-1].execute("SELECT count(*) FROM sqlite_master").fetchone()
                [(mode,)] = opened[-1].execute("PRAGMA journal_mode").fetchall()
                after = _identity(self._path, self._shared)
                if _without_time(files) != _without_time(after) or log != _inode(self._log):
                    continue
                if files is not None and mode == "wal" and _without_time(files) != _without_time(before):
                    _refuse_a_removed_log(files)
                self._files, self._log_inode, self._has_log = files, log, mode == "wal"
                return opened.pop()
            raise sqlite3.OperationalError(f"{self._path} is changing")
        finally:
            for connection in opened:  # Only now, because closing the last connection may remove the log.
                connection.close()

    def fetch(self, sql: str, parameters: Sequence[Any]) -> list[Row]:
        """Return all rows of *sql*. Close this connection and raise after an error of the driver."""
        try:
            return self._connection.execute(_qmarks(sql), tuple(parameters)).fetchall()
        except sqlite3.Error:
            self.close()
            raise

    def version(self) -> tuple[int, int]:
        """Return this connection's serial, and SQLite's count of the commits of all others (PRAGMA data_version).

        The count changes only with the header of the index in `-shm`, so SQLite is not queried while that is equal.
        A new connection is made after a backup was moved or copied here, or the log was removed: the open file is
        then deleted, or pages of the old one are cached. A checkpoint looks the same. The inode of `-wal` is checked
        after a commit, because all commits change `-shm`, and once in LOG_SECONDS: other programs cannot write while
        an old log is open here.
        """
        found = _identity(self._path, self._shared)
        if found == self._files:
            now = time.monotonic()
            header = self._header() if self._header is not None else b""
            if header and header == self._seen and now < self._look_at:
                return self._serial, self._commits
            self._seen = header  # Read before the count, so a commit in between is counted again.
            try:
                commits: int = self._count("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:
                self.close()
                raise
            if commits == self._commits and now < self._look_at:
                return self._serial, commits
            if _inode(self._log) == self._log_inode:
                self._commits, self._look_at = commits, now + LOG_SECONDS
                return self._serial, commits
        self.close()
        if found is None:
            raise sqlite3.OperationalError(f"{self._path} is missing")
        held = _held.sqlite = _SQLite(self.name, self._files)
        return held._serial, held._count("PRAGMA data_version").fetchone()[0]

    def close(self) -> None:
        """Close the connection."""
        self.closed, self._header = True, None  # SQLite unmaps the header with the connection.
        self._connection.close()


_Files = tuple[int, int, int, int]  # Device, inode, time of the last change, inode of -shm.


def _identity(path: str, shared: str) -> _Files | None:
    """Return a tuple that changes when a file at *path* or *shared* is replaced, or the first is written directly.

    The time is that of the inode, which `cp -p` cannot set back. None if there is no file at *path*.
    """
    try:
        found = os.stat(path)
    except OSError:
        return None
    try:
        index = os.stat(shared).st_ino
    except OSError:
        index = 0
    return found.st_dev, found.st_ino, found.st_ctime_ns, index


def _without_time(files: _Files | None) -> tuple[int, int, int] | None:
    return None if files is None else (files[0], files[1], files[3])


def _inode(path: str) -> int:
    """Return the inode of the file at *path*, or 0 if there is none."""
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _refuse_a_removed_log(files: _Files) -> None:
    """Raise sqlite3.OperationalError if this process does not have the `-shm` of *files* open. Needs /dev/fd."""
    wanted = files[0], files[3]
    try:
        numbers = os.listdir("/dev/fd")
    except OSError:
        return
    for number in numbers:
        with suppress(OSError):
            found = os.fstat(int(number))
            if (found.st_dev, found.st_ino) == wanted:
                return
    raise sqlite3.OperationalError("a log that was removed is still open in this process")


@cache
def _qmarks(sql: str) -> str:
    return sql.replace("%s", "?")


class _PostgreSQL:
    """One connection of one event loop, opened on use and again after it broke."""

    def __init__(self) -> None:
        self._connection: psycopg.AsyncConnection[Row] | None = None
        self._lock = asyncio.Lock()
        self._refused_until = 0.0

    async def fetch(self, config: dict[str, Any], sql: str, parameters: Sequence[Any]) -> list[Row]:
        """Return all rows of *sql*. Raise DatabaseAway, or errors of the driver."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._lock.acquire()
        except TimeoutError as error:
            raise DatabaseAway(f"other reads took {READ_SECONDS} s") from error
        try:
            return await self._fetch_or_back_off(config, sql, parameters)
        finally:
            self._lock.release()

    async def _fetch_or_back_off(
        self, config: dict[str, Any], sql: str, parameters: Sequence[Any]
    ) -> list[Row]:
        """Return all rows of *sql*. After an outage raise DatabaseAway at once for RETRY_PAUSE seconds."""
        if time.monotonic() < self._refused_until:
            raise DatabaseAway("the database did not answer a moment ago")
        try:
            return await self._fetch(config, sql, parameters)
        except (psycopg.OperationalError, psycopg.InterfaceError, DatabaseAway) as error:
            connection, self._connection = self._connection, None
            self._refused_until = time.monotonic() + RETRY_PAUSE
            if connection is not None:
                await connection.close()
            raise DatabaseAway(type(error).__name__) from error

    async def close(self) -> None:
        """Close the connection once no query uses it."""
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()

    async def _fetch(self, config: dict[str, Any], sql: str, parameters: Sequence[Any]) -> list[Row]:
        """Return all rows of *sql*; retry once over a new connection if the present one is broken."""
        until = time.monotonic() + READ_SECONDS
        connection = self._connection
        if connection is not None and not connection.closed:
            try:
                return await _rows_until(until, connection, sql, parameters)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                if not connection.closed or time.monotonic() >= until:
                    raise
            except psycopg.errors.FeatureNotSupported:
                # A statement prepared before a migration changed the type of a column stays unusable.
                await connection.close()
        opened = psycopg.AsyncConnection.connect(
            **connection_arguments(config), autocommit=True, prepare_threshold=1
        )
        fresh = await in_time(opened, until - time.monotonic())
        self._connection = fresh
        return await _rows_until(until, fresh, sql, parameters)


async def _rows_until(
    until: float, connection: psycopg.AsyncConnection[Row], sql: str, parameters: Sequence[Any]
) -> list[Row]:
    """Return the result of rows(); disconnect at *until*. A timer costs a tenth of what a task does."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(until - time.monotonic(), _disconnect, connection)
    try:
        return await rows(connection, sql, parameters)
    finally:
        timer.cancel()


def _disconnect(connection: psycopg.AsyncConnection[Row]) -> None:
    """Shut the socket down, so that a waiting query fails at once."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as line, suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)


async def rows(
    connection: psycopg.AsyncConnection[Row], sql: str, parameters: Sequence[Any] = ()
) -> list[Row]:
    """Return the rows of *sql* over *connection*; close the connection if the task is cancelled."""
    try:
        cursor = await connection.execute(sql, parameters)
        return list(await cursor.fetchall()) if cursor.description else []
    except asyncio.CancelledError:
        connection.pgconn.finish()
        raise
