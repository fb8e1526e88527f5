"""Events that are composed of values: those of a declared type that were measured at one endpoint at about one time.

The history is searched around the time of each new value, so a late value finds the values that it belongs to. Each
value is used once in a type. The endpoints are locked: two workers neither use one value, nor miss those of each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

import structlog

from devicehub.db import bulk
from devicehub.lwm2m.events import EventType, Made
from devicehub.lwm2m.models import Event, EventResource, ResourceValue
from devicehub.lwm2m.models.resources import COLUMNS, read

GROUPS = 500  # That one query reads.
SPAN = timedelta(minutes=10)  # The new values of groups that one query reads lie within this time.
MOST_ROWS = 50_000  # Of the history that one query reads; what follows them is left out.

log = structlog.get_logger(__name__)


class Arrived(NamedTuple):
    """A new value of an endpoint, and the place of its message in the batch."""

    device: int
    path: tuple[int, ...]
    measured_at: datetime
    place: int


class Part(NamedTuple):
    """A value of the history."""

    timestamp: datetime
    path: str
    held: tuple[Any, ...]  # The columns of COLUMNS.


@dataclass
class Group:
    """The resources of a type at one endpoint, and the time in which new values of them were measured."""

    type: EventType
    device: int
    names: tuple[str, ...]
    since: datetime
    until: datetime
    place: int

    @property
    def window(self) -> tuple[datetime, datetime]:
        """The time in which values may belong to new ones."""
        within = timedelta(seconds=self.type.within)
        return self.since - within, self.until + within


class Composed(NamedTuple):
    """An event, and the place in the batch of the message that completed it."""

    device: int
    place: int
    made: Made


def compose(types: Sequence[EventType], arrived: Iterable[Arrived], now: datetime) -> list[Composed]:
    """Write the events of *types* that the values which *arrived* complete, and return them.

    Call it after these values are written, in their transaction, with their endpoints locked.
    """
    groups = _groups(types, arrived)
    complete: list[tuple[Group, tuple[Part, ...]]] = []
    for some in _clusters(groups):
        history, used = _history(some), _used(some)
        for group in some:
            complete += ((group, parts) for parts in _matches(group, history, used))
    return _write(complete, now) if complete else []


def _groups(types: Sequence[EventType], arrived: Iterable[Arrived]) -> list[Group]:
    """Return the groups that have a new value, in the order of their endpoints."""
    wanted = defaultdict(list)
    for kind in types:
        for pattern in kind.patterns:
            wanted[pattern.object_id, pattern.resource_id, pattern.resource_instance].append((kind, pattern))
    groups: dict[tuple[int, str, int | None], Group] = {}
    for one in arrived:
        path, at = one.path, one.measured_at
        for kind, pattern in wanted.get((path[0], path[2], path[3] if len(path) > 3 else None), ()):
            if pattern.instance not in (None, path[1]):
                continue
            instance = path[1] if pattern.instance is None else None
            group = groups.get((one.device, kind.name, instance))
            if group is None:
                names = tuple(each.at(instance) for each in kind.patterns)
                groups[one.device, kind.name, instance] = Group(kind, one.device, names, at, at, one.place)
            else:
                group.since, group.until = min(group.since, at), max(group.until, at)
                group.place = one.place
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0], key[1], key[2] or 0))]


def _clusters(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """Yield *groups* in lists whose new values were measured at about one time, so that one query finds little else."""
    cluster: list[Group] = []
    for group in sorted(groups, key=attrgetter("since")):
        if cluster and (len(cluster) == GROUPS or group.until - cluster[0].since > SPAN):
            yield cluster
            cluster = []
        cluster.append(group)
    if cluster:
        yield cluster


def _around(model: type[Any], groups: Sequence[Group]) -> Any:
    """Return the rows of the endpoints and resources of *groups* at the time of their new values."""
    devices = sorted({group.device for group in groups})
    names = sorted({name for group in groups for name in group.names})
    windows = [group.window for group in groups]
    since, until = min(start for start, _ in windows), max(end for _, end in windows)
    return model.objects.filter(device__in=devices, path__in=names, timestamp__range=(since, until))


def _history(groups: Sequence[Group]) -> Mapping[tuple[int, str], list[Part]]:
    """Return the values of the resources of *groups* around their new values, by endpoint and path, oldest first."""
    rows = _around(ResourceValue, groups).order_by("timestamp", "pk")
    found: dict[tuple[int, str], list[Part]] = defaultdict(list)
    values = rows.values_list("device", "path", "timestamp", *COLUMNS)[: MOST_ROWS + 1]
    for number, (device, path, timestamp, *held) in enumerate(values):
        if number == MOST_ROWS:
            log.warning(
                "lwm2m.not_composed", hint=f"only {MOST_ROWS} values of the history are compared at once"
            )
            break
        parts = found[device, path]
        if not parts or parts[-1].timestamp != timestamp:
            parts.append(Part(timestamp, path, tuple(held)))
    return found


def _used(groups: Sequence[Group]) -> set[tuple[int, str, str, datetime]]:
    """Return the values that events of the types of *groups* have, as endpoint, type, path and time."""
    names = {group.type.name for group in groups}
    rows = _around(EventResource, groups).filter(event__type__in=names).order_by()
    return set(rows.values_list("device", "event__type", "path", "timestamp"))


def _matches(
    group: Group,
    history: Mapping[tuple[int, str], list[Part]],
    used: set[tuple[int, str, str, datetime]],
) -> Iterator[tuple[Part, ...]]:
    """Yield the values of each event of *group*: the earliest unused ones that are close enough to each other."""
    device, within = group.device, timedelta(seconds=group.type.within)
    since, until = group.window
    lines = [
        [
            part
            for part in history.get((device, name), ())
            if since <= part.timestamp <= until
            and (device, group.type.name, name, part.timestamp) not in used
        ]
        for name in group.names
    ]
    at = [0] * len(lines)
    while all(number < len(line) for number, line in zip(at, lines, strict=True)):
        heads = [line[number] for number, line in zip(at, lines, strict=True)]
        earliest = min(range(len(heads)), key=lambda index: heads[index].timestamp)
        if max(part.timestamp for part in heads) - heads[earliest].timestamp <= within:
            yield tuple(heads)
            at = [number + 1 for number in at]
        else:
            at[earliest] += 1  # All later values of the others are even further away from it.


def _write(complete: Sequence[tuple[Group, tuple[Part, ...]]], now: datetime) -> list[Composed]:
    as_time = bulk.time_writer()
    events, values, composed = [], [], []
    for key, (group, parts) in zip(bulk.new_keys(Event, len(complete)), complete, strict=True):
        newest = max(part.timestamp for part in parts)
        events.append((key, group.device, group.type.name, "", as_time(newest), as_time(now)))
        for part in parts:
            values.append((group.device, key, part.path, *map(_plain, part.held), as_time(part.timestamp)))
        held = {part.path: read(*part.held) for part in parts}
        made = Made(key, group.type.name, "", newest, now, held)
        composed.append(Composed(group.device, group.place, made))
    bulk.insert(Event, ("id", "device_id", "type", "detail", "timestamp", "received_at"), events)
    bulk.insert(EventResource, ("device_id", "event_id", "path", *COLUMNS, "timestamp"), values)
    return composed


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
