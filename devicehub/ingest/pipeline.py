"""The one door for messages: topic -> device -> decode -> validate -> store -> announce.

Every message ends in exactly one Outcome. Whatever is wrong with a message is its own outcome and never the
batch's; only a database that cannot store raises, and then nothing of the batch is stored or acknowledged.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import structlog
from django.db import DataError, IntegrityError, transaction

from devicehub import topics
from devicehub.ingest import decode, store, validate
from devicehub.ingest.announce import announce
from devicehub.ingest.message import Message, Outcome, Reason, Unreadable
from devicehub.ingest.store import Judged
from devicehub.models import OPERATOR_STATES, BaseDevice, DeviceStatus
from devicehub.topics import Address, MessageType

log = structlog.get_logger(__name__)


def pipeline(messages: Sequence[Message]) -> list[Outcome]:
    """Store *messages*, in one transaction, and tell who listens. Raises DatabaseError with nothing stored."""
    addresses = [topics.parse(message.topic) for message in messages]
    devices = store.load_devices((a.kind, a.device_id) for a in addresses if a is not None)
    before = {key: Before(device) for key, device in devices.items()}
    batch = [
        judge(message, address, devices) for message, address in zip(messages, addresses, strict=True)
    ]
    stored = _store(batch)
    announce(stored, before)
    return [item.outcome for item in stored]


class Before:
    """What a device was before a batch, to tell what changed."""

    __slots__ = ("connected", "status")

    def __init__(self, device: BaseDevice) -> None:
        self.status = device.status
        self.connected = device.connected


def judge(
    message: Message, address: Address | None, devices: dict[tuple[str, str], BaseDevice]
) -> Judged:
    """What is in *message* and what it changes on its device, which is changed in memory. Never raises."""
    item = Judged(message)
    if address is None:
        item.fail(Reason.UNKNOWN_TOPIC, "no device type has topics of this form")
        return item
    item.kind, item.device_id, item.message_type = address
    item.device = devices.get((item.kind.slug, item.device_id))
    if item.device is None:
        item.fail(Reason.UNKNOWN_DEVICE, f"there is no {item.key}")
        return item
    if not item.device.is_active:
        item.fail(Reason.DISABLED_DEVICE, f"{item.key} is disabled")
        return item
    try:
        item.document = decode.document(message.payload, message.content_type)
        _READERS[item.message_type](item, item.device)
    except Unreadable as error:
        item.fail(error.reason, error.detail)
        return item
    except Exception as error:
        log.exception("ingest.bug", topic=message.topic)
        item.fail(Reason.UNSTORABLE, type(error).__name__)
        return item
    if message.retain and not item.has_device_time:
        # The broker's stored copy of something said before: history without a date is not news.
        item.outcome, item.samples, item.changes = Outcome.RETAINED, [], {}
        return item
    if item.notes:
        item.outcome = Outcome.PARTIAL
    for name, value in item.changes.items():
        setattr(item.device, name, value)
    return item


def _read_data(item: Judged, device: BaseDevice) -> None:
    assert item.kind is not None
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
    assert item.kind is not None
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


def _store(batch: list[Judged]) -> list[Judged]:
    """Write the batch. What the database refuses in it is found one by one and goes to the quarantine."""
    try:
        store.write(batch)
        return batch
    except (DataError, IntegrityError):
        log.warning("ingest.batch_refused", messages=len(batch), exc_info=True)
    with transaction.atomic():
        for item in batch:
            try:
                store.write([item])
            except (DataError, IntegrityError) as error:
                item.fail(Reason.UNSTORABLE, f"the database refuses it: {type(error).__name__}")
                item.device = None
                store.write([item])
    return batch
