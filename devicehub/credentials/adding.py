"""The page that adds a device: the device is born with credentials, which the answer shows once."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.debug import sensitive_variables

from authsvc import audit
from devicehub import nonces, provisioning, visibility
from devicehub.credentials.answers import Links, no_store, once, record_shown, refused
from devicehub.credentials.forms import DeviceForm
from devicehub.nonces import FormExpired, FormUsed

ADDED = "add-device"


@sensitive_variables("credentials")
def add(request: HttpRequest, links: Links) -> HttpResponse:
    """Return the form for a new device; a POST creates it and answers with its credentials, once."""
    kinds = visibility.kinds_of(request.user, visibility.ADD)
    if not kinds:
        raise PermissionDenied("You may not add devices.")
    free = {kind.slug: provisioning.next_free_id(kind, request.user) for kind in kinds}
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
            form.add_error("device_id", f"{str(error).removesuffix('.')}.")
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
        device, credentials = provisioning.add_device(
            kind,
            values["device_id"],
            request.user,
            name=values["name"],
            site=values["site"],
            tags=values.get("tags", ()),
        )
        record_shown(kind, device, credentials)
    return once(request, kind, device, credentials, links, is_new=True)
