"""Devices of the admin are born with credentials, and their credentials change on the pages of devicehub.credentials.

The addresses are the admin's own, so that this works in a project that does not include `devicehub.urls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import path, reverse
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_safe

from devicehub import provisioning, visibility
from devicehub.admin.base import Panel
from devicehub.admin.once import MADE, AddedOnce
from devicehub.credentials import answers, changes, panel
from devicehub.credentials.answers import Links
from devicehub.kinds.registry import Kind, registry


class WithCredentials(AddedOnce):
    """The admin of a device model: adding a device makes its credentials, and the answer shows them once."""

    add_form_template = "devicehub/admin/add_device.html"

    class Media:
        css = {"all": ("devicehub/credentials.css",)}

    def refuse(self, request: HttpRequest, error: Exception) -> HttpResponse:
        """Return the answer to a form that was submitted before, or is too old."""
        return answers.refused(request, error, self._links().add)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Save a device; a new one gets its credentials in the same step."""
        if change:
            super().save_model(request, obj, form, change)
            return
        visibility.check_site(request.user, obj.site)
        made = provisioning.add(self._kind(), obj)
        answers.record_shown(self._kind(), obj, made)
        setattr(request, MADE, made)

    @sensitive_variables("made")
    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Return the page that shows the new credentials."""
        made = getattr(request, MADE)
        return answers.once(request, self._kind(), obj, made, self._links(), is_new=True)

    def get_urls(self) -> list[Any]:
        """Return the URLs of the admin with those of credentials before them."""
        wrap = self.admin_site.admin_view
        return [
            path("credentials/<str:device_id>/", wrap(self.credentials_view), name=self._name("credentials")),
            path("credentials/<str:device_id>/light/", wrap(self.light_view), name=self._name("light")),
            *super().get_urls(),
        ]

    def credentials_view(self, request: HttpRequest, device_id: str) -> HttpResponse:
        """Return the state of a device's credentials; a POST changes them."""
        view = require_http_methods(["GET", "HEAD", "POST"])(changes.credentials)
        response: HttpResponse = view(request, self._kind(), device_id, self._links())
        return response

    def light_view(self, request: HttpRequest, device_id: str) -> HttpResponse:
        """Return the first signs of life of a device as JSON."""
        response: HttpResponse = require_safe(answers.light)(request, self._kind(), device_id)
        return response

    def all_panels(self) -> Sequence[Panel]:
        """Return the panels of a device, that of its credentials first."""
        return [self.credentials_panel, *super().all_panels()]

    def credentials_panel(self, request: HttpRequest, obj: Any) -> str:
        """Return the markup of the panel about the credentials of *obj*."""
        may_change = visibility.may(request.user, visibility.CHANGE, self.model)
        url = self._links().credentials(self._kind(), obj.device_id) if may_change else ""
        context = {"panel": panel.of(self._kind(), obj), "credentials_url": url}
        return render_to_string("devicehub/_credentials.html", context, request)

    def _kind(self) -> Kind:
        kind = registry.of(self.model)
        if kind is None:
            raise Http404
        return kind

    def _links(self) -> Links:
        return Links(
            devices=self._url("changelist"),
            add=self._url("add"),
            credentials=lambda kind, device_id: self._url("credentials", device_id),
            light=lambda kind, device_id: self._url("light", device_id),
            device=self._device_url,
        )

    def _device_url(self, kind: Kind, device_id: str) -> str:
        pk = kind.device_model.objects.filter(device_id=device_id).values_list("pk", flat=True).first()
        return self._url("change", pk)

    def _name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def _url(self, page: str, *arguments: Any) -> str:
        return reverse(f"admin:{self._name(page)}", args=arguments, current_app=self.admin_site.name)
