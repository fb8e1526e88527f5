"""The inbox of endpoints: it reads their payloads and registrations, and writes resources and events."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from devicehub.conf import settings
from devicehub.ingest.items import NEWS, Content, DeviceRow, Judged
from devicehub.ingest.presence import Sign
from devicehub.kinds.topics import MessageType
from devicehub.lwm2m import catalogue, events
from devicehub.lwm2m.inbox import forms, registrations, writing
from devicehub.lwm2m.inbox.writing import Parcel, Placed
from devicehub.lwm2m.models.events import REGISTRATION
from devicehub.messages import decode
from devicehub.messages.decode import Document, Sample
from devicehub.messages.lwm2m import recognise
from devicehub.messages.lwm2m.values import Value
from devicehub.messages.message import FailureReason, Message, Notes, Unreadable

MOST_RESOURCES = 10_000  # Values of one message.


class EndpointInbox:
    """The Inbox of the kind `lwm2m`."""

    columns = ("object_versions",)

    def read(
        self, message: Message, message_type: MessageType, device: Any
    ) -> tuple[Document, Content] | None:
        """Return the content of a payload; None for a reply, and for a status that is not about a registration."""
        if message_type is MessageType.DATA:
            return _read_data(message, device)
        if message_type is MessageType.STATUS:
            return _read_status(message)
        return None

    def settle(self, items: list[Judged]) -> list[Judged]:
        """Return *items* after their registrations are compared with those of their endpoints, and saved."""
        settled = writing.settle(items)
        if not events.are_heard():
            return settled
        return [i if i.own is None else i._replace(own=i.own._replace(made=[])) for i in settled]

    def write(self, items: Sequence[Judged], now: datetime) -> None:
        """Write events, the history and the latest values of resources."""
        writing.write([item for item in items if item.own is not None and item.outcome in NEWS], now)

    def listens(self) -> bool:
        """Return whether a receiver or a hook is notified of events."""
        return events.are_heard()

    def calls(self, item: Judged) -> Iterator[Callable[[], None]]:
        """Yield the notifications of the events of one message: its own, and those that its values completed."""
        for made in item.own.made or () if item.own is not None else ():
            yield partial(events.notify, item.device, made)


def _versions(device: Any) -> Mapping[str, str]:
    versions = device.further[0] if isinstance(device, DeviceRow) else device.object_versions
    return versions if isinstance(versions, dict) else {}


def _read_data(message: Message, device: Any) -> tuple[Document, Content]:
    find = catalogue.finder(catalogue.current(), _versions(device))

    def type_of(object_id: int, resource_id: int) -> Any:
        known = find((object_id, 0, resource_id))
        return None if known is None else known.type

    found = forms.read(message, type_of)
    notes = found.notes
    if len(found.values) > MOST_RESOURCES:
        detail = f"{len(found.values)} values; at most {MOST_RESOURCES} are stored of one message"
        raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
    received, is_dated = message.received_at, False
    placed: list[Placed] = []
    by_time: dict[datetime | None, Sample] = {}
    moments: dict[Any, datetime | None] = {}
    for value in found.values:
        if not _is_storable(value, notes):
            continue
        time = value.time
        if time not in moments:
            moments[time] = recognise.moment(time, received, notes)
            is_dated = is_dated or (moments[time] is not None and recognise.is_own(time))
        moment = moments[time]
        known = find(value.path)
        one = Placed(value.path, None if known is None else known.key, value.type, value.value, moment)
        placed.append(one)
        sample = by_time.get(moment) or by_time.setdefault(moment, Sample(timestamp=moment))
        sample.values[one.name] = value.value
    if not placed:
        detail = "; ".join(notes)[:400] or "the payload holds no value"
        raise Unreadable(FailureReason.NO_VALUE, detail)
    samples = list(by_time.values())
    if len(samples) > settings.max_samples:
        detail = f"{len(samples)} samples; at most {settings.max_samples} are stored of one message"
        raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
    newest = max(sample.timestamp or received for sample in samples)
    content = Content(
        Sign(received, reading_at=newest), samples, is_dated, own=Parcel(found.event, newest, placed)
    )
    return Document(None, notes, is_exact=False), content


def _is_storable(value: Value, notes: Notes) -> bool:
    held = value.value
    name = "/".join(map(str, value.path))
    if isinstance(held, str) and "\x00" in held:
        notes.append(f"/{name}: holds NUL, which no database stores")
        return False
    if isinstance(held, float) and not math.isfinite(held):
        notes.append(f"/{name}: is not a finite number")
        return False
    return True


def _read_status(message: Message) -> tuple[Document, Content] | None:
    try:
        found = decode.document(message.payload, message.content_type)
    except Unreadable:
        return None  # Read again as a status of any device, which may be plain text.
    registration = registrations.read(found.content, found.notes)
    if registration is None:
        return None
    sign = Sign(message.received_at, is_unclear=True)  # settle() shows what it says of the endpoint.
    own = Parcel(REGISTRATION, message.received_at, [], registration)
    return found, Content(sign, [], own=own)
