"""The pages that add a device and change its credentials, at the addresses of the dashboard."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from devicehub.credentials import adding, answers, changes
from devicehub.credentials.answers import Links
from devicehub.dashboard.access import page
from devicehub.dashboard.links import device_url
from devicehub.kinds.registry import Kind


def _credentials(kind: Kind, device_id: str) -> str:
    return reverse("devicehub:credentials", args=[kind.slug, device_id])


def _light(kind: Kind, device_id: str) -> str:
    return reverse("devicehub:light", args=[kind.slug, device_id])


def _links(request: HttpRequest) -> Links:
    return Links(
        devices=reverse("devicehub:overview"),
        add=reverse("devicehub:add_device"),
        credentials=_credentials,
        light=_light,
        device=lambda kind, device_id: device_url(kind.key(device_id), request, [kind.key(device_id)]),
    )


@page
@require_http_methods(["GET", "HEAD", "POST"])
def add_device(request: HttpRequest) -> HttpResponse:
    """Return the form for a new device; a POST creates it and answers with its credentials, once."""
    return adding.add(request, _links(request))


@page
@require_http_methods(["GET", "HEAD", "POST"])
def credentials(request: HttpRequest, slug: str, device_id: str) -> HttpResponse:
    """Return the state of a device's credentials; a POST changes them."""
    return changes.credentials(request, answers.kind_of(slug), device_id, _links(request))


@page
@require_safe
def light(request: HttpRequest, slug: str, device_id: str) -> HttpResponse:
    """Return the first signs of life of a device as JSON, for the light on the page that showed its credentials."""
    return answers.light(request, answers.kind_of(slug), device_id)
