"""What was refused: counted in memory on the path, written to the database once a second off it.

Refusals of one principal have a bounded number of rows, in memory and in the table, and so have those of all
unknown ones together. What is beyond is counted in one more row, so that no client drives out what was refused
to others.
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

MAX_PENDING = 2_000  # different denials between two writes; a flood of made-up names ends here
MAX_ROWS = 20_000  # in the table; the oldest go first
MAX_OF_ONE = 50  # different denials of one principal, between two writes and in the table
MAX_UNKNOWN_PENDING = 500  # the same for all that name no known principal together
MAX_UNKNOWN = 2_000


class Refusal(NamedTuple):
    """What counts as the same denial."""

    dialect: str
    username: str
    client_id: str
    action: str
    topic: str
    reason: str


class _Tally:
    __slots__ = ("address", "count", "first_at", "last_at", "principal", "rule")

    def __init__(self, principal: str, rule: str, now: datetime) -> None:
        self.count = 0
        self.first_at = self.last_at = now
        self.principal = principal
        self.rule = rule
        self.address = ""


_pending: dict[Refusal, _Tally] = {}
_of_principal: Counter[str] = Counter()  # how many of them each principal has; "" is all unknown ones
_lock = threading.Lock()
dropped = 0  # denials that were not counted because MAX_PENDING different ones were waiting


def note(dialect: str, question_name: str, verdict: Verdict, address: str = "") -> None:
    """Count a refusal of a question from *address*. No I/O, bounded memory.

    That a known principal is not a superuser is an answer and not a refusal.
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
    background.wake()


def rest(principal: str, username: str) -> Refusal:
    """Return what the refusals of *principal* beyond its bound are counted as; of unknown ones without a name."""
    return Refusal("", (username or principal[:128]) if principal else "", "", "", "", Denial.REST)


def _tally(refusal: Refusal, principal: str, rule: str, now: datetime) -> _Tally | None:
    """Return where *refusal* is counted: its own tally, the rest of its principal, or None where all is full."""
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
    """Write what is pending; the number of different denials written. Raises django.db.Error, losing nothing."""
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
    """Drop what is pending: for tests, whose denials are nobody else's."""
    with _lock:
        _pending.clear()
        _of_principal.clear()


def _put_back(taken: dict[Refusal, _Tally]) -> None:
    """Count *taken* again, beside what came meanwhile and within the same bounds."""
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


def _write(items: Iterable[tuple[Refusal, _Tally]]) -> None:
    # In one order in all processes: two that write the same rows do not wait for each other for ever.
    rows = sorted(items, key=lambda item: item[0])
    _upsert(rows)
    _fold({tally.principal: refusal.username for refusal, tally in rows})
    surplus = Denial.objects.count() - MAX_ROWS
    if surplus > 0:
        oldest = Denial.objects.order_by("last_at").values("pk")[:surplus]
        Denial.objects.filter(pk__in=list(oldest.values_list("pk", flat=True))).delete()


def _upsert(items: Iterable[tuple[Refusal, _Tally]]) -> None:
    table = Denial._meta.db_table
    names = (*Refusal._fields, "principal", "rule", "address", "count", "first_at", "last_at")
    upsert = (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) "
        f"ON CONFLICT ({', '.join(Refusal._fields)}) DO UPDATE SET count = {table}.count + excluded.count, "
        "principal = excluded.principal, rule = excluded.rule, address = excluded.address, "
        f"last_at = CASE WHEN excluded.last_at > {table}.last_at THEN excluded.last_at ELSE {table}.last_at END"
    )
    adapt = connection.ops.adapt_datetimefield_value
    rows = [
        (
            *refusal,
            tally.principal[:260],
            tally.rule[:300],
            tally.address,
            tally.count,
            adapt(tally.first_at),
            adapt(tally.last_at),
        )
        for refusal, tally in items
    ]
    with connection.cursor() as cursor:
        cursor.executemany(upsert, rows)


def _fold(principals: dict[str, str]) -> None:
    """Move the oldest rows beyond the bound of each of *principals* (with a username) into its rest."""
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
        # Locked, so that of several processes one alone counts a row in the rest; none waits for another.
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
        tally.address = surplus[0].address
        _upsert([(rest(principal, principals[principal]), tally)])


background.every_second(flush)
