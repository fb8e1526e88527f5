"""One batch into the database, in one transaction. Everything that reaches this module can be stored."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from authsvc.text import make_storable
from devicehub.commands import replies, transitions
from devicehub.conf import settings
from devicehub.db import bulk
from devicehub.ingest import limits, listeners, presence
from devicehub.ingest.allowance import ROW, Allowance, owner_of
from devicehub.ingest.failpoints import reach
from devicehub.ingest.presence import Sign, Transition
from devicehub.kinds.registry import Kind
from devicehub.kinds.store import Measured
from devicehub.kinds.topics import MessageType
from devicehub.messages.decode import Sample
from devicehub.messages.message import MAX_KEPT, FailureReason, Message, Notes, Outcome
from devicehub.models import QUARANTINED_AS, BaseMessage, ProcessingStatus, QuarantinedMessage


@dataclass(slots=True)
class Rejected:
    """A message of no known device: it goes to the quarantine, unless the broker retained it."""

    message: Message
    reason: FailureReason
    detail: str
    key: str = ""
    outcome: Outcome = Outcome.FAILED
    kept_as: int | None = None  # the key of its row in the quarantine; None where it is only counted
    has_device_time: ClassVar[bool] = False  # nobody read it

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome


class Known(NamedTuple):
    """What must be known of a device to store its messages; who listens gets the whole device."""

    pk: int
    device_id: str
    is_active: bool


@dataclass(slots=True)
class Judged:
    """A message of a known device, with what was found out about it.

    *document* is what the row keeps instead of the bytes, or None; *reply* is a device's answer and *answered* the
    name of the command it answers. *sign* is what it says about the device itself; *reason* and *detail* say why
    it failed.
    """

    message: Message
    kind: Kind
    device: Any  # a BaseDevice where anybody listens, else Known
    message_type: MessageType
    outcome: Outcome = Outcome.STORED
    reason: FailureReason | None = None
    detail: str = ""
    document: Any = None
    reply: dict[str, Any] = field(default_factory=dict)
    answered: str = ""
    samples: list[Sample] = field(default_factory=list)
    sign: Sign | None = None
    notes: Notes = field(default_factory=Notes)
    has_device_time: bool = False
    kept_as: int | None = None  # the key of its row in the quarantine; None where it is only counted
    row_key: int | None = None
    row_written: datetime | None = None
    transition: Transition | None = None  # on the last message of each device whose batch changed it
    _digest: str | None = None

    @property
    def row(self) -> BaseMessage:
        """Its row as a model, made for who asks."""
        named = dict(zip(MESSAGE, message_row(self, ""), strict=True))
        for name in ("payload_json", "user_properties", "notes"):
            if named[name] is not None:
                named[name] = json.loads(named[name])
        named["received_at"] = named["processed_at"] = self.row_written
        row: BaseMessage = self.kind.message_model(id=self.row_key, **named)
        row._state.adding, row._state.db = False, connection.alias
        return row

    @property
    def key(self) -> str:
        return self.kind.key(self.device.device_id)

    @property
    def digest(self) -> str | None:
        """The key of the message, which only a payload with a device time has; a status is never one with data."""
        if not self.has_device_time:
            return None
        if self._digest is None:
            about = b"" if self.message_type is MessageType.DATA else self.message_type.encode()
            self._digest = hashlib.sha256(about + self.message.payload).hexdigest()
        return self._digest

    def end(self, outcome: Outcome, reason: FailureReason | None = None, detail: str = "") -> None:
        """This message brings no readings and changes nothing."""
        self.outcome, self.reason, self.detail = outcome, reason, detail
        self.samples, self.sign = [], None


Item = Judged | Rejected


def load_devices(wanted: Iterable[tuple[Kind, str]]) -> dict[tuple[str, str], Any]:
    """The devices by kind and id, one query for each kind: models where anybody listens, else Known."""
    by_kind: dict[str, tuple[Kind, set[str]]] = {}
    for kind, device_id in wanted:
        by_kind.setdefault(kind.slug, (kind, set()))[1].add(device_id)
    found: dict[tuple[str, str], Any] = {}
    for kind, ids in by_kind.values():
        devices = kind.device_model.objects.filter(bulk.among("device_id", ids))
        if not listeners.are_there(kind):
            devices = map(Known._make, devices.order_by().values_list(*Known._fields))
        for device in devices:
            found[kind.slug, device.device_id] = device
    return found


@transaction.atomic
def write(batch: Sequence[Item]) -> None:
    """Store *batch*. Raises DatabaseError, and then nothing is stored."""
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    for item in batch:
        if isinstance(item, Judged):
            by_kind[item.kind.slug].append(item)
    kinds = [
        items for _, items in sorted(by_kind.items())
    ]  # in one order, or two workers wait for each other
    for items in kinds:
        _mark_duplicates(items)
        _refuse_too_many(items)
    failed = [item for item in batch if item.outcome is Outcome.FAILED]
    allowance = Allowance({_owner(item) for item in failed}) if failed else None
    refused = _admit(failed, allowance) if allowance else []
    for items in kinds:
        _write_rows([item for item in items if item.outcome not in NO_ROW])
        _answer_commands([item for item in items if item.reply and item.outcome in NEWS])
        _hasten_commands([item for item in items if item.message_type is MessageType.STATUS])
    if allowance is not None:
        QuarantinedMessage.objects.bulk_create(refused)
        allowance.write()
    reach("written")


# A duplicate has its row already; the broker's retained copy without a time is no news.
NO_ROW = frozenset({Outcome.DUPLICATE, Outcome.RETAINED})
NEWS = frozenset({Outcome.STORED, Outcome.PARTIAL})


def _mark_duplicates(items: Sequence[Judged]) -> None:
    """Of one kind: the messages whose key is stored already, or stands earlier in this batch."""
    keyed = [
        (item, (item.device.pk, digest))
        for item in items
        if item.outcome in NEWS and (digest := item.digest) is not None
    ]
    if not keyed:
        return
    table = items[0].kind.message_model._meta.db_table
    seen = bulk.known(table, ("device_id", "digest"), [key for _, key in keyed])
    for item, key in keyed:
        if key in seen:
            item.end(Outcome.DUPLICATE)
        seen.add(key)


def _refuse_too_many(items: Sequence[Judged]) -> None:
    """Of one kind: the messages beyond what their device may send, where a limit is set. Those that failed count."""
    limit = settings.rate_limit
    if limit is None or limits.are_lifted():
        return
    counted = [item for item in items if item.outcome not in NO_ROW]
    for position in limits.limiter.beyond(limit, [item.key for item in counted]):
        if counted[position].outcome in NEWS:
            counted[position].end(Outcome.FAILED, FailureReason.RATE_LIMITED, f"more than {limit}")


def _owner(item: Item) -> str:
    return owner_of(str(item.reason), item.key)


def _admit(failed: Sequence[Item], allowance: Allowance) -> list[QuarantinedMessage]:
    """Return the rows of those that the quarantine keeps; the others are only counted."""
    rows, kept = [], []
    for item in failed:
        item.kept_as, owner = None, _owner(item)
        row = _quarantined(item) if allowance.fits(owner) else None
        if row is not None and allowance.fits(owner, row.size or 0):
            allowance.take(owner, row.size or 0)
            rows.append(row)
            kept.append(item)
        else:
            allowance.refuse(owner, str(item.reason))
    if rows:
        keys = bulk.new_keys(QuarantinedMessage, len(rows))
        for row, item, key in zip(rows, kept, keys, strict=True):
            row.pk = item.kept_as = key
    return rows


def _write_rows(messages: Sequence[Judged]) -> None:
    """Of one kind: the raw messages, their readings, and what they change on their devices.

    A message that is only counted has no row, and is a sign of life all the same.
    """
    if not messages:
        return
    items = [item for item in messages if item.outcome is not Outcome.FAILED or item.kept_as is not None]
    kind, now = messages[0].kind, timezone.now()
    listened = not isinstance(messages[0].device, Known)
    as_time = bulk.time_writer()
    written = as_time(now)
    rows = [message_row(item, written) for item in items]
    if not listened or not items:  # nobody will ask for the keys of its messages
        bulk.insert(kind.message_model, MESSAGE, rows)
    else:
        keys = bulk.new_keys(kind.message_model, len(items))
        for item, key in zip(items, keys, strict=True):
            item.row_key, item.row_written = key, now
        rows = [(key, *row) for key, row in zip(keys, rows, strict=True)]
        bulk.insert(kind.message_model, ("id", *MESSAGE), rows)
    if kind.store is None:
        _write_readings(kind, items, written, as_time)
    else:
        kind.store.write(_measured(items), now)
    told = presence.write(kind, changes(messages), now, listened)
    last = {item.device.pk: item for item in messages} if listened else {}
    for item in last.values():
        item.transition = told.transitions.get(item.device.pk)
    for item in messages if listened else ():
        item.device = told.devices.get(item.device.pk, item.device)


def _answer_commands(items: Sequence[Judged]) -> None:
    """In the transaction: what is acknowledged is never sent again, so an answer must not be lost after it."""
    if items:
        told = [replies.CommandReply(item.key, item.reply, item.message.received_at) for item in items]
        for item, name in zip(items, replies.record(told), strict=True):
            item.answered = name


def _hasten_commands(items: Sequence[Judged]) -> None:
    """A device says how it is when it has connected, so it may be there for what waits for it."""
    keys = {item.key for item in items if item.outcome in NEWS}
    if keys:
        transitions.hasten(keys, timezone.now())


def _write_readings(
    kind: Kind, items: Sequence[Judged], now: str, as_time: Callable[[datetime], str]
) -> None:
    declared = kind.readings
    writers = {"json": bulk.dump_json, "datetime": as_time}  # for what a driver does not take as it is
    written = {n: writers[reading.type] for n, reading in declared.items() if reading.type in writers}
    rows = []
    for item in items:
        for sample in item.samples:
            values = sample.values
            for name in written.keys() & values.keys():
                values = values | {name: written[name](values[name])}
            timestamp = as_time(sample.timestamp or item.message.received_at)
            rows.append((item.device.pk, timestamp, now, *map(values.get, declared)))
    bulk.insert(kind.reading_model, ("device_id", "timestamp", "received_at", *declared), rows)


def _measured(items: Sequence[Judged]) -> list[Measured]:
    return [
        Measured(item.device.pk, sample.timestamp or item.message.received_at, sample.values)
        for item in items
        for sample in item.samples
    ]


def changes(items: Iterable[Judged]) -> dict[int, presence.Change]:
    """What messages of one kind change on their devices, by primary key."""
    signs: dict[int, list[Sign]] = defaultdict(list)
    for item in items:
        sign = presence.heard(item.sign, item.message, item.reason, item.message_type)
        if sign is not None:
            signs[item.device.pk].append(sign)
    return {pk: presence.fold(said) for pk, said in signs.items()}


# The columns of a message, in the order of message_row().
MESSAGE: tuple[str, ...] = (
    "device_id", "topic", "payload_json", "payload_raw", "content_type", "correlation_id", "user_properties",
    "processing_status", "processing_error", "received_at", "processed_at", "digest", "outcome", "notes",
)  # fmt: skip


def message_row(item: Judged, now: str) -> tuple[Any, ...]:
    """The row of a message, JSON and times as text."""
    message, failed = item.message, item.outcome is Outcome.FAILED
    storable = not failed and item.document is not None and b"\\u0000" not in message.payload
    return (
        item.device.pk,
        message.topic,
        bulk.dump_json(item.document) if storable else None,
        None if storable or failed else message.payload,
        make_storable(message.content_type, 100),
        make_storable(message.correlation_id, 256),
        bulk.dump_json(_properties(message)) if message.user_properties and not failed else "{}",
        FAILED if failed else COMPLETED,
        make_storable(f"{item.reason}: {item.detail}", 1000) + QUARANTINED_AS.format(item.kept_as)
        if failed
        else "",
        now,
        now,
        None if failed else item.digest,
        item.outcome.value,
        bulk.dump_json([make_storable(note, 300) for note in item.notes.told()]) if item.notes else "[]",
    )


COMPLETED, FAILED = ProcessingStatus.COMPLETED.value, ProcessingStatus.FAILED.value


def _properties(message: Message) -> dict[str, str]:
    return {
        make_storable(name, 256): make_storable(value, 1024) for name, value in message.user_properties[:32]
    }


def _quarantined(item: Item) -> QuarantinedMessage:
    message = item.message
    row = QuarantinedMessage(
        reason=str(item.reason),
        detail=make_storable(item.detail, 500),
        topic=make_storable(message.topic, 512),
        payload=message.payload[:MAX_KEPT],
        content_type=make_storable(message.content_type, 100),
        correlation_id=make_storable(message.correlation_id, 256),
        user_properties=_properties(message),
        retain=message.retain,
        device_key=item.key[:260],
        received_at=message.received_at,
    )
    notes = [make_storable(note, 300) for note in item.notes.told()] if isinstance(item, Judged) else []
    in_both = f"{row.topic}{row.content_type}{row.correlation_id}{make_storable(item.detail, 1000)}"
    in_one = f"{bulk.dump_json(row.user_properties)}{bulk.dump_json(notes)}"
    row.size = ROW + len(row.payload) + 2 * len(in_both.encode()) + len(in_one.encode())
    return row
