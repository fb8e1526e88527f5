"""The API keys of the reader: make one, which its answer shows once, and delete one."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_http_methods

from authsvc import audit
from devicehub import api_keys, nonces, visibility
from devicehub.api_keys import MadeKey
from devicehub.credentials.answers import USED, no_store
from devicehub.credentials.forms import MomentField, ReasonField, ReasonForm, SiteField, suggested_sites
from devicehub.credentials.literals import in_shell
from devicehub.dashboard import confirmation
from devicehub.dashboard.access import signed_in
from devicehub.dashboard.account import PasswordForm
from devicehub.dashboard.confirmation import Confirmation
from devicehub.kinds.registry import registry
from devicehub.models import ApiKey
from devicehub.nonces import FormExpired, FormUsed

PURPOSE = "add:api_key"
ALL_OWN = "All of your sites"


class KeySiteField(SiteField):
    """The site of a key: one of those of its owner if they are limited, otherwise any."""

    def __init__(self, user: Any) -> None:
        super().__init__(user, list(registry))
        self.required = False
        self.help_text = "The key then reaches the devices of this site alone."
        if isinstance(self.widget, forms.Select):
            self.widget.choices = [("", ALL_OWN), *self.widget.choices]


class KeyForm(PasswordForm):
    """A new key. It asks for the password of the reader again, since a key outlives their session."""

    field_order = ("name", "scopes", "site", "expires_at", "reason", "password")
    name = forms.CharField(
        max_length=100,
        help_text="The program that will use it, such as the yield forecast.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        choices=list(api_keys.SCOPES.items()),
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
    )
    expires_at = MomentField(
        label="Expires, in UTC", required=False, help_text="Left empty it does not expire."
    )

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        super().__init__(request, *args)
        user: Any = request.user
        if not user.has_usable_password():
            del self.fields["password"]
        site = KeySiteField(user)
        if visibility.sites_of(user) or site.suggested:
            self.fields["site"] = site
        self.fields["reason"] = ReasonField()
        self.order_fields(self.field_order)

    def clean_site(self) -> str:
        """Return the site. Raise ValidationError for one that is not the reader's."""
        site, own = str(self.cleaned_data["site"]), visibility.sites_of(self._request.user)
        if site and own is not None and site not in own:
            raise forms.ValidationError("Choose one of your sites.")
        return site


@signed_in
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def add(request: HttpRequest) -> HttpResponse:
    """Return the form for a new key; a POST makes it, and its answer shows it once."""
    if request.method != "POST":
        return _form(request, KeyForm(request))
    form = KeyForm(request, request.POST)
    if not form.is_valid():
        return _form(request, form)
    given = form.cleaned_data
    try:
        with audit.because(given["reason"]), transaction.atomic():
            nonces.use(request.POST.get("nonce", ""), PURPOSE, request.user)
            made = api_keys.create(
                request.user,
                given["name"],
                given["scopes"],
                site=given.get("site", ""),
                expires_at=given["expires_at"],
            )
    except api_keys.InvalidKey as error:
        form.add_error(error.field, str(error))
        return _form(request, form)
    except (FormUsed, FormExpired) as error:
        return _refused(request, error)
    return _once(request, made)


@signed_in
@require_http_methods(["GET", "HEAD", "POST"])
def delete(request: HttpRequest, number: int) -> HttpResponse:
    """Return the question before the deletion of a key of the reader; its answer deletes the key."""
    key = ApiKey.objects.filter(owner_id=request.user.pk, pk=number).first()
    if key is None:
        raise Http404
    form = ReasonForm(request.POST if "confirmed" in request.POST else None)
    if not confirmation.is_answered(request, form, 1):
        ask = Confirmation(
            question=f"Delete the API key {key.name}?",
            text=f"Each request with the key {key.start}… is refused from then on. A deleted key does not come back: "
            "its program then needs a new one.",
            verb="Delete the key",
            keep="Keep it",
            keep_url=reverse("devicehub:account"),
        )
        return confirmation.page_with(request, ask, form)
    with audit.because(form.cleaned_data["reason"]):
        api_keys.delete(key)
    messages.success(request, f"The API key {key.name} is deleted. Each request with it is refused.")
    return HttpResponseRedirect(reverse("devicehub:account"))


def _form(request: HttpRequest, form: KeyForm) -> HttpResponse:
    context = {
        "form": form,
        "sites": suggested_sites(form),
        "nonce": nonces.issue(PURPOSE, request.user),
        "scopes": list(api_keys.SCOPES),
    }
    return no_store(render(request, "devicehub/account_key_add.html", context))


@sensitive_variables()
def _once(request: HttpRequest, made: MadeKey) -> HttpResponse:
    """Return the page with the key in clear text: the answer of the request that made it."""
    url = request.build_absolute_uri(reverse("devicehub:api"))
    curl = (
        f'export HUB_KEY={in_shell(made.secret)}\ncurl -H "Authorization: Api-Key $HUB_KEY" {in_shell(url)}\n'
    )
    context = {"key": made.row, "values": [("key", "API key", made.secret, True)], "curl": curl}
    return no_store(render(request, "devicehub/account_key.html", context))


def _refused(request: HttpRequest, error: Exception) -> HttpResponse:
    context = {
        "error": str(error),
        "was_used": isinstance(error, FormUsed),
        "back": reverse("devicehub:add_key"),
        "secret_name": "key",
        "remedy": "delete it and make another one",
    }
    return no_store(render(request, "devicehub/secret_used.html", context, status=USED))
