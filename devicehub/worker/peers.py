"""What the workers that share a subscription know of each other: up to when each has stored its share.

A broker may keep the share of a worker that is away, as Mosquitto does. Devices whose messages wait there are not
silent, and nobody else can know whose they are.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta

import structlog
from django.db.models import Q
from django.utils import timezone

from devicehub.db import clock
from devicehub.models import IngestWorker

log = structlog.get_logger(__name__)

LOOK = 2.0  # seconds between two looks at the others, who are told of this one as often
ALONE = 60.0  # seconds between two times that it is written down of a worker that is alone
NOTICED = timedelta(seconds=90)  # after which a worker that is away is spoken of; more than ALONE
PATIENCE = timedelta(hours=1)  # that a worker may be away until the others go on as if it had never been
EXPIRED = timedelta(days=8)  # when also a session of MQTT 5 has ended


class Peers:
    """The other workers of *group*, as the worker *client_id* sees them; an empty group has one worker.

    For one thread.
    """

    def __init__(self, group: str, client_id: str) -> None:
        self._group, self._client_id = group, client_id
        self._others: list[IngestWorker] = []
        self._look_at = self._write_at = float("-inf")  # by time.monotonic()
        self._reported: set[tuple[str, str]] = set()

    def heard(self, since: float, until: float) -> tuple[float, float]:
        """From when until when all workers of the group heard their devices, as this one did from *since* to *until*.

        All by time.monotonic(). Raises DatabaseError.
        """
        if not self._group or until < since:
            return since, until
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
        """The others that are here, or were a while ago."""
        now = timezone.now()
        found = []
        for other in IngestWorker.objects.filter(group=self._group).exclude(client_id=self._client_id):
            away = now - other.heard_until
            if away < -clock.AHEAD:
                continue  # its clock is years ahead: what it wrote says nothing
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
        hint = (
            "devices that fall silent now are not told as disconnected until it is back, for an hour at most"
        )
        if not is_waited_for:
            hint = "devices whose messages wait for it at the broker count as silent; bring it back, or end its session"
        seconds = round((now - other.heard_until).total_seconds())
        log.warning("worker.peer_is_away", worker=other.client_id, seconds=seconds, hint=hint)

    def _write(self, since: float, until: float) -> None:
        """So many seconds ago."""
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
