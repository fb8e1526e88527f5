"""The overview, and its stream of changes."""

from __future__ import annotations

from typing import Any

import structlog
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_GET, require_safe

from devicehub import visibility
from devicehub.dashboard import devices, errors, live, overview
from devicehub.dashboard.access import page
from devicehub.dashboard.selection import RANGE_NAMES, STATUSES, Selection, parse, plottable

NO_STORE = {"Cache-Control": "no-store"}  # Also for a 204, which a cache may keep and return to all.
log = structlog.get_logger(__name__)


@page
@require_safe
def show_overview(request: HttpRequest) -> HttpResponse:
    """Return the overview of the fleet, which is complete without a script."""
    selection, user = parse(request.GET), request.user
    counts = overview.counts(user)
    choices = [choice for choice in plottable() if choice.kind in visibility.kinds_of(user)]
    plotted = selection.plotted
    if plotted is not None and plotted not in choices and plotted.kind in visibility.kinds_of(user):
        choices.append(plotted)  # A name in a narrow table, of which the page lists the declared ones.
    return render(
        request,
        "devicehub/overview.html",
        {
            "selection": selection,
            "counts": counts,
            "tables": [
                (devices.page(kind, selection, user), counts.by_kind.get(kind.slug, 0))
                for kind in visibility.kinds_of(user)
            ],
            "denials": overview.denials(user),
            "quarantine": overview.quarantine(user),
            "plottable": choices,
            "ranges": [
                (name, selection.over(key).query, key == selection.range) for key, name in RANGE_NAMES.items()
            ],
            "statuses": STATUSES.items(),
            "now": timezone.now(),
            "sites": sorted(sites) if (sites := visibility.sites_of(user)) is not None else None,
            "may_add": bool(visibility.kinds_of(user, visibility.ADD)),
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
    if not await sync_to_async(visibility.sees_something)(user):
        return _refuse(403, "You may not see any devices.\n")
    if not request.accepts("text/event-stream"):
        return await _current_news(selection, user)
    if not live.can_stream(request):
        return HttpResponse(status=204, headers=NO_STORE)
    login = await sync_to_async(live.Login)(request, user)
    # The connections of this request would stay open as long as the stream.
    await sync_to_async(connections.close_all)()
    if live.is_full():
        if errors.accepts_html(request):
            return errors.respond(
                request, 503, "Too many pages are open", "Close one of them and reload this one."
            )
        return _refuse(503, "Too many pages are open. Close one and reload.\n")
    return StreamingHttpResponse(
        live.while_signed_in(login, live.events(selection, user)),
        content_type="text/event-stream",
        headers={**NO_STORE, "X-Accel-Buffering": "no"},
    )


async def _current_news(selection: Selection, user: Any) -> HttpResponse:
    """Return everything that a page at *selection* shows now, as JSON; 503 while the database is away."""
    try:
        news = await sync_to_async(live.snapshot)(selection, user)
    except DatabaseError as error:
        # The page sends the next request on its own.
        log.warning("live.database_away", error=type(error).__name__)
        return _refuse(503, "The database is away.\n")
    return HttpResponse(news, content_type="application/json", headers=NO_STORE)


def _refuse(status: int, text: str) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain", headers=NO_STORE)
