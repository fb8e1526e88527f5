"""Payloads of LwM2M from a typed device, whose readings are resources: `Reading(lwm2m="3303/0/5700")`. Pure.

SenML is read as from any device, with names that may be paths; the other formats are read as from an LwM2M endpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from devicehub.kinds.resources import Resources
from devicehub.messages import decode
from devicehub.messages.decode import SENML, Decoded, Document
from devicehub.messages.lwm2m import paths, recognise
from devicehub.messages.lwm2m.values import DataType, TypeOf
from devicehub.messages.message import FailureReason, Message, Notes, Unreadable

# Content types that only LwM2M uses; those of one value are also used without it.
LWM2M = frozenset(f"application/vnd.oma.lwm2m+{name}" for name in ("tlv", "json", "cbor"))
TYPES = {
    "float": DataType.FLOAT,
    "integer": DataType.INTEGER,
    "boolean": DataType.BOOLEAN,
    "string": DataType.STRING,
    "binary": DataType.OPAQUE,
}


def document(message: Message, resources: Resources, declared: Any) -> Document:
    """Return the decoded payload, with its `values` if it is LwM2M and not SenML. Raise Unreadable."""
    media_type, path = recognise.split(message.content_type)
    path = dict(message.user_properties).get("path") or path
    if media_type in LWM2M or (path and media_type not in SENML):
        found = recognise.recognise(message.payload, media_type, path)
        if found.form.media_type in SENML:
            return decode.document(message.payload, found.form.media_type)
        return _values(message.payload, found, resources)
    plain = decode.document(message.payload, message.content_type)
    if media_type in recognise.VAGUE and _is_lwm2m(plain.content, declared):
        return _values(message.payload, recognise.recognise(message.payload, "", ""), resources)
    return plain


def _is_lwm2m(content: Any, declared: Any) -> bool:
    """Return whether *content* is LwM2M JSON, an object with a list `e`, or LwM2M CBOR, a map of ids."""
    if not isinstance(content, dict) or not content:
        return False
    if isinstance(content.get("e"), list):
        return "e" not in declared
    return all(type(key) is int or isinstance(key, tuple) for key in content)


def _values(payload: bytes, found: recognise.Recognised, resources: Resources) -> Document:
    notes = Notes()
    values = recognise.values(payload, found, _type_of(resources), notes)
    return Document(None, notes, is_exact=False, values=values)


def _type_of(resources: Resources) -> TypeOf:
    def type_of(object_id: int, resource_id: int) -> DataType | None:
        kind = resources.types.get((object_id, resource_id))
        return None if kind is None else TYPES[kind]

    return type_of


def samples(found: Document, now: datetime, resources: Resources, most: Callable[[], float]) -> Decoded:
    """Return the samples that the values of *found* make, by time. Raise Unreadable for more than *most*().

    A value without a reading has its path as its name, so the validation leaves it out with a note.
    """
    decoded = Decoded(now)
    moments: dict[Any, datetime | None] = {}
    for path, _, held, time in found.values or ():
        if time not in moments:
            moments[time] = recognise.moment(time, now, decoded.notes)
            if len(moments) > 1 and len(moments) > most():
                detail = f"more than {most()} samples, the most that are stored of one message"
                raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
        written = paths.write(path)
        moment = moments[time]
        decoded.add(
            {resources.names.get(written, written): held},
            moment,
            is_dated=moment is not None and recognise.is_own(time),
        )
    return decoded
