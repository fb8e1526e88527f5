"""The one door for messages: topic -> device -> decode -> validate -> store -> acknowledge -> announce.

Every message ends in exactly one Outcome. judge() derives it from the message alone: stored, partial, failed, or
retained. store.write() also compares it with earlier messages: it may become a duplicate, or failed if its device sent
too many. A fault of one message is its own outcome and never the batch's. Only a database that cannot store raises an
error, and then nothing of the batch is stored or acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import structlog
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, transaction

from devicehub.conf import settings
from devicehub.ingest import replies, store
from devicehub.ingest.announce import announce
from devicehub.ingest.failpoints import reach
from devicehub.ingest.items import Content, Item, Judged, Rejected
from devicehub.ingest.presence import Sign
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind
from devicehub.kinds.store import Store
from devicehub.kinds.topics import Address, MessageType
from devicehub.messages import decode, resources, validate
from devicehub.messages.decode import Decoded, Document
from devicehub.messages.message import FailureReason, Message, Notes, Outcome, Unreadable
from devicehub.models import OPERATOR_STATES, BaseDevice, DeviceStatus
from devicehub.removal import retained

log = structlog.get_logger(__name__)

# Errors of the database, or of this machine without open files or memory left.
CANNOT_STORE = (DatabaseError, InterfaceError, OSError, MemoryError)
# The statuses that a device can report of itself.
REPORTED = frozenset(DeviceStatus.values) - OPERATOR_STATES
NOT_DECODED = frozenset({FailureReason.NOT_JSON, FailureReason.NOT_CBOR})


def pipeline(
    messages: Sequence[Message],
    acknowledge: Callable[[], None] = lambda: None,
    notify: Callable[[Sequence[Item]], None] = announce,
    begin: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Store *messages* in one transaction, call *acknowledge*, then *notify* with the items; return the outcomes.

    *begin* is called first in the transaction, and in a second one if the database refuses the first.
    Raise one of CANNOT_STORE; then nothing is stored or acknowledged, and no listener is notified.
    """
    reach("received")
    addresses = [topics.parse(message.topic) for message in messages]
    named = [(address.kind, address.device_id) for address in addresses if address is not None]
    devices = store.load_devices(named)
    batch = [judge(message, address, devices) for message, address in zip(messages, addresses, strict=True)]
    reach("judged")
    stored = _attempt(batch, begin)
    if isinstance(stored, Exception):
        log.warning("ingest.batch_refused", messages=len(batch), exc_info=stored)
        # Loaded again: a device may be deleted by now, and no part would fail, since the commit checks foreign keys.
        with transaction.atomic():
            begin()
            devices = store.load_devices(named)
            stored = _in_parts([judge(*one, devices) for one in zip(messages, addresses, strict=True)])
    reach("committed")
    acknowledge()
    reach("acknowledged")
    notify(stored)
    reach("told")
    return [item.outcome for item in stored]


def judge(message: Message, address: Address | None, devices: Mapping[tuple[str, str], BaseDevice]) -> Item:
    """Return *message* decoded and validated, with its outcome so far. Never raise."""
    if address is None:
        return _rejected(message, FailureReason.UNKNOWN_TOPIC, "no device type has topics of this form")
    kind, device_id, message_type = address
    device = devices.get((kind.slug, device_id))
    ended = device is None or not device.is_active
    if not message.payload and (ended or message.correlation_id == retained.CORRELATION):
        # An empty message clears a retained one of a disabled or deleted device (MQTT 5.0, 3.3.1.3).
        return Rejected(message, FailureReason.UNKNOWN_DEVICE, "", outcome=Outcome.RETAINED)
    if device is None:
        key = kind.key(device_id)
        return _rejected(message, FailureReason.UNKNOWN_DEVICE, f"there is no {key}", key)
    if not device.is_active:
        detail = f"{kind.key(device_id)} is disabled"
        return _failed(message, kind, device, message_type, FailureReason.DISABLED_DEVICE, detail)
    if message_type not in topics.FROM_DEVICE:
        detail = "commands go to devices, not to ingest"
        return _failed(message, kind, device, message_type, FailureReason.UNKNOWN_TOPIC, detail)
    return _read(message, kind, device, message_type)


