"""The state of a device in one word, the same for one device and for a filter over all devices of a kind.

If several hold, the first in the order of STATES is the state, and the others follow it as words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import (
    BooleanField,
    Case,
    Exists,
    ExpressionWrapper,
    IntegerField,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Concat, StrIndex, Substr
from django.utils import timezone

from devicehub.db import clock
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice, DeviceOptions, DeviceStatus

OVERDUE = 2.5  # Heartbeat intervals without a message after which a device is silent.
REVOKED = Q(mqtt_password_hash="", credentials_changed_at__isnull=False)


class State(NamedTuple):
    """A state with its glyph in icons.svg, its tone and its word."""

    name: str
    glyph: str
    tone: str
    word: str


STATES = {
    state.name: state
    for state in (
        State("disabled", "disabled", "off", "Disabled"),
        State("revoked", "revoked", "bad", "Revoked"),
        State("error", "error", "bad", "Error"),
        State("never", "never", "off", "Never seen"),
        State("silent", "silent", "warn", "Silent"),
        State("maintenance", "maintenance", "busy", "Maintenance"),
        State("provisioning", "provisioning", "busy", "Provisioning"),
        State("battery", "battery", "warn", "Low battery"),
        State("other", "wait", "off", "Other status"),
        State("connected", "connected", "good", "Connected"),
    )
}


def own_intervals() -> dict[str, list[float]]:
    """Return the intervals, in seconds, that devices of each kind have of their own, by slug; by one query."""
    slug = Substr("device_key", 1, StrIndex("device_key", Value("/")) - 1)
    rows = DeviceOptions.objects.filter(expected_heartbeat__gt=0).order_by().annotate(slug=slug)
    found: dict[str, list[float]] = {}
    for name, seconds in sorted(rows.values_list("slug", "expected_heartbeat").distinct()):
        found.setdefault(name, []).append(float(seconds or 0))
    return found


def intervals(kind: Kind, own: Mapping[str, Sequence[float]] | None = None) -> list[tuple[float, Q]]:
    """Return the heartbeat intervals of *kind*, in seconds, each with the condition for the devices that have it.

    The first is that of the kind; the others are those of devices with an interval of their own, which are few. A
    caller with many kinds gives what own_intervals() returned.
    """
    several = (own_intervals() if own is None else own).get(kind.slug, ())
    options = DeviceOptions.objects.filter(expected_heartbeat__isnull=False)
    if not several:
        return [(kind.heartbeat_interval, Q())]
    mine = options.filter(device_key=Concat(Value(f"{kind.slug}/"), OuterRef("device_id")))
    each = [(seconds, Q(Exists(mine.filter(expected_heartbeat=seconds)))) for seconds in several]
    return [(kind.heartbeat_interval, ~Q(Exists(mine))), *each]


def interval_of(kind: Kind, device: BaseDevice) -> float:
    """Return the heartbeat interval of *device* in seconds: its own, or that of *kind*."""
    if device.pk is None:
        return kind.heartbeat_interval
    if not hasattr(device, "own_heartbeat"):
        rows = DeviceOptions.objects.filter(device_key=kind.key(device.device_id))
        found = rows.values_list("expected_heartbeat", flat=True).first()
        device.own_heartbeat = found  # type: ignore[attr-defined]
    return device.own_heartbeat or kind.heartbeat_interval  # type: ignore[attr-defined]


def _is_revoked(device: BaseDevice) -> bool:
    read: bool | None = getattr(device, "is_revoked", None)
    if read is not None:
        return read
    return not device.mqtt_password_hash and device.credentials_changed_at is not None


def silent_before(seconds: float, now: datetime) -> datetime:
    """Return the time after which a device with a heartbeat of *seconds* must have sent something, or it is silent."""
    return now - timedelta(seconds=seconds * OVERDUE)


def _late(kind: Kind, now: datetime, own: Mapping[str, Sequence[float]] | None) -> Q:
    late = Q(last_seen__gt=now + clock.AHEAD)  # A clock was wrong, so the time means nothing.
    for seconds, whose in intervals(kind, own):
        late |= whose & Q(last_seen__lt=silent_before(seconds, now))
    return late


def conditions(kind: Kind, now: datetime, own: Mapping[str, Sequence[float]] | None = None) -> dict[str, Q]:
    """Return the condition of each state but the last, which holds if no other does, for queries of *kind*."""
    statuses = {
        "error": DeviceStatus.ERROR,
        "maintenance": DeviceStatus.MAINTENANCE,
        "provisioning": DeviceStatus.PROVISIONING,
        "battery": DeviceStatus.LOW_BATTERY,
    }
    quiet = Q(status=DeviceStatus.OFFLINE) | _late(kind, now, own)
    found = {
        "disabled": Q(is_active=False),
        "revoked": REVOKED,
        "never": Q(last_seen__isnull=True),
        "silent": Q(last_seen__isnull=False) & quiet,
        **{name: Q(status=status) for name, status in statuses.items()},
        "other": ~Q(status__in=DeviceStatus.values),
    }
    return {name: found[name] for name in STATES if name in found}


def holding(kind: Kind, device: BaseDevice, now: datetime | None = None) -> list[State]:
    """Return the states that hold for *device*, the one to show first."""
    now = now or timezone.now()
    seen, status = device.last_seen, device.status
    plausible = clock.plausible(seen, now)
    is_late = plausible is None or plausible < silent_before(interval_of(kind, device), now)
    holds = {
        "disabled": not device.is_active,
        "revoked": _is_revoked(device),
        "error": status == DeviceStatus.ERROR,
        "never": seen is None,
        "silent": seen is not None and (status == DeviceStatus.OFFLINE or is_late),
        "maintenance": status == DeviceStatus.MAINTENANCE,
        "provisioning": status == DeviceStatus.PROVISIONING,
        "battery": status == DeviceStatus.LOW_BATTERY,
    }
    found = [STATES[name] for name in STATES if holds.get(name)]
    if status not in DeviceStatus.values:  # Of an earlier version, or written by a program.
        found.append(STATES["other"]._replace(word=status or STATES["other"].word))
    return found or [STATES["connected"]]


def of(kind: Kind, device: BaseDevice, now: datetime | None = None) -> State:
    """Return the state of *device* to show."""
    return holding(kind, device, now)[0]


def rank(kind: Kind, now: datetime | None = None, own: Mapping[str, Sequence[float]] | None = None) -> Case:
    """Return the expression of the place of a device's state in STATES: low numbers need a look first."""
    order = list(STATES)
    cases = [
        When(condition, then=Value(order.index(name)))
        for name, condition in conditions(kind, now or timezone.now(), own).items()
    ]
    return Case(*cases, default=Value(order.index("connected")), output_field=IntegerField())


