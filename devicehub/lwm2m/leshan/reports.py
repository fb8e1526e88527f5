"""The reports about endpoints of a Leshan server, on their way to the pipeline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from devicehub.kinds.topics import MessageType
from devicehub.lwm2m.leshan_nodes import MEDIA_TYPE
from devicehub.lwm2m.names import PROPERTY
from devicehub.messages.message import Message

JSON = "application/json"


class Report(NamedTuple):
    """One message of *endpoint*: values on the topic `data`, a registration or its end on `status`."""

    endpoint: str
    message_type: MessageType
    content: Mapping[str, Any]
    received_at: datetime

    def message(self, topic: str) -> Message:
        """Return the message for *topic*, which is that of the endpoint and *message_type*.

        In the quarantine it names an endpoint that is not there: its device id may be made from the name, or be that
        of an endpoint with another name by the time of a replay.
        """
        payload = json.dumps(self.content, separators=(",", ":")).encode()
        form = MEDIA_TYPE if self.message_type is MessageType.DATA else JSON
        named = ((PROPERTY, self.endpoint),)
        return Message(topic, payload, self.received_at, content_type=form, user_properties=named)


def values(endpoint: str, event: str, nodes: Mapping[str, Any], at: datetime) -> Report:
    """Return a report of *nodes* by path. *event* is `notification`, `send` or `read`."""
    return Report(endpoint, MessageType.DATA, {"event": event, "values": nodes}, at)


def status(endpoint: str, content: Mapping[str, Any], at: datetime) -> Report:
    """Return a report about the registration of an endpoint."""
    return Report(endpoint, MessageType.STATUS, content, at)
