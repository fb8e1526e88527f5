"""The Content-Security-Policy of every response: the one of the dashboard, and a wider one for the admin."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

HEADER = "Content-Security-Policy"
DEBUG_PAGES = (HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR)
Middleware = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def _policy(*, script: str = "'self'", style: str = "'self'") -> str:
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src {script}",
            f"style-src {style}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


POLICY = _policy()
# The admin uses unfold, whose library Alpine compiles the expressions in attributes, and sets styles.
ADMIN_POLICY = _policy(script="'self' 'unsafe-eval'", style="'self' 'unsafe-inline'")


@sync_and_async_middleware
def content_policy(get_response: Any) -> Middleware:
    """Set the policy and `nosniff` on every response without them. Place it first, so that it sees all responses."""
    if iscoroutinefunction(get_response):

        async def answer(request: HttpRequest) -> HttpResponseBase:
            return _protected(request, await get_response(request))

        return answer

    def answer_at_once(request: HttpRequest) -> HttpResponseBase:
        return _protected(request, get_response(request))

    return answer_at_once


def _protected(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if not (settings.DEBUG and response.status_code in DEBUG_PAGES):  # Django's debug pages are all inline.
        found = request.resolver_match
        is_admin = found is not None and "admin" in found.app_names
        response.headers.setdefault(HEADER, ADMIN_POLICY if is_admin else POLICY)
    return response
