"""Silent devices: those without a message for two and a half heartbeat intervals.

There is no index on `last_seen`, since every message would have to change it: devices are read in the order of
their keys, and rows that look overdue are read again under their lock. Several workers may do so at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Case, F, Q, Value, When
from django.utils import timezone

from devicehub import states
from devicehub.db import clock
from devicehub.ingest import listeners
from devicehub.ingest.announce import announce_transitions
from devicehub.ingest.presence import Transition
from devicehub.kinds.registry import Kind, registry
from devicehub.models import OPERATOR_STATES, DeviceStatus
from devicehub.worker.hearing import Hearing
from devicehub.worker.peers import Peers

MULTIPLIER = 2.5  # The same as in BaseDevice.is_heartbeat_overdue().
EVERY = 1.0  # Seconds between two checks for kinds that are due.
LOOKS = 25  # Checks of a kind in the time after which a device is overdue.
READ_EVERY = 10.0  # Seconds between two reads of the intervals of single devices.
SELDOM = 60.0  # The most seconds between two checks of a kind.
SCAN = 50_000  # Keys found by one scan of a kind, which costs as much for one key as for many.
BATCH = 500  # Devices changed in one transaction.
BUDGET = 0.5  # Seconds of one run, so that other tasks get their turn.
# Devices that count as connected. A state that an operator set does not show that.
COUNTS = Q(connected=True) | ~Q(status__in=[DeviceStatus.OFFLINE, *OPERATOR_STATES])

Notify = Callable[[Sequence[Transition]], None]


class SilenceWatch:
    """A watch that marks silent devices, if this worker would have heard them; run() is a task of a worker.

    *listening_since*, *heard_until* and *peers* are those of hearing.Hearing: devices get a full window to be heard in
    after an outage. *stopping* ends a run between two batches.
    """

    def __init__(
        self,
        listening_since: Callable[[], float | None],
        *,
        heard_until: Callable[[], float] = lambda: time.monotonic(),
        peers: Peers | None = None,
        notify: Notify = announce_transitions,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hearing = Hearing(listening_since, heard_until, peers or Peers("", ""))
        self._notify, self._stopping = notify, stopping
        self._due: dict[tuple[str, float], float] = {}
        self._under_way: dict[tuple[str, float], Iterator[list[Transition]]] = {}
        self._read: list[tuple[Kind, float, Q]] = []
        self._read_at = float("-inf")

    def run(self) -> int:
        """Check each kind that is due, for about BUDGET seconds; return how many devices changed."""
        try:
            return self._run(*self._hearing.heard())
        finally:
            self._hearing.rest()

    def _run(self, since: float, until: float) -> int:
        changed, end = 0, time.monotonic() + BUDGET
        for kind, interval, whose in self._intervals():
            window, name = interval * MULTIPLIER, (kind.slug, interval)
            if until - since < window:
                self._under_way.pop(name, None)
                continue
            if time.monotonic() < self._due.get(name, 0) or not clock.is_right():
                continue
            # The clocks are read in this order: a process that is stopped between the two waits longer, not shorter.
            limit = timezone.now() - timedelta(seconds=time.monotonic() - until + window)
            batches = self._under_way.pop(name, None) or mark_silent(kind, limit, whose)
            for transitions in batches:
                changed += len(transitions)
                if transitions and listeners.are_there(kind):
                    self._notify(transitions)
                if self._stopping() or time.monotonic() > end:
                    self._under_way[name] = batches  # The next run goes on from here.
                    return changed
            self._due[name] = time.monotonic() + min(window / LOOKS, SELDOM)
        return changed

    def _intervals(self) -> list[tuple[Kind, float, Q]]:
        """Return the heartbeat intervals of each kind with their devices, as read at most READ_EVERY seconds ago."""
        if time.monotonic() >= self._read_at + READ_EVERY:
            own = states.own_intervals()
            self._read = [(kind, *found) for kind in registry for found in states.intervals(kind, own)]
            self._read_at = time.monotonic()
        return self._read


def mark_silent(kind: Kind, limit: datetime, whose: Q | None = None) -> Iterator[list[Transition]]:
    """Mark the devices of *kind*, or those of *whose*, that were not heard since *limit*; yield each batch's changes.

    Each batch is one transaction, and its changes are yielded after the commit.
    """
    last = 0
    seeming = _overdue(limit) | (COUNTS & Q(last_seen__gt=timezone.now() + clock.AHEAD))
    seeming &= whose or Q()
    while True:
        # Found without a lock: on SQLite a transaction would keep all writers waiting meanwhile.
        found = kind.device_model.objects.filter(seeming, pk__gt=last).order_by("pk")
        keys = list(found.values_list("pk", flat=True)[:SCAN])
        for start in range(0, len(keys), BATCH):
            yield _mark(kind, keys[start : start + BATCH], limit, timezone.now())
        if len(keys) < SCAN:
            return
        last = keys[-1]


def _overdue(limit: datetime) -> Q:
    """Return the condition for devices that count as connected and were not heard, or if never heard not changed."""
    return COUNTS & (Q(last_seen__lt=limit) | Q(last_seen=None, updated_at__lt=limit))


@transaction.atomic
def _mark(kind: Kind, keys: Sequence[int], limit: datetime, now: datetime) -> list[Transition]:
    """Mark the silent devices among *keys* and return the changes.

    A row that another process has locked is left out: its device was just heard, or is marked by that process.
    """
    devices = kind.device_model.objects
    free = devices.select_for_update(skip_locked=True, no_key=True).filter(COUNTS, pk__in=keys)
    locked = list(free.values_list("pk", flat=True))
    # A clock was ahead, so the real time is unknown, but it was before now. The device gets a window to be heard in.
    devices.filter(pk__in=locked, last_seen__gt=now + clock.AHEAD).update(last_seen=now)
    silent = devices.filter(_overdue(limit), pk__in=locked).values_list("pk", "status", "connected")
    before = {pk: (status, was_connected) for pk, status, was_connected in silent}
    devices.filter(pk__in=before).update(
        connected_changed_at=Case(When(connected=True, then=Value(now)), default=F("connected_changed_at")),
        connected=False,
        status=Case(
            When(status__in=OPERATOR_STATES, then=F("status")), default=Value(DeviceStatus.OFFLINE.value)
        ),
        updated_at=now,
    )
    return [
        Transition(kind, device, before[pk][0], device.status, before[pk][1], device.connected)
        for pk, device in devices.in_bulk(list(before)).items()
    ]
