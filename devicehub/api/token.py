"""`POST /api/token`: a device gives its API key and gets a short-lived token."""

from __future__ import annotations

import json

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from authsvc import reader, tokens
from authsvc.core.access import AmbiguousIdentity
from devicehub.models import digest_api_key
from devicehub.registry import registry

TTL = 3600  # seconds, unless the device asks for less
MAX_BODY = 1024


@login_not_required
@csrf_exempt
async def token(request: HttpRequest) -> JsonResponse:
    """A token for the device whose key the header `Authorization: Api-Key <key>` holds; `{"ttl": 900}` shortens it."""
    if request.method != "POST":
        return JsonResponse({"error": "Send a POST."}, status=405, headers={"Allow": "POST"})
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    username = await _username(key.strip()) if scheme.lower() == "api-key" else None
    if username is None:
        return _unauthorized()
    ttl = _ttl(request)
    if ttl is None:
        return JsonResponse({"error": f"ttl is a whole number of seconds, 1 to {TTL}."}, status=400)
    try:
        issued = await tokens.issue(username, ttl)
    except (tokens.NotIssued, AmbiguousIdentity):
        return _unauthorized()  # disabled, or ambiguous: who holds the key learns no more
    return JsonResponse(
        {"token": issued, "token_type": "JWT", "expires_in": ttl}, headers={"Cache-Control": "no-store"}
    )


def _unauthorized() -> JsonResponse:
    return JsonResponse(
        {"error": "This API key is not valid."}, status=401, headers={"WWW-Authenticate": "Api-Key"}
    )


async def _username(key: str) -> str | None:
    """The MQTT username of the device whose key this is; looked up by digest, one statement for all kinds."""
    kinds = list(registry)
    if not kinds or not key or len(key) > 256 or not key.isascii():
        return None
    arms = (
        f"SELECT mqtt_username FROM {kind.device_model._meta.db_table} WHERE api_key = %s AND is_active"  # noqa: S608
        for kind in kinds
    )
    rows = await reader.fetch(" UNION ALL ".join(arms), [digest_api_key(key)] * len(kinds))
    return str(rows[0][0]) if len(rows) == 1 and rows[0][0] else None


def _ttl(request: HttpRequest) -> int | None:
    body = request.read(MAX_BODY + 1)
    if not body:
        return TTL
    try:
        wanted = json.loads(body)["ttl"] if len(body) <= MAX_BODY else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return wanted if type(wanted) is int and 0 < wanted <= TTL else None
