"""The tables from which a stream is read, each by an index: what happened is what stands in them.

Every process reads the same events in this way, and none is lost when one starts anew. A position is the key of a row
that is only added, or the time of a change in microseconds. A row may appear after later ones: PostgreSQL assigns keys
before the commit, and times are those of the process that wrote them. So the rows since the oldest open transaction are
read again, and those that were read already are left out.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Max, Q, QuerySet, Sum
from django.utils import timezone

from authsvc.models import Denial
from devicehub.db import bulk
from devicehub.errors import DevicehubError
from devicehub.history.pages import Length, long_columns
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.messages.message import Outcome
from devicehub.models import DeviceCommand
from devicehub.stream import events
from devicehub.stream.cursors import HIGHEST, State
from devicehub.stream.events import Event, moment

Row = tuple[Any, int]  # The key of a row, and its position.

MOST = 10_000  # Events of one look, and events after a cursor.
HEAVIEST = 8 << 20  # Bytes of long texts, JSON and bytes of the events of one look, and after a cursor.
MOST_READ = 50_000  # Rows whose positions are read at once.
MOST_KEYS = 500_000  # Keys between a cursor and now.
LATE_TIMES = timedelta(seconds=60)  # The time from a change until it is written, and seen by this clock.
# The reach of a transaction that is open when reading begins: keys before the newest one, and a time before now.
RECENT = 10_000
RECENT_TIMES = timedelta(minutes=10)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
NEWS = (Outcome.STORED.value, Outcome.PARTIAL.value)


class Flood(DevicehubError):
    """More happened than a stream carries, or too long ago."""


class Source:
    """A table, up to the position that was read last.

    *floor* is the position up to which no further row will appear, and *seen* are the rows after it that were read.
    A *bound* is a position that everything written from then on is beyond: it may become the floor once the
    transactions are over that were open by then. Read it before these are queried, and the rows after them.
    """

    name: str
    table: str
    key: str | None = None  # The column with the keys from a sequence, if the position is the key.

    def __init__(self) -> None:
        self.floor = self.position = 0
        self.seen: dict[Any, int] = {}
        self._digest = 0
        self._settled = 0  # The next floor: the rows up to it were read by the last look.
        self._bounds = (0, 0)  # Of the last two looks.
        self._began: dict[str, int] = {}  # The bound before each open transaction wrote something.

    @property
    def state(self) -> State:
        """The state after the rows that were read."""
        return self.floor, self.position, self._digest

    def begin(self, writers: Collection[str] = (), bound: int | None = None) -> None:
        """Read from now on. *writers* are open transactions that wrote to the table, queried after *bound* was read."""
        bound = self.bound() if bound is None else bound
        self.floor = self._recent(bound) if writers else bound
        try:
            self.seen = dict(self._read(self.floor, None))
        except Flood:
            self.floor, self.seen = self._now(bound), {}
        self.position = max([self._now(bound), *self.seen.values()])
        self._digest = _digest(self.seen.items())
        self._began = dict.fromkeys(writers, self.floor)
        self._settled, self._bounds = self.floor, (bound, bound)

    def look(self, writers: Collection[str] = ()) -> list[Row]:
        """Return the rows that appeared since the last look. note() has to follow for each. Raise Flood.

        *writers* are the open transactions that wrote to the table, queried before this call.
        """
        if self._settled > self.floor:
            self.floor = self._settled
            self.seen = {pk: position for pk, position in self.seen.items() if position > self.floor}
            self._digest = _digest(self.seen.items())
        self.position = max(self.position, self.floor)
        bound, (earlier, last) = self.bound(), self._bounds
        self._began = {one: self._began.get(one, earlier) for one in writers}
        self._settled, self._bounds = min([last, *self._began.values()]), (last, bound)
        if self.key and bound <= self.floor:
            return []
        fresh = [row for row in self._read(self.floor, None) if self.seen.get(row[0]) != row[1]]
        if len(fresh) > MOST:
            raise Flood
        return fresh

    def note(self, row: Row) -> None:
        """Note that *row* was read."""
        if row[0] in self.seen:
            self._digest -= _digest([(row[0], self.seen[row[0]])])
        self._digest = (self._digest + _digest([row])) % DIGESTS
        self.seen[row[0]] = row[1]
        self.position = max(self.position, row[1])

    def history(self, state: State) -> list[Row]:
        """Return the rows after *state* that this source has read itself. Raise Flood."""
        floor, position, digest = state
        if position - floor > self._widest() or self.position - position > self._widest():
            raise Flood
        # Other rows than those that were sent: one may have appeared late, and all are sent again.
        after = position if _digest(self._read(floor, position)) == digest else floor
        found = self._read(after, self.position)
        return [row for row in found if row[1] <= self.floor or self.seen.get(row[0]) == row[1]]

    def states(self, rows: Sequence[Row]) -> list[State]:
        """Return the state after each of *rows*, which history() returned."""
        found: list[State] = []
        before, same = -1, 0
        digest = self._digest - _digest(row for row in rows if row[1] > self.floor)
        for row in rows:
            position = row[1]
            if position <= self.floor:
                same = _digest([row]) + (same if position == before else 0)
                found.append((max(0, position - 1), position, same % DIGESTS))
            else:
                digest += _digest([row])
                found.append((self.floor, position, digest % DIGESTS))
            before = position
        return found

    def weight(self, rows: Sequence[Row]) -> int:
        """Return the bytes of those values of *rows* that may be long, without reading them."""
        return 0

    def events(self, rows: Sequence[Row]) -> Mapping[Any, Event]:
        """Return the events of *rows* by key; a row that was deleted meanwhile has none."""
        raise NotImplementedError

    def bound(self) -> int:
        """Return a position that everything written from now on is beyond."""
        raise NotImplementedError

    def _read(self, after: int, until: int | None) -> list[Row]:
        found = sorted(self._rows(after, until), key=lambda row: row[1])
        if len(found) > MOST_READ:
            raise Flood
        return found

    def _rows(self, after: int, until: int | None) -> Iterable[Row]:
        """Return the rows after a position, up to another one, at most MOST_READ + 1."""
        raise NotImplementedError

    def _now(self, bound: int) -> int:
        """Return the present position, if the bound is *bound*."""
        raise NotImplementedError

    def _recent(self, bound: int) -> int:
        """Return the position that an open transaction is taken to be beyond, if the bound is *bound*."""
        raise NotImplementedError

    def _widest(self) -> int:
        raise NotImplementedError


DIGESTS = 2**32


def _digest(rows: Iterable[Row]) -> int:
    """Return a number that is the same in all processes for the same *rows*, whatever their order."""
    return sum(zlib.crc32(f"{key}/{position}".encode()) for key, position in rows) % DIGESTS


class Added(Source):
    """A table whose rows are only added; the position is the key."""

    def __init__(self, kind: Kind, model: Any) -> None:
        super().__init__()
        self.kind, self._model = kind, model
        self.table, self.key = model._meta.db_table, model._meta.pk.column

    def history(self, state: State) -> list[Row]:
        """Return the rows after *state* that this source has read itself. Raise Flood, also beyond all keys."""
        if state[1] > self.position and state[1] > self.bound():  # A backup of the database was restored.
            raise Flood
        return super().history(state)

    def bound(self) -> int:
        """Return the newest key."""
        return int(self._model.objects.aggregate(newest=Max("pk"))["newest"] or 0)

    def _now(self, bound: int) -> int:
        return bound

    def _recent(self, bound: int) -> int:
        return max(0, bound - RECENT)

    def _rows(self, after: int, until: int | None) -> Iterable[Row]:
        rows = self._selected().filter(pk__gt=after).order_by("pk")
        rows = rows if until is None else rows.filter(pk__lte=until)
        return [(pk, pk) for pk in rows.values_list("pk", flat=True)[: MOST_READ + 1]]

    def _selected(self) -> QuerySet[Any]:
        found: QuerySet[Any] = self._model.objects.all()
        return found

    def _widest(self) -> int:
        return MOST_KEYS


class Readings(Added):
    """The readings of one kind: one event for each row."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind, kind.history_model)
        self.name = f"readings/{kind.slug}"
        narrow = kind.narrow
        self._columns = list(kind.readings) if narrow is None else [narrow.name_column, narrow.value_column]
        self._long = long_columns(kind, self._columns) if narrow is None else []
        self._units: dict[str, str] = {}

    def weight(self, rows: Sequence[Row]) -> int:
        """Return the bytes of the long texts, JSON and bytes of *rows*; a narrow table has numbers here."""
        if not self._long or not rows:
            return 0
        found = self._model.objects.filter(bulk.among("id", [pk for pk, _ in rows])).order_by()
        length = sum((Length(F(column)) for column in self._long[1:]), start=Length(F(self._long[0])))
        return int(found.aggregate(weight=Sum(length))["weight"] or 0)

    def events(self, rows: Sequence[Row]) -> Mapping[Any, Event]:
        """Return the events by key of the reading."""
        if len(self._units) > MOST:
            self._units.clear()
        pks = [pk for pk, _ in rows]
        found = self._model.objects.filter(bulk.among("id", pks)).order_by()
        read = list(found.values_list("pk", "device_id", "timestamp", "received_at", *self._columns))
        devices = _devices(self.kind, {row[1] for row in read})
        made = {}
        for pk, device, timestamp, received_at, *values in read:
            if device in devices:
                device_id, site = devices[device]
                content = {
                    **_address(self.kind, device_id),
                    "timestamp": moment(timestamp),
                    "received_at": moment(received_at),
                    "values": self._values(values),
                }
                key = self.kind.key(device_id)
                made[pk] = Event(events.READINGS, self.kind.slug, key, site, content)
        return made

    def _values(self, values: Sequence[Any]) -> dict[str, Any]:
        if self.kind.narrow is not None:
            name, value = values
            return {name: {"value": value, "unit": self._unit(name)}}
        return {
            name: {"value": value, "unit": self._unit(name)}
            for name, value in zip(self._columns, values, strict=True)
            if value is not None
        }

    def _unit(self, name: str) -> str:
        if name not in self._units:
            self._units[name] = self.kind.described(name).unit or ""
        return self._units[name]


