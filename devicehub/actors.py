"""The author of changes that a request makes, for the audit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from authsvc import audit
from authsvc.models import AuditEntry
from authsvc.serving import addresses

# The attribute of a request that names the API key with which a program or a device sent it.
KEY = "devicehub_key"

Middleware = Callable[[HttpRequest], HttpResponseBase] | Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def of_request(request: HttpRequest) -> audit.Actor:
    """Return the user of *request*, or the API key that it carries, with the address of the client."""
    key = getattr(request, KEY, "")
    if key:
        return audit.Actor(AuditEntry.Kind.KEY, key, addresses.of_request(request))
    user = getattr(request, "user", None)
    name = user.get_username() if user is not None and user.is_authenticated else "nobody signed in"
    return audit.Actor(AuditEntry.Kind.USER, name, addresses.of_request(request))


@sync_and_async_middleware
def note_actor(get_response: Any) -> Middleware:
    """Record the changes of a request as those of its user. Place it behind AuthenticationMiddleware."""
    if iscoroutinefunction(get_response):

        async def answer(request: HttpRequest) -> HttpResponseBase:
            with audit.acting(lambda: of_request(request)):
                response: HttpResponseBase = await get_response(request)
                return response

        return answer

    def answer_at_once(request: HttpRequest) -> HttpResponseBase:
        with audit.acting(lambda: of_request(request)):
            response: HttpResponseBase = get_response(request)
            return response

    return answer_at_once
