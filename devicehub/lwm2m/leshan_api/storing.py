"""Store one posted message of an endpoint, which is added first if unknown endpoints are."""

from __future__ import annotations

import structlog
from django.utils import timezone

from devicehub.ingest import posted as ingest
from devicehub.ingest.pipeline import CANNOT_STORE
from devicehub.ingest.posted import Ended
from devicehub.kinds import topics
from devicehub.lwm2m import names
from devicehub.lwm2m.adoption import adopt
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.leshan_api.bodies import Posted
from devicehub.messages.message import Message

log = structlog.get_logger(__name__)


def store(posted: Posted) -> Ended | None:
    """Store *posted* in one transaction; return how it ended, or None if the database cannot store.

    Raise UnknownOutcome.
    """
    try:
        adopt([posted.endpoint])
        message = _message(posted)
    except CANNOT_STORE as error:
        log.exception("ingest.not_stored", error=type(error).__name__)
        return None
    return ingest.store(message)


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