class Reports(Added):
    """The messages of one kind on the topics of a status. The event is the state of the device."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind, kind.message_model)
        self.name = f"reports/{kind.slug}"

    def events(self, rows: Sequence[Row]) -> Mapping[Any, Event]:
        """Return the events by key of the message."""
        pks = [pk for pk, _ in rows]
        found = self._model.objects.filter(bulk.among("id", pks)).order_by()
        of = dict(found.values_list("pk", "device_id"))
        made = _states(self.kind, set(of.values()))
        return {pk: made[device].copy() for pk, device in of.items() if device in made}

    def _selected(self) -> QuerySet[Any]:
        before, after = topics.build(self.kind, "+", topics.MessageType.STATUS).split("+", 1)
        rows = self._model.objects.filter(outcome__in=NEWS)
        found: QuerySet[Any] = rows.filter(topic__startswith=before, topic__endswith=after)
        return found


class Changed(Source):
    """A table whose rows change; the position is the time of the last change in microseconds."""

    def bound(self) -> int:
        """Return the time before now after which all changes lie that are still to be written."""
        return position_of(timezone.now() - LATE_TIMES)

    def _now(self, bound: int) -> int:
        return bound + LATE_TIMES // MICROSECOND

    def _recent(self, bound: int) -> int:
        return max(0, bound - RECENT_TIMES // MICROSECOND)

    def _widest(self) -> int:
        return HIGHEST


class Connections(Changed):
    """The devices of one kind that connected or were lost. The event is the state of the device."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind, self.name = kind, f"connections/{kind.slug}"
        self.table = kind.device_model._meta.db_table

    def events(self, rows: Sequence[Row]) -> Mapping[Any, Event]:
        """Return the events by key of the device."""
        return _states(self.kind, {pk for pk, _ in rows})

    def _rows(self, after: int, until: int | None) -> Iterable[Row]:
        rows = self.kind.device_model.objects.filter(connected_changed_at__gt=time_of(after)).order_by()
        rows = rows if until is None else rows.filter(connected_changed_at__lte=time_of(until))
        found = rows.values_list("pk", "connected_changed_at")[: MOST_READ + 1]
        return [(pk, position_of(at)) for pk, at in found]


