"""The changes on an open page, as server-sent events, about one per second.

One thread with one connection to the database queries for all open pages of the process, and for the streams of
programs, so that a hundred pages take one connection and not a hundred.

Under WSGI a stream would hold a thread for as long as its page is open. There the page requests its whole content
every few seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

import orjson
import structlog
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.handlers.asgi import ASGIRequest
from django.db import DatabaseError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils import timezone

from devicehub import states, visibility
from devicehub.dashboard import devices, overview
from devicehub.dashboard.chart import Chart, Tail
from devicehub.dashboard.devices import Row
from devicehub.dashboard.selection import Selection
from devicehub.kinds.registry import Kind
from devicehub.states import State
from devicehub.stream import logins, thread

log = structlog.get_logger(__name__)

MAX_STREAMS = 100
SECONDS = 1.0
CHECK_SECONDS = 2.0  # from one check of the login to the next; a check is two small queries
LIFETIME = 300  # seconds; then the browser connects again
RETRY = b"retry: 2000\n\n"
POLL_SECONDS = 5  # seconds between two requests of a page whose server cannot stream

_streams: set[object] = set()


def is_full() -> bool:
    return len(_streams) >= MAX_STREAMS


class Table:
    """The rows of one kind on a page, and the state of each when it was last sent."""

    def __init__(self, kind: Kind, selection: Selection, user: Any) -> None:
        self.kind, self._user = kind, user
        # Without a tail, rows change when their devices are heard. The tail of a narrow table serves the chart alone.
        is_plotted = selection.plotted is not None and selection.plotted.kind is kind
        has_tail = kind.reading_model is not None or (kind.narrow is not None and is_plotted)
        self.tail = Tail(kind) if has_tail else None
        page = devices.page(kind, selection, user)
        self.pks = page.pks
        self.rows = page.rows
        self._sent = {d.pk: self._signature(d) for d in self._shown()}

    def changed(self, heard: set[int]) -> list[Row]:
        """Return the rows of the devices that changed or were *heard*."""
        if not self.pks:
            return []
        now_shown = list(self._shown())
        now = {device.pk: self._signature(device) for device in now_shown}
        dirty = [d for d in now_shown if d.pk in heard or now[d.pk] != self._sent.get(d.pk)]
        self._sent = now
        return devices.rows(self.kind, dirty) if dirty else []

    def _shown(self) -> QuerySet[Any]:
        return devices.shown(self.kind, self._user).filter(pk__in=self.pks).order_by()

    def _signature(self, device: Any) -> tuple[str, State, datetime | None]:
        return device.name, states.of(self.kind, device), device.last_seen


class Watch:
    """One open page of *user* and its content, so that only changes are sent."""

    def __init__(self, selection: Selection, user: Any) -> None:
        self._selection, self._user = selection, user
        self._chart: Chart | None = None
        self._tables: list[Table] = []
        self._shared: dict[str, Any] = {}

    def start(self) -> dict[str, Any]:
        """Return the whole content. A page that connects again after a pause is up to date with this alone."""
        now = timezone.now()
        # The tables are read before the chart, so that no row is missed between the two.
        self._tables = [Table(kind, self._selection, self._user) for kind in visibility.kinds_of(self._user)]
        news = self._news(now, [row for table in self._tables for row in table.rows])
        plotted = self._selection.plotted
        if plotted is not None and visibility.may(self._user, visibility.VIEW, plotted.kind.device_model):
            self._chart = Chart(plotted, self._selection.seconds, self._user)
            news["chart"] = self._chart.load(now)
        return news

    def look(self) -> dict[str, Any]:
        """Return the changes since the last look."""
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
        """Return the time, the changed rows, and those of the shared parts that differ from the last ones sent."""
        counts = overview.counts(self._user, max_age=SECONDS * 0.9)
        denials, quarantine = overview.denials(self._user), overview.quarantine(self._user)
        shared = {
            "counts": counts,
            "denials": denials,
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
            news["quarantined"] = f"{quarantine.count:,}"
        return news


def _spoken(denials: list[overview.DenialInWords]) -> str:
    if not denials:
        return ""
    latest = denials[0]
    return f"Denied: {latest.who}, {latest.action} {latest.topic}. {latest.sentence}"


class Login(logins.Login):
    """The login of a page, with the limits of its user."""

    def __init__(self, request: HttpRequest, user: AbstractBaseUser) -> None:
        """Take both from *request*, whose user is *user*."""
        super().__init__(request, user, overview.scope_of)


async def while_signed_in(login: Login, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the events of *stream* until *login* is not valid any more."""
    loop = asyncio.get_running_loop()
    check_at = loop.time() + CHECK_SECONDS
    async with aclosing(stream):
        async for event in stream:
            if loop.time() >= check_at:
                check_at = loop.time() + CHECK_SECONDS
                if not await thread.run(login.counts):
                    return
            yield event


def can_stream(request: HttpRequest) -> bool:
    """Return whether the server of *request* can hold a stream open. Under WSGI a stream would occupy a thread."""
    return isinstance(request, ASGIRequest)


def snapshot(selection: Selection, user: Any) -> bytes:
    """Return the whole content of the page of *user* as JSON, the same as the first event of a stream."""
    return orjson.dumps(Watch(selection, user).start())


async def events(selection: Selection, user: Any) -> AsyncGenerator[bytes, None]:
    """Yield the events of one page of *user* until its reader disconnects or LIFETIME is over."""
    stream = object()
    _streams.add(stream)
    watch = Watch(selection, user)
    loop = asyncio.get_running_loop()
    ends = loop.time() + LIFETIME
    try:
        yield RETRY
        yield _event("start", await thread.run(watch.start))
        while loop.time() < ends:
            await asyncio.sleep(SECONDS)
            yield _event("news", await thread.run(watch.look))
    except DatabaseError as error:
        log.warning(
            "live.database_away", error=type(error).__name__
        )  # The browser connects again on its own.
    finally:
        _streams.discard(stream)
        if not _streams:
            thread.rest()


def _event(name: str, data: dict[str, Any]) -> bytes:
    """Return one event as bytes. orjson writes no line breaks, and writes NaN and infinite numbers as null."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))
