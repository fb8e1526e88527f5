"""`POST /leshan_api/resource/single` and `/composite`: the bridge of flownexus reports its endpoints.

The bridge ignores the answer, but for a line in its log, and sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse

from authsvc import callers, gateway, logs
from authsvc.models import digest
from authsvc.serving import addresses
from authsvc.serving.failures import Failures
from authsvc.views import for_brokers, request_of
from devicehub.ingest.posted import Ended, UnknownOutcome
from devicehub.lwm2m.leshan_api import counting
from devicehub.lwm2m.leshan_api.bodies import UnreadableBody, read
from devicehub.lwm2m.leshan_api.broker import DIALECT
from devicehub.lwm2m.leshan_api.counting import Refusal
from devicehub.lwm2m.leshan_api.storing import store
from devicehub.messages.message import MAX_KEPT, FailureReason, Outcome

MAX_OF_ONE, MAX_TOKENS = 5, 30  # Failures of an address in a minute: with one token, and with different ones.
STATUSES = {
    Refusal.METHOD: 405,
    Refusal.TOKEN: 401,
    Refusal.GUESSES: 429,
    Refusal.TOO_LONG: 413,
    Refusal.UNREADABLE: 400,
    Refusal.DATABASE: 503,
    Refusal.SLOW: 503,
}
RETRY_AFTER = {429: "60", 503: "5"}
# The message is in the quarantine, and can be replayed from there once its endpoint can have it.
KEPT = frozenset({FailureReason.UNKNOWN_DEVICE, FailureReason.DISABLED_DEVICE})

log = structlog.get_logger(__name__)
_failures = Failures("leshan_api.locked", lambda: MAX_OF_ONE, lambda: MAX_TOKENS)


@for_brokers
async def resource(request: HttpRequest, shape: str, token: str | None = None) -> HttpResponse:
    """Store the body of *shape*, if the request presents the token of a broker that names the dialect `leshan`."""
    body = _body(request)  # Always read it: an unread body breaks a persistent connection.
    if request.method != "POST":
        return _refused(shape, Refusal.METHOD, "send a POST", {"Allow": "POST"})
    try:
        refusal = await _refusal(request, shape, token)
    except Exception:  # Of a driver, mostly: the policy is not read by the ORM.
        logs.error(log, "leshan_api.not_admitted")
        return _refused(shape, Refusal.DATABASE, "the database does not answer")
    if refusal is not None:
        return refusal
    if body is None:
        return _refused(shape, Refusal.TOO_LONG, f"the body has more than {MAX_KEPT} bytes")
    # In a thread: a large body takes a while, and brokers wait for the event loop.
    return await sync_to_async(_take)(shape, body)


def _take(shape: str, body: bytes) -> HttpResponse:
    """Read and store *body*, and return the answer."""
    try:
        ended = store(read(shape, body))
    except UnreadableBody as error:
        return _refused(shape, Refusal.UNREADABLE, str(error))
    except UnknownOutcome:
        return _refused(shape, Refusal.SLOW, "the database takes too long; the message may be stored")
    if ended is None:
        return _refused(shape, Refusal.DATABASE, "the database cannot store")
    counting.ended(shape, ended)
    return _answered(ended)


async def _refusal(request: HttpRequest, shape: str, token: str | None) -> HttpResponse | None:
    """Return the answer to a request whose token does not admit it, or None. Raise errors of the database."""
    asked = request_of(request, shape, token, b"")
    if await gateway.admit(asked, DIALECT) is not None:
        return None
    address, presented = addresses.subscriber(asked.peer), digest(callers.token(asked, DIALECT) or "")
    if wait := _failures.wait(address, presented):
        error = "too many requests without a valid token"
        return _refused(shape, Refusal.GUESSES, error, {"Retry-After": str(wait)})
    _failures.note(address, presented)
    error = "this token is not that of a broker with the dialect leshan"
    return _refused(shape, Refusal.TOKEN, error, {"WWW-Authenticate": "Bearer"})


def _refused(
    shape: str, reason: Refusal, error: str, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    counting.refused(shape, reason)
    return _answer(STATUSES[reason], {"error": error}, headers)


def _answered(ended: Ended) -> HttpResponse:
    content: dict[str, Any] = {"outcome": ended.outcome.value}
    if ended.outcome is not Outcome.FAILED:
        if ended.notes:
            content["notes"] = list(ended.notes)
        return _answer(201, content)
    content |= {"reason": str(ended.reason), "error": ended.detail}
    if ended.reason in KEPT:
        return _answer(202, content)
    return _answer(429 if ended.reason is FailureReason.RATE_LIMITED else 400, content)


def _answer(
    status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> HttpResponse:
    response = JsonResponse(content, status=status, headers={"Cache-Control": "no-store", **(headers or {})})
    if status in RETRY_AFTER and "Retry-After" not in response:
        response["Retry-After"] = RETRY_AFTER[status]
    # Django logs every 4xx and 5xx with its path, which may hold the token.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def _body(request: HttpRequest) -> bytes | None:
    """Return the body, or None beyond MAX_KEPT bytes; the rest is dropped."""
    body = request.read(MAX_KEPT + 1)
    if len(body) <= MAX_KEPT:
        return body
    while request.read(1 << 16):
        pass
    return None
