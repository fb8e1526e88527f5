"""Acts on many devices in the lists of the admin, and the pages of rotations and imports at addresses of the admin.

The pages are those of the dashboard. Their addresses here work in a project that does not include `devicehub.urls`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase
from django.urls import path, reverse
from django.views.decorators.http import require_http_methods, require_safe

from devicehub import visibility
from devicehub.admin.base import RecordAdmin
from devicehub.dashboard import bulk, importing, rotations
from devicehub.dashboard.access import strict
from devicehub.kinds.registry import Kind, registry
from devicehub.models import DeviceImport, Rotation

TITLES = {
    "rotate": "Rotate credentials",
    "revoke": "Revoke credentials",
    "disable": "Disable",
    "enable": "Enable",
    "move": "Move to a site",
    "send": "Send a command",
}


def _action(name: str) -> Callable[..., HttpResponseBase]:
    @admin.action(description=TITLES[name])
    def act(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase:
        """Ask, and then do it; the form of the page is submitted to this list again, with the same choice."""
        chosen = [(ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME)]
        across = request.POST.get("select_across", "0")
        selection = bulk.Selection(
            kind=_kind(model_admin.model),
            devices=model_admin.model.objects.filter(pk__in=queryset.order_by().values("pk")),
            keep_url=request.get_full_path(),
            hidden=[("action", act.__name__), ("select_across", across), *chosen],
            rotations_url=reverse("admin:devicehub_rotation_changelist"),
            rotation_url=reverse("admin:devicehub_rotation_change", args=[0]),
            progress_url=reverse("admin:devicehub_rotation_progress", args=[0]),
        )
        return bulk.answer(request, name, selection)

    act.__name__ = f"{name}_many"
    return act


def _kind(model: Any) -> Kind:
    kind = registry.of(model)
    if kind is None:
        raise Http404
    return kind


class ManyDevices:
    """A mixin for the admin of a device model: the acts of devicehub.dashboard.bulk as actions of its list."""

    model: Any
    actions: Any = tuple(_action(name) for name in TITLES)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """Return the actions that the user may do with devices of this kind."""
        found: dict[str, Any] = super().get_actions(request)  # type: ignore[misc]
        kind = registry.of(self.model)
        return {
            name: action
            for name, action in found.items()
            if (act := name.removesuffix("_many")) not in TITLES
            or (kind is not None and bulk.may(request.user, act, kind))
        }


class _Pages(RecordAdmin):
    """An admin whose list, pages and progress are views of the dashboard, in the module *views_of*."""

    views_of: Any

    def may(self, user: Any) -> bool:
        """Return whether *user* may see the list; the views limit its rows."""
        raise NotImplementedError

    def first_view(self) -> Any:
        """Return the view of the list."""
        raise NotImplementedError

    def links(self) -> Any:
        """Return the addresses of the pages, as the views take them."""
        raise NotImplementedError

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request.user)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.may(request.user)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        """Return the URLs of the list, of one row and of its progress."""
        one = require_http_methods(["GET", "HEAD", "POST"])(self.one_view)
        return [
            path("", self.first_view(), name=self._name("changelist")),
            path("<int:number>/change/", self._wrapped(one), name=self._name("change")),
            path(
                "<int:number>/progress/",
                self._wrapped(require_safe(self.progress_view)),
                name=self._name("progress"),
            ),
        ]

    def one_view(self, request: HttpRequest, number: int) -> HttpResponseBase:
        """Return the page of one row; a POST acts on it."""
        response: HttpResponseBase = self.views_of.one(request, number, self.links())
        return response

    def progress_view(self, request: HttpRequest, number: int) -> HttpResponseBase:
        """Return how far its file is."""
        response: HttpResponseBase = self.views_of.progress(request, number)
        return response

    def _wrapped(self, view: Callable[..., HttpResponseBase]) -> Any:
        return self.admin_site.admin_view(strict(view))

    def _name(self, page: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{page}"

    def _url(self, page: str, *arguments: Any) -> str:
        return reverse(f"admin:{self._name(page)}", args=arguments, current_app=self.admin_site.name)

    def _is_hidden(self, request: HttpRequest) -> bool:
        return False  # The views limit what they show themselves.


@admin.register(Rotation)
class RotationAdmin(_Pages):
    """The pages of rotations."""

    views_of = rotations

    def may(self, user: Any) -> bool:
        return visibility.sees_something(user)

    def first_view(self) -> Any:
        """Return the view of the list of rotations."""
        return self._wrapped(require_safe(self.list_view))

    def list_view(self, request: HttpRequest) -> HttpResponseBase:
        """Return the list of rotations."""
        return rotations.listing(request, self.links())

    def links(self) -> rotations.Links:
        """Return the addresses of the pages of rotations."""
        return rotations.Links(
            all=self._url("changelist"),
            one=lambda number: self._url("change", number),
            progress=lambda number: self._url("progress", number),
        )


@admin.register(DeviceImport)
class ImportAdmin(_Pages):
    """The pages that import devices."""

    views_of = importing

    def may(self, user: Any) -> bool:
        return importing.may_import(user)

    def first_view(self) -> Any:
        """Return the view of the form for a table, whose upload is bounded."""
        start = require_http_methods(["GET", "HEAD", "POST"])(self.start_view)
        return importing.bounded(self._wrapped(start))

    def start_view(self, request: HttpRequest) -> HttpResponseBase:
        """Return the form for a table; a POST keeps its rows."""
        return importing.start(request, self.links())

    def links(self) -> importing.Links:
        """Return the addresses of the pages of imports."""
        return importing.Links(
            start=self._url("changelist"),
            one=lambda number: self._url("change", number),
            progress=lambda number: self._url("progress", number),
            devices=reverse("admin:index", current_app=self.admin_site.name),
            rotation=lambda number: reverse(
                "admin:devicehub_rotation_change", args=[number], current_app=self.admin_site.name
            ),
        )
