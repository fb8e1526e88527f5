"""The addresses of pages about one thing."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlencode

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from devicehub import provisioning
from devicehub.dashboard import navigation
from devicehub.kinds.registry import Kind, UnknownKey, registry


def device_url(key: str, request: HttpRequest | None = None, existing: Collection[str] | None = None) -> str:
    """Return the address of the device called *key* for the reader of *request*; "" if there is no such device.

    It is the page of the device, or while there is none its admin page if the reader may open that, or else its row
    on the overview. *existing* contains the key if the device exists; without it a query tells.
    """
    try:
        kind, device_id = registry.resolve(key)
    except UnknownKey:
        return ""
    if key not in (provisioning.existing([key]) if existing is None else existing):
        return ""
    own = device_page(kind, device_id)
    in_admin = ""
    if not own and request is not None and navigation.is_staff(request):
        in_admin = _admin_page(kind, device_id)
    overview = address("devicehub:overview")
    return own or in_admin or (f"{overview}?{urlencode({'q': device_id})}" if overview else "")


def device_page(kind: Kind, device_id: str) -> str:
    """Return the address of the page of a device, that of its kind if there is one; "" while there is none."""
    own = address(kind.pages.device_page, device_id) if kind.pages.device_page else ""
    return own or address("devicehub:device", kind.slug, device_id)


def address(name: str, *arguments: object) -> str:
    """Return the address of the URL *name*, or "" if the project leaves it out."""
    try:
        return reverse(name, args=arguments)
    except NoReverseMatch:
        return ""


def _admin_page(kind: Kind, device_id: str) -> str:
    """Return the address that leads to the admin page of a device that exists; "" without one.

    It takes no query, unless a project registered a page of its own.
    """
    name = f"admin:{kind.device_model._meta.app_label}_{kind.device_model._meta.model_name}"
    if found := address(f"{name}_named", device_id):
        return found
    pk = kind.device_model.objects.filter(device_id=device_id).values_list("pk", flat=True).first()
    return "" if pk is None else address(f"{name}_change", pk)