def _rejected(message: Message, reason: FailureReason, detail: str, key: str = "") -> Rejected:
    return Rejected(message, reason, detail, key, Outcome.RETAINED if message.retain else Outcome.FAILED)


def _failed(
    message: Message,
    kind: Kind,
    device: Any,
    message_type: MessageType,
    reason: FailureReason,
    detail: str,
    found: Document | None = None,
) -> Judged:
    """Return *message* as failed; its document is dropped, since it may take many times the memory of its bytes."""
    notes = Notes() if found is None else found.notes
    if message.retain:
        return Judged(message, kind, device, message_type, Outcome.RETAINED, notes)
    return Judged(message, kind, device, message_type, Outcome.FAILED, notes, reason, detail)


def _read(message: Message, kind: Kind, device: Any, message_type: MessageType) -> Judged:
    """Return *message* decoded and validated.

    The broker sends its retained copy of an earlier message with every new subscription: without a date it is not new,
    and a copy that cannot be used would fill the quarantine with itself.
    """
    found = None
    try:
        own = None if kind.inbox is None else kind.inbox.read(message, message_type, device)
        if own is None:
            found = _document(message, message_type, kind)
            content = _READERS[message_type](message, kind, found)
        else:
            found, content = own
        sign, samples, has_device_time, reply, own = content
    except Unreadable as error:
        return _failed(message, kind, device, message_type, error.reason, error.detail, found)
    except Exception as error:
        log.exception("ingest.bug", topic=message.topic)
        return _failed(
            message, kind, device, message_type, FailureReason.UNSTORABLE, type(error).__name__, found
        )
    notes, digest = found.notes, None
    if has_device_time:
        # The digest is the key of the message; that of a status is never equal to that of data.
        about = b"" if message_type is MessageType.DATA else message_type.encode()
        digest = hashlib.sha256(about + message.payload).hexdigest()
    elif message.retain:
        return Judged(message, kind, device, message_type, Outcome.RETAINED, notes)
    outcome = Outcome.PARTIAL if notes else Outcome.STORED
    document = found.content if found.is_exact else None
    # Arguments by position, which is faster: every message passes here.
    return Judged(
        message,
        kind,
        device,
        message_type,
        outcome,
        notes,
        None,
        "",
        samples,
        sign,
        document,
        digest,
        reply,
        own,
    )


def _document(message: Message, message_type: MessageType, kind: Kind) -> Document:
    """Return the decoded payload. On a status topic a status may also be plain text. Raise Unreadable."""
    if kind.resources is not None and message_type is MessageType.DATA:
        return resources.document(message, kind.resources, kind.readings)
    try:
        return decode.document(message.payload, message.content_type)
    except Unreadable as error:
        if message_type is not MessageType.STATUS or error.reason not in NOT_DECODED:
            raise
        text = message.payload.strip().removeprefix(decode.BYTE_ORDER_MARK).decode("ascii", "replace")
        if _word(text) not in REPORTED:
            raise
        return Document(text, is_exact=False)


def _read_data(message: Message, kind: Kind, found: Document) -> Content:
    received, notes, declared = message.received_at, found.notes, kind.readings
    if kind.store is None:
        decoded = _samples(found, received, kind)
        notes += decoded.notes
        for sample in decoded.by_time.values():
            sample.values, dropped = validate.readings(sample.values, declared)
            notes += dropped
    else:
        decoded = _own(cast(Store, kind.store), found, received)
        notes += decoded.notes
    samples = [sample for sample in decoded.by_time.values() if sample.values]
    if not samples:
        raise Unreadable(FailureReason.NO_VALUE, "; ".join(notes)[:400] or "the payload holds no value")
    newest = max([sample.timestamp or received for sample in samples])
    return Content(Sign(received, reading_at=newest), samples, decoded.has_device_time)


def _samples(found: Document, received: datetime, kind: Kind) -> Decoded:
    if kind.resources is None:
        return decode.samples(found, received, kind.readings, _most_samples)
    if found.values is not None:
        return resources.samples(found, received, kind.resources, _most_samples)
    return decode.samples(found, received, kind.readings, _most_samples, kind.resources.names)


