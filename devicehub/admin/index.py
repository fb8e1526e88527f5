"""The start page of the admin: numbers that lead to lists, the rows that need a look, and the last changes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import CharField, Count, F, Max, Q, QuerySet, Value
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.text import capfirst

from authsvc import audit
from authsvc.caches import BoundedCache
from authsvc.models import Account, AuditEntry, Broker, Denial
from devicehub import provisioning, states, visibility
from devicehub.admin import cells, texts
from devicehub.dashboard.rotations import visible_rotations
from devicehub.denials import reasons
from devicehub.kinds.registry import Kind, registry
from devicehub.models import QuarantinedMessage, Rotation

DAY = timedelta(days=1)
STOPPED = timedelta(hours=1)  # A broker that asked before and not in this time is shown as stopped.
FRESH = 10  # Seconds for which the counts beside the navigation are cached.
LOOKS, CHANGES, BROKERS, FOUND = 5, 10, 10, 20  # The rows of each part at most.
LONGEST = 128  # Characters of a search.
BY_TYPE = "#dh-types"  # The chart by type on the start page: each of its parts has a list of its own.
TILES = ("connected", "silent", "never", "error", "revoked", "disabled")
TONES = ("good", "busy", "warn", "bad", "off")  # The order of the parts of a bar.
BAR, GAP, THINNEST = 1000.0, 3.0, 12.0  # The width of a bar, between its parts, and of its smallest part.

_counts: BoundedCache[tuple[str, str], tuple[float, dict[str, int]]] = BoundedCache(lambda: 100)


@dataclass(frozen=True)
class Tile:
    """A number with a link to the list of the rows that it counts."""

    label: str
    value: int
    url: str
    tone: str = ""
    glyph: str = ""

    @property
    def is_red(self) -> bool:
        """Whether the number is red: something went wrong. An operator revoked the others, so they are in order."""
        return self.tone == "bad" and self.value > 0 and self.glyph != "revoked"


@dataclass(frozen=True)
class Part:
    """A part of a bar: the devices of a type in one state, with the link to their list."""

    label: str
    value: int
    url: str
    tone: str
    glyph: str
    left: float
    width: float


@dataclass(frozen=True)
class Bar:
    """The devices of a type, divided by state."""

    name: str
    total: int
    url: str
    parts: list[Part]


@dataclass(frozen=True)
class Look:
    """A row that needs a look: what happened, to which object, and when."""

    sentence: str
    what: str
    url: str
    tone: str
    glyph: str
    at: datetime


@dataclass(frozen=True)
class Change:
    """A row of the audit: its author, its action in words, and its object as a link."""

    actor: str
    action: str
    object: str
    at: datetime


@dataclass(frozen=True)
class Fleet:
    """The content of the page."""

    tiles: list[Tile] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    sees_changes: bool = False
    changes: list[Change] = field(default_factory=list)
    changes_url: str = ""
    brokers: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """A result of the search, with the attributes that unfold shows."""

    title: str
    description: str
    link: str
    icon: str = "tag"


def numbers(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Return *context* with the content of the page as `fleet`."""
    return {**context, "title": "Overview of the administration", "fleet": fleet(request)}


def fleet(request: HttpRequest) -> Fleet:
    """Return the content of the page for the reader of *request*."""
    by_kind = _states(request.user)
    every = {name: sum(found.get(name, 0) for found in by_kind.values()) for name in states.STATES}
    tiles = [_tile(name, every, _lists(name, by_kind)) for name in TILES] if by_kind else []
    found = counts(request.user)
    for label, model, name, query in (
        ("Denied, 24 h", Denial, "denials", "?since=24h&dismissed=no"),
        ("Quarantine, 24 h", QuarantinedMessage, "quarantine", "?since=24h&replayed=no"),
    ):
        if may_list(request, model):
            tone = "bad" if found.get(name) else ""
            tiles.append(Tile(label, found.get(name, 0), cells.list_url(model, query), tone))
    sees_changes = visibility.may(request.user, visibility.VIEW, AuditEntry)
    return Fleet(
        tiles=tiles,
        bars=[_bar(kind, found) for kind, found in by_kind.items()],
        looks=_looks(request),
        sees_changes=sees_changes,
        changes=_changes(request.user) if sees_changes else [],
        changes_url=cells.list_url(AuditEntry) if may_list(request, AuditEntry) else "",
        brokers=list(_brokers()[:BROKERS]) if may_list(request, Broker) else [],
    )


