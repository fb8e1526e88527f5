"""The values in a `data` payload of an endpoint: every content format of LwM2M, and the nodes of a Leshan server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from devicehub.lwm2m import leshan_nodes
from devicehub.lwm2m.models.events import NOTIFICATION, SEND
from devicehub.messages.lwm2m import exact_json, recognise
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.values import TypeOf, Value
from devicehub.messages.message import FailureReason, Message, Notes, Unreadable

NONE: Mapping[str, str] = MappingProxyType({})
EVENTS = {"notification": NOTIFICATION, "read": NOTIFICATION, "send": SEND}


@dataclass
class Found:
    """The values of a payload, each with its path; *event* is the type of the event that they make."""

    event: str
    values: list[Value]
    notes: Notes = field(default_factory=Notes)


def read(message: Message, type_of: TypeOf) -> Found:
    """Return the values in *message*. Raise Unreadable.

    A value that contradicts the type of its resource is kept as it was sent, with a note.
    """
    media_type, path = recognise.split(message.content_type)
    if media_type == leshan_nodes.MEDIA_TYPE:
        return _read_nodes(message.payload, type_of)
    properties = dict(message.user_properties) if message.user_properties else NONE
    found = recognise.recognise(message.payload, media_type, properties.get("path") or path)
    event = EVENTS.get(properties.get("event", ""), NOTIFICATION)
    notes = Notes()
    return Found(event, recognise.values(message.payload, found, type_of, notes), notes)


def _read_nodes(payload: bytes, type_of: TypeOf) -> Found:
    notes = Notes()
    try:
        content = exact_json.load(payload)
        nodes = content.get("values") if isinstance(content, dict) else None
        values = leshan_nodes.decode_composite(nodes, type_of, notes.append)
    except CodecError as error:
        raise Unreadable(FailureReason.NOT_A_READING, f"Leshan: {error}") from error
    return Found(EVENTS.get(str(content.get("event")), NOTIFICATION), values, notes)
