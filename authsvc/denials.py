"""What was refused: counted in memory on the path, written to the database once a second off it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from authsvc import background
from authsvc.core.access import SuperuserQuestion, TopicQuestion, Verdict
from authsvc.models import Denial

MAX_PENDING = 2_000  # different denials between two writes; a flood of made-up names ends here
MAX_ROWS = 20_000  # in the table; the oldest go first


class Refusal(NamedTuple):
    """What counts as the same denial."""

    dialect: str
    username: str
    client_id: str
    action: str
    topic: str
    reason: str


class _Tally:
    __slots__ = ("count", "first_at", "last_at", "principal", "rule")

    def __init__(self, principal: str, rule: str, now: datetime) -> None:
        self.count = 0
        self.first_at = self.last_at = now
        self.principal = principal
        self.rule = rule


_pending: dict[Refusal, _Tally] = {}
_lock = threading.Lock()
dropped = 0  # denials that were not counted because MAX_PENDING different ones were waiting


def note(dialect: str, asked: str, verdict: Verdict) -> None:
    """Count a refusal. No I/O, bounded memory. That somebody is no superuser is an answer, not a refusal."""
    question, principal = verdict.question, verdict.principal
    if isinstance(question, SuperuserQuestion) and principal is not None:
        return
    username = question.client.username[:128] if question else ""
    client_id = (question.client.client_id or "")[:128] if question else ""
    action = question.action.value if isinstance(question, TopicQuestion) else asked
    key = principal.key if principal else ""
    now = timezone.now()
    with _lock:
        for decision in verdict.decisions:
            if decision.allowed:
                continue
            refusal = Refusal(
                dialect,
                _text(username),
                _text(client_id),
                action,
                _text(decision.topic[:256]),
                decision.reason,
            )
            _count(refusal, key, decision.rule, now)
    background.wake()


def _text(value: str) -> str:
    """What a database can hold of a text that a stranger chose: PostgreSQL refuses NUL."""
    return value.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _count(refusal: Refusal, principal: str, rule: str, now: datetime) -> None:
    global dropped
    tally = _pending.get(refusal)
    if tally is None:
        if len(_pending) >= MAX_PENDING:
            dropped += 1
            return
        tally = _pending[refusal] = _Tally(principal, rule, now)
    tally.count += 1
    tally.last_at = now


def flush() -> int:
    """Write what is pending; the number of different denials written. Raises django.db.Error, losing nothing."""
    with _lock:
        taken = dict(_pending)
        _pending.clear()
    if not taken:
        return 0
    try:
        with transaction.atomic():
            _write(taken.items())
    except BaseException:
        _put_back(taken)
        raise
    return len(taken)


def forget() -> None:
    """Drop what is pending: for tests, whose denials are nobody else's."""
    with _lock:
        _pending.clear()


def _put_back(taken: dict[Refusal, _Tally]) -> None:
    global dropped
    with _lock:
        for refusal, tally in taken.items():
            newer = _pending.get(refusal)
            if newer is not None:
                newer.count += tally.count
                newer.first_at = tally.first_at
            elif len(_pending) < MAX_PENDING:
                _pending[refusal] = tally
            else:
                dropped += tally.count


def _write(items: Iterable[tuple[Refusal, _Tally]]) -> None:
    table = Denial._meta.db_table
    names = (*Refusal._fields, "principal", "rule", "count", "first_at", "last_at")
    upsert = (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) "  # noqa: S608
        f"ON CONFLICT ({', '.join(Refusal._fields)}) DO UPDATE SET count = {table}.count + excluded.count, "
        "last_at = excluded.last_at, principal = excluded.principal, rule = excluded.rule"
    )
    rows = [
        (*refusal, tally.principal[:260], tally.rule[:300], tally.count, tally.first_at, tally.last_at)
        for refusal, tally in items
    ]
    adapt = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        cursor.executemany(upsert, [(*row[:-2], adapt(row[-2]), adapt(row[-1])) for row in rows])
    surplus = Denial.objects.count() - MAX_ROWS
    if surplus > 0:
        oldest = Denial.objects.order_by("last_at").values("pk")[:surplus]
        Denial.objects.filter(pk__in=list(oldest.values_list("pk", flat=True))).delete()


background.every_second(flush)
