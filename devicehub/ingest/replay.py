"""Replay of messages from the quarantine through the pipeline, with their first time of receipt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from authsvc import audit
from devicehub.ingest import limits
from devicehub.ingest.allowance import owner_of
from devicehub.ingest.announce import announce
from devicehub.ingest.items import Item
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds import topics
from devicehub.messages.message import MAX_KEPT, FailureReason, Message, Outcome
from devicehub.models import QuarantinedMessage, QuarantineUse

CHUNK = 500  # Keys that one query reads.
SHOWN = 20  # Failures that a report names.


@dataclass(frozen=True)
class Failure:
    """A message that failed again: its row, its device and topic, and the reason of this time."""

    row: int
    device_key: str
    topic: str
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.row}, {self.device_key or self.topic}: {self.reason}: {self.detail}"


@dataclass
class Report:
    """The number of replayed messages by outcome, and the first SHOWN that failed again."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, outcome: Outcome, failure: Failure | None) -> None:
        """Count one message."""
        self.outcomes[outcome] += 1
        if failure is not None and len(self.failures) < SHOWN:
            self.failures.append(failure)

    def lines(self) -> list[str]:
        """Return the report in words: the numbers, then a line for each failure."""
        counts = ", ".join(f"{self.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
        found = [f"Replayed: {counts}", *(f"Failed again: {failure}" for failure in self.failures)]
        if (more := self.outcomes[Outcome.FAILED] - len(self.failures)) > 0:
            found.append(f"and {more:,} more")
        return found


def waiting(
    *, reason: str = "", device_key: str = "", row: int | None = None
) -> QuerySet[QuarantinedMessage]:
    """Return the messages that were not replayed yet, oldest first; of one reason, device, or primary key.

    Dismissed ones are left out, except one that *row* names.
    """
    wanted: dict[str, Any] = {"reason": reason, "device_key": device_key, "pk": row}
    rows = QuarantinedMessage.objects.filter(replayed_at=None)
    if row is None:
        rows = rows.filter(dismissed_at=None)
    return rows.filter(**{name: value for name, value in wanted.items() if value not in ("", None)}).order_by(
        "pk"
    )


def replay(
    rows: QuerySet[QuarantinedMessage],
    *,
    goes_on: Callable[[], bool] = lambda: True,
    on_each: Callable[[], None] = lambda: None,
) -> Report:
    """Store each of *rows*, oldest first, in a transaction of its own; return the number of each outcome.

    A message that fails again stays as it is and can be retried; any other is marked and never replayed again.
    Stop early, between two messages, if *goes_on* returns False.
    """
    report = Report()
    last = 0
    while keys := list(rows.order_by("pk").filter(pk__gt=last).values_list("pk", flat=True)[:CHUNK]):
        for key in keys:
            if not goes_on():
                return report
            done = _replay(key)
            if done is not None:
                report.add(*done)
            on_each()
        last = keys[-1]
    return report


def _replay(key: int) -> tuple[Outcome, Failure | None] | None:
    """Replay the row *key* and return its outcome; None if another process replayed it first."""
    stored: list[Sequence[Item]] = []
    with transaction.atomic():
        row = QuarantinedMessage.objects.select_for_update().filter(pk=key, replayed_at=None).first()
        if row is None:
            return None
        if row.reason == FailureReason.TOO_LARGE and len(row.payload) >= MAX_KEPT:
            # Only the beginning of the message was kept.
            return Outcome.FAILED, _failure(row, row.reason, "only the beginning of the message was kept")
        message = Message(
            row.topic,
            bytes(row.payload),
            row.received_at,
            row.retain,
            row.content_type,
            row.correlation_id,
            tuple(row.user_properties.items()),
        )
        if row.reason == FailureReason.UNKNOWN_DEVICE and not _is_for_its_device(message):
            detail = "its device id is now that of another device than the message names"
            return Outcome.FAILED, _failure(row, row.reason, detail)
        with limits.lifted():
            [outcome] = pipeline([message], notify=stored.append)
        if outcome is Outcome.FAILED:
            failure = _failure_of_this_time(row)
            transaction.set_rollback(True)  # The message is in the quarantine already.
            return outcome, failure
        row.replayed_at = timezone.now()
        row.save(update_fields=["replayed_at"])
        audit.record(
            "quarantine_replayed",
            row.device_key or f"quarantine/{row.pk}",
            after={"row": row.pk, "topic": row.topic, "reason": row.reason, "outcome": outcome.value},
        )
        QuarantineUse.invalidate(owner_of(row.reason, row.device_key))
    for batch in stored:
        announce(batch)
    return outcome, None


def _is_for_its_device(message: Message) -> bool:
    address = topics.parse(message.topic)
    inbox = None if address is None else address.kind.inbox
    return address is None or inbox is None or bool(inbox.is_for(message, address.device_id))


def _failure_of_this_time(row: QuarantinedMessage) -> Failure:
    """Return why *row* failed now, by the row that the pipeline has just added."""
    again = QuarantinedMessage.objects.filter(pk__gt=row.pk, topic=row.topic).order_by("-pk").first() or row
    return _failure(row, again.reason, again.detail)


def _failure(row: QuarantinedMessage, reason: str, detail: str) -> Failure:
    return Failure(row.pk, row.device_key, row.topic, reason, detail)
