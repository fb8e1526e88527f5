"""Store one posted message through the pipeline of all messages, and say how it ended."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import structlog
from django.utils import timezone

from devicehub.ingest.announcer import Announcer
from devicehub.ingest.items import Item, Judged
from devicehub.ingest.pipeline import CANNOT_STORE, pipeline
from devicehub.kinds import topics
from devicehub.lwm2m import names
from devicehub.lwm2m.adoption import adopt
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.leshan_api.bodies import Posted
from devicehub.messages.message import FailureReason, Message, Outcome

log = structlog.get_logger(__name__)


class Ended(NamedTuple):
    """The outcome of a message, with the reason and its detail if it failed, and the notes about omitted values."""

    outcome: Outcome
    reason: FailureReason | None = None
    detail: str = ""
    notes: Sequence[str] = ()


def store(posted: Posted) -> Ended | None:
    """Store *posted* in one transaction; return how it ended, or None if the database cannot store."""
    items: list[Item] = []

    def notify(stored: Sequence[Item]) -> None:
        items.extend(stored)
        announcer().notify(stored)

    try:
        adopt([posted.endpoint])
        pipeline([_message(posted)], notify=notify)
    except CANNOT_STORE as error:
        log.exception("ingest.not_stored", error=type(error).__name__)
        return None
    [item] = items
    notes = item.notes.shown() if isinstance(item, Judged) else ()
    return Ended(item.outcome, item.reason, item.detail, notes)


def _message(posted: Posted) -> Message:
    device_id = names.device_ids([posted.endpoint])[posted.endpoint]
    return Message(
        topics.build(KIND, device_id, posted.message_type),
        posted.payload,
        timezone.now(),
        content_type=posted.content_type,
        # In the quarantine it names an endpoint that is not there, whose device id may be made from the name.
        user_properties=((names.PROPERTY, posted.endpoint),),
    )


@cache
def announcer() -> Announcer:
    """Return the announcer of this process: a hook that never returns must not keep requests waiting."""
    found = Announcer()
    atexit.register(found.stop)
    return found
