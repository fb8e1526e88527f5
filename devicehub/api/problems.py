"""The errors of the API as problem details (RFC 9457): each has a stable type, and a text that says what to do.

{"type": "/problems/unknown-parameter", "title": "Unknown parameter", "status": 400,
 "detail": "There is no parameter pagesize; this address takes cursor, fields, limit."}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import structlog
from django.core.exceptions import (
    BadRequest,
    PermissionDenied,
    RequestDataTooBig,
    SuspiciousOperation,
    TooManyFieldsSent,
    TooManyFilesSent,
    ValidationError,
)
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, ProgrammingError
from django.http import Http404, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from authsvc import logs
from devicehub.errors import DevicehubError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
PREFIX = "/problems/"
MOST_ERRORS = 50  # Errors that one answer lists.
LONGEST = 500  # characters of a detail


class Kind(NamedTuple):
    """A type of problem: its status, its title, and advice for those who meet it."""

    status: int
    title: str
    advice: str


KINDS: dict[str, Kind] = {
    "invalid": Kind(
        400, "Invalid value", "Correct the values that `errors` lists, and send the request again."
    ),
    "unknown-parameter": Kind(400, "Unknown parameter", "Leave it out, or correct its name."),
    "invalid-cursor": Kind(
        400, "Invalid cursor", "Begin again without `cursor`, and follow `next` as it is."
    ),
    "unreadable-body": Kind(
        400, "Unreadable body", "Send JSON in UTF-8, with `Content-Type: application/json`."
    ),
    "not-authenticated": Kind(
        401, "Not authenticated", "Send `Authorization: Api-Key dh_...` with a key that is valid."
    ),
    "not-allowed": Kind(
        403, "Not allowed", "Use a key with the scope that `detail` names, of a user with the permission."
    ),
    "https-required": Kind(
        403, "https required", "Use https, and make a new key: this one was sent in clear text."
    ),
    "csrf": Kind(403, "CSRF check failed", "Send the CSRF token with a session, or use an API key."),
    "not-found": Kind(
        404, "Not found", "Check the address. Objects that you may not see are not found either."
    ),
    "method-not-allowed": Kind(405, "Method not allowed", "Use one of the methods in `Allow`."),
    "not-acceptable": Kind(406, "Not acceptable", "Accept `application/json`, or what the schema names."),
    "timed-out": Kind(408, "Body timed out", "Send the whole body without a pause."),
    "conflict": Kind(409, "Conflict", "Read the present state, and decide again."),
    "taken": Kind(409, "Name taken", "Choose another name."),
    "already-made": Kind(
        409, "Already made", "The first request made it. Its secret is shown once; rotate it if it was lost."
    ),
    "changed": Kind(412, "Changed meanwhile", "Read it again, and send the new `ETag` as `If-Match`."),
    "too-large": Kind(413, "Too large", "Send less at once, or ask for less."),
    "unsupported-media-type": Kind(
        415, "Unsupported media type", "Use a `Content-Type` that the schema names."
    ),
    "key-reused": Kind(
        422,
        "Idempotency key reused",
        "Use a new `Idempotency-Key` for a request that differs from the first.",
    ),
    "too-many-requests": Kind(429, "Too many requests", "Wait as many seconds as `Retry-After` says."),
    "failed": Kind(500, "Server error", "Try again later. The log of the server has the reason."),
    "unavailable": Kind(503, "Unavailable", "Try again in as many seconds as `Retry-After` says."),
}

OF_DRF: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.NotAuthenticated, "not-authenticated"),
    (exceptions.AuthenticationFailed, "not-authenticated"),
    (exceptions.PermissionDenied, "not-allowed"),
    (exceptions.NotFound, "not-found"),
    (exceptions.MethodNotAllowed, "method-not-allowed"),
    (exceptions.NotAcceptable, "not-acceptable"),
    (exceptions.UnsupportedMediaType, "unsupported-media-type"),
    (exceptions.ParseError, "unreadable-body"),
    (exceptions.Throttled, "too-many-requests"),
)


class Problem(DevicehubError, exceptions.APIException):
    """A request that is refused with the problem *code*, one of KINDS. *errors* are the texts by field."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        kind = KINDS[code]
        exceptions.APIException.__init__(self, detail or kind.advice, code)
        self.code, self.status_code, self.members = code, kind.status, members
        self.text = detail or kind.advice
        self.errors, self.headers = dict(errors or {}), dict(headers or {})


