"""Whether what was read is still so: SQLite is asked each time, PostgreSQL tells.

On PostgreSQL triggers (`authsvc.freshness.triggers`) notify the channel CHANNEL of every change that decides: a JSON
list of the names that it concerns, `*` for everything. One connection of each process listens.
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

BEAT = 0.4  # seconds between two proofs that the listening connection lives
BEAT_SECONDS = 0.5  # that a proof may take
BOUND = 1.0  # seconds after which memory is not believed without a new proof
PAUSE = 0.5  # seconds before the next attempt to listen


class _Turn(threading.local):
    """The stamp of this turn of the event loop, and which loop."""

    stamp: Stamp | None = None
    loop: asyncio.AbstractEventLoop | None = None

    def end(self) -> None:
        self.stamp = None


_turn = _Turn()


def stamp() -> Stamp | None:
    """What stands for "nothing changed since"; None when nobody can say, so that everything is read.

    Asked of SQLite once in a turn of the event loop. All questions of a turn were received before its first is
    answered, and the end of the turn is queued before those that come later: none is answered by an older stamp
    than itself. Raises sqlite3.Error when the SQLite database is not there.
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
    """Why nothing is believed without reading it, in a sentence; empty when changes are noticed."""
    if reader.is_sqlite(connections.settings["default"]["ENGINE"]):
        return ""
    if _listener is None:
        return "Nothing listens for changes in this process."
    return "" if _listener.stamp() is not None else _listener.reason


def start() -> None:
    """Listen from now on in the running event loop, which has to keep running. On SQLite there is no need."""
    global _listener
    if _listener is None and reader.is_postgresql(connections.settings["default"]["ENGINE"]):
        _listener = ChangeListener()


async def stop() -> None:
    """Stop listening; everything is read again from now on."""
    global _listener
    listener, _listener = _listener, None
    if listener is not None:
        await listener.stop()


class NotListening(AuthsvcError):
    """The connection cannot be relied on to hear of every change."""


class ChangeListener:
    """Keeps one connection listening, and knows until when its silence means that nothing changed."""

    def __init__(self) -> None:
        self.reason = "Not listening for changes yet."
        self._session: Stamp | None = None
        self._found = ""
        self._valid_until = 0.0
        self._proof: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name="authsvc changes")

    def stamp(self) -> Stamp | None:
        return self._session if time.monotonic() < self._valid_until else None

    async def stop(self) -> None:
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
            if self.reason != reported:  # once, not twice a second through a long outage
                log.warning("changes.deaf", reason=self.reason, error=failure)
                reported = self.reason
            await asyncio.sleep(PAUSE)

    def _invalidate(self) -> None:
        self._session = None
        self._valid_until = 0.0

    async def _listen(self) -> None:
        """Listen until something is wrong, which is raised."""
        connection = await reader.in_time(_connect(), reader.CONNECT_TIMEOUT)
        try:
            await self._prepare(connection)
            while True:
                since = time.monotonic()
                found = await reader.in_time(_check(connection), BEAT_SECONDS)
                await self._receive(connection, 0)  # all that came before the proof
                if self._session is None or found != self._found:
                    self._begin(found)
                self._valid_until = since + BOUND
                await self._receive(connection, BEAT)
        except DatabaseAway:
            raise  # the connection is closed by what was left behind on it
        except BaseException:
            connection.pgconn.finish()
            raise

    def _begin(self, found: str) -> None:
        """What was not heard until now may have changed, and that includes what is answered in an outage."""
        read_cache.invalidate(None)
        self._session, self._found = object(), found
        log.info("changes.listening")

    async def _prepare(self, connection: psycopg.AsyncConnection[Row]) -> None:
        """Listen, and prove that what is sent over DATABASE_URL is heard here: the same database, no pooler."""
        await reader.in_time(reader.rows(connection, f"LISTEN {CHANNEL}"), BEAT_SECONDS)
        proof = json.dumps([f"proof {time.time_ns()} {id(self)}"])
        await reader.fetch("SELECT pg_notify(%s, %s)", [CHANNEL, proof])
        self._proof = proof
        end = time.monotonic() + BEAT_SECONDS
        while self._proof is not None:
            if time.monotonic() > end:
                raise NotListening("What is sent over DATABASE_URL is not heard over AUTHSVC_LISTEN_DSN.")
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
    """Return what identifies the triggers. Raise NotListening unless *connection* listens, in a own session, to all."""
    [(backend, listening, missing, found)] = await reader.rows(connection, triggers.PROOF, triggers.wanted())
    if backend != connection.info.backend_pid or not listening:
        raise NotListening(
            "Changes are not heard through a pooler; set AUTHSVC_LISTEN_DSN to the server itself."
        )
    if missing:
        raise NotListening(f"The trigger {missing[0]} is missing; run manage.py migrate.")
    return str(found)


def _names(payload: str) -> list[str | None]:
    """The names that a notification speaks of; everything for what is no list of them. A null is nobody's."""
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
    """A child has no thread that runs the loop of this listener: it reads until it starts its own."""
    global _listener
    _listener = None


os.register_at_fork(after_in_child=_after_fork)
