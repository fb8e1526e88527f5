"""Events of a project: recorded by record(), or declared as an EventType and composed of values that belong together.

    events.register(EventType("climate", resources=["3303/*/5700", "3304/*/5700"], within=60))

After the commit, the signal event_recorded and the hook on_event are called for each event, also for our own types.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import structlog
from django.db import connection, transaction
from django.utils import timezone

from devicehub import signals
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import registry
from devicehub.lwm2m import catalogue, hooks
from devicehub.lwm2m.catalogue import Catalogue
from devicehub.lwm2m.models import Endpoint, Event, EventResource
from devicehub.lwm2m.models.events import OURS
from devicehub.lwm2m.models.resources import columns
from devicehub.lwm2m.signals import event_recorded
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import DataType, Seen, Value, checked, typed

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
RESOURCE = re.compile(r"/?(\d{1,5})/(\d{1,5}|\*)/(\d{1,5})(?:/(\d{1,5}))?")
ANY = "*"
MOST_RESOURCES = 20  # Of one declared type.
MOST_TYPES = 50
MOST_VALUES = 1_000  # Of one recorded event.
LONGEST = 86_400.0  # Seconds between values that belong together.

log = structlog.get_logger(__name__)


class InvalidEvent(DevicehubError, ValueError):
    """An event or its type cannot be used; the text says why."""


class Pattern(NamedTuple):
    """A resource of a type. *instance* is None for any object instance."""

    object_id: int
    instance: int | None
    resource_id: int
    resource_instance: int | None

    def at(self, instance: int | None) -> str:
        """Return the path of this resource, with *instance* for any."""
        levels = (self.object_id, instance if self.instance is None else self.instance, self.resource_id)
        if self.resource_instance is not None:
            levels += (self.resource_instance,)  # type: ignore[assignment]
        return "/".join(map(str, levels))


@dataclass(frozen=True)
class EventType:
    """Values of *resources* that were measured within *within* seconds of each other make one event called *name*.

    A resource is a path such as `3303/0/5700`, or `3303/*/5700` for each object instance: then all are such paths,
    and the values of one event come from equal object instances. Raise InvalidEvent.
    """

    name: str
    resources: Sequence[str]
    within: float = 60
    patterns: tuple[Pattern, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not 0 < len(self.resources) <= MOST_RESOURCES or isinstance(self.resources, str):
            raise InvalidEvent(f"The event type {self.name} needs a list of 1-{MOST_RESOURCES} resources")
        if not 0 <= self.within <= LONGEST:
            raise InvalidEvent(f"within of the event type {self.name} is not 0-{LONGEST:.0f} seconds")
        patterns = tuple(map(_pattern, self.resources))
        if len(set(patterns)) < len(patterns):
            raise InvalidEvent(f"The event type {self.name} names a resource twice")
        if len({pattern.instance is None for pattern in patterns}) > 1:
            raise InvalidEvent(
                f"The event type {self.name} names an object instance for some of its resources and * for others"
            )
        object.__setattr__(self, "patterns", patterns)


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidEvent(f"{str(name)[:40]!r} is not the name of an event type, such as climate")
    if name in OURS:
        raise InvalidEvent(f"The event type {name} is one of {', '.join(sorted(OURS))}, which messages make")


def _pattern(text: str) -> Pattern:
    found = RESOURCE.fullmatch(text) if isinstance(text, str) else None
    ids = [] if found is None else [None if one in (None, ANY) else int(one) for one in found.groups()]
    if not ids or any(one is not None and one > paths.MAX_ID for one in ids):
        raise InvalidEvent(f"{str(text)[:40]!r} is not a resource such as 3303/0/5700 or 3303/*/5700")
    return Pattern(*ids)  # type: ignore[arg-type]


_declared: dict[str, EventType] = {}


def register(declared: EventType) -> None:
    """Compose events of *declared* from values that arrive from now on. Raise InvalidEvent if its name is taken."""
    if _declared.get(declared.name, declared) != declared:
        raise InvalidEvent(f"Two event types are called {declared.name}")
    if declared.name not in _declared and len(_declared) == MOST_TYPES:
        raise InvalidEvent(f"There are {MOST_TYPES} event types already")
    _declared[declared.name] = declared


def unregister(name: str) -> None:
    """Compose no more events of the type *name*; for tests."""
    _declared.pop(name, None)


def declared() -> tuple[EventType, ...]:
    """Return the declared types."""
    return tuple(_declared.values())


class Made(NamedTuple):
    """A stored event, for listeners: its row, and its values by path."""

    key: int
    type: str
    detail: str
    timestamp: datetime
    received_at: datetime
    values: Mapping[str, Any]

    def as_model(self, endpoint: Endpoint) -> Event:
        """Return the row."""
        event = Event(
            id=self.key,
            device=endpoint,
            type=self.type,
            detail=self.detail,
            timestamp=self.timestamp,
            received_at=self.received_at,
        )
        event._state.adding, event._state.db = False, connection.alias
        return event


def are_heard() -> bool:
    """Return whether a receiver or a hook is notified of events."""
    if event_recorded.has_listeners(Endpoint):
        return True
    kind = registry.get("lwm2m")
    return kind is not None and hooks.with_on_event(kind) is not None


def notify(endpoint: Endpoint, made: Made) -> None:
    """Notify the hook and the receivers. One that fails is logged and keeps the others from nothing."""
    event, values = made.as_model(endpoint), dict(made.values)
    kind = registry.get("lwm2m")
    found = None if kind is None else hooks.with_on_event(kind)
    if found is not None:
        try:
            found().on_event(endpoint, event, values)
        except Exception:
            log.exception("ingest.hook_failed", hook=f"{found.__qualname__}.on_event")
    signals.send(event_recorded, Endpoint, endpoint=endpoint, event=event, values=values)


@transaction.atomic
def record(
    type: str | EventType,  # noqa: A002 - the word of the model
    endpoint: Endpoint,
    values: Mapping[str, Any],
    *,
    timestamp: datetime | None = None,
) -> Event:
    """Record an event of a project's *type* with *values* by path, such as `3303/0/5700`; return it.

    A value is a messages.lwm2m.values.Value, or a str, int, float, Decimal, bool, bytes, datetime or ObjectLink, which
    must fit the type of its resource. *timestamp* is the time of the event and of values without a time, by default
    now. Raise InvalidEvent, and then nothing is stored.
    """
    name = type.name if isinstance(type, EventType) else type
    _check_name(name)
    if not 0 < len(values) <= MOST_VALUES:
        raise InvalidEvent(f"An event has 1-{MOST_VALUES} values, not {len(values)}")
    now = timezone.now()
    of_event = timestamp or now
    if timezone.is_naive(of_event):
        raise InvalidEvent("The timestamp of the event has no time zone")
    definitions = catalogue.held()
    found = [_value(path, value, definitions, endpoint) for path, value in values.items()]
    times = [_moment(value) or of_event for value in found]
    event = Event.objects.create(
        device=endpoint,
        type=name,
        timestamp=max([of_event, *times]) if timestamp is None else of_event,
        received_at=now,
    )
    rows = []
    for value, moment in zip(found, times, strict=True):
        row = EventResource(
            event=event, device=endpoint, path=_name(value.path), timestamp=min(moment, event.timestamp)
        )
        row.type, row.number, row.integer, row.text, row.opaque = columns(value.type, value.value)
        rows.append(row)
    if len({row.path for row in rows}) < len(rows):
        raise InvalidEvent("The event has two values of one resource")
    EventResource.objects.bulk_create(rows)
    made = Made(event.pk, name, "", event.timestamp, now, {_name(value.path): value.value for value in found})
    transaction.on_commit(partial(notify, endpoint, made), robust=True)
    return event


def _name(path: Path) -> str:
    return "/".join(map(str, path))


def _value(path: str, given: Any, definitions: Catalogue, endpoint: Endpoint) -> Value:
    """Return the value to store. Raise InvalidEvent."""
    try:
        place = paths.parse("/" + path.strip("/"))
        if isinstance(given, Value):
            found = checked(given._replace(path=place))
        else:
            Seen(()).add(place)  # Only a resource or a resource instance has a value.
            known = definitions.of_path(place, endpoint.object_versions)
            found = Value(place, *typed(_raw(given), None if known is None else known.type))
    except CodecError as error:
        raise InvalidEvent(str(error)) from error
    except (ValueError, ArithmeticError, KeyError, AttributeError) as error:
        raise InvalidEvent(f"{str(path)[:40]}: {error}") from error
    held = found.value
    if isinstance(held, str) and "\x00" in held:
        raise InvalidEvent(f"{path}: a text with NUL cannot be stored")
    if isinstance(held, float) and not math.isfinite(held):
        raise InvalidEvent(f"{path}: {held} is not a finite number")
    return found


def _raw(given: Any) -> Any:
    if isinstance(given, datetime):
        if timezone.is_naive(given):
            raise ValueError("the time has no time zone")
        return Decimal(str(given.timestamp()))
    if isinstance(given, DataType):
        return str(given)
    return bytes(given) if isinstance(given, bytearray | memoryview) else given


def _moment(value: Value) -> datetime | None:
    if value.time is None:
        return None
    try:
        return datetime.fromtimestamp(float(value.time), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidEvent(f"{_name(value.path)}: {value.time} is not a time") from error
