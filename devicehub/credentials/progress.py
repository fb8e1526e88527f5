"""The first signs of life of a device with new credentials: its first login, its first message, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from authsvc.models import Denial, LastLogin
from authsvc.operation.reasons import SENTENCES
from devicehub.history import latest
from devicehub.kinds import topics
from devicehub.kinds.declare import Reading
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.models import BaseDevice

NEW = timedelta(minutes=1)  # The credentials of a new device are so old at most.


@dataclass(frozen=True)
class Progress:
    """The signs of life since the credentials changed. *reading* and *value* are those of the first declared one."""

    connected_at: datetime | None
    broker: str
    client_id: str
    address: str
    message_at: datetime | None
    reading: Reading | None
    value: Any
    refused_at: datetime | None
    refusal: str
    refused_topic: str
    data_topic: str

    @property
    def stage(self) -> str:
        """The last sign: `waiting`, `refused`, `connected`, or `sending`."""
        if self.message_at is not None:
            return "sending"
        if self.refused_at is not None and (self.connected_at is None or self.refused_at > self.connected_at):
            return "refused"
        return "connected" if self.connected_at is not None else "waiting"

    @property
    def stamp(self) -> str:
        """A text that changes with each new sign, and not with time."""
        refused = self.refused_at.isoformat() if self.stage == "refused" and self.refused_at else ""
        return f"{self.connected_at is not None} {self.message_at is not None} {self.reading is not None} {refused}"


def of(kind: Kind, device: BaseDevice) -> Progress:
    """Return the signs of life of *device* since its credentials changed; at most five queries."""
    key, since = kind.key(device.device_id), device.credentials_changed_at or device.created_at
    login = LastLogin.objects.filter(key=key, at__gte=since).first()
    denial = Denial.objects.filter(principal=key, last_at__gte=since).order_by("-last_at").first()
    message_at = _not_before(device.last_message_at, since)
    reading, value = _first_reading(kind, device) if _has_read(device, since) else (None, None)
    connected_at = login.at if login is not None else message_at
    if connected_at is None and device.connected:
        connected_at = _not_before(device.connected_changed_at, since)
    return Progress(
        connected_at=connected_at,
        broker=login.broker if login else "",
        client_id=login.client_id if login else "",
        address=login.address if login else "",
        message_at=message_at,
        reading=reading,
        value=value,
        refused_at=denial.last_at if denial else None,
        refusal=SENTENCES.get(denial.reason, "Refused.") if denial else "",
        refused_topic=denial.topic if denial else "",
        data_topic=topics.build(kind, device.device_id, MessageType.DATA),
    )


def _has_read(device: BaseDevice, since: datetime) -> bool:
    """Return whether *device* has sent a reading since then."""
    # The clock of the device may be wrong, so any reading counts if the device is new.
    is_new = since - device.created_at < NEW
    return device.last_reading_at is not None and (is_new or device.last_reading_at >= since)


def _not_before(moment: datetime | None, since: datetime) -> datetime | None:
    return moment if moment is not None and moment >= since else None


def _first_reading(kind: Kind, device: BaseDevice) -> tuple[Reading | None, Any]:
    """Return the first declared reading that has a value, and its newest value."""
    newest = latest.values(kind, [device.pk], list(kind.columns))
    for name, reading in kind.columns.items():
        if (found := newest.get((device.pk, name))) is not None:
            return reading, found.value
    return None, None