def _own(store: Store, found: Document, received: datetime) -> Decoded:
    """Return the samples that a kind's own store finds in a payload. Raise Unreadable."""
    decoded: Decoded = store.read(found, received)
    if len(decoded.samples) > _most_samples():
        detail = f"{len(decoded.samples)} samples; at most {_most_samples()} are stored of one message"
        raise Unreadable(FailureReason.TOO_MANY_SAMPLES, detail)
    return decoded


def _most_samples() -> int:
    return settings.max_samples


def _read_status(message: Message, kind: Kind, found: Document) -> Content:
    content = found.content
    if isinstance(content, str) and _word(content) in REPORTED:
        content = {"status": content}
    if not isinstance(content, dict):
        raise Unreadable(FailureReason.NOT_A_READING, "a status is an object, or a status alone")
    received, states, notes = message.received_at, kind.state_fields, found.notes
    sign, has_device_time = Sign(received), False
    for name, value in content.items():
        try:
            if name == "timestamp":
                has_device_time = decode.parse_time(value, received, notes) is not None
            elif value is None:
                pass  # A null is an absent value, as in data.
            elif name == "status":
                sign.status = _reported(value)
            elif name == "battery_level":
                sign.columns[name] = _percentage(value)
            elif name == "firmware_version":
                sign.columns[name] = validate.check_text(value, 50)
            elif name in states:
                sign.columns[name] = validate.check_state(value, states[name])
            else:
                notes.append(f"{str(name)[:64]}: not declared")
        except validate.InvalidReading as error:
            notes.append(f"{name}: {error}")
            sign.is_unclear = sign.is_unclear or name == "status"
    if sign.status is None and not sign.columns:
        raise Unreadable(FailureReason.NO_VALUE, "; ".join(notes)[:400] or "the status holds no value")
    return Content(sign, [], has_device_time)


def _read_reply(message: Message, kind: Kind, found: Document) -> Content:
    reply = replies.read(found.content, message)
    return Content(Sign(message.received_at), [], reply=reply)


_READERS = {
    MessageType.DATA: _read_data,
    MessageType.STATUS: _read_status,
    MessageType.REPLY: _read_reply,
}


def _reported(value: Any) -> str:
    """Return the status that a device reports of itself, in upper or lower case. Raise InvalidReading."""
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


def _attempt(batch: Sequence[Item], begin: Callable[[], None] = lambda: None) -> list[Item] | Exception:
    """Store *batch*, after *begin*; return its items, or the error with which the database refuses its content.

    Raise one of CANNOT_STORE if the database itself cannot store.
    """
    try:
        return store.write(batch, begin)
    except Exception as error:
        if isinstance(error, CANNOT_STORE) and not isinstance(error, DataError | IntegrityError):
            raise
        return error


def _in_parts(batch: Sequence[Item]) -> list[Item]:
    """Store *batch* by halves if the database refuses it, down to the bad message, which goes to the quarantine.

    One bad message among 2,000 costs about twenty more attempts, not 2,000.
    """
    stored = _attempt(batch)
    if not isinstance(stored, Exception):
        return stored
    if len(batch) == 1:
        return [_store_refused(batch[0], stored)]
    half = len(batch) // 2
    return [*_in_parts(batch[:half]), *_in_parts(batch[half:])]


def _store_refused(item: Item, error: Exception) -> Item:
    detail, key = f"it cannot be stored: {type(error).__name__}", ""
    if isinstance(item, Judged):
        key = item.key
        # Perhaps only the document or the notes cannot be stored.
        failed = item.ended(Outcome.FAILED, FailureReason.UNSTORABLE, detail)
        stored = _attempt([failed._replace(document=None, notes=Notes())])
        if not isinstance(stored, Exception):
            return stored[0]
        log.error("ingest.not_even_raw", topic=item.message.topic, exc_info=stored)
    # An unknown device's id is left out: it would get its own allowance, and ids can be invented without end.
    return store.write([Rejected(item.message, FailureReason.UNSTORABLE, detail, key)])[0]