def may_list(request: HttpRequest, model: type[Any]) -> bool:
    """Return whether the admin shows the list of *model* to the reader of *request*."""
    page = admin.site._registry.get(model)
    return page is not None and page.has_view_permission(request)


def _states(user: Any) -> dict[Kind, dict[str, int]]:
    """Return the number of devices in each state, for the kinds that *user* may see, by two queries."""
    own = states.own_intervals()
    names, found = list(states.STATES), {kind: {} for kind in visibility.kinds_of(user)}  # type: ignore[var-annotated]
    queries = [
        states.ranked(kind, visibility.devices(kind, user), own=own)
        .order_by()
        .annotate(slug=Value(kind.slug, CharField()))
        .values_list("slug", "state_rank")
        .annotate(Count("pk"))
        for kind in found
    ]
    for slug, rank, count in queries[0].union(*queries[1:], all=True) if queries else ():
        kind = registry.get(slug)
        if kind is not None:
            found[kind][names[rank]] = count
    return found


def _tile(name: str, found: dict[str, int], kinds: Sequence[Kind]) -> Tile:
    """Return the number of devices in the state *name*. It leads to their list, or to the numbers of *kinds* below."""
    state = states.STATES[name]
    url = cells.list_url(kinds[0].device_model, f"?state={name}") if len(kinds) == 1 else BY_TYPE
    return Tile(_label(state), found.get(name, 0), url, state.tone, state.glyph)


def _lists(name: str, by_kind: dict[Kind, dict[str, int]]) -> list[Kind]:
    """Return the kinds that have devices in the state *name*; if there are none, all."""
    return [kind for kind, found in by_kind.items() if found.get(name)] or list(by_kind)


def _label(state: states.State) -> str:
    return "In error" if state.name == "error" else state.word


def _bar(kind: Kind, found: dict[str, int]) -> Bar:
    """Return the bar of *kind*. *found* are its devices by state."""
    shown = [state for state in states.STATES.values() if found.get(state.name)]
    shown.sort(key=lambda state: TONES.index(state.tone))
    left, parts = 0.0, []
    for state, width in zip(shown, _widths([found[state.name] for state in shown]), strict=True):
        url = cells.list_url(kind.device_model, f"?state={state.name}")
        value = found[state.name]
        parts.append(
            Part(_label(state), value, url, state.tone, state.glyph, round(left, 1), round(width, 1))
        )
        left += width + GAP
    name = capfirst(texts.in_a_sentence(str(kind.device_model._meta.verbose_name_plural)))
    return Bar(name, sum(part.value for part in parts), cells.list_url(kind.device_model), parts)


def _widths(values: Sequence[int]) -> list[float]:
    """Return the widths of the parts of a bar. A small part keeps a width that can be seen; the others share the rest.

    >>> [round(width) for width in _widths([3, 1])], [round(width) for width in _widths([100_000, 1])]
    ([742, 255], [985, 12])
    """
    total = sum(values)
    rest = BAR - GAP * (len(values) - 1) - THINNEST * len(values)
    return [THINNEST + rest * value / total for value in values]


def counts(user: Any) -> dict[str, int]:
    """Return the counts beside the navigation by name, at most FRESH seconds old, by one query."""
    sites = visibility.sites_of(user)
    key = (str(user.pk), repr(sites and sorted(sites)))
    kept = _counts.get(key)
    if kept is None or time.monotonic() - kept[0] > FRESH:
        kept = (time.monotonic(), _count(user))
        _counts.put(key, kept)
    return kept[1]


