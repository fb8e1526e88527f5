"""What messages say about their device: when it was heard, whether it is there, what it reports of itself.

A batch is folded into one change for each device, and that is written by conditions in SQL: what an operator
or another worker wrote since the device was read is not overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Case, DateTimeField, F, Value, When
from django.db.models.functions import Coalesce, Greatest, Now

from devicehub.models import OPERATOR_STATES, BaseDevice, DeviceStatus


@dataclass
class Sign:
    """What one message says. *status* is what the device reports; a reading says that it is there."""

    received_at: datetime
    reading_at: datetime | None = None
    status: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass
class Change:
    """What the messages of a batch change on one device."""

    seen_at: datetime | None = None
    reading_at: datetime | None = None
    status: str | None = None
    wakes: bool = False  # a reading came, so a device that is offline is online
    connected: bool | None = None
    connected_at: datetime | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    def apply(self, device: BaseDevice) -> None:
        """Change *device* in memory, as its row is changed by expressions()."""
        if self.seen_at is not None:
            device.last_seen = _later(device.last_seen, self.seen_at)
            device.last_message_at = _later(device.last_message_at, self.seen_at)
        if self.reading_at is not None:
            device.last_reading_at = _later(device.last_reading_at, self.reading_at)
        if self.connected is not None and device.connected != self.connected:
            device.connected, device.connected_changed_at = self.connected, self.connected_at
        if device.status not in OPERATOR_STATES:
            if self.status is not None:
                device.status = self.status
            elif self.wakes and device.status == DeviceStatus.OFFLINE:
                device.status = DeviceStatus.ONLINE
        for name, value in self.columns.items():
            setattr(device, name, value)

    def expressions(self) -> dict[str, Any]:
        """The change as arguments of QuerySet.update()."""
        changes: dict[str, Any] = {**self.columns, "updated_at": Now()}
        if self.seen_at is not None:
            changes |= {n: _latest(n, self.seen_at) for n in ("last_seen", "last_message_at")}
        if self.reading_at is not None:
            changes["last_reading_at"] = _latest("last_reading_at", self.reading_at)
        if self.connected is not None:
            unchanged = When(connected=self.connected, then=F("connected_changed_at"))
            changes["connected_changed_at"] = Case(unchanged, default=_moment(self.connected_at))
            changes["connected"] = self.connected
        if self.status is not None:
            kept = When(status__in=OPERATOR_STATES, then=F("status"))
            changes["status"] = Case(kept, default=Value(self.status))
        elif self.wakes:
            woken = When(status=DeviceStatus.OFFLINE, then=Value(DeviceStatus.ONLINE.value))
            changes["status"] = Case(woken, default=F("status"))
        return changes


def fold(signs: Iterable[Sign]) -> Change:
    """The change that *signs*, in the order of their messages, make together."""
    change = Change()
    for sign in signs:
        change.seen_at = _later(change.seen_at, sign.received_at)
        change.columns |= sign.columns
        if sign.reading_at is not None:
            change.reading_at = _later(change.reading_at, sign.reading_at)
            _is_there(change, True, sign.received_at)
            change.wakes = True
            if change.status == DeviceStatus.OFFLINE:
                change.status = DeviceStatus.ONLINE
        if sign.status is not None:
            change.columns["reported_status"] = change.status = sign.status
            _is_there(change, sign.status != DeviceStatus.OFFLINE, sign.received_at)
    return change


def _is_there(change: Change, connected: bool, at: datetime) -> None:
    if change.connected != connected:
        change.connected, change.connected_at = connected, at


def _later(known: datetime | None, new: datetime) -> datetime:
    return new if known is None or new > known else known


def _moment(value: datetime | None) -> Value:
    return Value(value, output_field=DateTimeField())


def _latest(column: str, moment: datetime) -> Coalesce:
    """The later of both; SQLite's MAX is NULL when one of them is."""
    return Coalesce(Greatest(F(column), _moment(moment)), _moment(moment))
