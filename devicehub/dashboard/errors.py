"""The pages of errors, for `handler400` to `handler500` of a project and for CSRF_FAILURE_VIEW.

A caller that accepts no HTML, such as a broker or a script, gets one line of text.
"""

from __future__ import annotations

import secrets
import sys
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from devicehub.dashboard.access import strict

RETRY_AFTER = 10  # seconds
log = structlog.get_logger(__name__)


def accepts_html(request: HttpRequest) -> bool:
    """Return whether *request* names HTML among what it accepts; `*/*` alone does not count."""
    return "text/html" in request.headers.get("Accept", "")


def respond(request: HttpRequest, status: int, title: str, text: str, **context: Any) -> HttpResponse:
    """Return the error with *title* and *text*, as a page if *request* accepts one.

    The page needs neither the database nor a session, so that it works when these fail.
    """
    if accepts_html(request):
        content = {"status": status, "title": title, "text": text, "path": request.path, **context}
        body, kind = str(render_to_string("devicehub/error.html", content)), "text/html"
    else:
        body, kind = f"{title}. {text}\n", "text/plain"
    response = HttpResponse(body, status=status, content_type=f"{kind}; charset=utf-8")
    if request.method in ("GET", "HEAD"):  # Only these are ever cached.
        response.headers["Cache-Control"] = "no-store"
    return response


@strict
def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return respond(request, 400, "This request cannot be read", "Go back and try it again from the page.")


@strict
def denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the page for something that the user may not do, with the reason that the code gave."""
    reason = str(exception) if isinstance(exception, PermissionDenied) else ""
    return respond(
        request,
        403,
        "You may not do this",
        reason or "Your user has no permission for it. An administrator can change that.",
    )


@strict
def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """Return the page for an address without a page, with a search for what its last part names."""
    last = request.path.rstrip("/").rpartition("/")[2]
    text = "The address leads nowhere, or to something that you may not see. Ids are case-sensitive."
    return respond(request, 404, "There is no such page", text, searched=last, is_search=True)


@strict
def failed(request: HttpRequest) -> HttpResponse:
    """Return the page for an error of ours, with the id of its line in the log; status 503 without the database."""
    error = sys.exc_info()[1]
    number = f"req-{secrets.token_hex(4)}"
    # Django logs the path and the traceback beside it; a path may hold the token of a broker.
    log.error("page.failed", id=number, error=type(error).__name__)
    if isinstance(error, OperationalError | InterfaceError):
        return database_away(request, number)
    text = "Devices and brokers go on. The log has the error under the id below."
    return respond(
        request, 500, "Something failed on our side", text, id=number, again=request.get_full_path()
    )


def database_away(request: HttpRequest, number: str = "") -> HttpResponse:
    """Return the page for a database that does not answer."""
    text = "Brokers are answered from memory as far as possible. Try again in a few seconds."
    again = request.get_full_path()
    response = respond(request, 503, "The database does not answer", text, id=number, again=again)
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


@strict
def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Return the page for a form whose token does not fit its session."""
    text = (
        "It was open for too long, or you signed in or out meanwhile in another tab, or the browser sends no cookies. "
        "Open the page again and repeat your entry."
    )
    return respond(request, 403, "This form has expired", text, again=request.path)
