"""Evidence in messages about their device: when it was heard, whether it is there, and its reported state.

A batch is folded into one change for each device, which is compared with the row under its lock: a change that an
operator or another worker wrote meanwhile is not overwritten, and newer evidence is never replaced by older.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
from django.db import connection

from devicehub.db import bulk, clock
from devicehub.db.statements import PerVendor, execute, execute_many, query, quoted
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.messages.message import FailureReason, Message
from devicehub.models import OPERATOR_STATES, BaseDevice, DeviceStatus

# A message with one of these faults is a sign of life: its device published it. A status may be a will, so it is not.
UNREADABLE = frozenset(
    {
        *(FailureReason.TOO_LARGE, FailureReason.NOT_JSON, FailureReason.NOT_CBOR),
        *(FailureReason.NOT_A_READING, FailureReason.NO_VALUE, FailureReason.TOO_MANY_SAMPLES),
    }
)


@dataclass
class Sign:
    """The evidence in one message. *status* is the reported status, *columns* holds the other reported columns.

    *is_copy*: the broker retained the message, so it is not evidence of the present. *is_unclear*: its status cannot be
    read, so it does not show whether the device is there.
    """

    received_at: datetime
    reading_at: datetime | None = None
    status: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    is_copy: bool = False
    is_unclear: bool = False


@dataclass
class Change:
    """The evidence of a batch about one device. *said* has each reported column with its time of receipt."""

    message_at: datetime | None = None
    seen_at: datetime | None = None
    reading_at: datetime | None = None
    connected: bool | None = None
    connected_at: datetime | None = None
    said: dict[str, tuple[datetime, Any]] = field(default_factory=dict)


class Transition(NamedTuple):
    """A change of *device*, which is as its row was afterwards."""

    kind: Kind
    device: BaseDevice
    old_status: str
    new_status: str
    was_connected: bool
    connected: bool


class Written(NamedTuple):
    """The devices as their rows are after a batch, and the changes on them, by primary key; for listeners."""

    devices: Mapping[int, BaseDevice]
    transitions: Mapping[int, Transition]


NOTHING = Written({}, {})


def status(reported: str, connected: bool) -> str:
    """Return the status of a device that no operator set: its last report while it is connected, else offline."""
    if not connected:
        return DeviceStatus.OFFLINE.value
    return DeviceStatus.ONLINE.value if reported in ("", DeviceStatus.OFFLINE) else str(reported)


def heard(
    sign: Sign | None, message: Message, reason: FailureReason | None, message_type: MessageType
) -> Sign | None:
    """Return the evidence of *message*, also if it is the broker's copy or could not be read; or None.

    An empty message is not evidence: it clears a retained message of a device (MQTT 5.0, 3.3.1.3). A status that
    cannot be read is not either: the broker may have published it as the will of a device that is gone.
    """
    if not message.payload:
        return None
    if message.retain:
        return sign and Sign(sign.received_at, sign.reading_at, is_copy=True)
    if sign is None and reason in UNREADABLE and message_type is not MessageType.STATUS:
        return Sign(message.received_at)
    return sign


def fold(signs: Iterable[Sign]) -> Change:
    """Return the change that *signs* make together, in the order of their receipt.

    Each is a sign of life, except `offline`, which may be a will, and an unclear status.
    """
    change = Change()
    for sign in sorted(signs, key=attrgetter("received_at")):
        at = sign.received_at
        if sign.reading_at is not None:
            # If the clock of a device is ahead, the time of receipt is used.
            change.reading_at = _later(change.reading_at, clock.plausible(sign.reading_at, at) or at)
        if sign.is_copy:
            continue
        if not sign.is_unclear:
            change.message_at = at
            is_alive = sign.status != DeviceStatus.OFFLINE
            if is_alive:
                change.seen_at = at
            if change.connected != is_alive:
                change.connected, change.connected_at = is_alive, at
        if sign.status is not None:
            change.said["reported_status"] = at, sign.status
        for name, value in sign.columns.items():
            change.said[name] = at, value
    return change


def write(kind: Kind, changes: Mapping[int, Change], now: datetime, listened: bool) -> Written:
    """Change the rows of *kind* by primary key, in a transaction; on SQLite it must hold the writer's lock.

    Return the changed devices if the kind is *listened* to, else NOTHING: reading them back costs a query.
    """
    if not changes:
        return NOTHING
    model: type[BaseDevice] = kind.device_model
    table = quoted(model._meta.db_table)
    keys = sorted(changes)
    before = _locked(table, keys, listened)
    horizon = now + clock.AHEAD
    said = [
        {
            "pk": pk,
            "message_at": changes[pk].message_at,
            "seen_at": changes[pk].seen_at,
            "reading_at": changes[pk].reading_at,
            "connected": changes[pk].connected,
            "connected_at": changes[pk].connected_at,
            "now": now,
            "horizon": horizon,
        }
        for pk in keys
    ]
    _change()(table, said)
    _write_said(model, table, {pk: changes[pk].said for pk in keys if changes[pk].said}, now)
    return _read_back(kind, before) if listened else NOTHING


def _locked(table: str, keys: Sequence[int], listened: bool) -> dict[int, tuple[str, bool]]:
    """Return status and connected of the rows, locked until the end of this transaction; empty without a listener."""
    if connection.vendor == "sqlite":
        if not listened:
            return {}
        statement = f"SELECT id, status, connected FROM {table} WHERE id IN (SELECT value FROM json_each(%s))"
        wanted: Any = orjson.dumps(keys).decode()
    else:
        # In the order of their keys, so that two workers never wait for each other's rows.
        columns = "id, status, connected" if listened else "1"
        statement = f"SELECT {columns} FROM {table} WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE"
        wanted = keys
    rows = query(statement, [wanted])
    return {pk: (old, bool(was)) for pk, old, was in rows} if listened else {}


def _on_sqlite(table: str, said: Sequence[dict[str, Any]]) -> None:
    changed, as_time = _SET.format(**{name: f"%({name})s" for name in said[0]}), bulk.time_writer()
    for change in said:
        for name in _TIMES:
            if change[name] is not None:
                change[name] = as_time(change[name])
    execute_many(f"UPDATE {table} AS device SET {changed} WHERE id = %(pk)s", said)


def _on_postgresql(table: str, said: Sequence[dict[str, Any]]) -> None:
    changed = _SET.format(**{name: f"said.{name}" for name in said[0]})
    columns = ", ".join(f"{name} timestamptz" for name in _TIMES)
    execute(
        f"UPDATE {table} AS device SET {changed} FROM json_to_recordset(%s)"
        f" AS said (pk bigint, connected boolean, {columns}) WHERE device.id = said.pk",
        [orjson.dumps(said).decode()],
    )


_TIMES = ("message_at", "seen_at", "reading_at", "connected_at", "now", "horizon")
_change = PerVendor(sqlite=_on_sqlite, postgresql=_on_postgresql)

# Each message shows whether a device is there, so the last one is the newest evidence. Columns without a report stay,
# and so do columns with a later time; a stored time beyond the horizon counts as none.
_IS_OLDER = "device.last_message_at > {message_at} AND device.last_message_at <= {horizon}"
_SET = """
 last_seen = CASE WHEN device.last_seen > {seen_at} AND device.last_seen <= {horizon}
   THEN device.last_seen ELSE COALESCE({seen_at}, device.last_seen) END,
 last_message_at = CASE WHEN IS_OLDER
   THEN device.last_message_at ELSE COALESCE({message_at}, device.last_message_at) END,
 last_reading_at = CASE WHEN device.last_reading_at > {reading_at} AND device.last_reading_at <= {horizon}
   THEN device.last_reading_at ELSE COALESCE({reading_at}, device.last_reading_at) END,
 connected_changed_at = CASE WHEN IS_OLDER OR device.connected = COALESCE({connected}, device.connected)
   THEN device.connected_changed_at ELSE {connected_at} END,
 connected = CASE WHEN IS_OLDER THEN device.connected ELSE COALESCE({connected}, device.connected) END,
 status = CASE WHEN device.status <> 'offline' OR IS_OLDER THEN device.status
   WHEN {connected} THEN COALESCE(NULLIF(NULLIF(device.reported_status, ''), 'offline'), 'online')
   ELSE device.status END,
 updated_at = {now}""".replace("IS_OLDER", f"({_IS_OLDER})")


def _write_said(
    model: type[BaseDevice], table: str, said: Mapping[int, dict[str, tuple[datetime, Any]]], now: datetime
) -> None:
    """Write the reported columns of devices, each unless a later report of it is stored."""
    if not said:
        return
    rows: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    found = model._default_manager.filter(pk__in=said).order_by("pk")
    for pk, now_is, connected, times in found.values_list("pk", "status", "connected", "reported_times"):
        times = times if isinstance(times, dict) else {}
        news = {n: (at, v) for n, (at, v) in said[pk].items() if _is_news(at, times.get(n), now)}
        columns = {name: value for name, (_, value) in news.items()}
        if "reported_status" in columns and now_is not in OPERATOR_STATES:
            columns["status"] = status(columns["reported_status"], connected)
        if not columns:
            continue
        columns["reported_times"] = times | {name: at.isoformat() for name, (at, _) in news.items()}
        fields: list[Any] = [model._meta.get_field(name) for name in columns]
        values = [f.get_db_prep_save(columns[f.name], connection) for f in fields]
        rows.setdefault(tuple(f.column for f in fields), []).append((*values, pk))
    for names, changed in rows.items():
        assigned = ", ".join(f"{quoted(name)} = %s" for name in names)
        execute_many(f"UPDATE {table} SET {assigned} WHERE id = %s", changed)


def _is_news(at: datetime, stored: object, now: datetime) -> bool:
    try:
        before = clock.plausible(datetime.fromisoformat(str(stored)), now)
        return before is None or at >= before
    except (TypeError, ValueError):  # No report yet, or a text that this module did not write.
        return True


def _read_back(kind: Kind, before: Mapping[int, tuple[str, bool]]) -> Written:
    devices: dict[int, BaseDevice] = kind.device_model._default_manager.in_bulk(list(before))
    transitions = {}
    for pk, device in devices.items():
        old_status, was_connected = before[pk]
        if (old_status, was_connected) != (device.status, device.connected):
            transitions[pk] = Transition(
                kind, device, old_status, device.status, was_connected, device.connected
            )
    return Written(devices, transitions)


def _later(old: datetime | None, new: datetime) -> datetime:
    return new if old is None or new > old else old
