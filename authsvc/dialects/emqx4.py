"""EMQX 4.3 and 4.4, plugin emqx_auth_http.

A 200 is an allow with any body except the exact text `ignore`, which passes the question on. Any other status is a
deny, so the status is the verdict. An absent name is the text `undefined`.
"""

from __future__ import annotations

from authsvc.core.access import (
    Action,
    LoginQuestion,
    MalformedRequest,
    SuperuserQuestion,
    TopicQuestion,
    Verdict,
)
from authsvc.dialects.base import Dialect, Reply, Request, json_reply

ACCESS = {"1": Action.SUBSCRIBE, "2": Action.PUBLISH}  # The numbers of mosquitto differ.

ALLOWED = json_reply(200, {"result": "allow"})
DENIED = json_reply(403, {"result": "deny"})
UNAVAILABLE = json_reply(503, {"result": "unavailable"})


def parse_auth(request: Request) -> LoginQuestion:
    fields = request.fields
    return LoginQuestion(fields.client("clientid"), fields.text("password"))


def parse_superuser(request: Request) -> SuperuserQuestion:
    return SuperuserQuestion(request.fields.client("clientid"))


def parse_acl(request: Request) -> TopicQuestion:
    """Parse one topic or filter. EMQX has already removed `$share/<group>/` and `$queue/`."""
    fields = request.fields
    action = ACCESS.get(fields.text("access"))
    if action is None:
        raise MalformedRequest("access is not one of 1, 2")
    return TopicQuestion(fields.client("clientid"), action, [fields.text("topic")])


def render(_request: Request, verdict: Verdict) -> Reply:
    return ALLOWED if verdict.allowed else DENIED


def fault(_request: Request) -> Reply:
    """Return a 503, which is a deny too. The broker applies `acl_nomatch` only if it gets no reply."""
    return UNAVAILABLE


DIALECT = Dialect(
    "emqx4", {"auth": parse_auth, "superuser": parse_superuser, "acl": parse_acl}, render, fault, "auth"
)
