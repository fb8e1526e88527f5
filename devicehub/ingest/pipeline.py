"""The one door for messages: topic -> device -> decode -> validate -> store -> acknowledge -> announce.

Every message ends in exactly one Outcome. judge() gives it what the message alone tells: stored, partial, failed, or
retained; store.write() knows besides what was stored before, and makes it a duplicate, or failed where its device sent
too many. Whatever is wrong with a message is its own outcome and never the batch's; only a database that cannot store
raises, and then nothing of the batch is stored or acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, transaction

from devicehub.conf import settings
from devicehub.ingest import replies, store
from devicehub.ingest.announce import announce
from devicehub.ingest.failpoints import reach
from devicehub.ingest.presence import Sign
from devicehub.ingest.store import Item, Judged, Rejected
from devicehub.kinds import topics
from devicehub.kinds.declare import Reading
from devicehub.kinds.store import Store
from devicehub.kinds.topics import Address, MessageType
from devicehub.messages import decode, validate
from devicehub.messages.decode import Decoded, Document
from devicehub.messages.message import FailureReason, Message, Notes, Outcome, Unreadable
from devicehub.models import OPERATOR_STATES, BaseDevice, DeviceStatus
from devicehub.removal import retained

log = structlog.get_logger(__name__)

# The database, or this machine: it has no more files to open, or no memory.
CANNOT_STORE = (DatabaseError, InterfaceError, OSError, MemoryError)
REPORTED = frozenset(DeviceStatus.values) - OPERATOR_STATES  # the statuses that a device can report of itself
NOT_DECODED = frozenset({FailureReason.NOT_JSON, FailureReason.NOT_CBOR})


def pipeline(
    messages: Sequence[Message],
    acknowledge: Callable[[], None] = lambda: None,
    tell: Callable[[Sequence[Item]], None] = announce,
) -> list[Outcome]:
    """Store *messages* in one transaction, call *acknowledge*, then *tell* who listens what happened.

    Raises one of CANNOT_STORE; then nothing is stored, acknowledged or told.
    """
    reach("received")
    addresses = [topics.parse(message.topic) for message in messages]
    named = [(address.kind, address.device_id) for address in addresses if address is not None]
    devices = store.load_devices(named)
    batch = [judge(message, address, devices) for message, address in zip(messages, addresses, strict=True)]
    reach("judged")
    try:
        store.write(batch)
    except Exception as error:
        if _cannot_store(error):
            raise
        log.warning("ingest.batch_refused", messages=len(batch), exc_info=True)
        with transaction.atomic():
            # Anew: one may be gone since, which no part would notice, since foreign keys are checked by the commit.
            batch = _in_parts(messages, addresses, store.load_devices(named))
    reach("committed")
    acknowledge()
    reach("acknowledged")
    tell(batch)
    reach("told")
    return [item.outcome for item in batch]


def judge(message: Message, address: Address | None, devices: Mapping[tuple[str, str], BaseDevice]) -> Item:
    """What is in *message*, and what it says about its device. Never raises."""
    item = _addressed(message, address, devices)
    if isinstance(item, Judged) and item.outcome is not Outcome.FAILED:
        _read(item)
    if message.retain and (item.outcome is Outcome.FAILED or not item.has_device_time):
        # The broker's copy of something said before comes with every new subscription: without a date it is not
        # news, and one that cannot be used would fill the quarantine with itself.
        item.end(Outcome.RETAINED)
    return item


def _addressed(
    message: Message, address: Address | None, devices: Mapping[tuple[str, str], BaseDevice]
) -> Item:
    """*message* with its device, not yet read; or why nobody will read it."""
    if address is None:
        return Rejected(message, FailureReason.UNKNOWN_TOPIC, "no device type has topics of this form")
    kind, device_id, message_type = address
    device = devices.get((kind.slug, device_id))
    ended = device is None or not device.is_active
    if not message.payload and (ended or message.correlation_id == retained.FORGET):
        # Empty: the broker is told to forget what it retains of a device that ended (MQTT 5.0, 3.3.1.3).
        return Rejected(message, FailureReason.UNKNOWN_DEVICE, "", outcome=Outcome.RETAINED)
    if device is None:
        key = kind.key(device_id)
        return Rejected(message, FailureReason.UNKNOWN_DEVICE, f"there is no {key}", key)
    item = Judged(message, kind, device, message_type)
    if not device.is_active:
        item.end(Outcome.FAILED, FailureReason.DISABLED_DEVICE, f"{item.key} is disabled")
    elif message_type not in topics.FROM_DEVICE:
        item.end(Outcome.FAILED, FailureReason.UNKNOWN_TOPIC, "commands go to devices, not to ingest")
    return item


def _read(item: Judged) -> None:
    """Decode and validate."""
    message = item.message
    try:
        found = _document(message, item.message_type)
        item.document = found.content if found.is_exact else None
        item.notes = found.notes
        _READERS[item.message_type](item, found)
    except Unreadable as error:
        item.document = None  # it may take many times as much as its bytes
        item.end(Outcome.FAILED, error.reason, error.detail)
    except Exception as error:
        log.exception("ingest.bug", topic=message.topic)
        item.end(Outcome.FAILED, FailureReason.UNSTORABLE, type(error).__name__)
    else:
        item.outcome = Outcome.PARTIAL if item.notes else Outcome.STORED


def _document(message: Message, message_type: MessageType) -> Document:
    """Return the decoded payload. On a status topic a status in plain text is a text. Raises Unreadable."""
    try:
        return decode.document(message.payload, message.content_type)
    except Unreadable as error:
        if message_type is not MessageType.STATUS or error.reason not in NOT_DECODED:
            raise
        text = message.payload.strip().removeprefix(decode.BYTE_ORDER_MARK).decode("ascii", "replace")
        if _word(text) not in REPORTED:
            raise
        return Document(text, is_exact=False)


def _read_data(item: Judged, found: Document) -> None:
    received, kind = item.message.received_at, item.kind
    decoded = (
        _declared(found, received, kind.readings) if kind.store is None else _own(kind.store, found, received)
    )
    item.notes += decoded.notes
    item.has_device_time = decoded.has_device_time
    item.samples = [sample for sample in decoded.samples if sample.values]
    if not item.samples:
        raise Unreadable(FailureReason.NO_VALUE, "; ".join(item.notes)[:400] or "the payload holds no value")
    item.sign = Sign(received, reading_at=max(sample.timestamp or received for sample in item.samples))


def _declared(found: Document, received: datetime, declared: Mapping[str, Reading]) -> Decoded:
    """Return the samples in a payload with the values that fit their declarations. Raises Unreadable."""
    decoded = decode.samples(found, received, declared, _most_samples)
    for sample in decoded.by_time.values():
        sample.values, notes = validate.readings(sample.values, declared)
        decoded.notes += notes
    return decoded


def _own(store: Store, found: Document, received: datetime) -> Decoded:
    """Return the samples that a kind with a store of its own finds in a payload. Raises Unreadable."""
    decoded: Decoded = store.read(found, received)
    if len(decoded.samples) > _most_samples():
        detail = f"{len(decoded.samples)} samples; at most {_most_samples()} are stored of one message"
        raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
    return decoded


def _most_samples() -> int:
    return settings.max_samples


def _read_status(item: Judged, found: Document) -> None:
    content = found.content
    if isinstance(content, str) and _word(content) in REPORTED:
        content = {"status": content}
    if not isinstance(content, dict):
        raise Unreadable(FailureReason.NOT_A_READING, "a status is an object, or a status alone")
    received, states = item.message.received_at, item.kind.state_fields
    sign = Sign(received)
    for name, value in content.items():
        try:
            if name == "timestamp":
                item.has_device_time = decode.parse_time(value, received, item.notes) is not None
            elif value is None:
                pass  # an absent value, here as in data
            elif name == "status":
                sign.status = _reported(value)
            elif name == "battery_level":
                sign.columns[name] = _percentage(value)
            elif name == "firmware_version":
                sign.columns[name] = validate.check_text(value, 50)
            elif name in states:
                sign.columns[name] = validate.check_state(value, states[name])
            else:
                item.notes.append(f"{str(name)[:64]}: not declared")
        except validate.InvalidReading as error:
            item.notes.append(f"{name}: {error}")
            sign.is_unclear = sign.is_unclear or name == "status"
    if sign.status is None and not sign.columns:
        raise Unreadable(FailureReason.NO_VALUE, "; ".join(item.notes)[:400] or "the status says nothing")
    item.sign = sign


def _read_reply(item: Judged, found: Document) -> None:
    item.reply = replies.read(found.content, item.message)
    item.sign = Sign(item.message.received_at)


_READERS = {
    MessageType.DATA: _read_data,
    MessageType.STATUS: _read_status,
    MessageType.REPLY: _read_reply,
}


def _reported(value: Any) -> str:
    """Return the status that a device reports of itself, in any case. Raises InvalidReading."""
    status = _word(validate.check_text(value))
    if status not in REPORTED:
        raise validate.InvalidReading(f"{value[:64]!r} is not a status that a device can report")
    return status


def _word(text: str) -> str:
    return text.strip().lower()


def _percentage(value: Any) -> float:
    number = validate.check_number(value)
    if not 0 <= number <= 100:
        raise validate.InvalidReading(f"{number:g} is outside 0..100")
    return number


def _in_parts(
    messages: Sequence[Message],
    addresses: Sequence[Address | None],
    devices: Mapping[tuple[str, str], BaseDevice],
) -> list[Item]:
    """Store by halves what the database refuses as a whole, down to the single message that goes to the quarantine.

    One bad message among 2,000 costs about twenty attempts more, not 2,000. Each part is judged anew, since an
    attempt leaves its marks on the items.
    """
    batch = [judge(message, address, devices) for message, address in zip(messages, addresses, strict=True)]
    if len(batch) == 1:
        return [_store_one(batch[0])]
    try:
        store.write(batch)
        return batch
    except Exception as error:
        if _cannot_store(error):
            raise
    half = len(batch) // 2
    return [
        *_in_parts(messages[:half], addresses[:half], devices),
        *_in_parts(messages[half:], addresses[half:], devices),
    ]


def _store_one(item: Item) -> Item:
    try:
        store.write([item])
        return item
    except Exception as error:
        if _cannot_store(error):
            raise
        detail = f"it cannot be stored: {type(error).__name__}"
    if isinstance(item, Judged):
        item.end(Outcome.FAILED, FailureReason.UNSTORABLE, detail)
        item.document, item.notes = None, Notes()  # perhaps it is these that cannot be stored
        try:
            store.write([item])
            return item
        except Exception as error:
            if _cannot_store(error):
                raise
            log.exception("ingest.not_even_raw", topic=item.message.topic)
    refused = Rejected(
        item.message, FailureReason.UNSTORABLE, detail, item.key if isinstance(item, Judged) else ""
    )
    store.write([refused])
    return refused


def _cannot_store(error: Exception) -> bool:
    """Whether it is the database that cannot store, rather than a message that cannot be stored."""
    return isinstance(error, CANNOT_STORE) and not isinstance(error, DataError | IntegrityError)
