"""The filters of a worker's session, recorded before the worker subscribes to them.

The broker keeps the session of a worker that is away, with all subscriptions of earlier settings.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from devicehub.kinds import topics
from devicehub.models import IngestSession, IngestWorker

MOST = 1000  # Filters kept of one session; settings change seldom.


def record(client_id: str, wanted: Sequence[str]) -> list[str]:
    """Record that *client_id* subscribes to *wanted*; return the other filters that its session may hold.

    These are the filters recorded before, and each form that the default and the present settings can have made: a
    session may be older than its row, or restored with its broker. Raise what the database raises.
    """
    with transaction.atomic():
        row = IngestSession.objects.filter(client_id=client_id).first()
        recorded = row.filters if row is not None else []
        filters = list(dict.fromkeys([*wanted, *recorded]))[:MOST]
        if row is None or filters != recorded:
            IngestSession.objects.update_or_create(client_id=client_id, defaults={"filters": filters})
    former = dict.fromkeys([*recorded, *topics.former_subscriptions()])
    return [topic_filter for topic_filter in former if topic_filter not in wanted]


def delete(client_id: str) -> None:
    """Delete the rows of *client_id*; the workers of its group do not wait for it any more."""
    IngestSession.objects.filter(client_id=client_id).delete()
    IngestWorker.objects.filter(client_id=client_id).delete()
