"""What the page says of the whole fleet: numbers, denials, quarantine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import QuerySet, Sum
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub.dashboard import display, reasons
from devicehub.kinds.registry import registry
from devicehub.models import CountedRefusal, QuarantinedMessage

DENIALS = 20
OF_ONE = 5  # of them for one principal, if there are others; half of them for all unknown ones together
LOOKED_AT = 500  # latest rows among which the ones to show are chosen
QUARANTINED = 5
EXPENSIVE = 0.05  # seconds that counting may take before the result is kept for longer
KEPT = 20  # times as long as it took


@dataclass(frozen=True)
class Counts:
    """The numbers at the top of the page."""

    devices: int
    connected: int
    readings: int
    denied: int
    by_kind: dict[str, int]

    @property
    def shown(self) -> dict[str, str]:
        """As they stand on the page, by name."""
        return {name: f"{getattr(self, name):,}" for name in ("devices", "connected", "readings", "denied")}


class Counter:
    """Counts on demand. Where the fleet is so large that counting is dear, it spends 5 % of its time on it."""

    def __init__(self, count: Callable[[], Counts], clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = count, clock
        self._lock = threading.Lock()
        self._cached: Counts | None = None
        self._counted_at = self._took = 0.0

    def counts(self, max_age: float = 0) -> Counts:
        """The counts, at most *max_age* seconds old unless counting is dear."""
        with self._lock:
            allowed = max(max_age, KEPT * self._took if self._took > EXPENSIVE else 0)
            started = self._clock()
            if self._cached is None or started - self._counted_at >= allowed:
                self._cached = self._count()
                self._counted_at = self._clock()
                self._took = self._counted_at - started
            return self._cached


def _count() -> Counts:
    """Without a look at every reading: only at those of the last minute, through the index on their time."""
    since = timezone.now() - timedelta(minutes=1)
    by_kind = {kind.slug: kind.device_model.objects.count() for kind in registry}
    return Counts(
        devices=sum(by_kind.values()),
        connected=sum(kind.device_model.objects.filter(connected=True).count() for kind in registry),
        readings=sum(
            model._default_manager.filter(timestamp__gt=since).count()
            for kind in registry
            for model in kind.value_models
        ),
        denied=_attempts().aggregate(total=Sum("count"))["total"] or 0,
        by_kind=by_kind,
    )


counter = Counter(_count)


@dataclass(frozen=True)
class DenialInWords:
    """One denial, in words."""

    who: str
    client_id: str
    action: str
    topic: str
    reason: str
    sentence: str
    dialect: str
    count: int
    last_at: datetime
    last_ago: str = ""


def denials() -> list[DenialInWords]:
    """The latest denials, newest first."""
    now = timezone.now()
    return [
        DenialInWords(
            who=denial.principal
            or denial.username
            or ("unknown names" if denial.is_rest else "somebody unknown"),
            client_id=denial.client_id,
            action=reasons.action(denial),
            topic=denial.topic,
            reason=denial.reason,
            sentence=reasons.sentence(denial),
            dialect=denial.dialect,
            count=denial.count,
            last_at=denial.last_at,
            last_ago=display.ago(denial.last_at, now),
        )
        for denial in _latest()
    ]


def _latest() -> list[Denial]:
    """Return the denials to show, newest first. A principal that floods gets no more than its share of the list."""
    ordered = _attempts().order_by("-last_at", "-pk")
    fields = ("last_at", "pk", "principal")
    known = ordered.exclude(principal="").values_list(*fields)[:LOOKED_AT]
    unknown = ordered.filter(principal="").values_list(*fields)[:DENIALS]
    places: dict[str, int] = {}
    preferred: list[int] = []
    spare: list[int] = []
    for _, pk, principal in sorted([*known, *unknown], reverse=True):
        places[principal] = places.get(principal, 0) + 1
        share = OF_ONE if principal else DENIALS // 2
        (preferred if places[principal] <= share else spare).append(pk)
    return list(ordered.filter(pk__in=(preferred + spare)[:DENIALS]))


def _attempts() -> QuerySet[Denial]:
    """Denials of something that somebody tried: whether it is a superuser a broker asks of every client."""
    return Denial.objects.exclude(reason=Reason.NOT_SUPERUSER)


class Counted(NamedTuple):
    """How many messages of one device were refused for one reason and not kept."""

    device_key: str
    reason: str
    messages: int
    last_at: datetime


@dataclass(frozen=True)
class Quarantine:
    """How much could not be stored in a day, and what came last."""

    count: int
    latest: list[QuarantinedMessage]
    counted: list[Counted]  # beyond the allowance of their device


def quarantine() -> Quarantine:
    yesterday = timezone.now() - timedelta(days=1)
    kept = QuarantinedMessage.objects.filter(received_at__gt=yesterday)
    counted = CountedRefusal.objects.filter(last_at__gt=yesterday).values_list(
        "device_key", "reason", "count", "last_at"
    )
    latest = QuarantinedMessage.objects.defer("payload").order_by("-received_at", "-pk")[:QUARANTINED]
    return Quarantine(
        kept.count(),
        list(latest),
        [Counted(*row) for row in counted.order_by("-last_at", "-pk")[:QUARANTINED]],
    )