COMMAND_TIMES = ("queued_at", "sent_at", "acknowledged_at", "answered_at", "ended_at")


class Commands(Changed):
    """The commands to devices: one event for each step, with the state after it."""

    name = "commands"
    table = DeviceCommand._meta.db_table

    def events(self, rows: Sequence[Row]) -> Mapping[Any, Event]:
        """Return the events by key of the command."""
        columns = ("device_key", "name", "state", "error", "deadline", *COMMAND_TIMES)
        found = DeviceCommand.objects.filter(pk__in=[pk for pk, _ in rows]).order_by()
        read = list(found.values_list("pk", *columns))
        homes = _homes({row[1] for row in read})
        made = {}
        for pk, key, name, state, error, *times in read:
            slug, site = homes.get(key, ("", ""))
            content = {
                "device": key,
                "id": str(pk),
                "name": name,
                "state": state,
                "error": error,
                **{n: moment(at) for n, at in zip(("deadline", *COMMAND_TIMES), times, strict=True)},
            }
            made[pk] = Event(events.COMMANDS, slug, key, site, content)
        return made

    def _rows(self, after: int, until: int | None) -> Iterable[Row]:
        # An arm for each index: SQLite reads the whole table for one condition with five alternatives.
        first, *others = (
            DeviceCommand.objects.filter(Q((f"{column}__gt", time_of(after))))
            .order_by()
            .values_list("pk", *COMMAND_TIMES)
            for column in COMMAND_TIMES
        )
        most = len(COMMAND_TIMES) * MOST_READ + 1
        rows = {
            (pk, max(position_of(time) for time in times if time is not None))
            for pk, *times in first.union(*others, all=True)[:most]
        }
        if len(rows) > MOST_READ:
            raise Flood
        return [row for row in rows if until is None or row[1] <= until]


