"""The inbox of endpoints: it reads their payloads and registrations, and writes resources and events."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from devicehub.conf import settings
from devicehub.ingest.items import NEWS, Content, DeviceRow, Judged
from devicehub.ingest.presence import Sign
from devicehub.kinds.topics import MessageType
from devicehub.lwm2m import catalogue, events, names
from devicehub.lwm2m.catalogue import Catalogue
from devicehub.lwm2m.inbox import forms, registrations, renewal, writing
from devicehub.lwm2m.inbox.writing import Parcel, Placed
from devicehub.lwm2m.models.events import REGISTRATION
from devicehub.messages import decode
from devicehub.messages.decode import Document, Sample
from devicehub.messages.lwm2m import paths, recognise
from devicehub.messages.message import FailureReason, Message, Unreadable

CHECKED = frozenset({str, float})
MOST_RESOURCES = 10_000  # Values of one message.


class EndpointInbox:
    """The Inbox of the kind `lwm2m`."""

    columns = ("object_versions", "sleeping")

    def __init__(self) -> None:
        self._of_thread = threading.local()  # One thread reads and writes a batch.

    @property
    def _catalogue(self) -> Catalogue | None:
        return getattr(self._of_thread, "catalogue", None)

    def prepare(self) -> None:
        """Read the definitions of objects unless they are known; settle() shows whether they changed."""
        self._of_thread.catalogue = catalogue.known()

    def read(
        self, message: Message, message_type: MessageType, device: Any
    ) -> tuple[Document, Content] | None:
        """Return the content of a payload; None for a reply, and for a status that is not about a registration."""
        if message_type is MessageType.DATA:
            return _read_data(message, device, self._catalogue or catalogue.current())
        if message_type is MessageType.STATUS:
            return _read_status(message)
        return None

    def is_for(self, message: Message, device_id: str) -> bool:
        """Return whether the endpoint with *device_id* has the name that *message* carries, if it carries one."""
        return names.may_be_of(device_id, dict(message.user_properties).get(names.PROPERTY))

    def settle(self, items: list[Judged]) -> list[Judged]:
        """Return *items* after their registrations are compared with those of their endpoints, and saved."""
        settled = writing.settle(renewal.renew(items, self._catalogue, _read_data))
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


def _read_data(message: Message, device: Any, definitions: Catalogue) -> tuple[Document, Content]:
    key_of, type_of = definitions.finder(_versions(device))
    found = forms.read(message, type_of)
    notes = found.notes
    if len(found.values) > MOST_RESOURCES:
        detail = f"{len(found.values)} values; at most {MOST_RESOURCES} are stored of one message"
        raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
    received, is_dated = message.received_at, False
    placed: list[Placed] = []
    new = tuple.__new__  # The constructor of a NamedTuple takes twice as long.
    moments: dict[Any, datetime | None] = {}
    before: Any = moments  # The time of the value before, which is not hashed again; at first no time.
    moment: datetime | None = None
    for path, kind, held, time in found.values:
        if type(held) in CHECKED and (fault := _fault(held)):
            notes.append(f"/{paths.name(path)}: {fault}")
            continue
        if time is not before:
            before = time
            if time not in moments:
                moments[time] = recognise.moment(time, received, notes)
                is_dated = is_dated or (moments[time] is not None and recognise.is_own(time))
            moment = moments[time]
        placed.append(new(Placed, (path, paths.name(path), key_of(path[0], path[2]), kind, held, moment)))
    if not placed:
        detail = "; ".join(notes)[:400] or "the payload holds no value"
        raise Unreadable(FailureReason.NO_VALUE, detail)
    times = set(moments.values())
    newest = earliest = None
    if len(times) > 1:
        if len(times) > settings.max_samples:
            detail = f"{len(times)} samples; at most {settings.max_samples} are stored of one message"
            raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
        known = [one or received for one in times]
        newest, earliest = max(known), min(known)
    newest = newest or moment or received
    samples = [] if isinstance(device, DeviceRow) else _samples(placed)
    sign = Sign(received, reading_at=newest)
    content = Content(sign, samples, is_dated, own=Parcel(found.event, newest, placed, earliest=earliest))
    return Document(None, notes, is_exact=False), content


def _samples(placed: Sequence[Placed]) -> list[Sample]:
    """Return the values by time, as hooks and receivers get them."""
    by_time: dict[datetime | None, Sample] = {}
    for one in placed:
        sample = by_time.setdefault(one.timestamp, Sample(timestamp=one.timestamp))
        sample.values[one.name] = one.value
    return list(by_time.values())


def _fault(held: str | float) -> str:
    """Return why no database stores *held*, or ""."""
    if isinstance(held, str):
        return "holds NUL, which no database stores" if "\x00" in held else ""
    return "" if math.isfinite(held) else "is not a finite number"


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
