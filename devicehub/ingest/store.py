"""Storage of one batch in one transaction. Every item that reaches this module can be stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from django.db import connection, transaction
from django.utils import timezone

from authsvc.text import make_storable
from devicehub.commands import replies, transitions
from devicehub.conf import settings
from devicehub.db import bulk
from devicehub.ingest import limits, listeners, presence
from devicehub.ingest.allowance import ROW, Allowance, owner_of
from devicehub.ingest.failpoints import reach
from devicehub.ingest.items import NEWS, NO_ROW, DeviceRow, Item, Judged
from devicehub.ingest.presence import Sign, Written
from devicehub.kinds.registry import Kind
from devicehub.kinds.store import Measured, Store
from devicehub.kinds.topics import MessageType
from devicehub.messages.message import MAX_KEPT, FailureReason, Message, Outcome
from devicehub.models import QUARANTINED_AS, BaseMessage, ProcessingStatus, QuarantinedMessage


def load_devices(wanted: Iterable[tuple[Kind, str]]) -> dict[tuple[str, str], Any]:
    """Return the devices by kind and id, by one query for each kind: models if it has listeners, else DeviceRow."""
    by_kind: dict[str, tuple[Kind, set[str]]] = {}
    for kind, device_id in wanted:
        by_kind.setdefault(kind.slug, (kind, set()))[1].add(device_id)
    found: dict[tuple[str, str], Any] = {}
    for kind, ids in by_kind.values():
        if kind.inbox is not None:
            kind.inbox.prepare()
        devices = kind.device_model.objects.filter(bulk.among("device_id", ids))
        if not listeners.are_there(kind):
            devices = map(_device_row, devices.order_by().values_list(*_columns(kind)))
        for device in devices:
            found[kind.slug, device.device_id] = device
    return found


def _columns(kind: Kind) -> tuple[str, ...]:
    return ("pk", "device_id", "is_active", *(kind.inbox.columns if kind.inbox is not None else ()))


def _device_row(row: tuple[Any, ...]) -> DeviceRow:
    pk, device_id, is_active, *further = row
    return DeviceRow(pk, device_id, is_active, tuple(further))


@transaction.atomic
def write(batch: Sequence[Item], begin: Callable[[], None] = lambda: None) -> list[Item]:
    """Store *batch*; return its items with their outcomes. Raise DatabaseError, and then nothing is stored.

    *begin* is called first, in the transaction.
    """
    begin()
    items = list(batch)
    by_kind: dict[str, list[int]] = defaultdict(list)  # Positions in the batch.
    for place, item in enumerate(batch):
        if isinstance(item, Judged):
            by_kind[item.kind.slug].append(place)
    # All workers use one order, or two of them could wait for each other.
    kinds = [places for _, places in sorted(by_kind.items())]
    for places in kinds:
        own = _take(items, places)
        _mark_duplicates(own)
        _refuse_too_many(own)
        if own[0].kind.inbox is not None:
            own = own[0].kind.inbox.settle(own)
        _put_back(items, places, own)
    failed = [place for place, item in enumerate(items) if item.outcome is Outcome.FAILED]
    allowance = Allowance({_owner(items[place]) for place in failed}) if failed else None
    refused = _admit(items, failed, allowance) if allowance else []
    for places in kinds:
        own = _take(items, places)
        _write_rows(own)
        _answer_commands(own)
        _hasten_commands(own)
        _put_back(items, places, own)
    if allowance is not None:
        QuarantinedMessage.objects.bulk_create(refused)
        allowance.write()
    reach("written")
    return items


def _take(items: Sequence[Item], places: Iterable[int]) -> list[Judged]:
    return [items[place] for place in places]  # type: ignore[misc]  # by_kind holds no others


def _put_back(items: list[Item], places: Iterable[int], own: Iterable[Judged]) -> None:
    for place, item in zip(places, own, strict=True):
        items[place] = item


def _mark_duplicates(own: list[Judged]) -> None:
    """Mark messages of one kind as duplicates if their key is stored already, or comes earlier in this batch."""
    keyed = [
        (place, (item.device.pk, item.digest))
        for place, item in enumerate(own)
        if item.digest is not None and item.outcome in NEWS
    ]
    if not keyed:
        return
    table = own[0].kind.message_model._meta.db_table
    seen = bulk.existing(table, ("device_id", "digest"), [key for _, key in keyed])
    for place, key in keyed:
        if key in seen:
            own[place] = own[place].ended(Outcome.DUPLICATE)
        seen.add(key)


def _refuse_too_many(own: list[Judged]) -> None:
    """Fail the messages of one kind beyond the rate limit, if one is set. Messages that failed already count, too."""
    limit, single = settings.rate_limit, limits.own_limits.read()
    if (limit is None and not single) or limits.are_lifted():
        return
    counted = [place for place, item in enumerate(own) if item.outcome not in NO_ROW]
    keys = [own[place].key for place in counted]
    for position in limits.limiter.beyond(limit, keys, own=single):
        place = counted[position]
        limit = single.get(keys[position], settings.rate_limit)
        if own[place].outcome in NEWS:
            own[place] = own[place].ended(Outcome.FAILED, FailureReason.RATE_LIMITED, f"more than {limit}")


def _owner(item: Item) -> str:
    return owner_of(str(item.reason), item.key)


def _admit(items: list[Item], failed: Sequence[int], allowance: Allowance) -> list[QuarantinedMessage]:
    """Return the rows of the messages that the quarantine keeps; count the others."""
    rows, kept = [], []
    for place in failed:
        item = items[place]
        owner = _owner(item)
        row = _quarantined(item) if allowance.fits(owner) else None
        if row is not None and allowance.fits(owner, row.size or 0):
            allowance.take(owner, row.size or 0)
            rows.append(row)
            kept.append(place)
        else:
            allowance.refuse(owner, str(item.reason))
    if rows:
        keys = bulk.new_keys(QuarantinedMessage, len(rows))
        for row, place, key in zip(rows, kept, keys, strict=True):
            row.pk = key
            items[place] = items[place]._replace(kept_as=key)
    return rows


def _write_rows(own: list[Judged]) -> None:
    """Write the messages of one kind, their readings, and the changes on their devices.

    A message that is only counted has no row, but is still a sign of life.
    """
    messages = [item for item in own if item.outcome not in NO_ROW]
    if not messages:
        return
    stored = [item for item in messages if item.outcome is not Outcome.FAILED or item.kept_as is not None]
    kind, now = messages[0].kind, timezone.now()
    listened = not isinstance(messages[0].device, DeviceRow)
    as_time = bulk.time_writer()
    written = as_time(now)
    rows = [message_row(item, written) for item in stored]
    keys: Sequence[int] = ()
    if not listened or not stored:  # The keys of the messages are not needed.
        bulk.insert(kind.message_model, MESSAGE, rows)
    else:
        keys = bulk.new_keys(kind.message_model, len(stored))
        rows = [(key, *row) for key, row in zip(keys, rows, strict=True)]
        bulk.insert(kind.message_model, ("id", *MESSAGE), rows)
    if kind.inbox is not None:
        kind.inbox.write(stored, now)
    elif kind.store is None:
        _write_readings(kind, stored, written, as_time)
    else:
        cast(Store, kind.store).write(_measured(stored), now)
    left = presence.write(kind, changes(messages), now, listened)
    if listened:
        _complete(own, dict(zip(map(id, stored), keys, strict=True)), now, left)


def _complete(own: list[Judged], keys: Mapping[int, int], now: datetime, left: Written) -> None:
    """Add row, device and transition for listeners to the items that are not duplicates; *keys* are by id() of item."""
    last = {item.device.pk: place for place, item in enumerate(own) if item.outcome not in NO_ROW}
    for place, item in enumerate(own):
        if item.outcome in NO_ROW:
            continue
        pk, key = item.device.pk, keys.get(id(item))
        own[place] = item._replace(
            row_key=key,
            row_written=None if key is None else now,
            device=left.devices.get(pk, item.device),
            transition=left.transitions.get(pk) if last[pk] == place else None,
        )


def as_model(item: Judged) -> BaseMessage:
    """Return the row of *item* as a model, for receivers."""
    named = dict(zip(MESSAGE, message_row(item, ""), strict=True))
    for name in ("payload_json", "user_properties", "notes"):
        if named[name] is not None:
            named[name] = json.loads(named[name])
    named["received_at"] = named["processed_at"] = item.row_written
    row: BaseMessage = item.kind.message_model(id=item.row_key, **named)
    row._state.adding, row._state.db = False, connection.alias
    return row


def _answer_commands(own: list[Judged]) -> None:
    """Record the answers to commands, in the transaction: an acknowledged message is never sent again."""
    answers = [(place, item.reply) for place, item in enumerate(own) if item.reply and item.outcome in NEWS]
    if answers:
        found = [
            replies.CommandReply(own[at].key, reply, own[at].message.received_at) for at, reply in answers
        ]
        for (place, _), name in zip(answers, replies.record(found), strict=True):
            own[place] = own[place]._replace(answered=name)


def _hasten_commands(own: Iterable[Judged]) -> None:
    """Make the queued commands of devices that sent a status due now: such a device may have just connected."""
    keys = {item.key for item in own if item.message_type is MessageType.STATUS and item.outcome in NEWS}
    if keys:
        transitions.hasten(keys, timezone.now())


def _write_readings(
    kind: Kind, items: Sequence[Judged], now: str, as_time: Callable[[datetime], str]
) -> None:
    declared = kind.readings
    writers = {
        "json": bulk.dump_json,
        "datetime": as_time,
    }  # Drivers do not take these types without a conversion.
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
    """Return the changes that messages of one kind make on their devices, by primary key."""
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
    """Return the row of a message, with JSON and times as text."""
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
        bulk.dump_json([make_storable(note, 300) for note in item.notes.shown()]) if item.notes else "[]",
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
    notes = [make_storable(note, 300) for note in item.notes.shown()] if isinstance(item, Judged) else []
    in_both = f"{row.topic}{row.content_type}{row.correlation_id}{make_storable(item.detail, 1000)}"
    in_one = f"{bulk.dump_json(row.user_properties)}{bulk.dump_json(notes)}"
    row.size = ROW + len(row.payload) + 2 * len(in_both.encode()) + len(in_one.encode())
    return row
