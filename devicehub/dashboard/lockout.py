"""The page for a sign-in that is refused without a check. AXES_LOCKOUT_CALLABLE names it, where axes is used."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from devicehub import logins
from devicehub.dashboard.access import strict


@strict
def page(request: HttpRequest, *_: object) -> HttpResponse:
    """Return the page with status 429 and, in Retry-After, the seconds until the next try."""
    wait = logins.wait(request)
    context = {"is_full": logins.is_full(request), "minutes": -(-wait // 60)}
    response = render(request, "devicehub/locked.html", context, status=429)
    response.headers["Cache-Control"] = "no-store"
    # Django would log every 4xx; a flood of sign-ins is logged once, when it begins.
    response._has_been_logged = True  # type: ignore[attr-defined]
    if wait:
        response.headers["Retry-After"] = str(wait)
    return response
