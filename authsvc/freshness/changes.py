"""Notice changes of the database: SQLite is queried for each turn of the loop, PostgreSQL sends notifications.

On PostgreSQL triggers (`authsvc.freshness.triggers`) notify the channel CHANNEL of every change that can affect a
decision: a JSON list of names, or `*` for everything. One connection of each process listens.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from django.db import connections

from authsvc import logs
from authsvc.conf import settings
from authsvc.errors import AuthsvcError
from authsvc.freshness import read_cache, reader, triggers
from authsvc.freshness.read_cache import Stamp
from authsvc.freshness.reader import DatabaseAway, Row
from authsvc.freshness.triggers import CHANNEL

log = structlog.get_logger(__name__)

BEAT = 0.4  # Seconds between two checks of the listening connection.
BEAT_SECONDS = 0.5  # Time-out of a check.
BOUND = 1.0  # Seconds after a check until caches are not used without a new one.
PAUSE = 0.5  # Seconds before the next attempt to listen.


class _Turn(threading.local):
    """The stamp of this turn of the event loop, and the loop."""

    stamp: Stamp | None = None
    loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        self.stamp = None


_turn = _Turn()


def stamp() -> Stamp | None:
    """Return a stamp, which is equal while nothing has changed; None if changes are not noticed and all must be read.

    SQLite is queried once in a turn of the event loop. All questions of a turn were received before the first one is
    answered, and the end of the turn is queued before later questions. So the stamp is never older than the question.
    Raise sqlite3.Error if the SQLite database is missing.
    """
    if _listener is not None:
        return _listener.stamp()
    config = connections.settings["default"]
    if not reader.is_sqlite(config["ENGINE"]):
        return None
    loop = asyncio.get_running_loop()
    if _turn.stamp is not None and _turn.loop is loop:
        return _turn.stamp
    found = reader.sqlite_version(config["NAME"])
    _turn.stamp, _turn.loop = found, loop
    loop.call_soon(_turn.end)
    return found


def reason() -> str:
    """Return a sentence that says why caches are not used; empty if changes are noticed."""
    if reader.is_sqlite(connections.settings["default"]["ENGINE"]):
        return ""
    if _listener is None:
        return "Nothing listens for changes in this process."
    return "" if _listener.stamp() is not None else _listener.reason


def start() -> None:
    """Start to listen in the running event loop, which must keep running. Do nothing on SQLite."""
    global _listener
    if _listener is None and reader.is_postgresql(connections.settings["default"]["ENGINE"]):
        _listener = ChangeListener()


async def stop() -> None:
    """Stop listening. From now on every question reads the database."""
    global _listener
    listener, _listener = _listener, None
    if listener is not None:
        await listener.stop()


class NotListening(AuthsvcError):
    """The connection may miss notifications."""


class ChangeListener:
    """A task that keeps one connection listening, and the time until which no notification means no change."""

    def __init__(self) -> None:
        self.reason = "Not listening for changes yet."
        self._session: Stamp | None = None
        self._found = ""
        self._valid_until = 0.0
        self._proof: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="authsvc changes")

    def stamp(self) -> Stamp | None:
        """Return the stamp of the listening session, or None if its last check is too old."""
        return self._session if time.monotonic() < self._valid_until else None

    async def stop(self) -> None:
        """Cancel the task and wait for its end."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        reported = ""
        while True:
            failure = ""
            try:
                await self._listen()
            except (NotListening, DatabaseAway, psycopg.Error, OSError) as error:
                self.reason, failure = _sentence(error), type(error).__name__
            except Exception as error:
                logs.error(log, "changes.failed")
                self.reason = f"Listening for changes failed ({type(error).__name__})."
            finally:
                self._invalidate()
            if self.reason != reported:  # Logged once, not twice a second in a long outage.
                log.warning("changes.deaf", reason=self.reason, error=failure)
                reported = self.reason
            await asyncio.sleep(PAUSE)

    def _invalidate(self) -> None:
        self._session = None
        self._valid_until = 0.0

    async def _listen(self) -> None:
        """Listen until an error, and raise it."""
        connection = await reader.in_time(_connect(), reader.CONNECT_TIMEOUT)
        try:
            await self._prepare(connection)
            while True:
                since = time.monotonic()
                found = await reader.in_time(_check(connection), BEAT_SECONDS)
                await self._receive(connection, 0)  # All notifications from before the check.
                if self._session is None or found != self._found:
                    self._begin(found)
                self._valid_until = since + BOUND
                await self._receive(connection, BEAT)
        except DatabaseAway:
            raise  # The abandoned task closes the connection.
        except BaseException:
            connection.pgconn.finish()
            raise

    def _begin(self, found: str) -> None:
        """Start a new session. Changes before it may have been missed, so all caches are cleared."""
        read_cache.invalidate(None)
        self._session, self._found = object(), found
        log.info("changes.listening")

    async def _prepare(self, connection: psycopg.AsyncConnection[Row]) -> None:
        """Listen, and check that a notification over DATABASE_URL arrives: same database, no pooler."""
        await reader.in_time(reader.rows(connection, f"LISTEN {CHANNEL}"), BEAT_SECONDS)
        proof = json.dumps([f"proof {time.time_ns()} {id(self)}"])
        await reader.fetch("SELECT pg_notify(%s, %s)", [CHANNEL, proof])
        self._proof = proof
        end = time.monotonic() + BEAT_SECONDS
        while self._proof is not None:
            if time.monotonic() > end:
                raise NotListening("Notifications over DATABASE_URL do not arrive over AUTHSVC_LISTEN_DSN.")
            await self._receive(connection, 0.05)

    async def _receive(self, connection: psycopg.AsyncConnection[Row], seconds: float) -> None:
        async for message in connection.notifies(timeout=seconds):
            if message.channel == CHANNEL:
                self._changed(message.payload)

    def _changed(self, payload: str) -> None:
        if payload == self._proof:
            self._proof = None
            return
        for name in _names(payload):
            read_cache.invalidate(name)


