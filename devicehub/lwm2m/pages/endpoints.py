"""The list of endpoints, and the page of one: its registration, its tree and the history of a resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from authsvc.text import make_storable
from devicehub import states, visibility
from devicehub.dashboard import devices, links, navigation
from devicehub.kinds import topics
from devicehub.kinds.identifiers import is_device_id
from devicehub.kinds.topics import MessageType
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, ResourceValue
from devicehub.lwm2m.pages import chart
from devicehub.lwm2m.pages import tree as trees
from devicehub.lwm2m.pages.access import endpoint_page, visible
from devicehub.lwm2m.pages.place import parse

PAGE = 50
LONGEST = 128
COLUMNS = (
    "site", "endpoint_name", "registered", "registered_at", "last_registration", "lifetime", "lwm2m_version",
    "binding", "queue_mode", "sleeping", "object_links",
)  # fmt: skip
STATES: Mapping[str, tuple[str, Q]] = {
    "registered": ("Registered", Q(registered=True)),
    "sleeping": ("Asleep", Q(registered=True, sleeping=True)),
    "unregistered": ("Not registered", Q(registered=False)),
}


@dataclass(frozen=True)
class Registration:
    """The state of a registration: a state of the pages and its word, and the time at which it ends or has ended."""

    state: str
    word: str
    ends_at: datetime | None = None
    ends_in: str = ""


def registration(endpoint: Endpoint, now: datetime) -> Registration:
    """Return the registration of *endpoint* as pages show it."""
    ends = endpoint.registration_ends_at
    if not endpoint.registered:
        word = "Not registered" if endpoint.last_registration else "Never registered"
        return Registration("never", word)
    if ends is not None and ends < now:
        return Registration("expires", "Registration expired", ends)
    shown = "" if ends is None else span(ends - now)
    if endpoint.sleeping:
        return Registration("asleep", "Asleep", ends, shown)
    return Registration("connected", "Registered", ends, shown)


def span(length: timedelta) -> str:
    """Return a length of time in its two largest units.

    >>> span(timedelta(days=1, hours=2, minutes=3)), span(timedelta(seconds=62)), span(timedelta(days=800))
    ('1 d 2 h', '1 min 2 s', '800 d')
    """
    seconds = int(length.total_seconds())
    parts = [
        f"{value:,} {name}"
        for value, name in (
            (seconds // 86_400, "d"),
            (seconds // 3_600 % 24, "h"),
            (seconds // 60 % 60, "min"),
            (seconds % 60, "s"),
        )
        if value
    ]
    return " ".join(parts[: 1 if seconds >= 100 * 86_400 else 2]) or "0 s"


@endpoint_page
@require_safe
def show_list(request: HttpRequest) -> HttpResponse:
    """Return the list of endpoints with their registrations."""
    search = make_storable(request.GET.get("q", "").strip(), LONGEST)
    state = request.GET.get("state", "")
    after = request.GET.get("after", "")
    everything = visible(request.user)
    rows = states.for_a_list(KIND, everything).only(*devices.SHOWN, *COLUMNS)
    if search:
        rows = rows.filter(devices.named_like(KIND, search))
    if state in STATES:
        rows = rows.filter(STATES[state][1])
    if is_device_id(after):
        rows = rows.filter(device_id__gt=after)
    found = list(rows.order_by("device_id")[: PAGE + 1])
    now = timezone.now()
    query = {name: value for name, value in (("q", search), ("state", state)) if value}
    more = f"?{urlencode({**query, 'after': found[PAGE - 1].device_id})}" if len(found) > PAGE else ""
    context = {
        "rows": [_row(endpoint, now) for endpoint in found[:PAGE]],
        "asked": search,
        "state": state,
        "states": [(value, word) for value, (word, _) in STATES.items()],
        "is_filtered": bool(query),
        "first": f"?{urlencode(query)}" if after else "",
        "next": more,
        "counts": _counts(everything) if found and not query and not after else None,
        "may_add": visibility.may(request.user, visibility.ADD, Endpoint),
    }
    return render(request, "devicehub/lwm2m/endpoints.html", context)


def _counts(endpoints: Any) -> dict[str, int]:
    """Return the number of endpoints in each state, by one query."""
    counted = {f"in_{name}": Count("pk", filter=condition) for name, (_, condition) in STATES.items()}
    found = endpoints.aggregate(**counted)
    return {name: found[f"in_{name}"] for name in STATES}


def _row(endpoint: Endpoint, now: datetime) -> dict[str, Any]:
    registered = endpoint.object_links if isinstance(endpoint.object_links, list) else []
    return {
        "endpoint": endpoint,
        "alias": devices.alias_of(KIND, endpoint),
        "state": states.of(KIND, endpoint, now),
        "registration": registration(endpoint, now),
        "objects": len({str(link).split("/")[1] for link in registered if str(link).startswith("/")}),
        "url": links.device_page(KIND, endpoint.device_id),
    }


@endpoint_page
@require_safe
def show_objects(request: HttpRequest, device_id: str) -> HttpResponse:
    """Return the page of one endpoint."""
    if not is_device_id(device_id):
        raise Http404
    endpoint = visible(request.user).filter(device_id=device_id).first()
    if endpoint is None:
        raise Http404
    now, place = timezone.now(), parse(request.GET)
    with_chart = replace(place, resource=place.resource or chart.first_choice(endpoint))
    history = chart.history(endpoint, with_chart, now)
    known = history.known if history else None
    context = {
        "endpoint": endpoint,
        "alias": devices.alias_of(KIND, endpoint),
        "state": states.of(KIND, endpoint, now),
        "registration": registration(endpoint, now),
        "tree": trees.tree(endpoint, place, now, with_chart.resource),
        "place": place,
        "whole": place.over(object_id=None, after="", first=0, search=""),
        "history": history,
        "allowed": chart.operations_in_words(known) if known else "",
        "old_after": span(trees.lifetime(endpoint)),
        "lifetime": span(trees.lifetime(endpoint)) if endpoint.lifetime else "",
        "topic": topics.build(KIND, device_id, MessageType.STATUS),
        "data_topic": topics.build(KIND, device_id, MessageType.DATA),
        "now": now.timestamp(),
        **_addresses(request, endpoint),
    }
    return render(request, "devicehub/lwm2m/objects.html", context)


def _addresses(request: HttpRequest, endpoint: Endpoint) -> dict[str, str]:
    """Return the addresses of the pages about *endpoint* that the reader may open."""
    events = links.address("devicehub:lwm2m_events")
    may_change = visibility.may(request.user, visibility.CHANGE, Endpoint)
    credentials = links.address("devicehub:credentials", KIND.slug, endpoint.device_id) if may_change else ""
    staff = navigation.is_staff(request)
    in_admin = links.address("admin:lwm2m_endpoint_change", endpoint.pk) if staff else ""
    may_list = staff and visibility.may(request.user, visibility.VIEW, ResourceValue)
    values = links.address("admin:lwm2m_resourcevalue_changelist") if may_list else ""
    return {
        "events_url": f"{events}?{urlencode({'endpoint': endpoint.device_id})}" if events else "",
        "credentials_url": credentials,
        "admin_url": in_admin,
        "values_url": f"{values}?device={endpoint.pk}" if values else "",
    }
