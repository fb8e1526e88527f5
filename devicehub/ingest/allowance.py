"""The allowance of a device in the quarantine: DEVICEHUB_QUARANTINE_PER_DEVICE. Beyond it messages are only counted.

QuarantineUse holds the sum for each owner: a device, or "" for all messages without a known device together. A
missing row is counted anew. A sum that leaves no room is counted anew once in a while: rows of the quarantine may have
been deleted. A batch counts at most MOST_RECOUNTS such sums. Workers read sums without a lock, so each of them may
exceed the bound by one batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import timedelta

from django.db.models import F, Q, Sum
from django.db.models.functions import Coalesce, Length
from django.utils import timezone

from devicehub.conf import settings
from devicehub.db import bulk
from devicehub.db.statements import execute_many
from devicehub.messages.message import FailureReason
from devicehub.models import CountedRefusal, QuarantinedMessage, QuarantineUse

ROW = 1024  # Bytes of one message's rows and their indexes, besides the texts that its device chose.
RECOUNT = timedelta(minutes=1)  # A full sum is counted anew once in this time.
MOST_RECOUNTS = 20  # Sums counted anew in one batch.


def owner_of(reason: str, device_key: str) -> str:
    """Return the owner of a message's allowance; "" for unknown devices, whose ids can be invented without end."""
    return "" if reason == FailureReason.UNKNOWN_DEVICE else device_key


class Allowance:
    """The use of the allowances of *owners* by the messages of one batch, in the batch's transaction."""

    def __init__(self, owners: Collection[str]) -> None:
        self._limit, self._now = settings.quarantine_per_device, timezone.now()
        kept = QuarantineUse.objects.filter(bulk.among("owner", owners))
        found = {owner: (size, at) for owner, size, at in kept.values_list("owner", "size", "counted_at")}
        self._sizes = {owner: size for owner, (size, _) in found.items()}
        self._counted_at = {owner: at for owner, (_, at) in found.items()}
        self._missing = set(owners) - found.keys()
        for owner in self._missing:
            self._sizes[owner] = _count(owner, self._limit)
        self._corrections: dict[str, int] = {}  # Changes of sums that were counted anew, by owner.
        self._added: Counter[str] = Counter()
        self._refused: Counter[tuple[str, str]] = Counter()

    def fits(self, owner: str, size: int = ROW) -> bool:
        """Return whether *size* more bytes fit; by default the bytes of an empty message."""
        if self._sizes[owner] + size <= self._limit:
            return True
        if owner in self._missing or owner in self._corrections or len(self._corrections) == MOST_RECOUNTS:
            return False
        if self._now - RECOUNT < self._counted_at[owner] <= self._now:
            return False
        counted = _count(owner, self._limit) + self._added[owner]
        self._corrections[owner] = counted - self._sizes[owner]
        self._sizes[owner] = counted
        return counted + size <= self._limit

    def take(self, owner: str, size: int) -> None:
        """Count a message that is kept."""
        self._sizes[owner] += size
        self._added[owner] += size

    def refuse(self, owner: str, reason: str) -> None:
        """Count a message that is not kept."""
        self._refused[owner, reason] += 1

    def write(self) -> None:
        """Write the sums and the counts. Call it last in a batch, since workers wait for each other's rows."""
        use, refusals = QuarantineUse._meta.db_table, CountedRefusal._meta.db_table
        existing = sorted(
            owner for owner in self._counted_at if self._added[owner] or owner in self._corrections
        )
        as_time = bulk.time_writer()
        now = as_time(self._now)
        execute_many(
            f"UPDATE {use} SET size = size + %s WHERE owner = %s",
            [(self._added[owner], owner) for owner in existing],
        )
        execute_many(  # Without effect if another worker counted anew meanwhile.
            f"UPDATE {use} SET size = size + %s, counted_at = %s WHERE owner = %s AND counted_at = %s",
            [(self._corrections[o], now, o, as_time(self._counted_at[o])) for o in sorted(self._corrections)],
        )
        execute_many(
            f"INSERT INTO {use} (owner, size, counted_at) VALUES (%s, %s, %s) ON CONFLICT (owner)"
            f" DO UPDATE SET size = {use}.size + %s",
            [(owner, self._sizes[owner], now, self._added[owner]) for owner in sorted(self._missing)],
        )
        execute_many(
            f"INSERT INTO {refusals} (device_key, reason, count, first_at, last_at)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (device_key, reason) DO UPDATE"
            f" SET count = {refusals}.count + excluded.count, last_at = excluded.last_at",
            [(*key, count, now, now) for key, count in sorted(self._refused.items())],
        )


def _count(owner: str, limit: int) -> int:
    """Return the bytes that the quarantine holds of *owner*; read no more rows than can fill *limit*."""
    of_strangers = Q(reason=FailureReason.UNKNOWN_DEVICE.value)
    rows = QuarantinedMessage.objects.filter(
        Q(device_key="") | of_strangers if not owner else Q(device_key=owner) & ~of_strangers,
        replayed_at=None,
    )
    # Rows of an earlier version have no size.
    sizes = rows.order_by().annotate(held=Coalesce("size", Length(F("payload")) + ROW)).values("held")
    return int(sizes[: limit // ROW + 1].aggregate(sum=Sum("held"))["sum"] or 0)
