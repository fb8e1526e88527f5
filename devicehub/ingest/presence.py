"""What messages say about their device: when it was heard, whether it is there, what it reports of itself.

A batch is folded into one change for each device, and that is written by conditions in SQL: what an operator
or another worker wrote since the device was read is not overwritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from django.db import connection

from devicehub.ingest import tables
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
        """Change *device* in memory, as its row is changed by write()."""
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


def write(model: type[BaseDevice], changes: Mapping[int, Change], now: datetime) -> None:
    """Change the rows of *model* by primary key, each by itself, whatever was written since they were read."""
    if not changes:
        return
    table = connection.ops.quote_name(model._meta.db_table)
    in_order = sorted(changes.items())
    said = [
        {
            "pk": pk,
            "seen_at": change.seen_at,
            "reading_at": change.reading_at,
            "status": change.status,
            "wakes": change.wakes,
            "connected": change.connected,
            "connected_at": change.connected_at,
            "now": now,
        }
        for pk, change in in_order
    ]
    _CHANGE[connection.vendor](table, said)
    reported: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for pk, change in in_order:
        if change.columns:
            fields: list[Any] = [model._meta.get_field(name) for name in change.columns]
            values = [f.get_db_prep_save(change.columns[f.name], connection) for f in fields]
            reported.setdefault(tuple(f.column for f in fields), []).append((*values, pk))
    for columns, rows in reported.items():
        assigned = ", ".join(f"{connection.ops.quote_name(column)} = %s" for column in columns)
        tables.change(f"UPDATE {table} SET {assigned} WHERE id = %s", rows)  # noqa: S608


def _on_sqlite(table: str, said: Sequence[dict[str, Any]]) -> None:
    changed = _SET.format(latest="MAX", **{name: f"%({name})s" for name in said[0]})
    for change in said:
        for name in _TIMES:
            change[name] = None if change[name] is None else tables.as_time(change[name])
    tables.change(f"UPDATE {table} AS device SET {changed} WHERE id = %(pk)s", said)  # noqa: S608


def _on_postgresql(table: str, said: Sequence[dict[str, Any]]) -> None:
    changed = _SET.format(latest="GREATEST", **{name: f"said.{name}" for name in said[0]})
    with connection.cursor() as cursor:
        # In the order of their keys, so that two workers never wait for each other's rows.
        cursor.execute(
            f"SELECT 1 FROM {table} WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE",  # noqa: S608
            [[change["pk"] for change in said]],
        )
        cursor.execute(
            f"UPDATE {table} AS device SET {changed} FROM json_to_recordset(%s) AS said (pk bigint,"  # noqa: S608
            " seen_at timestamptz, reading_at timestamptz, status text, wakes boolean, connected boolean,"
            " connected_at timestamptz, now timestamptz) WHERE device.id = said.pk",
            [orjson.dumps(said).decode()],
        )


_TIMES = ("seen_at", "reading_at", "connected_at", "now")
_CHANGE = {"sqlite": _on_sqlite, "postgresql": _on_postgresql}

# What is not said stays. An unknown time is older than any; SQLite's MAX is NULL when one of its arguments is.
_SET = """
 last_seen = COALESCE({latest}(device.last_seen, {seen_at}), {seen_at}, device.last_seen),
 last_message_at = COALESCE({latest}(device.last_message_at, {seen_at}), {seen_at}, device.last_message_at),
 last_reading_at = COALESCE({latest}(device.last_reading_at, {reading_at}), {reading_at}, device.last_reading_at),
 connected_changed_at = CASE WHEN device.connected = COALESCE({connected}, device.connected)
   THEN device.connected_changed_at ELSE {connected_at} END,
 connected = COALESCE({connected}, device.connected),
 status = CASE WHEN device.status IN ('maintenance', 'provisioning') THEN device.status
   WHEN {status} IS NOT NULL THEN {status}
   WHEN {wakes} AND device.status = 'offline' THEN 'online' ELSE device.status END,
 updated_at = {now}"""


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
