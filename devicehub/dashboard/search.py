"""The search of the top bar: devices by id, name, username or topic, and pages by their label."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.http import require_safe

from authsvc.text import make_storable
from devicehub import states, visibility
from devicehub.dashboard import devices, navigation
from devicehub.dashboard.access import page
from devicehub.dashboard.links import device_url
from devicehub.dashboard.navigation import Link
from devicehub.dashboard.selection import LONGEST
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice
from devicehub.states import State

MOST = 20
LONGEST_TOPIC = 1024


@dataclass(frozen=True)
class Found:
    """A device that fits, and whether the text is exactly its id, its key, its username or one of its topics."""

    key: str
    device_id: str
    alias: str
    name: str
    site: str
    kind: Kind
    state: State
    url: str
    is_exact: bool


@dataclass(frozen=True)
class Results:
    """The devices and pages that fit, at most MOST devices."""

    devices: list[Found] = field(default_factory=list)
    pages: list[Link] = field(default_factory=list)
    has_more: bool = False

    @property
    def exact(self) -> Found | None:
        """The one device that the text names, or None."""
        exact = [found for found in self.devices if found.is_exact]
        return exact[0] if len(exact) == 1 else None


@page
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Return the results, or lead to the one device whose id, key or username was typed."""
    text = make_storable(request.GET.get("q", "").strip(), LONGEST_TOPIC)
    results = find(text, request)
    if results.exact is not None and results.exact.url:
        return HttpResponseRedirect(results.exact.url)
    return render(request, "devicehub/search.html", {"searched": text, "results": results, "most": MOST})


def find(text: str, request: HttpRequest) -> Results:
    """Return the devices and pages that the reader of *request* may see and that fit *text*, exact ones first."""
    if not text:
        return Results()
    found = list(_devices(text, request))
    pages = [link for link in _links(request) if text.casefold() in link.label.casefold()]
    return Results(found[:MOST], pages, len(found) > MOST)


def _devices(text: str, request: HttpRequest) -> Iterator[Found]:
    """Yield the exact ones first; of the others at most one more than MOST."""
    seen: set[str] = set()
    for kind, exact, part in _conditions(text, request.user):
        rows = devices.shown(kind, request.user, "site", "mqtt_username")
        for is_exact, condition in ((True, exact), (False, part)):
            if condition is None or len(seen) > MOST:
                continue
            for device in rows.filter(condition).order_by("device_id")[: MOST + 1 - len(seen)]:
                key = kind.key(device.device_id)
                if key not in seen:
                    seen.add(key)
                    yield _found(kind, device, request, is_exact=is_exact)


def _conditions(text: str, user: Any) -> Iterator[tuple[Kind, Q | None, Q | None]]:
    """Yield the conditions of exact devices for every kind, then those of devices that contain *text*."""
    kinds = visibility.kinds_of(user)
    address = topics.parse(text)
    for kind in kinds:
        exact = Q(device_id=text) | Q(mqtt_username=text)
        if kind.pages.alias:
            exact |= Q((kind.pages.alias, text))
        slug, _, device_id = text.partition("/")
        if slug == kind.slug and device_id:
            exact |= Q(device_id=device_id)
        if address is not None and address.kind is kind:
            exact |= Q(device_id=address.device_id)
        yield kind, exact, None
    if len(text) <= LONGEST:
        for kind in kinds:
            yield kind, None, devices.named_like(kind, text) | Q(mqtt_username__icontains=text)


def _found(kind: Kind, device: BaseDevice, request: HttpRequest, *, is_exact: bool) -> Found:
    key = kind.key(device.device_id)
    return Found(
        key=key,
        device_id=device.device_id,
        alias=devices.alias_of(kind, device),
        name=device.name,
        site=device.site,
        kind=kind,
        state=states.of(kind, device),
        url=device_url(key, request, [key]),
        is_exact=is_exact,
    )


def _links(request: HttpRequest) -> list[Link]:
    menu = navigation.menu(request)
    return [link for group in menu.groups for link in group.links] + menu.foot + menu.account
