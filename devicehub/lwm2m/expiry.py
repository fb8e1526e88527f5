"""Registrations that end without a word: their lifetime has passed since the last registration or update.

The endpoint is then unregistered and offline, as after a deregistration. There is no index for it: the table is
scanned, seldom enough for the scan to cost little, and rows that look expired are read again under their lock. A
registration without a lifetime expires at the server that keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import Case, F, FloatField, Func, Value, When
from django.utils import timezone

from devicehub.db import clock
from devicehub.ingest import listeners
from devicehub.ingest.presence import Transition
from devicehub.lwm2m import events
from devicehub.lwm2m.events import Made
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, Event
from devicehub.lwm2m.models.events import REGISTRATION
from devicehub.models import OPERATOR_STATES, DeviceStatus
from devicehub.worker.hearing import AWAY, Hearing
from devicehub.worker.tasks import Context

EVERY = 5.0  # Seconds between two scans; a longer scan waits REST times its own time.
REST = 50
GRACE = 10.0  # Seconds that an update may be late: on its way, or sent again.
# With a registration id a server keeps the registration, and reports its end. It may forget that when it restarts, and
# its updates are missed while nothing follows it.
GRACE_OF_SERVERS = 600.0
# After an outage messages that waited at the broker arrive first. A lifetime that is shorter is waited for whole.
CATCH_UP = 300.0
BATCH = 500  # Endpoints changed in one transaction.
EXPIRED = "expired"


class Seconds(Func):
    """A time as seconds since 1970."""

    output_field = FloatField()

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "((julianday(%(expressions)s) - 2440587.5) * 86400.0)"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "CAST(EXTRACT(EPOCH FROM %(expressions)s) AS double precision)"
        return self.as_sql(compiler, connection, template=template, **context)


class Lapse(NamedTuple):
    """An endpoint whose registration expired, as its row is now, with the event, and the change if there was one."""

    endpoint: Endpoint
    made: Made
    transition: Transition | None


class ExpiryWatch:
    """A watch that ends expired registrations, if this worker would have heard an update; run() is a task of a worker.

    *notify* is called with the changes of each batch, after its commit.
    """

    def __init__(
        self,
        hearing: Hearing,
        notify: Callable[[Sequence[Transition]], None],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hearing, self._notify, self._stopping = hearing, notify, stopping
        self._due = float("-inf")

    @classmethod
    def of(cls, context: Context) -> ExpiryWatch:
        """Return the watch of the worker of *context*."""
        hearing = Hearing(context.heard_since, context.heard_until, context.peers, away=EVERY + AWAY)
        return cls(hearing, context.notify, context.stopped.is_set)

    def run(self) -> int:
        """End the expired registrations; return their number."""
        try:
            since, until = self._hearing.heard()
            began = time.monotonic()
            if began < self._due or not clock.is_right():
                return 0
            now, heard = timezone.now().timestamp(), until - since
            count = self._end(now - (time.monotonic() - until), heard)
            self._due = began + (time.monotonic() - began) * REST
            return count
        finally:
            self._hearing.rest()

    def _end(self, limit: float, heard: float) -> int:
        """End the registrations that ended before *limit* and that *heard* seconds of hearing would have shown."""
        count = 0
        for lapses in end_expired(limit, heard):
            count += len(lapses)
            transitions = [lapse.transition for lapse in lapses if lapse.transition is not None]
            if transitions and listeners.are_there(KIND):
                self._notify(transitions)
            if events.are_heard():
                for lapse in lapses:
                    events.notify(lapse.endpoint, lapse.made)
            if self._stopping():
                break
        return count


def end_expired(limit: float, heard: float) -> Iterator[list[Lapse]]:
    """End the registrations that expired before *limit*, a Unix time, and a grace; yield each batch after its commit.

    *heard* is the time in which an update would have been heard: a lifetime above it ends only after CATCH_UP of it.
    """
    last = 0
    expired = _expired(Endpoint.objects.all(), limit)
    if heard < CATCH_UP:
        expired = expired.filter(lifetime__lt=heard)
    while True:
        keys = list(expired.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH])
        if keys:
            yield _end_batch(keys, limit)
        if len(keys) < BATCH:
            return
        last = keys[-1]


def _expired(rows: Any, limit: float) -> Any:
    grace = Case(When(registration_id="", then=Value(GRACE)), default=Value(GRACE_OF_SERVERS))
    ends = Seconds(F("last_registration")) + F("lifetime") + grace
    found = rows.filter(registered=True, lifetime__isnull=False, last_registration__isnull=False)
    return found.alias(ends=ends).filter(ends__lt=limit)


@transaction.atomic
def _end_batch(keys: Sequence[int], limit: float) -> list[Lapse]:
    """End the expired registrations among *keys*, and return the changes.

    A row that another process has locked is left out: its endpoint has just sent something, or is ended there.
    """
    rows: Any = Endpoint.objects
    free = rows.filter(pk__in=keys).order_by("pk").select_for_update(skip_locked=True, no_key=True)
    locked = list(free.values_list("pk", flat=True))
    found = _expired(rows.filter(pk__in=locked), limit).order_by("pk")
    before = {
        pk: (status, connected) for pk, status, connected in found.values_list("pk", "status", "connected")
    }
    if not before:
        return []
    now = timezone.now()
    rows.filter(pk__in=before).update(
        registered=False,
        sleeping=False,
        connected_changed_at=Case(When(connected=True, then=Value(now)), default=F("connected_changed_at")),
        connected=False,
        status=Case(
            When(status__in=OPERATOR_STATES, then=F("status")), default=Value(DeviceStatus.OFFLINE.value)
        ),
        updated_at=now,
    )
    made = Event.objects.bulk_create(
        Event(device_id=pk, type=REGISTRATION, detail=EXPIRED, timestamp=now, received_at=now)
        for pk in before
    )
    endpoints = rows.in_bulk(list(before))
    return [_lapse(endpoints[event.device_id], event, *before[event.device_id], now) for event in made]


def _lapse(endpoint: Endpoint, event: Event, status: str, connected: bool, now: datetime) -> Lapse:
    change = None
    if (status, connected) != (endpoint.status, endpoint.connected):
        change = Transition(KIND, endpoint, status, endpoint.status, connected, endpoint.connected)
    return Lapse(endpoint, Made(event.pk, event.type, event.detail, now, now, {}), change)