async def _connect() -> psycopg.AsyncConnection[Row]:
    arguments = reader.connection_arguments(connections.settings["default"])
    arguments["application_name"] = "devicehub changes"
    if dsn := settings.listen_dsn:
        own = {name: arguments[name] for name in ("connect_timeout", "application_name")}
        return await psycopg.AsyncConnection.connect(dsn, **own, autocommit=True)
    return await psycopg.AsyncConnection.connect(**arguments, autocommit=True)


async def _check(connection: psycopg.AsyncConnection[Row]) -> str:
    """Return a text that identifies the triggers. Raise NotListening if *connection* may miss a notification."""
    [(backend, listening, missing, found)] = await reader.rows(connection, triggers.PROOF, triggers.wanted())
    if backend != connection.info.backend_pid or not listening:
        raise NotListening("A pooler blocks notifications; set AUTHSVC_LISTEN_DSN to the server itself.")
    if missing:
        raise NotListening(f"The trigger {missing[0]} is missing; run manage.py migrate.")
    return str(found)


def _names(payload: str) -> list[str | None]:
    """Return the names in a notification, without nulls; [None], for everything, if it is not a list of names."""
    try:
        found: Any = json.loads(payload)
    except ValueError:
        return [None]
    if not isinstance(found, list) or not all(name is None or isinstance(name, str) for name in found):
        return [None]
    return [name for name in found if name is not None]


def _sentence(error: Exception) -> str:
    if isinstance(error, NotListening):
        return str(error)
    return "The database does not answer."


_listener: ChangeListener | None = None


def _after_fork() -> None:
    """Drop the listener in a child process, where its loop does not run. The child reads until it starts its own."""
    global _listener
    _listener = None


os.register_at_fork(after_in_child=_after_fork)