def ranked(
    kind: Kind,
    devices: QuerySet[Any],
    now: datetime | None = None,
    own: Mapping[str, Sequence[float]] | None = None,
) -> QuerySet[Any]:
    """Return *devices* with `state_rank`, the place of their state in STATES, and with what holding() reads."""
    found: QuerySet[Any] = for_a_list(kind, devices).annotate(state_rank=rank(kind, now, own))
    return found


def for_a_list(kind: Kind, devices: QuerySet[Any]) -> QuerySet[Any]:
    """Return *devices* with what holding() reads beside their columns: a list takes no query for each, and no secret.

    The interval of each is in `own_heartbeat`, and `is_revoked` is compared in the database.
    """
    key = Concat(Value(f"{kind.slug}/"), OuterRef("device_id"))
    own = DeviceOptions.objects.filter(device_key=key).values("expected_heartbeat")
    is_revoked = ExpressionWrapper(REVOKED, output_field=BooleanField())
    found: QuerySet[Any] = devices.annotate(own_heartbeat=Subquery(own), is_revoked=is_revoked)
    return found


def only(kind: Kind, devices: QuerySet[Any], name: str, now: datetime | None = None) -> QuerySet[Any]:
    """Return those of *devices* whose state to show is *name*."""
    found: QuerySet[Any] = ranked(kind, devices, now).filter(state_rank=list(STATES).index(name))
    return found
