"""One batch into the database, in one transaction. Everything that reaches this module can be stored."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from devicehub.ingest import presence
from devicehub.ingest.decode import Sample
from devicehub.ingest.message import MAX_KEPT, Message, Outcome, Reason
from devicehub.ingest.presence import Sign
from devicehub.models import BaseDevice, BaseMessage, ProcessingStatus, QuarantinedMessage
from devicehub.registry import Kind
from devicehub.topics import MessageType


@dataclass
class Rejected:
    """A message of no known device: it goes to the quarantine."""

    message: Message
    reason: Reason
    detail: str
    key: str = ""
    outcome: Outcome = Outcome.FAILED


@dataclass
class Judged:
    """A message of a known device, with what was found out about it.

    *document* is what the row keeps instead of the bytes, or None; *reply* is a command's answer. *sign* is what it
    says about the device itself; *reason* and *detail* say why it failed.
    """

    message: Message
    kind: Kind
    device: BaseDevice
    message_type: MessageType
    outcome: Outcome = Outcome.STORED
    reason: Reason | None = None
    detail: str = ""
    document: Any = None
    reply: dict[str, Any] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    sign: Sign | None = None
    notes: list[str] = field(default_factory=list)
    has_device_time: bool = False
    row: BaseMessage | None = None

    @property
    def key(self) -> str:
        return self.kind.key(self.device.device_id)

    @property
    def digest(self) -> str | None:
        """The key of the message, which only a payload with a device time has."""
        return hashlib.sha256(self.message.payload).hexdigest() if self.has_device_time else None

    def end(self, outcome: Outcome, reason: Reason | None = None, detail: str = "") -> None:
        """This message brings no readings and changes nothing."""
        self.outcome, self.reason, self.detail = outcome, reason, detail
        self.samples, self.sign = [], None


Item = Judged | Rejected


def load_devices(wanted: Iterable[tuple[Kind, str]]) -> dict[tuple[str, str], BaseDevice]:
    """The devices by kind and id, one query for each kind."""
    by_kind: dict[str, tuple[Kind, set[str]]] = {}
    for kind, device_id in wanted:
        by_kind.setdefault(kind.slug, (kind, set()))[1].add(device_id)
    return {
        (kind.slug, device.device_id): device
        for kind, ids in by_kind.values()
        for device in kind.device_model.objects.filter(device_id__in=ids)
    }


@transaction.atomic
def write(batch: Sequence[Item]) -> None:
    """Store *batch*. Raises DatabaseError, and then nothing is stored."""
    by_kind: dict[str, list[Judged]] = defaultdict(list)
    for item in batch:
        if isinstance(item, Judged):
            by_kind[item.kind.slug].append(item)
    for items in by_kind.values():
        _mark_duplicates(items)
        _write_rows([item for item in items if item.outcome not in NO_ROW])
    QuarantinedMessage.objects.bulk_create(_quarantined(i) for i in batch if i.outcome is Outcome.FAILED)


# A duplicate has its row already; the broker's retained copy without a time is no news.
NO_ROW = frozenset({Outcome.DUPLICATE, Outcome.RETAINED})


def _mark_duplicates(items: Sequence[Judged]) -> None:
    """Of one kind: the messages whose key is stored already, or stands earlier in this batch."""
    keyed = [item for item in items if item.digest is not None and item.outcome is not Outcome.FAILED]
    if not keyed:
        return
    stored = keyed[0].kind.message_model.objects.filter(
        device_id__in={item.device.pk for item in keyed}, digest__in={item.digest for item in keyed}
    )
    seen = set(stored.values_list("device_id", "digest"))
    for item in keyed:
        key = (item.device.pk, item.digest)
        if key in seen:
            item.end(Outcome.DUPLICATE)
        seen.add(key)


def _write_rows(items: Sequence[Judged]) -> None:
    """Of one kind: the raw messages, their readings, and what they change on their devices."""
    if not items:
        return
    kind, now = items[0].kind, timezone.now()
    for item in items:
        item.row = _message_row(item, now)
    kind.message_model.objects.bulk_create([item.row for item in items])
    kind.reading_model.objects.bulk_create(
        kind.reading_model(
            device=item.device, timestamp=sample.timestamp or item.message.received_at, **sample.values
        )
        for item in items
        for sample in item.samples
    )
    # In the order of their keys, so that two workers never wait for each other's rows.
    for pk, change in sorted(changes(items).items()):
        kind.device_model.objects.filter(pk=pk).update(**change.expressions())


def changes(items: Iterable[Judged]) -> dict[int, presence.Change]:
    """What messages of one kind change on their devices, by primary key."""
    signs: dict[int, list[Sign]] = defaultdict(list)
    for item in items:
        if item.sign is not None:
            signs[item.device.pk].append(item.sign)
    return {pk: presence.fold(said) for pk, said in signs.items()}


def _message_row(item: Judged, now: datetime) -> BaseMessage:
    failed = item.outcome is Outcome.FAILED
    message = item.message
    storable = item.document is not None and b"\\u0000" not in message.payload
    row: BaseMessage = item.kind.message_model(
        device=item.device,
        topic=message.topic,
        payload_json=item.document if storable else None,
        payload_raw=None if storable else message.payload[:MAX_KEPT],
        content_type=_text(message.content_type, 100),
        correlation_id=_text(message.correlation_id, 256),
        user_properties={_text(k, 256): _text(v, 1024) for k, v in message.user_properties[:32]},
        processing_status=ProcessingStatus.FAILED if failed else ProcessingStatus.COMPLETED,
        processing_error=_text(f"{item.reason}: {item.detail}", 1000) if failed else "",
        processed_at=now,
        digest=None if failed else item.digest,
        outcome=item.outcome,
        notes=[_text(note, 300) for note in item.notes[:50]],
    )
    return row


def _quarantined(item: Item) -> QuarantinedMessage:
    return QuarantinedMessage(
        reason=str(item.reason),
        detail=_text(item.detail, 500),
        topic=_text(item.message.topic, 512),
        payload=item.message.payload[:MAX_KEPT],
        content_type=_text(item.message.content_type, 100),
        device_key=item.key[:260],
        received_at=item.message.received_at,
    )


def _text(value: str, longest: int) -> str:
    """What every database can hold of a text that a device chose."""
    return value[:longest].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
