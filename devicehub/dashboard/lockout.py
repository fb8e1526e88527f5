"""The page for a sign-in that is refused unheard. Imported by its name in AXES_LOCKOUT_CALLABLE, where axes is used."""

from __future__ import annotations

from axes.helpers import get_cool_off
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from devicehub import logins
from devicehub.dashboard.views import strict


@strict
def page(request: HttpRequest, *_: object) -> HttpResponse:
    """Return the page, with status 429 and after how many seconds to try again."""
    cool_off = get_cool_off(request)
    wait = int(cool_off.total_seconds()) if cool_off else 0
    is_full = logins.is_full(request)
    context = {"is_full": is_full, "minutes": -(-wait // 60)}
    response = render(request, "devicehub/locked.html", context, status=429)
    response.headers["Cache-Control"] = "no-store"
    # Django logs every 4xx; a flood is one line when it begins.
    response._has_been_logged = True  # type: ignore[attr-defined]
    if is_full or wait:
        response.headers["Retry-After"] = "1" if is_full else str(wait)
    return response
