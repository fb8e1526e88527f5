"""The overview, and its stream of changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import structlog
from asgiref.sync import sync_to_async
from django.contrib.auth.decorators import login_required
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_safe

from devicehub.dashboard import devices, live, overview
from devicehub.dashboard.policy import HEADER, POLICY
from devicehub.dashboard.selection import RANGE_NAMES, Selection, parse, plottable
from devicehub.kinds.registry import registry
from devicehub.models import DeviceStatus

NO_STORE = {"Cache-Control": "no-store"}  # Also for a 204, which a cache may keep and return to all.
View = Callable[..., HttpResponseBase]
log = structlog.get_logger(__name__)


def strict(view: View) -> View:
    """Decorate *view*: its page runs and loads only files of this site, and nothing inline."""

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
def show_overview(request: HttpRequest) -> HttpResponse:
    """Return the overview of the fleet, which is complete without a script."""
    selection = parse(request.GET)
    counts = overview.counter.counts()
    return render(
        request,
        "devicehub/overview.html",
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
            "poll_seconds": None if live.can_stream(request) else live.POLL_SECONDS,
        },
    )


@require_GET
async def stream(request: HttpRequest) -> HttpResponseBase:
    """Return news for the page at the same query: a stream of events, or once as JSON if *request* accepts no stream.

    The answer is 204 under WSGI to a request for a stream. It is never a redirect: no script follows one.
    """
    user = await request.auser()
    if not user.is_authenticated:
        return _refuse(403, "You are signed out. Sign in again.\n")
    selection = parse(request.GET)
    if not request.accepts("text/event-stream"):
        return await _current_news(selection)
    if not live.can_stream(request):
        return HttpResponse(status=204, headers=NO_STORE)
    # The connections of this request would stay open as long as the stream.
    await sync_to_async(connections.close_all)()
    if live.is_full():
        return _refuse(503, "Too many pages are open. Close one and reload.\n")
    return StreamingHttpResponse(
        live.while_signed_in(live.Login(request, user), live.events(selection)),
        content_type="text/event-stream",
        headers={**NO_STORE, "X-Accel-Buffering": "no"},
    )


async def _current_news(selection: Selection) -> HttpResponse:
    """Return everything that a page at *selection* shows now, as JSON; 503 while the database is away."""
    try:
        news = await sync_to_async(live.snapshot)(selection)
    except DatabaseError as error:
        # The page sends the next request on its own.
        log.warning("live.database_away", error=type(error).__name__)
        return _refuse(503, "The database is away.\n")
    return HttpResponse(news, content_type="application/json", headers=NO_STORE)


def _refuse(status: int, text: str) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain", headers=NO_STORE)
