"""What changes on an open page, as server-sent events, about one in a second.

One thread with one connection to the database looks for all open pages of the process, so that a hundred of
them take one connection and not a hundred.

Under WSGI a stream would hold a thread for as long as its page is open: there the page requests the whole of its news
every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

import orjson
import structlog
from asgiref.sync import sync_to_async
from django.contrib.auth import SESSION_KEY, get_user, get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError, close_old_connections, connections
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone

from devicehub.dashboard import devices, overview
from devicehub.dashboard.chart import Chart, Tail
from devicehub.dashboard.devices import Row, State
from devicehub.dashboard.selection import Selection
from devicehub.kinds.registry import Kind, registry

Result = TypeVar("Result")
log = structlog.get_logger(__name__)

MAX_STREAMS = 100
SECONDS = 1.0
CHECK_SECONDS = 2.0  # from one check of the login to the next; two small queries each
LIFETIME = 300  # seconds; then the browser comes back
RETRY = b"retry: 2000\n\n"
POLL_SECONDS = 5  # between two requests of a page whose server cannot stream

_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="live")
_streams: set[object] = set()


def is_full() -> bool:
    return len(_streams) >= MAX_STREAMS


class Table:
    """The rows of one kind that a page shows, and what was last told of them."""

    def __init__(self, kind: Kind, selection: Selection) -> None:
        self.kind = kind
        # A kind without a table of readings has no tail: rows change when their devices were heard.
        self.tail = Tail(kind) if kind.reading_model is not None else None
        page = devices.page(kind, selection)
        self.pks = page.pks
        self.rows = page.rows
        self._sent = {d.pk: self._signature(d) for d in devices.shown(kind).filter(pk__in=self.pks)}

    def changed(self, heard: set[int]) -> list[Row]:
        """The rows of devices that changed, or were *heard*."""
        if not self.pks:
            return []
        now_shown = list(devices.shown(self.kind).filter(pk__in=self.pks).order_by())
        now = {device.pk: self._signature(device) for device in now_shown}
        dirty = [d for d in now_shown if d.pk in heard or now[d.pk] != self._sent.get(d.pk)]
        self._sent = now
        return devices.rows(self.kind, dirty) if dirty else []

    def _signature(self, device: Any) -> tuple[str, State, datetime | None]:
        return device.name, devices.state(self.kind, device), device.last_seen


class Watch:
    """One open page: what it shows, so that it is told only what is new."""

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._chart: Chart | None = None
        self._tables: list[Table] = []
        self._shared: dict[str, Any] = {}

    def start(self) -> dict[str, Any]:
        """Everything: a page that comes back after a pause catches up with this alone."""
        now = timezone.now()
        self._tables = [
            Table(kind, self._selection) for kind in registry
        ]  # before the chart: nothing is missed
        news = self._news(now, [row for table in self._tables for row in table.rows])
        if self._selection.plotted is not None:
            self._chart = Chart(self._selection.plotted, self._selection.seconds)
            news["chart"] = self._chart.load(now)
        return news

    def look(self) -> dict[str, Any]:
        """What is new since the last look."""
        now = timezone.now()
        rows: list[Row] = []
        points: list[Any] = []
        for table in self._tables:
            chart = self._chart if self._chart and self._chart.kind is table.kind else None
            of: set[int] | None = set(table.pks)
            if chart is not None:
                of = None if chart.has_room else {*table.pks, *chart.names}
            stored = table.tail.look(of, *([chart.reading.name] if chart else [])) if table.tail else []
            rows += table.changed({row[1] for row in stored})
            if chart is not None and stored:
                points = chart.add(stored, now)
        news = self._news(now, rows)
        if points:
            news["points"] = points
        return news

    def _news(self, now: datetime, rows: list[Row]) -> dict[str, Any]:
        """The time, the rows that changed, and what all pages share where this one does not know it yet."""
        counts = overview.counter.counts(max_age=SECONDS * 0.9)
        denials, quarantine = overview.denials(), overview.quarantine()
        shared = {
            "counts": counts,
            "denials": [replace(denial, last_ago="") for denial in denials],
            "quarantine": quarantine,
        }
        new = {name for name, value in shared.items() if value != self._shared.get(name)}
        self._shared = shared
        news: dict[str, Any] = {"now": now.timestamp()}
        if rows:
            news["rows"] = {row.key: render_to_string("devicehub/_device.html", {"row": row}) for row in rows}
        if "counts" in new:
            news["counts"] = counts.shown
        if "denials" in new:
            news["denials"] = render_to_string("devicehub/_denials.html", {"denials": denials})
            news["denial"] = _spoken(denials)
        if "quarantine" in new:
            news["quarantine"] = render_to_string("devicehub/_quarantine.html", {"quarantine": quarantine})
            news["quarantined"] = quarantine.count
        return news


def _spoken(denials: list[overview.DenialInWords]) -> str:
    if not denials:
        return ""
    latest = denials[0]
    return f"Denied: {latest.who}, {latest.action} {latest.topic}. {latest.sentence}"


class Login:
    """The session and the user with which a stream was opened."""

    def __init__(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        """Take both from *request*, whose user is *user*."""
        session: Any = getattr(request, "session", {})
        self._user_pk = user.pk
        self._sessions = type(session) if SESSION_KEY in session else None
        self._session_key = session.session_key if self._sessions else None

    def counts(self) -> bool:
        """Return whether a new request with this session would be one of the same user.

        It would not after a sign-out, at the end of the session, after a new password, and when the user is switched
        off or deleted. A session that cannot be read counts for nothing.
        """
        try:
            return bool(self._user().pk == self._user_pk)
        except DatabaseError as error:
            log.warning("live.database_away", error=type(error).__name__)  # the browser comes back by itself
            return False

    def _user(self) -> AbstractBaseUser | AnonymousUser:
        if self._sessions is None:  # a middleware of the project knows its users by other means
            users = get_user_model()._default_manager.filter(pk=self._user_pk)
            return next((user for user in users if user.is_active), AnonymousUser())
        request = HttpRequest()
        request.session = self._sessions(self._session_key)
        return get_user(request)


async def while_signed_in(login: Login, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the events of *stream* until *login* does not count any more."""
    loop = asyncio.get_running_loop()
    check_at = loop.time() + CHECK_SECONDS
    async with aclosing(stream):
        async for event in stream:
            if loop.time() >= check_at:
                check_at = loop.time() + CHECK_SECONDS
                if not await _run(login.counts):
                    return
            yield event