def invalid(field: str, text: str) -> Problem:
    """Return the problem of one value; an empty *field* is the request as a whole."""
    return Problem("invalid", text, errors={field: [text]})


def content(problem: Problem) -> dict[str, Any]:
    """Return the members of the answer to *problem*."""
    found = {
        "type": f"{PREFIX}{problem.code}",
        "title": KINDS[problem.code].title,
        "status": problem.status_code,
        "detail": problem.text[:LONGEST],
        **problem.members,
    }
    listed = list(_flat(problem.errors))[:MOST_ERRORS]
    return {**found, "errors": listed} if listed else found


def answer(error: Exception, context: Mapping[str, Any]) -> Response:
    """Return the answer to *error*, which a view raised. It is the exception handler of every view of the API."""
    problem = of(error)
    if problem is None:
        request = context.get("request")
        logs.error(
            log, "api.failed", path=getattr(request, "path", ""), method=getattr(request, "method", "")
        )
        problem = Problem("failed")
    response = Response(content(problem), problem.status_code, headers=problem.headers)
    response.content_type = MEDIA_TYPE
    response["Cache-Control"] = "no-store"
    response._has_been_logged = problem.status_code != HTTPStatus.INTERNAL_SERVER_ERROR
    return response


def of(error: Exception) -> Problem | None:
    """Return the problem that *error* is to a client; None for a fault of this program."""
    match error:
        case Problem():
            return error
        case exceptions.ValidationError():
            return _of_fields(error.detail)
        case ValidationError():
            errors = error.message_dict if hasattr(error, "error_dict") else {"": error.messages}
            return _of_fields(errors)
        case exceptions.APIException():
            return _of_drf(error)
        case Http404():
            return Problem("not-found")
        case PermissionDenied():
            return Problem("not-allowed", str(error))
        case TooManyFieldsSent() | TooManyFilesSent() | RequestDataTooBig():
            return Problem("too-large")
        case BadRequest() | SuspiciousOperation() | MultiPartParserError() | UnreadablePostError():
            return Problem("unreadable-body")
        case IntegrityError():
            return Problem("conflict")
        case DataError() | ProgrammingError():
            return None
        case DatabaseError() | InterfaceError():
            logs.error(log, "api.database_away", error=type(error).__name__)
            return Problem("unavailable", headers={"Retry-After": "5"})
    return None


def _of_drf(error: exceptions.APIException) -> Problem:
    code = next((code for kind, code in OF_DRF if isinstance(error, kind)), "")
    if not code:
        return Problem("invalid", str(error.detail))
    detail = str(error.detail)
    if detail.startswith("CSRF Failed"):
        code, detail = "csrf", ""
    headers = {}
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(math.ceil(wait))
    if auth_header := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    keeps = isinstance(
        error, exceptions.PermissionDenied | exceptions.MethodNotAllowed | exceptions.ParseError
    )
    return Problem(code, detail if keeps else "", headers=headers)


def _of_fields(detail: Any) -> Problem:
    errors = detail if isinstance(detail, Mapping) else {"": detail}
    first = next(_flat(errors), {"field": "", "detail": KINDS["invalid"].advice})
    text = f"{first['field']}: {first['detail']}" if first["field"] else first["detail"]
    return Problem("invalid", text, errors=errors)


def _flat(errors: Any, path: str = "") -> Iterator[dict[str, str]]:
    """Yield the errors of a serializer one by one, each with the path of its field, such as `payload.level`."""
    if isinstance(errors, Mapping):
        for name, inner in errors.items():
            name = "" if name in (api_settings.NON_FIELD_ERRORS_KEY, "__all__") else str(name)[:100]
            yield from _flat(inner, ".".join(filter(None, (path, name))))
    elif isinstance(errors, list | tuple):
        for position, inner in enumerate(errors):
            is_nested = isinstance(inner, Mapping | list | tuple)
            yield from _flat(inner, ".".join(filter(None, (path, str(position)))) if is_nested else path)
    else:
        yield {"field": path, "detail": str(errors)[:LONGEST]}