def _count(user: Any) -> dict[str, int]:
    now = timezone.now()
    denials = Denial.objects.filter(last_at__gte=now - DAY, dismissed_at=None)
    quarantined = QuarantinedMessage.objects.filter(
        received_at__gte=now - DAY, replayed_at=None, dismissed_at=None
    )
    queries = {
        "denials": visibility.rows(denials, user, "principal"),
        "quarantine": visibility.rows(quarantined, user),
        "rotations": visible_rotations(user).filter(ended_at=None, origin=Rotation.Origin.ROTATION),
        "brokers": Broker.objects.filter(is_active=True, uses__isnull=False)
        .exclude(uses__last_at__gte=now - STOPPED)
        .distinct(),
    }
    first, *others = [
        rows.order_by().values_list(Value(name, CharField())).annotate(Count("pk", distinct=True))
        for name, rows in queries.items()
    ]
    return dict(first.union(*others, all=True))


def _looks(request: HttpRequest) -> list[Look]:
    """Return the newest denials and quarantined messages of the last day."""
    since, found = timezone.now() - DAY, []
    if may_list(request, Denial):
        denials = Denial.objects.filter(last_at__gte=since, dismissed_at=None).exclude(reason=Denial.REST)
        for denial in visibility.rows(denials, request.user, "principal").order_by("-last_at")[:LOOKS]:
            sentence = reasons.sentence(denial)
            who = denial.principal or denial.username or "an unknown client"
            did = f"{who} {denial.action} {denial.topic}".rstrip()
            found.append(Look(sentence, did, _change(denial), "bad", "error", denial.last_at))
    if may_list(request, QuarantinedMessage):
        waiting = {"replayed_at": None, "dismissed_at": None}
        rows = QuarantinedMessage.objects.filter(received_at__gte=since, **waiting).defer("payload")
        for row in visibility.rows(rows, request.user).order_by("-received_at")[:LOOKS]:
            sentence = row.detail or row.reason
            found.append(
                Look(sentence, row.device_key or row.topic, _change(row), "warn", "part", row.received_at)
            )
    return sorted(found, key=lambda look: look.at, reverse=True)[:LOOKS]


def _changes(user: Any) -> list[Change]:
    rows = visibility.rows(AuditEntry.objects.all(), user, "object_key")
    newest = list(rows.order_by("-at", "-pk")[:CHANGES])
    found = provisioning.existing({row.object_key for row in newest})
    return [
        Change(row.actor, audit.label(row.action), cells.changed(row.object_key, found), row.at)
        for row in newest
    ]


def _brokers() -> QuerySet[Any]:
    """Return the brokers with the time of their last question, those that stopped first."""
    asked = Broker.objects.filter(is_active=True).annotate(asked_at=Max("uses__last_at"))
    return asked.order_by(F("asked_at").asc(nulls_first=True), "name")


def _change(row: Any) -> str:
    meta = row._meta
    try:
        return reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return ""


def search(request: HttpRequest, term: str) -> list[Found]:
    """Return at most FOUND devices, accounts and denied topics with *term*, of those that the reader may see."""
    found: list[Found] = []
    term = term.strip()[:LONGEST]
    if not term or "\x00" in term:
        return found
    for kind in visibility.kinds_of(request.user):
        devices = visibility.devices(kind, request.user).filter(
            Q(device_id__icontains=term) | Q(name__icontains=term) | Q(mqtt_username__icontains=term)
        )
        for device in devices.order_by("device_id")[: FOUND - len(found)]:
            found.append(Found(device.device_id, device.name or kind.name, _change(device), "memory"))
    if may_list(request, Account):
        for account in Account.objects.filter(username__icontains=term)[: FOUND - len(found)]:
            found.append(Found(account.username, "Service account", _change(account), "smart_toy"))
    if may_list(request, Denial):
        denials = visibility.rows(Denial.objects.filter(topic__icontains=term), request.user, "principal")
        for denial in denials.order_by("-last_at")[: FOUND - len(found)]:
            found.append(Found(denial.topic, "Denial", _change(denial), "gpp_bad"))
    return [one for one in found if one.link]
