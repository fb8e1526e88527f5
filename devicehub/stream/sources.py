"""The tables from which a stream is read, each by an index: what happened is what stands in them.

Every process reads the same events in this way, and none is lost when one starts anew. A position is the key of a row
that is only added, or the time of a change in microseconds. A row may appear after later ones: PostgreSQL assigns keys
before the commit, and times are those of the process that wrote them. So the last seconds are read again, and rows
that were read already are left out.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import Max, Q, QuerySet
from django.utils import timezone

from authsvc.models import Denial
from devicehub.db import bulk
from devicehub.db.costly import EXPENSIVE, KEPT
from devicehub.errors import DevicehubError
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.messages.message import Outcome
from devicehub.models import DeviceCommand
from devicehub.stream import events
from devicehub.stream.cursors import HIGHEST, State
from devicehub.stream.events import Event, moment

Row = tuple[Any, int]  # The key of a row, and its position.

MOST = 10_000  # Events of one look, and events after a cursor.
MOST_READ = 50_000  # Rows whose positions are read at once.
MOST_KEYS = 500_000  # Keys between a cursor and now.
LATE = 5.0  # Seconds in which a row may appear after one with a higher key.
LATE_TIMES = timedelta(seconds=60)  # The time from a change until it is written, and seen by this clock.
RECENT = 2_000  # Keys before the newest one that are read first, for rows that appear late.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEWS = (Outcome.STORED.value, Outcome.PARTIAL.value)


class Flood(DevicehubError):
    """More happened than a stream carries, or too long ago."""


class Source:
    """A table, up to the position that was read last.

    *floor* is the position up to which no further row will appear, and *seen* are the rows after it that were read.
    """

    name: str

    def __init__(self) -> None:
        self.floor = self.position = 0
        self.seen: dict[Any, int] = {}

    @property
    def state(self) -> State:
        """The state after the rows that were read."""
        return self.floor, self.position, len(self.seen)

    def begin(self) -> None:
        """Read from now on."""
        self.floor, self.position = self._beginning()
        try:
            self.seen = dict(self._read(self.floor, None))
        except Flood:
            self.floor, self.seen = self.position, {}
        self.position = max([self.position, *self.seen.values()])

    def look(self) -> list[Row]:
        """Return the rows that appeared since the last look. note() has to follow for each. Raise Flood."""
        self.floor = max(self.floor, self._new_floor())
        self.position = max(self.position, self.floor)
        self.seen = {pk: position for pk, position in self.seen.items() if position > self.floor}
        fresh = [row for row in self._read(self.floor, None) if self.seen.get(row[0]) != row[1]]
        if len(fresh) > MOST:
            raise Flood
        return fresh

    def note(self, row: Row) -> None:
        """Note that *row* was read."""
        self.seen[row[0]] = row[1]
        self.position = max(self.position, row[1])

    def history(self, state: State) -> list[Row]:
        """Return the rows after *state* that this source has read itself. Raise Flood."""
        floor, position, count = state
        if position - floor > self._widest() or self.position - position > self._widest():
            raise Flood
        # More rows than were sent: one of them appeared late, and all are sent again.
        after = position if len(self._read(floor, position)) <= count else floor
        found = self._read(after, self.position)
        return [row for row in found if row[1] <= self.floor or self.seen.get(row[0]) == row[1]]

    def states(self, rows: Sequence[Row]) -> list[State]:
        """Return the state after each of *rows*, which history() returned."""
        found, same, window = [], 0, sorted(self.seen.values())
        before, passed = -1, 0
        for _, position in rows:
            if position <= self.floor:
                same = same + 1 if position == before else 1
                found.append((max(0, position - 1), position, same))
            else:
                while passed < len(window) and window[passed] <= position:
                    passed += 1
                found.append((self.floor, position, passed))
            before = position
        return found

    def events(self, rows: Sequence[Row]) -> Mapping[Any, Event]:
        """Return the events of *rows* by key; a row that was deleted meanwhile has none."""
        raise NotImplementedError

    def _read(self, after: int, until: int | None) -> list[Row]:
        found = sorted(self._rows(after, until), key=lambda row: row[1])
        if len(found) > MOST_READ:
            raise Flood
        return found

    def _rows(self, after: int, until: int | None) -> Iterable[Row]:
        """Return the rows after a position, up to another one, at most MOST_READ + 1."""
        raise NotImplementedError

    def _beginning(self) -> tuple[int, int]:
        raise NotImplementedError

    def _new_floor(self) -> int:
        raise NotImplementedError

    def _widest(self) -> int:
        raise NotImplementedError


class Added(Source):
    """A table whose rows are only added; the position is the key."""

    def __init__(self, kind: Kind, model: Any) -> None:
        super().__init__()
        self.kind, self._model = kind, model
        self._marks: deque[tuple[float, int]] = deque()

    def look(self) -> list[Row]:
        """Return the new rows. The position moves on without any, so that no look reads old rows."""
        newest = self._newest()
        if newest <= self.floor:
            self._marks.clear()
            return []
        self._marks.append((time.monotonic(), self.position))
        found = super().look()
        if not found:
            self.position = max(self.position, newest)
        return found

    def _newest(self) -> int:
        return int(self._model.objects.aggregate(newest=Max("pk"))["newest"] or 0)

    def _beginning(self) -> tuple[int, int]:
        newest = self._newest()
        self._marks.clear()
        return max(0, newest - RECENT), newest

    def _new_floor(self) -> int:
        settled = time.monotonic() - LATE
        floor = 0
        while self._marks and self._marks[0][0] <= settled:
            floor = self._marks.popleft()[1]
        return floor

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
        self._units: dict[str, str] = {}

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

    def _beginning(self) -> tuple[int, int]:
        now = timezone.now()
        return position_of(now - LATE_TIMES), position_of(now)

    def _new_floor(self) -> int:
        return position_of(timezone.now() - LATE_TIMES)

    def _widest(self) -> int:
        return HIGHEST


class Connections(Changed):
    """The devices of one kind that connected or were lost. The event is the state of the device.

    No index has the time, which many messages would have to change: on a large table a look takes a while, and the
    next one follows later.
    """

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind, self.name = kind, f"connections/{kind.slug}"
        self._next_at = float("-inf")

    def look(self) -> list[Row]:
        """Return the new changes, or none before the next look is due."""
        began = time.monotonic()
        if began < self._next_at:
            return []
        found = super().look()
        took = time.monotonic() - began
        self._next_at = began + KEPT * took if took > EXPENSIVE else began
        return found

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
        at = time_of(after)
        later = Q()
        for column in COMMAND_TIMES:
            later |= Q((f"{column}__gt", at))
        found = DeviceCommand.objects.filter(later).order_by().values_list("pk", *COMMAND_TIMES)
        rows = [
            (pk, max(position_of(time) for time in times if time is not None))
            for pk, *times in found[: MOST_READ + 1]
        ]
        if len(rows) > MOST_READ:
            raise Flood
        return [row for row in rows if until is None or row[1] <= until]


class Denials(Changed):
    """The refusals: one event whenever one happens again."""

    name = "denials"

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
    return max(0, (at - EPOCH) // timedelta(microseconds=1))


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
