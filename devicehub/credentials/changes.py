"""The page about the credentials of one device: their state, and the forms that change them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.views.decorators.debug import sensitive_variables

from authsvc import audit
from authsvc.text import in_utc
from devicehub import nonces, provisioning, visibility
from devicehub.credentials import panel, progress
from devicehub.credentials.answers import Links, addresses, find, no_store, once, record_shown, refused
from devicehub.credentials.forms import ExpiryForm, ReasonForm, RotateForm, SiteForm, suggested_sites
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice
from devicehub.nonces import FormExpired, FormUsed


def credentials(request: HttpRequest, kind: Kind, device_id: str, links: Links) -> HttpResponse:
    """Return the state of the credentials with the forms that change them; a POST is one of these changes."""
    device = find(kind, device_id, request.user)
    if request.method != "POST":
        return _state(request, kind, device, links)
    if not visibility.may(request.user, visibility.CHANGE, kind.device_model):
        raise PermissionDenied("You may not change devices.")
    act = ACTS.get(request.POST.get("do", ""))
    if act is None:
        raise Http404
    form = act.form(request.user, kind, device, request.POST)
    if not form.is_valid():
        return _state(request, kind, device, links, {act.name: form})
    try:
        with audit.because(form.cleaned_data["reason"]), transaction.atomic():
            device = find(kind, device_id, request.user, visibility.CHANGE)
            done = act.run(request, kind, device, form) if act.fits(device) else ALREADY
            if isinstance(done, Made):
                record_shown(kind, device, done.credentials)
    except (FormUsed, FormExpired) as error:
        return refused(request, error, links.credentials(kind, device_id))
    if isinstance(done, Made):
        return once(request, kind, device, done.credentials, links, ends=done.ends)
    messages.info(request, done)
    return HttpResponseRedirect(links.credentials(kind, device_id))


def _state(
    request: HttpRequest,
    kind: Kind,
    device: BaseDevice,
    links: Links,
    bound: Mapping[str, forms.Form] | None = None,
) -> HttpResponse:
    may_change = visibility.may(request.user, visibility.CHANGE, kind.device_model)
    bound = bound or {}
    shown = {
        act.name: bound.get(act.name) or act.form(request.user, kind, device, None)
        for act in ACTS.values()
        if may_change and act.fits(device)
    }
    context: dict[str, Any] = {
        "panel": panel.of(kind, device),
        "progress": progress.of(kind, device),
        "kind": kind,
        "device": device,
        "forms": shown,
        "wrong": next(iter(bound), ""),
        "sites": suggested_sites(shown.get("move")),
        "rotate_nonce": nonces.issue(_purpose("rotate", kind, device), request.user),
        "key_nonce": nonces.issue(_purpose("rotate_key", kind, device), request.user),
        **addresses(kind, device, links),
    }
    return no_store(render(request, "devicehub/credentials.html", context))


ALREADY = "Nothing to do: somebody else did it meanwhile."


@dataclass(frozen=True, repr=False)
class Made:
    """Credentials that a change made, and the sentence about the end of the old ones."""

    credentials: Mapping[str, str]
    ends: str


FormMaker = Callable[[Any, Kind, BaseDevice, Any], forms.Form]


@dataclass(frozen=True)
class Act:
    """One change: its form, whether it fits a device, and the action, which returns a sentence or a secret."""

    name: str
    form: FormMaker
    run: Callable[[HttpRequest, Kind, BaseDevice, Any], str | Made]
    fits: Callable[[BaseDevice], bool] = lambda device: True


def _purpose(name: str, kind: Kind, device: BaseDevice) -> str:
    return f"{name}:{kind.key(device.device_id)}"


@sensitive_variables()
def _rotate(request: HttpRequest, kind: Kind, device: BaseDevice, form: RotateForm) -> Made:
    nonces.use(request.POST.get("nonce", ""), _purpose("rotate", kind, device), request.user)
    had, was_unused = bool(device.mqtt_password_hash), device.awaits_first_use()
    password = provisioning.rotate_password(device, valid_until=form.valid_until)
    ends = provisioning.end_of_previous(device, had=had, was_unused=was_unused)
    return Made({"mqtt_password": password}, ends)


@sensitive_variables()
def _rotate_key(request: HttpRequest, kind: Kind, device: BaseDevice, form: forms.Form) -> Made:
    nonces.use(request.POST.get("nonce", ""), _purpose("rotate_key", kind, device), request.user)
    had = device.api_key is not None
    key = provisioning.rotate_api_key(device)
    return Made({"api_key": key}, "The old key and its tokens have ended." if had else "")


def _revoke(request: HttpRequest, kind: Kind, device: BaseDevice, form: forms.Form) -> str:
    provisioning.revoke(device)
    return f"The credentials of {device.device_id} have ended: every further question about it is denied."


def _end_overlap(request: HttpRequest, kind: Kind, device: BaseDevice, form: forms.Form) -> str:
    provisioning.end_overlap(device)
    return "The old password has ended."


def _set_expiry(request: HttpRequest, kind: Kind, device: BaseDevice, form: forms.Form) -> str:
    moment = form.cleaned_data["expires_at"]
    provisioning.set_expiry(device, moment)
    if moment is None:
        return "The password does not expire."
    return f"The password is refused from {in_utc(moment)} on."


def _disable(request: HttpRequest, kind: Kind, device: BaseDevice, form: forms.Form) -> str:
    provisioning.disable(device)
    return f"{device.device_id} is disabled: it cannot log in, and its messages are not stored."


def _enable(request: HttpRequest, kind: Kind, device: BaseDevice, form: forms.Form) -> str:
    provisioning.enable(device)
    return f"{device.device_id} is enabled: it may log in and send again."


def _move(request: HttpRequest, kind: Kind, device: BaseDevice, form: forms.Form) -> str:
    site = form.cleaned_data["site"]
    provisioning.move(device, site)
    return f"{device.device_id} is at {site} now." if site else f"{device.device_id} has no site now."


def _reason(name: str, user: Any, kind: Kind, device: BaseDevice, data: Any) -> forms.Form:
    return ReasonForm(data, auto_id=f"{name}_%s")


def _rotation(user: Any, kind: Kind, device: BaseDevice, data: Any) -> forms.Form:
    return RotateForm(data, auto_id="rotate_%s")


def _expiry(user: Any, kind: Kind, device: BaseDevice, data: Any) -> forms.Form:
    return ExpiryForm(data, device=device, auto_id="expiry_%s")


def _site(user: Any, kind: Kind, device: BaseDevice, data: Any) -> forms.Form:
    return SiteForm(data, user=user, kind=kind, device=device, auto_id="move_%s")


def _has_old(device: BaseDevice) -> bool:
    return bool(device.previous_password_hash)


def _has_password(device: BaseDevice) -> bool:
    return bool(device.mqtt_password_hash)


ACTS = {
    act.name: act
    for act in (
        Act("rotate", _rotation, _rotate),
        Act("end_overlap", partial(_reason, "end"), _end_overlap, _has_old),
        Act("rotate_key", partial(_reason, "key"), _rotate_key),
        Act("expiry", _expiry, _set_expiry, _has_password),
        Act("move", _site, _move),
        Act("disable", partial(_reason, "disable"), _disable, lambda device: device.is_active),
        Act("enable", partial(_reason, "enable"), _enable, lambda device: not device.is_active),
        Act("revoke", partial(_reason, "revoke"), _revoke, provisioning.has_credentials),
    )
}
