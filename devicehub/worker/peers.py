"""The workers that share a subscription: each publishes in the database up to when it has stored its share.

A broker may keep the share of a worker that is away, as Mosquitto does. Devices whose messages wait there are not
silent, and the other workers cannot see whose messages these are.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta

import structlog
from django.db.models import Q
from django.utils import timezone

from devicehub.db import clock
from devicehub.models import IngestWorker

log = structlog.get_logger(__name__)

LOOK = 2.0  # Seconds between two queries of the other workers; this worker's row is written as often.
ALONE = 60.0  # Seconds between two writes of the row of a worker that is alone.
NOTICED = timedelta(seconds=90)  # An absence is logged after this time, which is longer than ALONE.
PATIENCE = timedelta(hours=1)  # The others wait so long for an absent worker.
EXPIRED = timedelta(days=8)  # A row is deleted after this time; a session of MQTT 5 has expired by then.


class Peers:
    """The other workers of *group*, as the worker *client_id* sees them; an empty group has one worker.

    Its row is written in any case, so that the admin lists each worker that runs. Several tasks may use it.
    """

    def __init__(self, group: str, client_id: str) -> None:
        self._group, self._client_id = group, client_id
        self._lock = threading.Lock()
        self._others: list[IngestWorker] = []
        self._look_at = self._write_at = float("-inf")  # The next times, by time.monotonic().
        self._reported: set[tuple[str, str]] = set()

    def heard(self, since: float, until: float) -> tuple[float, float]:
        """Return the time in which all workers of the group heard their devices; this one did from *since* to *until*.

        All times are by time.monotonic(). Raise DatabaseError.
        """
        if not self._client_id or until < since:
            return since, until
        with self._lock:
            return self._heard(since, until)

    def _heard(self, since: float, until: float) -> tuple[float, float]:
        now = time.monotonic()
        if now >= self._look_at:
            self._others = self._here()
            if self._others or now >= self._write_at:
                self._write(now - since, now - until)
                self._write_at = now + ALONE
            self._look_at = now + LOOK
        offset = now - timezone.now().timestamp()
        return (
            max([since, *(other.heard_since.timestamp() + offset for other in self._others)]),
            min([until, *(other.heard_until.timestamp() + offset for other in self._others)]),
        )

    def _here(self) -> list[IngestWorker]:
        """Return the other workers, except those that are away for longer than PATIENCE; report absences."""
        if not self._group:
            return []
        now = timezone.now()
        found = []
        for other in IngestWorker.objects.filter(group=self._group).exclude(client_id=self._client_id):
            away = now - other.heard_until
            if away < -clock.AHEAD:
                continue  # Its clock is far ahead, so the times in its row mean nothing.
            if away < PATIENCE:
                found.append(other)
            if away >= NOTICED:
                self._report(other, now, is_waited_for=away < PATIENCE)
            else:
                self._reported -= {(other.client_id, "away"), (other.client_id, "given up")}
        return found

    def _report(self, other: IngestWorker, now: datetime, *, is_waited_for: bool) -> None:
        what = "away" if is_waited_for else "given up"
        if (other.client_id, what) in self._reported:
            return
        self._reported.add((other.client_id, what))
        hint = "devices that fall silent now are not reported as disconnected until it is back, for an hour at most"
        if not is_waited_for:
            hint = "devices whose messages wait for it at the broker count as silent; restart it, or end its session"
        seconds = round((now - other.heard_until).total_seconds())
        log.warning("worker.peer_is_away", worker=other.client_id, seconds=seconds, hint=hint)

    def _write(self, since: float, until: float) -> None:
        """Write that this worker heard its devices from *since* to *until* seconds ago; delete expired rows."""
        now = timezone.now()
        heard = {
            "heard_since": now - timedelta(seconds=since),
            "heard_until": now - timedelta(seconds=until),
        }
        IngestWorker.objects.update_or_create(
            client_id=self._client_id, defaults={"group": self._group, **heard}
        )
        ahead = Q(heard_until__gt=now + clock.AHEAD)
        IngestWorker.objects.filter(ahead | Q(heard_until__lt=now - EXPIRED)).delete()