def can_stream(request: HttpRequest) -> bool:
    """Return whether the server of *request* can hold a stream open. WSGI cannot: each would take a thread for good."""
    return isinstance(request, ASGIRequest)


def snapshot(selection: Selection) -> bytes:
    """Return as JSON what the first event of a stream of the page would hold: all that is shown now."""
    return orjson.dumps(Watch(selection).start())


async def events(selection: Selection) -> AsyncGenerator[bytes, None]:
    """Yield the stream of one page, until its reader goes away or LIFETIME is over."""
    stream = object()
    _streams.add(stream)
    watch = Watch(selection)
    loop = asyncio.get_running_loop()
    ends = loop.time() + LIFETIME
    try:
        yield RETRY
        yield _event("start", await _run(watch.start))
        while loop.time() < ends:
            await asyncio.sleep(SECONDS)
            yield _event("news", await _run(watch.look))
    except DatabaseError as error:
        log.warning("live.database_away", error=type(error).__name__)  # the browser comes back by itself
    finally:
        _streams.discard(stream)
        if not _streams:
            _thread.submit(connections.close_all)


async def _run(call: Callable[[], Result]) -> Result:
    """Return what *call* returns in the thread of the streams, with its connection to the database."""

    def run() -> Result:
        close_old_connections()
        return call()

    return await sync_to_async(run, thread_sensitive=False, executor=_thread)()


def _event(name: str, data: dict[str, Any]) -> bytes:
    """orjson writes no line break, and a number that JSON lacks as null."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
