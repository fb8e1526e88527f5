"""The middleware that sets the Content-Security-Policy of every response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from devicehub.content_security import ADMIN_POLICY, HEADER, POLICY

DEBUG_PAGES = (HTTPStatus.NOT_FOUND, HTTPStatus.INTERNAL_SERVER_ERROR)
Middleware = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


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
