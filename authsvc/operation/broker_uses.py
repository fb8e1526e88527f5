"""The use of each broker: when it last asked, how often and from where; and whether its previous token is in use.

Collected in memory and written in the background, as the last logins are. A broker has at most MAX_ADDRESSES rows;
the questions from further addresses are counted in a row without an address.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from django.db import connection
from django.db.models import Max, Min, Sum

from authsvc import broker_tokens
from authsvc.models import Broker, BrokerUse
from authsvc.policy import Caller

MAX_ADDRESSES = 20  # Of one broker, between two writes and in the table.


class Place(NamedTuple):
    """The primary key of a broker, and the address from which it asked."""

    broker: int
    address: str


class _Row:
    __slots__ = ("count", "current_at", "first_at", "last_at", "previous_at")

    def __init__(self, at: float) -> None:
        self.count = 0
        self.first_at = self.last_at = at
        self.current_at: float | None = None
        self.previous_at: float | None = None


_pending: dict[Place, _Row] = {}
_first: set[Place] = set()  # The places in _pending that are written in the next round.
_known: dict[int, set[tuple[str, str]]] = {}  # Digest of the token and address that were written, by broker.
# The digests of a token that was used and of the previous one, which that use ends, by broker.
_used: dict[int, tuple[str, str]] = {}


def add(caller: Caller, address: str, count: int, at: float) -> None:
    """Collect *count* questions of *caller*, the last one at the Unix time *at*."""
    place = _place(caller.pk, address)
    row = _pending.get(place)
    if row is None:
        row = _pending[place] = _Row(at)
    row.count += count
    row.first_at, row.last_at = min(row.first_at, at), max(row.last_at, at)
    if caller.is_previous:
        row.previous_at = max(row.previous_at or at, at)
    else:
        row.current_at = max(row.current_at or at, at)
    known = _known.setdefault(caller.pk, set())
    if (caller.token_digest, place.address) not in known:
        if len(known) >= 4 * MAX_ADDRESSES:
            known.clear()
        known.add((caller.token_digest, place.address))
        _first.add(place)
    if caller.retires:
        _used[caller.pk] = caller.token_digest, caller.retires


def _place(broker: int, address: str) -> Place:
    """Return the place of *address*; beyond MAX_ADDRESSES pending ones of this broker, the one without an address."""
    place = Place(broker, address[:45])
    if place in _pending or sum(other.broker == broker for other in _pending) < MAX_ADDRESSES:
        return place
    return Place(broker, "")


def retire_tokens() -> None:
    """End the previous tokens whose successors were used. Raise django.db.Error; the rest stays pending."""
    for pk, (digest, previous) in list(_used.items()):
        broker_tokens.retire_previous(pk, digest, previous)
        del _used[pk]


def has_first() -> bool:
    """Return whether a use is pending that must not wait."""
    return bool(_first)


def due(*, everything: bool) -> list[Place]:
    """Return the places to be written now, in the order in which every process writes them."""
    return sorted(_pending if everything else _first)


def write(places: list[Place]) -> None:
    """Write the pending uses of *places* in the caller's transaction."""
    # A broker may have been deleted meanwhile.
    existing = set(
        Broker.objects.filter(pk__in={place.broker for place in places}).values_list("pk", flat=True)
    )
    with connection.cursor() as cursor:
        for place in places:
            if place.broker in existing:
                row = _pending[place]
                times = [_moment(at) for at in (row.first_at, row.last_at, row.current_at, row.previous_at)]
                cursor.execute(_UPSERT, [*place, row.count, *times])
    for broker in sorted(existing):
        _fold(broker)


def finish(places: list[Place]) -> None:
    """Drop the uses of *places*, which are committed."""
    for place in places:
        del _pending[place]
        _first.discard(place)


def clear() -> None:
    """Drop everything, between tests."""
    for collected in (_pending, _first, _known, _used):
        collected.clear()


def _fold(broker: int) -> None:
    """Move the oldest rows of *broker* beyond the bound into the one without an address."""
    named = BrokerUse.objects.filter(broker=broker).exclude(address="")
    if named.count() <= MAX_ADDRESSES:
        return
    # Locked, so that only one process counts a row in the rest.
    surplus = named.select_for_update(skip_locked=True).order_by("-last_at", "-pk")[MAX_ADDRESSES:]
    rows = BrokerUse.objects.filter(pk__in=[row.pk for row in surplus])
    found = rows.aggregate(
        count=Sum("count"),
        first=Min("first_at"),
        last=Max("last_at"),
        current=Max("current_at"),
        previous=Max("previous_at"),
    )
    if found["count"] is None:
        return
    rows.delete()
    adapt = connection.ops.adapt_datetimefield_value
    times = [adapt(found[name]) for name in ("first", "last", "current", "previous")]
    with connection.cursor() as cursor:
        cursor.execute(_UPSERT, [broker, "", found["count"], *times])


def _moment(at: float | None) -> str | None:
    return None if at is None else connection.ops.adapt_datetimefield_value(datetime.fromtimestamp(at, UTC))


def _latest(name: str) -> str:
    old, new = f"{_TABLE}.{name}", f"excluded.{name}"
    return f"{name} = CASE WHEN {old} IS NULL OR {new} > {old} THEN {new} ELSE {old} END"


_TABLE = BrokerUse._meta.db_table
_UPSERT = (
    f"INSERT INTO {_TABLE} (broker_id, address, count, first_at, last_at, current_at, previous_at) "
    "VALUES (%s, %s, %s, %s, %s, %s, %s) "
    f"ON CONFLICT (broker_id, address) DO UPDATE SET count = {_TABLE}.count + excluded.count, "
    f"{_latest('last_at')}, {_latest('current_at')}, {_latest('previous_at')}"
)
