"""The answers about credentials that dashboard and admin share: shown once, refused, and the light.

A secret is in the answer of the request that made it and nowhere else: not in the session, not in a message, not
behind an address.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.debug import sensitive_variables

from authsvc import audit
from devicehub import visibility
from devicehub.content_security import restrict
from devicehub.credentials import handover, progress, snippets
from devicehub.kinds.identifiers import is_text
from devicehub.kinds.registry import Kind, registry
from devicehub.models import BaseDevice
from devicehub.nonces import FormUsed

USED = 409
SECRETS = ("mqtt_password", "api_key")


@dataclass(frozen=True)
class Links:
    """The addresses of one half of the site: of the dashboard, or of the admin. An empty one is left out."""

    devices: str
    add: str
    credentials: Callable[[Kind, str], str]
    light: Callable[[Kind, str], str]
    device: Callable[[Kind, str], str]


def kind_of(slug: str) -> Kind:
    """Return the kind of *slug*. Raise Http404."""
    kind = registry.get(slug)
    if kind is None:
        raise Http404
    return kind


def find(kind: Kind, device_id: str, user: Any, action: str = visibility.VIEW) -> BaseDevice:
    """Return the device if *user* may see it, or do *action* with it, locked in a transaction. Raise Http404."""
    if not is_text(device_id):
        raise Http404
    rows = visibility.devices(kind, user, action).filter(device_id=device_id)
    if transaction.get_connection().in_atomic_block:
        rows = rows.select_for_update()
    device: BaseDevice | None = rows.first()
    if device is None:
        raise Http404
    return device


@sensitive_variables()
def once(
    request: HttpRequest,
    kind: Kind,
    device: BaseDevice,
    credentials: Mapping[str, str],
    links: Links,
    *,
    is_new: bool = False,
    ends: str = "",
) -> HttpResponse:
    """Return the page with *credentials* in clear text: the answer of the request that made them."""
    shown = handover.of(kind, device, credentials)
    context = {
        "shown": shown,
        "downloads": snippets.downloads(shown),
        "snippets": snippets.snippets(shown),
        "qr": shown.qr() if shown.password else "",
        "progress": progress.of(kind, device),
        "kind": kind,
        "device": device,
        "is_new": is_new,
        "ends": ends,
        **addresses(kind, device, links),
    }
    return no_store(render(request, "devicehub/credentials_once.html", context))


def record_shown(kind: Kind, device: BaseDevice, credentials: Mapping[str, str]) -> None:
    """Record in the audit that a person gets to see *credentials*, by their names."""
    shown = [name for name in SECRETS if name in credentials]
    audit.record("credentials_shown", kind.key(device.device_id), after={"shown": shown})


def refused(request: HttpRequest, error: Exception, back: str) -> HttpResponse:
    """Return the answer to a form that was submitted before, or is too old: nothing was made, nothing is shown."""
    context = {"error": str(error), "was_used": isinstance(error, FormUsed), "back": back}
    return no_store(render(request, "devicehub/credentials_used.html", context, status=USED))


def no_store(response: HttpResponse) -> HttpResponse:
    """Keep *response* out of every cache, that of the browser's history included, and give it the strict policy."""
    response.headers["Cache-Control"] = "no-store, private"
    restrict(response)
    return response


def addresses(kind: Kind, device: BaseDevice, links: Links) -> dict[str, str]:
    """Return the addresses of the pages about *device*, for a template."""
    return {
        "devices_url": links.devices,
        "add_url": links.add,
        "credentials_url": links.credentials(kind, device.device_id),
        "light_url": links.light(kind, device.device_id),
        "device_url": links.device(kind, device.device_id),
    }


def light(request: HttpRequest, kind: Kind, device_id: str) -> HttpResponse:
    """Return the first signs of life of a device as JSON: the stage and the markup of the light, without secrets."""
    device = find(kind, device_id, request.user)
    found = progress.of(kind, device)
    html = render_to_string("devicehub/_light.html", {"progress": found, "device": device}, request)
    return no_store(JsonResponse({"stage": found.stage, "stamp": found.stamp, "html": html}))
