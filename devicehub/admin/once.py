"""Pages of the admin about the secret of a row: a form that makes one works once, and its answer shows it once.

A secret is in the answer of the request that made it and nowhere else: not in the session, not in a message, not in a
log, not behind an address. The pages are URLs of the admin, so they exist without `devicehub.urls`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from django import forms
from django.contrib import messages
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import path, reverse
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from authsvc import audit
from devicehub import nonces
from devicehub.admin.base import ModelAdmin, Panel
from devicehub.credentials.answers import no_store
from devicehub.nonces import FormExpired, FormUsed

MADE = "_devicehub_made"  # The attribute of a request that holds a new secret until its answer.
ALREADY = "Nothing to do: somebody else did it meanwhile."
USED = 409


@dataclass(frozen=True, repr=False)
class Made:
    """A new secret, the fields that were typed beside it, and a sentence about the end of the old one."""

    secret: str
    typed: Mapping[str, Any] = field(default_factory=dict)
    ends: str = ""


@dataclass(frozen=True)
class Act:
    """One change on the page of a row: its words, its form, and the action, which returns a sentence or a secret."""

    name: str
    title: str
    text: str
    verb: str
    run: Callable[[Any, Any], str | Made]
    form: type[forms.Form]
    fits: Callable[[Any], bool] = lambda row: True
    icon: str = ""
    makes_secret: bool = False
    first: str = ""  # Its title and verb for a row that has no secret.
    ends: bool = False  # It ends something, so that its button is red.


@dataclass(frozen=True, repr=False)
class Shown:
    """The content of the page that shows a secret: values (id, label, text, whether it is the secret), and files."""

    title: str
    what: str
    values: Sequence[tuple[str, str, str, bool]]
    files: Sequence[Mapping[str, str]] = ()
    hint: str = ""


class AddedOnce(ModelAdmin):
    """The admin of a model whose new rows have a secret: the form works once, and its answer shows the secret."""

    def refuse(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Return the answer to a form that was submitted before, or is too old."""
        raise NotImplementedError

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Return the form for a new row, which works once; its answer shows the secret."""
        purpose = f"add:{self.opts.label_lower}"
        context = {
            **(extra_context or {}),
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        if request.method != "POST":
            context["nonce"] = nonces.issue(purpose, request.user)
            return super().add_view(request, form_url, context)
        context["nonce"] = request.POST.get("nonce", "")
        if not self.has_add_permission(request):
            raise PermissionDenied
        try:
            with transaction.atomic():
                nonces.use(context["nonce"], purpose, request.user)
                response = super().add_view(request, form_url, context)
                if not hasattr(request, MADE):
                    transaction.set_rollback(True)  # The form comes back with its errors and its number.
        except (FormUsed, FormExpired) as error:
            return self.refuse(request, error)
        return response


class WithSecret(AddedOnce):
    """The admin of a model whose rows have a secret: adding a row makes it, and the answer shows it once."""

    add_form_template = "devicehub/admin/add_once.html"
    acts: ClassVar[Sequence[Act]] = ()
    panel_template: str
    secret_name: str  # As people call it: token, password.

    def create(self, row: Any, typed: Mapping[str, Any]) -> str:
        """Save the new *row* and return its secret."""
        raise NotImplementedError

    def shown(self, request: HttpRequest, row: Any, made: Made) -> Shown:
        """Return the content of the page that shows the secret of *row*."""
        raise NotImplementedError

    def has_secret(self, row: Any) -> bool:
        """Return whether *row* has a secret now. A new one is then its next, not its first."""
        raise NotImplementedError

    def about(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the context of the panel about *row*."""
        raise NotImplementedError

    def refuse(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Return the answer to a form that was submitted before, or is too old."""
        return self._refused(request, error, self._url("add"))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save a row; a new one gets its secret in the same step."""
        if change:
            super().save_model(request, obj, form, change)
            return
        made = Made(self.create(obj, form.cleaned_data), dict(form.cleaned_data))
        self._record(obj)
        setattr(request, MADE, made)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Return the page that shows the new secret."""
        return self._once(request, obj, getattr(request, MADE), is_new=True)

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin with that of the secret before them."""
        view = sensitive_post_parameters()(self.admin_site.admin_view(self.secret_view))
        return [path("<int:object_id>/secret/", view, name=self._name("secret")), *super().get_urls()]

    def secret_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Return the state of the secret and the forms that change it; a POST is one of these changes."""
        row = self.get_object(request, str(object_id))
        if not self.has_change_permission(request, row):
            raise PermissionDenied
        if row is None:
            raise Http404
        if request.method in ("GET", "HEAD"):
            return self._state(request, row)
        if request.method != "POST":
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        act = next((act for act in self.acts if act.name == request.POST.get("do")), None)
        if act is None:
            raise Http404
        form = self._form(request, act, row, request.POST)
        return (
            self._change(request, act, row, form) if form.is_valid() else self._state(request, row, act, form)
        )

    def _change(self, request: HttpRequest, act: Act, row: Any, form: forms.Form) -> HttpResponse:
        try:
            with audit.because(form.cleaned_data.get("reason", "")), transaction.atomic():
                if act.makes_secret:
                    nonces.use(request.POST.get("nonce", ""), self._purpose(act, row), request.user)
                # PostgreSQL locks no row with the sums of the list. get_object() has found it for this user.
                row = self.model._default_manager.select_for_update().get(pk=row.pk)
                done = act.run(row, form) if act.fits(row) else ALREADY
                if isinstance(done, Made):
                    self._record(row)
        except (FormUsed, FormExpired) as error:
            return self._refused(request, error, self._url("secret", row.pk))
        except ObjectDoesNotExist as error:
            raise Http404 from error
        if isinstance(done, Made):
            return self._once(request, row, done)
        messages.info(request, done)
        return HttpResponseRedirect(self._url("secret", row.pk))

    def _state(
        self, request: HttpRequest, row: Any, act: Act | None = None, form: forms.Form | None = None
    ) -> HttpResponse:
        is_first = not self.has_secret(row)
        shown = [
            {
                "act": replace(each, title=each.first, verb=each.first) if each.first and is_first else each,
                "form": form if each is act else self._form(request, each, row, None),
                "nonce": nonces.issue(self._purpose(each, row), request.user) if each.makes_secret else "",
                "is_wrong": each is act,
            }
            for each in self.acts
            if each.fits(row)
        ]
        context = {
            **self.about(request, row),
            **self._addresses(row),
            "shown": shown,
            "is_first": is_first,
            "secret_name": self.secret_name,
        }
        return no_store(render(request, "devicehub/secret.html", context))

    @sensitive_variables()
    def _once(self, request: HttpRequest, row: Any, made: Made, *, is_new: bool = False) -> HttpResponse:
        context = {
            "shown": self.shown(request, row, made),
            "ends": made.ends,
            "is_new": is_new,
            "secret_name": self.secret_name,
            **self._addresses(row),
        }
        return no_store(render(request, "devicehub/secret_once.html", context))

    def _form(self, request: HttpRequest, act: Act, row: Any, data: Any) -> forms.Form:
        form = act.form(data, auto_id=f"{act.name}_%s")
        for name, found in self.initial(request, row).items():
            if name in form.fields:
                form.fields[name].initial = found
        return form

    def initial(self, request: HttpRequest, row: Any) -> dict[str, Any]:
        """Return the first values of fields in the forms of *row*."""
        return {}

    def _purpose(self, act: Act, row: Any) -> str:
        return f"{act.name}:{row.key}"

    def _record(self, row: Any) -> None:
        audit.record("credentials_shown", row.key, after={"shown": [self.secret_name]})

    def _refused(self, request: HttpRequest, error: Exception, back: str) -> HttpResponse:
        context = {
            "error": str(error),
            "was_used": isinstance(error, FormUsed),
            "back": back,
            "secret_name": self.secret_name,
        }
        return no_store(render(request, "devicehub/secret_used.html", context, status=USED))

    def _addresses(self, row: Any) -> dict[str, Any]:
        return {
            "row": row,
            "many": self.opts.verbose_name_plural,
            "list_url": self._url("changelist"),
            "add_url": self._url("add"),
            "row_url": self._url("change", row.pk),
            "secret_url": self._url("secret", row.pk),
        }

    def all_panels(self) -> Sequence[Panel]:
        """Return the panels of a row, that of its secret first."""
        return [self.secret_panel, *self.panels]

    def secret_panel(self, request: HttpRequest, row: Any) -> str:
        """Return the markup of the panel about the secret of *row*."""
        context = {**self.about(request, row), **self._addresses(row)}
        if not self.has_change_permission(request, row):
            context["secret_url"] = ""
        return render_to_string(self.panel_template, context, request)

    def _name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def _url(self, page: str, *arguments: Any) -> str:
        return reverse(f"admin:{self._name(page)}", args=arguments, current_app=self.admin_site.name)
