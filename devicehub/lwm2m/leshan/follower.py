"""Follow a Leshan server: read its events, list its registrations, send requests to endpoints, hand over reports.

One thread reads the stream, some send requests to endpoints, and the thread of run() decides and stores. A full queue
between them makes the stream wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from devicehub.backoff import Backoff
from devicehub.lwm2m.leshan import shapes
from devicehub.lwm2m.leshan.event_stream import EventStream, ServerEvent
from devicehub.lwm2m.leshan.intake import Arrived, Intake, ListBegins, Listed, ListEnds
from devicehub.lwm2m.leshan.plans import Wish
from devicehub.lwm2m.leshan.reports import Report
from devicehub.lwm2m.leshan.requester import Requester
from devicehub.lwm2m.leshan.roll import Roll
from devicehub.lwm2m.leshan.server import LeshanServer, ServerAway, ServerRefuses, Stream
from devicehub.lwm2m.leshan.shapes import MalformedAnswer

log = structlog.get_logger(__name__)

AWAY = Backoff.doubling(1, 30, spread=0.5)  # Seconds between attempts to open the stream.
SETTLED = 60.0  # Seconds that a stream must last before its end counts as the first failure again.
BATCH = 500
POLL = 0.2
GRACE = 5.0  # Seconds from stop() in which events that were read are still stored.


class Follower:
    """Follows one server from run() until stop(), and calls *store* with reports in order.

    *store* returns when they are stored, or given up because the process ends. *report* gets lines for the operator.
    """

    def __init__(
        self,
        server: LeshanServer,
        wishes: Sequence[Wish],
        store: Callable[[Sequence[Report]], None],
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._server = server
        self._store = store
        self._report = report
        self._intake = Intake()
        self.roll = Roll(wishes, lambda *series: self._requester.request(*series))
        self._requester = Requester(server, self._intake, self.roll.may_be_requested)
        self._reader = threading.Thread(target=self._read, name="leshan stream", daemon=True)
        self._stream: Stream | None = None
        self._has_followed = False
        self._failure: Exception | None = None
        self.stopping = False  # Not an Event: a signal handler sets it, and must not wait for a lock.
        self.malformed = 0  # Events and registrations that could not be read.
        self.reconnects = -1  # Streams after the first; -1 before it.

    @property
    def is_connected(self) -> bool:
        """Whether the stream of events is open."""
        return self._stream is not None

    @property
    def waiting(self) -> int:
        """The number of events and answers that are not stored."""
        return len(self._intake)

    def stop(self) -> None:
        """Have run() store the events that were read, and return. A signal handler may call this."""
        self.stopping = True

    def run(self) -> None:
        """Follow the server until stop(). Raise ServerRefuses if it refuses us from the beginning."""
        self._requester.start()
        self._reader.start()
        try:
            while not self.stopping and self._failure is None:
                self._advance(POLL)
        finally:
            self._end()
        if self._failure is not None:
            raise self._failure

    def _advance(self, timeout: float) -> bool:
        """Store what arrived within *timeout* seconds; return whether anything did."""
        taken = self._intake.take(BATCH, timeout)
        reports = [report for arrived in taken for report in self._handled(arrived)]
        reports += self.roll.due(datetime.now(UTC))
        if reports:
            self._store(reports)
        return bool(taken)

    def _handled(self, arrived: Arrived) -> list[Report]:
        try:
            return self.roll.handle(arrived)
        except Exception:  # A bug with one event must not end the process, which would meet it again.
            log.exception("leshan.bug", content=type(arrived.content).__name__)
            return []

    def _end(self) -> None:
        self.stopping = True
        self._intake.close()
        self._requester.stop()
        stream = self._stream
        if stream is not None:
            stream.close()
        end = time.monotonic() + GRACE
        while time.monotonic() < end and self._advance(0):
            pass
        ended = self.roll.due(datetime.now(UTC), is_end=True)
        if ended:
            self._store(ended)

    def _read(self) -> None:
        """Read streams, one after the other, until stop(). This is the reader thread."""
        failures = 0
        while not self.stopping:
            began = time.monotonic()
            try:
                self._follow()
                reason = "it ended the stream of events"
            except ServerRefuses as error:
                if not self._has_followed:
                    self._failure = error
                    return
                reason = str(error)
            except (ServerAway, MalformedAnswer) as error:
                reason = str(error)
            except Exception as error:  # A bug must not end the thread without a word.
                log.exception("leshan.bug")
                reason = type(error).__name__
            self._stream = None
            if self.stopping:
                return
            failures = 1 if time.monotonic() - began > SETTLED else failures + 1
            pause = AWAY.after(failures)
            self._report(f"{self._server.address}: {reason}; trying again")
            log.warning(
                "leshan.lost", server=str(self._server.address), reason=reason, retry_in=round(pause, 1)
            )
            end = time.monotonic() + pause
            while not self.stopping and time.monotonic() < end:
                time.sleep(POLL)

    def _follow(self) -> None:
        """Follow one stream until it ends. The list comes after its beginning, so that no registration is missed."""
        with self._server.stream() as stream:
            self._stream = stream
            self.reconnects += 1
            if self.stopping:
                return
            count = self._list()
            self._has_followed = True
            self._report(f"follows {self._server.address}; registered endpoints: {count}")
            log.info("leshan.followed", server=str(self._server.address), registered=count)
            parser = EventStream()
            for piece in stream:
                skipped = parser.skipped
                for event in parser.feed(piece):
                    self._put(event)
                if parser.skipped > skipped:
                    self._count_malformed("an event", "it is too long")
                if self.stopping:
                    return

    def _list(self) -> int:
        """Put all registrations into the queue, and return their number."""
        count = 0
        self._intake.put(ListBegins(), datetime.now(UTC))
        for registration in self._server.registrations():
            if isinstance(registration, MalformedAnswer):
                self._count_malformed("a registration", str(registration))
            elif not self._intake.put(
                Listed(registration), datetime.now(UTC), 1000 + len(registration.links)
            ):
                return count
            else:
                count += 1
        self._intake.put(ListEnds(), datetime.now(UTC))
        return count

    def _put(self, event: ServerEvent) -> None:
        try:
            content = shapes.read_event(event.name, event.data)
        except MalformedAnswer as error:
            self._count_malformed(event.name, str(error))
            return
        if content is not None:
            self._intake.put(content, datetime.now(UTC), 1000 + len(event.data))

    def _count_malformed(self, name: str, reason: str) -> None:
        """Count an unreadable part, and log the first, second, fourth, eighth, and so on."""
        self.malformed += 1
        if self.malformed & (self.malformed - 1) == 0:
            log.warning("leshan.unreadable", part=name, reason=reason, so_far=self.malformed)
