"""The account of the reader: theme, password, second factor, API keys and sessions."""

from __future__ import annotations

import io
from typing import Any

import segno
from django import forms
from django.contrib import messages
from django.contrib.auth.views import PasswordChangeView
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse, reverse_lazy
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST, require_safe

from authsvc import audit
from devicehub import nonces, second_factor, sessions, visibility
from devicehub.dashboard.access import signed_in
from devicehub.models import ApiKey

NONCE = "second-factor"


class PasswordForm(forms.Form):
    """The password of the reader again, before a change of the second factor."""

    password = forms.CharField(
        label="Your password",
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(*args)
        self._request = request

    def clean_password(self) -> str:
        """Return the password, checked with the limits of a sign-in. Raise ValidationError if it is wrong."""
        password = str(self.cleaned_data["password"])
        if not sessions.is_own_password(self._request, password):
            raise forms.ValidationError("This is not your password. Capitals and small letters count.")
        return password


class CodeForm(forms.Form):
    """The first code of a new authenticator app."""

    code = forms.CharField(
        label="Code of the app",
        max_length=16,
        help_text="The six digits that the app shows now.",
        widget=forms.TextInput(
            attrs={
                "autocomplete": "one-time-code",
                "inputmode": "numeric",
                "class": "mono",
                "spellcheck": "false",
            }
        ),
    )


@signed_in
@require_safe
def show(request: HttpRequest) -> HttpResponse:
    """Return the page of the account."""
    own = sessions.own(request)
    return render(
        request,
        "devicehub/account.html",
        {
            "roles": list(request.user.groups.values_list("name", flat=True)),
            "sites": visibility.sites_of(request.user),
            "has_second_factor": second_factor.is_on(request.user),
            "offers_second_factor": second_factor.is_installed(),
            "keys": list(ApiKey.objects.filter(owner_id=request.user.pk)),
            "own": own,
            "others": list(sessions.others(request).order_by("-last_seen", "-pk")) if own else [],
        },
    )


@signed_in
@require_POST
def end_others(request: HttpRequest) -> HttpResponse:
    """End the other sessions of the reader."""
    with transaction.atomic():
        ended = sessions.end_others(request)
        audit.record("sessions_ended", f"user/{request.user.get_username()}", after={"sessions": ended})
    messages.success(request, f"{ended} other session{'' if ended == 1 else 's'} ended. This one goes on.")
    return HttpResponseRedirect(reverse("devicehub:account"))


class PasswordChange(PasswordChangeView):
    """Change the password. Sessions with the old one end."""

    template_name = "devicehub/account_password.html"
    success_url = reverse_lazy("devicehub:account")

    @transaction.atomic
    def form_valid(self, form: Any) -> HttpResponse:
        """Store the password, which records itself, and end the other sessions."""
        response = super().form_valid(form)
        sessions.end_others(self.request)
        messages.success(self.request, "The new password is in force, and your other sessions have ended.")
        return response


change_password = signed_in(PasswordChange.as_view())


@signed_in
@sensitive_post_parameters()
def show_second_factor(request: HttpRequest) -> HttpResponse:
    """Show, add or remove the second factor. Keys and backup codes are in the answer that makes them, once."""
    if not second_factor.is_installed():
        return HttpResponseRedirect(reverse("devicehub:account"))
    act = _ACTS.get(request.POST.get("act", "")) if request.method == "POST" else None
    return act(request) if act else _second_factor(request)


def _second_factor(request: HttpRequest, **context: Any) -> HttpResponse:
    is_on = second_factor.is_on(request.user)
    return render(
        request,
        "devicehub/account_second_factor.html",
        {
            "is_on": is_on,
            "codes_left": second_factor.backup_codes_left(request.user) if is_on else 0,
            "nonce": nonces.issue(NONCE, request.user),
            "form": PasswordForm(request),
            **context,
        },
    )


def _begin(request: HttpRequest) -> HttpResponse:
    """Make a key, and show it once."""
    if second_factor.is_on(request.user):
        return _second_factor(request)
    form = PasswordForm(request, request.POST)
    if not form.is_valid():
        return _second_factor(request, form=form)
    try:
        with transaction.atomic():
            nonces.use(request.POST.get("nonce", ""), NONCE, request.user)
            device = second_factor.prepare(request.user)
    except (nonces.FormUsed, nonces.FormExpired) as error:
        return _second_factor(request, problem=str(error))
    url = str(device.config_url)
    return _second_factor(request, key=_in_groups(url), qr=_qr(url), code_form=CodeForm())


def _confirm(request: HttpRequest) -> HttpResponse:
    """Turn the key on with its first code, and show the backup codes once."""
    form = CodeForm(request.POST)
    codes = second_factor.confirm(request.user, form.cleaned_data["code"]) if form.is_valid() else None
    if codes is None:
        if form.is_valid():
            form.add_error("code", "This code does not fit. Wait for the next one of the app and type that.")
        return _second_factor(request, code_form=form)
    sessions.end_others(request)
    return _second_factor(request, codes=codes)


def _renew(request: HttpRequest) -> HttpResponse:
    """Make new backup codes, and show them once."""
    form = PasswordForm(request, request.POST)
    if not second_factor.is_on(request.user) or not form.is_valid():
        return _second_factor(request, form=form)
    try:
        with transaction.atomic():
            nonces.use(request.POST.get("nonce", ""), NONCE, request.user)
            codes = second_factor.renew_backup_codes(request.user)
    except (nonces.FormUsed, nonces.FormExpired) as error:
        return _second_factor(request, problem=str(error))
    return _second_factor(request, codes=codes)


def _remove(request: HttpRequest) -> HttpResponse:
    form = PasswordForm(request, request.POST)
    if not form.is_valid():
        return _second_factor(request, form=form)
    if second_factor.remove(request.user):
        messages.success(request, "Your second factor is removed. The password alone signs you in.")
    else:
        messages.info(request, "You have no second factor. The password alone signs you in.")
    return HttpResponseRedirect(reverse("devicehub:account"))


_ACTS = {"begin": _begin, "confirm": _confirm, "renew": _renew, "remove": _remove}


def _in_groups(url: str) -> str:
    """Return the key in *url* in groups of four, for people who type it."""
    key = url.partition("secret=")[2].partition("&")[0]
    return " ".join(key[start : start + 4] for start in range(0, len(key), 4))


def _qr(text: str) -> SafeString:
    """Return *text* as a QR code in SVG, drawn here and so without a request that holds it."""
    drawn = io.BytesIO()
    segno.make(text, error="m", micro=False).save(
        drawn, kind="svg", xmldecl=False, svgns=False, svgclass="qr", lineclass=None, omitsize=True, border=2
    )
    return mark_safe(drawn.getvalue().decode())  # noqa: S308 - segno draws a path, and no text of the input is in it.
