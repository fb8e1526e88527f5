"""The access to the pages of endpoints: the permission to see them, and the sites of the reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase

from devicehub import visibility
from devicehub.dashboard.access import View, page
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint


def may_see(request: HttpRequest) -> bool:
    """Return whether the reader of *request* may see endpoints."""
    return visibility.may(getattr(request, "user", None), visibility.VIEW, Endpoint)


def endpoint_page(view: View) -> Callable[..., HttpResponseBase]:
    """Decorate *view*: its page needs a sign-in and the permission to see endpoints."""

    @wraps(view)
    def answer(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        if not may_see(request):
            raise PermissionDenied("You may not see LwM2M endpoints.")
        return view(request, *args, **kwargs)

    return page(answer)


def visible(user: Any) -> QuerySet[Any]:
    """Return the endpoints that *user* may see."""
    return visibility.devices(KIND, user)
