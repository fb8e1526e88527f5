"""The actions of one row in the list of devices: links to its pages. unfold shows them, Django's own admin does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect

from authsvc.models import Denial
from devicehub.admin import cells
from devicehub.provisioning import key_of


def _row_action(title: str, icon: str, permission: str) -> Callable[[Any], Any]:
    """Return the decorator of a method that returns an address: unfold then lists it for users with *permission*."""

    def decorate(address: Callable[[Any, Any], str]) -> Any:
        @admin.action(description=title, permissions=[permission])
        def follow(model_admin: Any, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
            if not getattr(model_admin, f"has_{permission}_permission")(request):
                raise PermissionDenied
            device = model_admin.get_object(request, object_id)
            if device is None:
                raise Http404
            return HttpResponseRedirect(address(model_admin, device))

        follow.icon, follow.attrs, follow.url_path = icon, {}, address.__name__  # type: ignore[attr-defined]
        return follow

    return decorate


class RowActions:
    """A mixin for the admin of a device model."""

    actions_row = ("open", "rotate", "denials")

    def has_denials_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may see the list of denials."""
        page = admin.site._registry.get(Denial)
        return page is not None and page.has_view_permission(request)

    @_row_action("Open", "memory", "view")
    def open(self: Any, device: Any) -> str:
        return str(self._url("change", device.pk))

    @_row_action("Rotate password", "autorenew", "change")
    def rotate(self: Any, device: Any) -> str:
        return f"{self._url('credentials', device.device_id)}#rotate"

    @_row_action("Denials", "gpp_bad", "denials")
    def denials(self: Any, device: Any) -> str:
        return cells.list_url(Denial, f"?principal__exact={key_of(device)}")
