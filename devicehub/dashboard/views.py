"""The page, and its stream of news."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe

from devicehub.dashboard import devices, live, overview
from devicehub.dashboard.policy import HEADER, POLICY
from devicehub.dashboard.selection import RANGE_NAMES, parse, plottable
from devicehub.kinds.registry import registry
from devicehub.models import DeviceStatus

View = Callable[..., HttpResponseBase]


def strict(view: View) -> View:
    """The page of *view* runs and loads only what comes from here, and nothing that is written into it."""

    @wraps(view)
    def answer(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponseBase:
        response = view(request, *args, **kwargs)
        response.headers[HEADER] = POLICY
        return response

    return answer


@strict
@never_cache
@require_safe
@login_required
def fleet(request: HttpRequest) -> HttpResponse:
    """All that the page shows, complete without a script."""
    selection = parse(request.GET)
    counts = overview.counter.counts()
    return render(
        request,
        "devicehub/fleet.html",
        {
            "selection": selection,
            "counts": counts,
            "tables": [
                (devices.page(kind, selection), counts.by_kind.get(kind.slug, 0)) for kind in registry
            ],
            "denials": overview.denials(),
            "quarantine": overview.quarantine(),
            "plottable": plottable(),
            "ranges": [
                (name, selection.over(key).query, key == selection.range) for key, name in RANGE_NAMES.items()
            ],
            "statuses": DeviceStatus.choices,
            "now": timezone.now(),
        },
    )


@require_GET
async def live_events(request: HttpRequest) -> HttpResponseBase:
    """News for the page at the same query, as server-sent events. Never a redirect: no script follows one."""
    user = await request.auser()
    await sync_to_async(connections.close_all)()  # this request's own, which would stay open with the stream
    if not user.is_authenticated:
        return HttpResponse("Sign in first.\n", status=403, content_type="text/plain")
    if live.is_full():
        return HttpResponse("Too many open pages.\n", status=503, content_type="text/plain")
    return StreamingHttpResponse(
        live.while_signed_in(live.Login(request, user), live.events(parse(request.GET))),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