class Denials(Changed):
    """The refusals: one event whenever one happens again."""

    name = "denials"
    table = Denial._meta.db_table

    def events(self, rows: Sequence[Row]) -> Mapping[Any, Event]:
        """Return the events by key of the denial."""
        found = Denial.objects.filter(bulk.among("id", [pk for pk, _ in rows])).order_by()
        read = list(found)
        homes = _homes({denial.principal for denial in read})
        made = {}
        for denial in read:
            slug, site = homes.get(denial.principal, ("", ""))
            content = {
                "id": denial.pk,
                "principal": denial.principal,
                **{name: getattr(denial, name) for name in DENIAL_COLUMNS},
                "first_at": moment(denial.first_at),
                "last_at": moment(denial.last_at),
            }
            made[denial.pk] = Event(events.DENIALS, slug, denial.principal, site, content)
        return made

    def _rows(self, after: int, until: int | None) -> Iterable[Row]:
        rows = Denial.objects.filter(last_at__gt=time_of(after)).order_by("last_at")
        rows = rows if until is None else rows.filter(last_at__lte=time_of(until))
        return [(pk, position_of(at)) for pk, at in rows.values_list("pk", "last_at")[: MOST_READ + 1]]


DENIAL_COLUMNS = (
    "username", "client_id", "action", "topic", "reason", "rule", "dialect", "broker", "address", "count",
)  # fmt: skip


def sources() -> list[Source]:
    """Return the sources of all kinds that are registered."""
    found: list[Source] = []
    for kind in registry:
        found += [Connections(kind), Reports(kind)]
        if kind.history_model is not None:
            found.append(Readings(kind))
    return [*found, Commands(), Denials()]


def position_of(at: datetime) -> int:
    """Return *at* in microseconds since 1970, and 0 for earlier times."""
    return max(0, (at - EPOCH) // MICROSECOND)


def time_of(position: int) -> datetime:
    """Return the time of position_of(), in the year 9999 at the latest."""
    return EPOCH + timedelta(microseconds=min(position, 253_000_000_000_000_000))


def _address(kind: Kind, device_id: str) -> dict[str, str]:
    return {"device": kind.key(device_id), "type": kind.slug, "device_id": device_id}


def _devices(kind: Kind, pks: Collection[Any]) -> dict[int, tuple[str, str]]:
    rows = kind.device_model.objects.filter(bulk.among("id", pks)).order_by()
    return {pk: (device_id, site) for pk, device_id, site in rows.values_list("pk", "device_id", "site")}


def _states(kind: Kind, pks: Collection[Any]) -> dict[Any, Event]:
    """Return the states of devices as events, by primary key."""
    columns = ("device_id", "site", "status", "connected", "connected_changed_at", "last_seen")
    rows = kind.device_model.objects.filter(bulk.among("id", pks)).order_by()
    made: dict[Any, Event] = {}
    for pk, device_id, site, status, connected, changed_at, last_seen in rows.values_list("pk", *columns):
        content = {
            **_address(kind, device_id),
            "status": status,
            "connected": connected,
            "connected_changed_at": moment(changed_at),
            "last_seen": moment(last_seen),
        }
        made[pk] = Event(events.STATUS, kind.slug, kind.key(device_id), site, content)
    return made


def _homes(keys: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return the kind and the site of those devices of *keys* that exist, by one query for each kind."""
    by_kind: dict[str, tuple[Kind, set[str]]] = {}
    for key in keys:
        try:
            kind, device_id = registry.resolve(key)
        except UnknownKey:
            continue
        by_kind.setdefault(kind.slug, (kind, set()))[1].add(device_id)
    found: dict[str, tuple[str, str]] = {}
    for kind, ids in by_kind.values():
        rows = kind.device_model.objects.filter(bulk.among("device_id", ids)).order_by()
        found |= {kind.key(one): (kind.slug, site) for one, site in rows.values_list("device_id", "site")}
    return found
