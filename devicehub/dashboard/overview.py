"""The parts of the page about the whole fleet: numbers, denials, quarantine."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.db.models import QuerySet
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import visibility
from devicehub.dashboard.links import address
from devicehub.db.costly import Costly
from devicehub.denials import reasons
from devicehub.models import CountedRefusal, QuarantinedMessage

DENIALS = 20
# If there are others, one principal gets at most this many places, and all unknown ones together half of DENIALS.
OF_ONE = 5
LOOKED_AT = 500  # The shown denials are chosen from this many of the latest rows.
QUARANTINED = 5
DAY = timedelta(
    days=1
)  # Denials and quarantine are shown and counted over this time: no number is red for ever.
MAX_SCOPES = 50  # Different limits of users whose numbers are cached.


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
        """The numbers as the page shows them, by name."""
        return {name: f"{getattr(self, name):,}" for name in ("devices", "connected", "readings", "denied")}


class Scope(NamedTuple):
    """The limits of a user, as far as the page depends on them."""

    kinds: tuple[str, ...]
    sites: frozenset[str] | None
    denials: bool
    quarantine: bool


def scope_of(user: Any) -> Scope:
    """Return the limits of *user*."""
    return Scope(
        tuple(kind.slug for kind in visibility.kinds_of(user)),
        visibility.sites_of(user),
        visibility.may(user, visibility.VIEW, Denial),
        visibility.may(user, visibility.VIEW, QuarantinedMessage),
    )


def counts(user: Any, max_age: float = 0) -> Counts:
    """Return the numbers of what *user* may see. Users with the same limits share them."""
    scope = scope_of(user)
    with _lock:
        counter = _counters.setdefault(scope, Costly())
        _counters.move_to_end(scope)
        while len(_counters) > MAX_SCOPES:
            _counters.popitem(last=False)
    return counter.get(partial(_count, user), max_age)


def counted(user: Any, max_age: float) -> Counts | None:
    """Return the numbers of what *user* may see if they are at most *max_age* seconds old, without counting."""
    counter = _counters.get(scope_of(user))
    return None if counter is None else counter.latest(max_age)


def _count(user: Any) -> Counts:
    """Count devices, causes of denials and the readings of the last minute, which the index on their time finds."""
    since = timezone.now() - timedelta(minutes=1)
    kinds = visibility.kinds_of(user)
    visible = {kind.slug: visibility.devices(kind, user) for kind in kinds}
    by_kind = {slug: found.count() for slug, found in visible.items()}
    return Counts(
        devices=sum(by_kind.values()),
        connected=sum(found.filter(connected=True).count() for found in visible.values()),
        readings=sum(
            _of_devices(model._default_manager.filter(timestamp__gt=since), visible[kind.slug], user).count()
            for kind in kinds
            for model in ((kind.history_model,) if kind.history_model is not None else kind.value_models)
        ),
        denied=_attempts(user).count(),
        by_kind=by_kind,
    )


def _of_devices(values: QuerySet[Any], visible: QuerySet[Any], user: Any) -> QuerySet[Any]:
    """Return those of *values* that belong to the *visible* devices; all of them for a user without a limit."""
    return values.filter(device__in=visible.values("pk")) if visibility.is_limited(user) else values


_counters: OrderedDict[Scope, Costly[Counts]] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class DenialInWords:
    """A denial in words."""

    who: str
    client_id: str
    action: str
    topic: str
    reason: str
    sentence: str
    dialect: str
    count: int
    last_at: datetime
    url: str = ""


def denials(user: Any) -> list[DenialInWords]:
    """Return the latest denials that *user* may see, newest first."""
    return [
        DenialInWords(
            who=denial.principal
            or denial.username
            or ("unknown names" if denial.is_rest else "an unknown client"),
            client_id=denial.client_id,
            action=reasons.action(denial),
            topic=denial.topic,
            reason=denial.reason,
            sentence=reasons.sentence(denial),
            dialect=denial.dialect,
            count=denial.count,
            last_at=denial.last_at,
            url=address("devicehub:denial", denial.pk),
        )
        for denial in _latest(user)
    ]


def _latest(user: Any) -> list[Denial]:
    """Return the denials to show, newest first. A principal with many denials gets only its share of the list."""
    ordered = _attempts(user).order_by("-last_at", "-pk")
    fields = ("last_at", "pk", "principal")
    of_principals = ordered.exclude(principal="").values_list(*fields)[:LOOKED_AT]
    of_unknown = ordered.filter(principal="").values_list(*fields)[:DENIALS]
    places: dict[str, int] = {}
    preferred: list[int] = []
    spare: list[int] = []
    for _, pk, principal in sorted([*of_principals, *of_unknown], reverse=True):
        places[principal] = places.get(principal, 0) + 1
        share = OF_ONE if principal else DENIALS // 2
        (preferred if places[principal] <= share else spare).append(pk)
    return list(ordered.filter(pk__in=(preferred + spare)[:DENIALS]))


def _attempts(user: Any) -> QuerySet[Denial]:
    """Return the denials of attempts within a DAY that *user* may see.

    Brokers ask "superuser?" for every client, so those denials are left out.
    """
    if not visibility.may(user, visibility.VIEW, Denial):
        return Denial.objects.none()
    recent = Denial.objects.filter(last_at__gt=timezone.now() - DAY, dismissed_at=None).exclude(
        reason=Reason.NOT_SUPERUSER
    )
    return visibility.rows(recent, user, "principal")


class Counted(NamedTuple):
    """The number of messages of one device that were refused for one reason and only counted."""

    device_key: str
    reason: str
    messages: int
    last_at: datetime


@dataclass(frozen=True)
class Quarantine:
    """The number of messages that were quarantined in a DAY, and the latest ones."""

    count: int
    latest: list[QuarantinedMessage]
    counted: list[Counted]  # Messages beyond the allowance of their device.

    @property
    def is_full(self) -> bool:
        return bool(self.latest or self.counted)


def quarantine(user: Any) -> Quarantine:
    """Return the quarantine of the last DAY that *user* may see, with its latest messages."""
    if not visibility.may(user, visibility.VIEW, QuarantinedMessage):
        return Quarantine(0, [], [])
    yesterday = timezone.now() - DAY
    kept = visibility.rows(
        QuarantinedMessage.objects.filter(received_at__gt=yesterday, dismissed_at=None), user
    )
    refusals = visibility.rows(CountedRefusal.objects.filter(last_at__gt=yesterday), user)
    counted = refusals.values_list("device_key", "reason", "count", "last_at")
    latest = kept.defer("payload").order_by("-received_at", "-pk")[:QUARANTINED]
    return Quarantine(
        kept.count(),
        list(latest),
        [Counted(*row) for row in counted.order_by("-last_at", "-pk")[:QUARANTINED]],
    )
