"""The page that adds a device: the device is born with credentials, which the answer shows once."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.debug import sensitive_variables

from authsvc import audit
from devicehub import nonces, provisioning, visibility
from devicehub.credentials.answers import Links, no_store, once, record_shown, refused
from devicehub.credentials.forms import DeviceForm
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice
from devicehub.nonces import FormExpired, FormUsed

ATTEMPTS = 5  # Another process may take the next free id first.
ADDED = "add-device"


@sensitive_variables("credentials")
def add(request: HttpRequest, links: Links) -> HttpResponse:
    """Return the form for a new device; a POST creates it and answers with its credentials, once."""
    kinds = visibility.kinds_of(request.user, visibility.ADD)
    if not kinds:
        raise PermissionDenied("You may not add devices.")
    free = {kind.slug: _next_id(kind, request.user) for kind in kinds}
    form = DeviceForm(
        request.POST if request.method == "POST" else None,
        user=request.user,
        kinds=kinds,
        free=", ".join(f"{free[kind.slug]} ({kind.name})" for kind in kinds),
        initial={"type": request.GET.get("type", "")},
    )
    if request.method == "POST" and form.is_valid():
        try:
            return _added(request, form, links)
        except (FormUsed, FormExpired) as error:
            return refused(request, error, links.add)
        except provisioning.IdentityTaken as error:
            form.add_error("device_id", _taken(request.user, error))
        except IntegrityError:  # Another process took the id between the check and the insert.
            form.add_error("device_id", "This id is taken; choose another one.")
    return no_store(
        render(
            request,
            "devicehub/device_add.html",
            {"form": form, "links": links, "nonce": nonces.issue(ADDED, request.user)},
        )
    )


@sensitive_variables("credentials")
def _added(request: HttpRequest, form: DeviceForm, links: Links) -> HttpResponse:
    values = form.cleaned_data
    kind = provisioning.kind_of(values["type"])
    with audit.because(values["reason"]), transaction.atomic():
        nonces.use(request.POST.get("nonce", ""), ADDED, request.user)
        device, credentials = _create(
            kind, values["device_id"], request.user, name=values["name"], site=values["site"]
        )
        if tags := values.get("tags"):
            provisioning.set_tags(kind.key(device.device_id), tags)
        record_shown(kind, device, credentials)
    return once(request, kind, device, credentials, links, is_new=True)


def _create(kind: Kind, device_id: str, user: Any, **fields: Any) -> tuple[BaseDevice, dict[str, str]]:
    """Create the device; without *device_id* under the next free id, which another process may take meanwhile."""
    for attempt in range(1, ATTEMPTS + 1):
        chosen = device_id or _next_id(kind, user)
        try:
            with transaction.atomic():
                refuse_used(kind, chosen, user)
                return provisioning.create(kind, chosen, **fields)
        except (provisioning.IdentityTaken, IntegrityError):
            if device_id or attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def refuse_used(kind: Kind | None, device_id: str, user: Any) -> None:
    """Raise IdentityTaken if *user* has a limit, and an earlier device with this id left records."""
    if kind and visibility.is_limited(user) and visibility.with_records({kind.key(device_id)}):
        raise provisioning.IdentityTaken("An earlier device had this id; choose another one.")


def _next_id(kind: Kind, user: Any) -> str:
    """Return a free id after that of the newest device that *user* sees."""
    return provisioning.next_id(kind, visibility.devices(kind, user).order_by("-pk")[:1])


def _taken(user: Any, error: Exception) -> str:
    """Return the sentence about a name that is taken. People with a limit do not learn by which device."""
    return "This id is taken; choose another one." if visibility.is_limited(user) else f"{error}."
