"""The dismissal of quarantined messages: an operator has seen them, so that lists and replays leave them out."""

from __future__ import annotations

from collections import Counter

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from authsvc import audit
from devicehub.db.portions import batched
from devicehub.models import QuarantinedMessage

MOST = 10_000  # Messages of one transaction.
AT_ONCE = 500  # Keys of one statement.


@transaction.atomic
def dismiss(rows: QuerySet[QuarantinedMessage]) -> int:
    """Dismiss the oldest MOST of *rows* that are not dismissed yet, and return how many.

    The audit gets an entry for each device and reason. The rows stay until retention deletes them, and a replay that
    names them stores them.
    """
    chosen = rows.filter(dismissed_at=None).order_by("pk").select_for_update(of=("self",))
    found = list(chosen.values_list("pk", "device_key", "reason")[:MOST])
    now = timezone.now()
    for some in batched(found, AT_ONCE):
        QuarantinedMessage.objects.filter(pk__in=[pk for pk, _, _ in some]).update(dismissed_at=now)
    counts = Counter((device_key, reason) for _, device_key, reason in found)
    changes = (
        audit.Change(device_key or "quarantine", None, {"quarantined_because": reason, "messages": count})
        for (device_key, reason), count in sorted(counts.items())
    )
    audit.record_many("quarantine_dismissed", changes)
    return len(found)
