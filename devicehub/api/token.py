"""`POST /api/token`: a device sends its API key and gets a short-lived token."""

from __future__ import annotations

import json

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from authsvc import tokens
from authsvc.core.access import AmbiguousIdentity
from authsvc.freshness import reader
from authsvc.serving import addresses
from authsvc.serving.failures import Failures
from devicehub.api import clear_text, device_keys, problems
from devicehub.api.device_keys import LONGEST_KEY, MANY_KEYS, MAX_OF_ONE
from devicehub.api.problems import Problem
from devicehub.kinds.registry import registry
from devicehub.models import digest_api_key

TTL = 3600  # seconds; a device may request less
MAX_BODY = 1024
_failures = Failures("token.locked", lambda: MAX_OF_ONE, lambda: MANY_KEYS)


@login_not_required
@csrf_exempt
@transaction.non_atomic_requests  # Django refuses other asynchronous views in a project with ATOMIC_REQUESTS.
async def token(request: HttpRequest) -> JsonResponse:
    """Return a token for the device of the API key in `Authorization: Api-Key <key>`; `{"ttl": 900}` shortens it."""
    try:
        clear_text.refuse(request)
    except Problem as problem:
        return _refused(problem.code, problem.text)
    if request.method != "POST":
        return _refused("method-not-allowed", "Send a POST.", Allow="POST")
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    key = key.strip() if scheme.lower() == "api-key" else ""
    if not key or len(key) > LONGEST_KEY or not key.isascii():
        return _unauthorized()
    address, digest = addresses.subscriber(addresses.of_request(request)), digest_api_key(key)
    username = await _username(digest)
    if username is None:
        if wait := _failures.wait(address, digest):
            return _too_many(wait)
        _failures.note(address, digest)
        return _unauthorized()
    ttl = _ttl(request)
    if ttl is None:
        return _refused("invalid", f"ttl is a whole number of seconds, 1 to {TTL}.")
    try:
        issued = await tokens.issue(username, ttl)
    except (tokens.NotIssued, AmbiguousIdentity):
        return _unauthorized()  # The reply does not show whether the device is disabled or ambiguous.
    return JsonResponse(
        {"token": issued, "token_type": "JWT", "expires_in": ttl}, headers={"Cache-Control": "no-store"}
    )


def _unauthorized() -> JsonResponse:
    return _refused("not-authenticated", "This API key is not valid.", WWW_Authenticate="Api-Key")


def _too_many(wait: int) -> JsonResponse:
    text = "Too many invalid API keys came from this address. Try again later."
    response = _refused("too-many-requests", text, Retry_After=str(wait))
    response._has_been_logged = True  # type: ignore[attr-defined] # Django would log every 4xx.
    return response


def _refused(code: str, text: str, **headers: str) -> JsonResponse:
    """Return the problem *code*, whose member `error` repeats *text* for devices that read no other."""
    problem = Problem(code, text)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JsonResponse(
        {**problems.content(problem), "error": text},
        status=problem.status_code,
        content_type=problems.MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **named},
    )


async def _username(digest: str) -> str | None:
    """Return the MQTT username of the device whose key has this digest, or None; one statement for all kinds."""
    kinds = list(registry)
    if not kinds:
        return None
    rows = await reader.fetch(device_keys.statement(kinds), [digest] * len(kinds))
    return str(rows[0][-1]) if len(rows) == 1 and rows[0][-1] else None


def _ttl(request: HttpRequest) -> int | None:
    body = request.read(MAX_BODY + 1)
    if not body:
        return TTL
    try:
        wanted = json.loads(body)["ttl"] if len(body) <= MAX_BODY else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return wanted if type(wanted) is int and 0 < wanted <= TTL else None
