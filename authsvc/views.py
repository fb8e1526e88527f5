"""The Django entrance: the same answers from async views, for projects that include `authsvc.urls`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.common import no_append_slash
from django.views.decorators.csrf import csrf_exempt

from authsvc import gateway
from authsvc.dialects.base import CACHEABLE_METHODS, MAX_BODY, Reply, Request
from authsvc.operation import metrics, readiness
from authsvc.serving import addresses

View = Callable[..., Coroutine[Any, Any, HttpResponse]]


def for_brokers(view: View) -> View:
    """Mark *view* for the middleware of any project: no login, no redirect, no transaction. Return it.

    A broker would follow the redirect to a login page, whose status 200 would admit all clients.
    """
    view = login_not_required(csrf_exempt(no_append_slash(view)))
    view.STRONGHOLD_IS_PUBLIC = True  # type: ignore[attr-defined] # Read by django-stronghold.
    view.is_for_brokers = True  # type: ignore[attr-defined] # Read by authsvc.logs.
    for alias in connections:  # With ATOMIC_REQUESTS Django refuses other asynchronous views.
        view = transaction.non_atomic_requests(alias)(view)
    return view


@for_brokers
async def question(request: HttpRequest, path: str) -> HttpResponse:
    """Answer the question that *path* names."""
    # LocaleMiddleware redirects a 404 to the same path below a language if the URLs of the site have a view there.
    request.urlconf = "authsvc.urls"
    request._cache_update_cache = False  # type: ignore[attr-defined] # Older releases of 5.2 cache a no-store.
    found = gateway.find(path)
    body = _body(request)
    if found is None:
        return _response(request, Reply(404, b'{"error":"no such question"}'))
    if request.method not in ("POST", "PUT", "GET"):
        return _response(request, Reply(405, b'{"error":"ask with POST, PUT or GET"}'))
    dialect, name, path_token = found
    return _response(request, await gateway.answer(request_of(request, name, path_token, body), dialect))


def request_of(request: HttpRequest, question: str, path_token: str | None, body: bytes | None) -> Request:
    """Return *request* with the fields that a dialect reads; *body* is None for one that is too long."""
    return Request(
        method=request.method or "",
        query=request.META.get("QUERY_STRING", ""),
        headers=tuple(
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in request.headers.items()
        ),
        body=body or b"",
        question=question,
        peer=addresses.of_request(request),
        path_token=path_token,
        oversized=body is None,
    )


@for_brokers
async def alive(request: HttpRequest) -> HttpResponse:
    """Answer that the process runs."""
    return _response(request, await readiness.alive())


@for_brokers
async def ready(request: HttpRequest) -> HttpResponse:
    """Answer whether the process can read the database."""
    return _response(request, await readiness.report())


@for_brokers
async def measured(request: HttpRequest) -> HttpResponse:
    """Answer with all metrics."""
    return _response(request, await metrics.report())


def _body(request: HttpRequest) -> bytes | None:
    """Return the body, or None beyond MAX_BODY bytes; the rest is dropped. `request.body` would raise instead."""
    body = request.read(MAX_BODY + 1)
    if len(body) <= MAX_BODY:
        return body
    while request.read(1 << 16):
        pass
    return None


def _response(request: HttpRequest, reply: Reply) -> HttpResponse:
    response = HttpResponse(reply.body, status=reply.status, content_type=reply.content_type)
    if request.method in CACHEABLE_METHODS:
        response["Cache-Control"] = "no-store"  # So middleware does not turn it into a 304.
    # Django logs every 4xx and 5xx with its path, and a path may hold a caller's token.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response
