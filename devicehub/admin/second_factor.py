"""The removal of a user's second factor. The keys of authenticator apps have no pages: a list could be searched."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.urls import path, reverse

from authsvc import audit
from devicehub import second_factor
from devicehub.credentials.forms import ReasonForm
from devicehub.dashboard import confirmation
from devicehub.dashboard.confirmation import Confirmation

MODELS = ("otp_totp.TOTPDevice", "otp_static.StaticDevice")


class RemovesSecondFactor:
    """A mixin for the admin of users: readers who may change a user remove the second factor, behind a page that asks.

    They remove their own on the account page, which asks for the password.
    """

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin with that of the removal before them."""
        view = self.admin_site.admin_view(self.second_factor_view)  # type: ignore[attr-defined]
        mine = path("<int:object_id>/second-factor/", view, name="auth_user_second_factor")
        return [mine, *super().get_urls()]  # type: ignore[misc]

    def all_panels(self) -> list[Any]:
        """Return the panels of a user, that of the second factor first."""
        return [self.second_factor_panel, *super().all_panels()]  # type: ignore[misc]

    def second_factor_panel(self, request: HttpRequest, user: Any) -> str:
        """Return the link to the removal, for a reader who may, while *user* has a second factor."""
        if not self._may_remove(request, user) or not second_factor.is_on(user):
            return ""
        url = self._page("second_factor", user)
        return render_to_string("devicehub/admin/second_factor.html", {"remove_url": url}, request)

    def second_factor_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """Return the page that asks; its answer removes the second factor with its backup codes."""
        user = self.get_object(request, str(object_id))  # type: ignore[attr-defined]
        if not self._may_remove(request, user):
            raise PermissionDenied
        if user is None:
            raise Http404
        name = user.get_username()
        if not second_factor.is_on(user):
            return self._after_removal(request, user, was_on=False)
        form = ReasonForm(request.POST if "confirmed" in request.POST else None)
        if not confirmation.is_answered(request, form, 1):
            ask = Confirmation(
                question=f"Remove the second factor of {name}?",
                text=f"The app and the backup codes of {name} end. The password alone then signs {name} in, until "
                "a new factor is added on the account page. Make sure that the request comes from this person.",
                verb="Remove the second factor",
                keep="Keep it",
                keep_url=self._page("change", user),
            )
            return confirmation.page_with(request, ask, form)
        with audit.because(form.cleaned_data["reason"]):
            was_on = second_factor.remove(user)
        return self._after_removal(request, user, was_on=was_on)

    def _after_removal(self, request: HttpRequest, user: Any, *, was_on: bool) -> HttpResponse:
        name = user.get_username()
        if was_on:
            messages.success(request, f"{name} signs in by password alone now.")
        else:
            messages.info(request, f"{name} has no second factor.")
        return HttpResponseRedirect(self._page("change", user))

    def _may_remove(self, request: HttpRequest, user: Any) -> bool:
        return bool(user != request.user and self.has_change_permission(request, user))  # type: ignore[attr-defined]

    def _page(self, name: str, user: Any) -> str:
        return reverse(f"admin:auth_user_{name}", args=[user.pk], current_app=self.admin_site.name)  # type: ignore[attr-defined]


def leave_out() -> None:
    """Take the pages of django-otp out, if its apps stand before this one in INSTALLED_APPS."""
    for label in MODELS:
        if not apps.is_installed(f"django_otp.plugins.{label.partition('.')[0]}"):
            continue
        model = apps.get_model(label)
        if admin.site.is_registered(model):
            admin.site.unregister(model)


leave_out()
