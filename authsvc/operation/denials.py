"""Denials: counted in memory while questions are answered, written to the database once a second in the background.

Refusals of one principal have a bounded number of rows, in memory and in the table, and so have those of all
unknown names together. Further ones are counted in one more row, so that a client cannot drive out the denials of
others.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db import connection, transaction
from django.db.models import Count
from django.utils import timezone

from authsvc import background
from authsvc.core.access import SuperuserQuestion, TopicQuestion, Verdict
from authsvc.models import Denial
from authsvc.text import make_storable

MAX_PENDING = 2_000  # Different denials between two writes, which bounds a flood of random names.
MAX_ROWS = 20_000  # Rows in the table; the oldest are deleted first.
MAX_OF_ONE = 50  # Different denials of one principal, between two writes and in the table.
MAX_UNKNOWN_PENDING = 500  # Different denials of all unknown names together, between two writes.
MAX_UNKNOWN = 2_000  # And in the table.


class Refusal(NamedTuple):
    """The columns by which denials are the same one."""

    dialect: str
    username: str
    client_id: str
    action: str
    topic: str
    reason: str


class _Tally:
    __slots__ = ("address", "broker", "count", "first_at", "last_at", "principal", "rule")

    def __init__(self, principal: str, rule: str, now: datetime) -> None:
        self.count = 0
        self.first_at = self.last_at = now
        self.principal = principal
        self.rule = rule
        self.address = self.broker = ""


_pending: dict[Refusal, _Tally] = {}
_of_principal: Counter[str] = Counter()  # Pending denials by principal; "" is all unknown names.
_lock = threading.Lock()
dropped = 0  # Denials that were not counted because MAX_PENDING different ones were pending.


def note(dialect: str, question_name: str, verdict: Verdict, address: str = "", broker: str = "") -> None:
    """Count a refusal of a question of *broker* from *address*. No I/O, bounded memory.

    The answer "not a superuser" about an existing principal is not a refusal.
    """
    question, principal = verdict.question, verdict.principal
    if isinstance(question, SuperuserQuestion) and principal is not None:
        return
    username = question.client.username[:128] if question else ""
    client_id = (question.client.client_id or "")[:128] if question else ""
    action = question.action.value if isinstance(question, TopicQuestion) else question_name
    key = principal.key if principal else ""
    now = timezone.now()
    with _lock:
        for decision in verdict.decisions:
            if decision.allowed:
                continue
            refusal = Refusal(
                dialect,
                make_storable(username),
                make_storable(client_id),
                action,
                make_storable(decision.topic, 256),
                decision.reason,
            )
            if (tally := _tally(refusal, key, decision.rule, now)) is not None:
                tally.count += 1
                tally.last_at = now
                tally.address = make_storable(address, 45)
                tally.broker = make_storable(broker, 100)
    background.wake()


def rest(principal: str, username: str) -> Refusal:
    """Return the denial that counts the refusals of *principal* beyond its bound; unknown names have no username."""
    return Refusal("", (username or principal[:128]) if principal else "", "", "", "", Denial.REST)


def _tally(refusal: Refusal, principal: str, rule: str, now: datetime) -> _Tally | None:
    """Return the tally for *refusal*: its own, the rest of its principal, or None if MAX_PENDING is reached."""
    global dropped
    if (tally := _pending.get(refusal)) is not None:
        return tally
    if _of_principal[principal] >= (MAX_OF_ONE if principal else MAX_UNKNOWN_PENDING):
        refusal, rule = rest(principal, refusal.username), ""
        if (tally := _pending.get(refusal)) is not None:
            return tally
    if len(_pending) >= MAX_PENDING:
        dropped += 1
        return None
    _of_principal[principal] += 1
    tally = _pending[refusal] = _Tally(principal, rule, now)
    return tally


def flush() -> int:
    """Write the pending denials and return their number. Raise django.db.Error; they then stay pending."""
    with _lock:
        taken = dict(_pending)
        _pending.clear()
        _of_principal.clear()
    if not taken:
        return 0
    try:
        with transaction.atomic():
            _write(taken.items())
    except BaseException:
        _put_back(taken)
        raise
    return len(taken)


def clear() -> None:
    """Drop the pending denials, between tests."""
    with _lock:
        _pending.clear()
        _of_principal.clear()


def _put_back(taken: dict[Refusal, _Tally]) -> None:
    """Add *taken* to the pending denials again, within the same bounds."""
    global dropped
    with _lock:
        for refusal, tally in taken.items():
            before = dropped
            found = _tally(refusal, tally.principal, tally.rule, tally.first_at)
            if found is None:
                dropped = before + tally.count
                continue
            found.count += tally.count
            found.first_at = min(found.first_at, tally.first_at)
            found.last_at = max(found.last_at, tally.last_at)
            found.address = found.address or tally.address
            found.broker = found.broker or tally.broker


def _write(items: Iterable[tuple[Refusal, _Tally]]) -> None:
    # Sorted, because processes that write the same rows in another order could dead-lock.
    rows = sorted(items, key=lambda item: item[0])
    _upsert(rows)
    _fold({tally.principal: refusal.username for refusal, tally in rows})
    surplus = Denial.objects.count() - MAX_ROWS
    if surplus > 0:
        oldest = Denial.objects.order_by("last_at").values("pk")[:surplus]
        Denial.objects.filter(pk__in=list(oldest.values_list("pk", flat=True))).delete()


def _upsert(items: Iterable[tuple[Refusal, _Tally]]) -> None:
    table = Denial._meta.db_table
    names = (*Refusal._fields, "principal", "rule", "address", "broker", "count", "first_at", "last_at")
    upsert = (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) "
        f"ON CONFLICT ({', '.join(Refusal._fields)}) DO UPDATE SET count = {table}.count + excluded.count, "
        "principal = excluded.principal, rule = excluded.rule, address = excluded.address, "
        "broker = excluded.broker, "
        # A dismissed cause that happens again is shown again.
        f"dismissed_at = CASE WHEN excluded.last_at > {table}.dismissed_at THEN NULL "
        f"ELSE {table}.dismissed_at END, "
        f"last_at = CASE WHEN excluded.last_at > {table}.last_at THEN excluded.last_at ELSE {table}.last_at END"
    )
    adapt = connection.ops.adapt_datetimefield_value
    rows = [
        (
            *refusal,
            tally.principal[:260],
            tally.rule[:300],
            tally.address,
            tally.broker,
            tally.count,
            adapt(tally.first_at),
            adapt(tally.last_at),
        )
        for refusal, tally in items
    ]
    with connection.cursor() as cursor:
        cursor.executemany(upsert, rows)


def _fold(principals: dict[str, str]) -> None:
    """Move the oldest rows beyond the bound into the rest, for each of *principals* (key to username)."""
    counted = (
        Denial.objects.filter(principal__in=principals)
        .exclude(reason=Denial.REST)
        .values("principal")
        .order_by("principal")
        .annotate(rows=Count("pk"))
        .filter(rows__gt=min(MAX_OF_ONE, MAX_UNKNOWN))
    )
    for principal in counted.values_list("principal", flat=True):
        kept = MAX_OF_ONE if principal else MAX_UNKNOWN
        # Locked, so that only one process counts a row in the rest. Others skip the row instead of waiting.
        surplus = list(
            Denial.objects.select_for_update(skip_locked=True)
            .filter(principal=principal)
            .exclude(reason=Denial.REST)
            .order_by("-last_at", "-pk")[kept:]
        )
        if not surplus:
            continue
        Denial.objects.filter(pk__in=[row.pk for row in surplus]).delete()
        tally = _Tally(principal, "", min(row.first_at for row in surplus))
        tally.count = sum(row.count for row in surplus)
        tally.last_at = max(row.last_at for row in surplus)
        tally.address, tally.broker = surplus[0].address, surplus[0].broker
        _upsert([(rest(principal, principals[principal]), tally)])


background.every_second(flush)
