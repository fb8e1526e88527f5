"""The dismissal of denials: a cause that an operator has seen is hidden until it happens again."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.utils import timezone

from authsvc import audit
from authsvc.models import Denial


@transaction.atomic
def dismiss(rows: Iterable[Denial]) -> int:
    """Hide those of *rows* that are not hidden yet, each with its row in the audit. Return their number."""
    keys = [denial.pk for denial in rows]
    found = list(Denial.objects.select_for_update().filter(pk__in=keys, dismissed_at=None).order_by("pk"))
    Denial.objects.filter(pk__in=[denial.pk for denial in found]).update(dismissed_at=timezone.now())
    changes = (
        audit.Change(
            denial.principal or f"denial/{denial.pk}",
            None,
            {
                "username": denial.username,
                "action": denial.action,
                "topic": denial.topic,
                "denied_because": denial.reason,
                "count": denial.count,
            },
        )
        for denial in found
    )
    return audit.record_many("denial_dismissed", changes)
