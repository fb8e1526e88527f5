"""The filters of a worker's session, written down before the worker subscribes to them.

The broker keeps the session of a worker that is away, with all that earlier settings subscribed to.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from devicehub.kinds import topics
from devicehub.models import IngestSession, IngestWorker

MOST = 1000  # filters that are kept of one session; settings change seldom


def record(client_id: str, wanted: Sequence[str]) -> list[str]:
    """Write that *client_id* subscribes to *wanted*; return what else its session may be subscribed to.

    These are the filters written before, and each form that the default and the present settings can have made: a
    session may be older than its row, or restored with its broker. Raises what the database raises.
    """
    with transaction.atomic():
        row = IngestSession.objects.filter(client_id=client_id).first()
        known = row.filters if row is not None else []
        filters = list(dict.fromkeys([*wanted, *known]))[:MOST]
        if row is None or filters != known:
            IngestSession.objects.update_or_create(client_id=client_id, defaults={"filters": filters})
    former = dict.fromkeys([*known, *topics.former_subscriptions()])
    return [topic_filter for topic_filter in former if topic_filter not in wanted]


def delete(client_id: str) -> None:
    """Delete what is written of *client_id*; no worker of its group waits for it any more."""
    IngestSession.objects.filter(client_id=client_id).delete()
    IngestWorker.objects.filter(client_id=client_id).delete()
