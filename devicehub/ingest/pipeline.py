"""The one door for messages: topic -> device -> decode -> validate -> store -> announce.

Every message ends in exactly one Outcome. Whatever is wrong with a message is its own outcome and never the
batch's; only a database that cannot store raises, and then nothing of the batch is stored or acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from django.db import DataError, IntegrityError, transaction

from devicehub import topics
from devicehub.ingest import decode, store, validate
from devicehub.ingest.announce import announce
from devicehub.ingest.message import Message, Outcome, Reason, Unreadable
from devicehub.ingest.store import Item, Judged, Rejected
from devicehub.models import OPERATOR_STATES, BaseDevice, DeviceStatus
from devicehub.topics import Address, MessageType

log = structlog.get_logger(__name__)


def pipeline(messages: Sequence[Message]) -> list[Outcome]:
    """Store *messages*, in one transaction, and tell who listens. Raises DatabaseError with nothing stored."""
    addresses = [topics.parse(message.topic) for message in messages]
    devices = store.load_devices((a.kind, a.device_id) for a in addresses if a is not None)
    before = {key: Before(device) for key, device in devices.items()}
    batch = [judge(message, address, devices) for message, address in zip(messages, addresses, strict=True)]
    stored = _store(batch)
    announce(stored, before)
    return [item.outcome for item in stored]


class Before:
    """What a device was before a batch, to tell what changed."""

    __slots__ = ("connected", "status")

    def __init__(self, device: BaseDevice) -> None:
        self.status = device.status
        self.connected = device.connected


def judge(message: Message, address: Address | None, devices: Mapping[tuple[str, str], BaseDevice]) -> Item:
    """What is in *message* and what it changes on its device, which is changed in memory. Never raises."""
    if address is None:
        return Rejected(message, Reason.UNKNOWN_TOPIC, "no device type has topics of this form")
    kind, device_id, message_type = address
    device = devices.get((kind.slug, device_id))
    if device is None:
        key = kind.key(device_id)
        return Rejected(message, Reason.UNKNOWN_DEVICE, f"there is no {key}", key)
    item = Judged(message, kind, device, message_type)
    if not device.is_active:
        item.end(Outcome.FAILED, Reason.DISABLED_DEVICE, f"{item.key} is disabled")
        return item
    try:
        item.document = decode.document(message.payload, message.content_type)
        _READERS[message_type](item, device)
    except Unreadable as error:
        item.end(Outcome.FAILED, error.reason, error.detail)
        return item
    except Exception as error:
        log.exception("ingest.bug", topic=message.topic)
        item.end(Outcome.FAILED, Reason.UNSTORABLE, type(error).__name__)
        return item
    if message.retain and not item.has_device_time:
        # The broker's stored copy of something said before: history without a date is not news.
        item.end(Outcome.RETAINED)
    elif item.notes:
        item.outcome = Outcome.PARTIAL
    for name, value in item.changes.items():
        setattr(device, name, value)
    return item


def _read_data(item: Judged, device: BaseDevice) -> None:
    received = item.message.received_at
    decoded = decode.samples(item.document, received)
    item.notes, item.has_device_time = decoded.notes, decoded.has_device_time
    declared = item.kind.device_type._readings
    for sample in decoded.samples:
        sample.values, notes = validate.readings(sample.values, declared)
        item.notes += notes
        if sample.values:
            item.samples.append(sample)
    if not item.samples:
        raise Unreadable(Reason.NO_VALUE, "; ".join(item.notes)[:400] or "the payload holds no value")
    item.changes = _seen(device, received)
    item.changes["last_reading_at"] = _later(
        device.last_reading_at, max(sample.timestamp or received for sample in item.samples)
    )
    if not device.connected:
        item.changes |= {"connected": True, "connected_changed_at": received}
    if device.status == DeviceStatus.OFFLINE:
        item.changes["status"] = DeviceStatus.ONLINE


def _read_status(item: Judged, device: BaseDevice) -> None:
    if not isinstance(item.document, dict):
        raise Unreadable(Reason.NOT_A_READING, "a status is an object")
    received, states = item.message.received_at, item.kind.device_type._state_fields
    accepted: dict[str, Any] = {}
    for name, value in item.document.items():
        try:
            if name == "status":
                accepted |= _reported(validate.check_text(value, 20), device, received)
            elif name == "battery_level":
                accepted[name] = _percentage(value)
            elif name == "firmware_version":
                accepted[name] = validate.check_text(value, 50)
            elif name in states:
                accepted[name] = validate.check_state(value, states[name])
            elif name == "timestamp":
                item.has_device_time = decode.parse_time(value, received, item.notes) is not None
            else:
                item.notes.append(f"{name[:64]}: not declared")
        except validate.InvalidReading as error:
            item.notes.append(f"{name[:64]}: {error}")
    if not accepted:
        raise Unreadable(Reason.NO_VALUE, "; ".join(item.notes)[:400] or "the status says nothing")
    item.changes = _seen(device, received) | accepted


def _read_reply(item: Judged, device: BaseDevice) -> None:
    if not isinstance(item.document, dict) or "id" not in item.document:
        raise Unreadable(Reason.NOT_A_READING, "a reply is an object with the id of its command")
    item.changes = _seen(device, item.message.received_at)


def _read_command(_item: Judged, _device: BaseDevice) -> None:
    raise Unreadable(Reason.UNKNOWN_TOPIC, "commands go to devices, not to ingest")


_READERS = {
    MessageType.DATA: _read_data,
    MessageType.STATUS: _read_status,
    MessageType.REPLY: _read_reply,
    MessageType.CMD: _read_command,
}


def _seen(device: BaseDevice, received: datetime) -> dict[str, Any]:
    return {
        "last_seen": _later(device.last_seen, received),
        "last_message_at": _later(device.last_message_at, received),
    }


def _reported(status: str, device: BaseDevice, received: datetime) -> dict[str, Any]:
    """What a device says of itself. It cannot set an operator's state, nor end one."""
    if status not in DeviceStatus.values or status in OPERATOR_STATES:
        raise validate.InvalidReading(f"{status!r} is no status that a device can report")
    changes: dict[str, Any] = {"reported_status": status}
    connected = status != DeviceStatus.OFFLINE
    if connected != device.connected:
        changes |= {"connected": connected, "connected_changed_at": received}
    if device.status not in OPERATOR_STATES:
        changes["status"] = status
    return changes


def _percentage(value: Any) -> float:
    number = validate.check_number(value)
    if not 0 <= number <= 100:
        raise validate.InvalidReading(f"{number:g} is outside 0..100")
    return number


def _later(known: datetime | None, new: datetime) -> datetime:
    return new if known is None or new > known else known


def _store(batch: list[Item]) -> list[Item]:
    """Write the batch. What the database refuses in it is found one by one and goes to the quarantine."""
    try:
        store.write(batch)
        return batch
    except (DataError, IntegrityError):
        log.warning("ingest.batch_refused", messages=len(batch), exc_info=True)
    with transaction.atomic():
        return [_store_one(item) for item in batch]


def _store_one(item: Item) -> Item:
    try:
        store.write([item])
        return item
    except (DataError, IntegrityError) as error:
        detail = f"the database refuses it: {type(error).__name__}"
        refused = Rejected(item.message, Reason.UNSTORABLE, detail, item.key)
        store.write([refused])
        return refused
