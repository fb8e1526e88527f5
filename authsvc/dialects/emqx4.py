"""EMQX 4.3 and 4.4, plugin emqx_auth_http.

A 200 lets the client in whatever its body says (only the exact text `ignore` would pass the question on), and
any other status keeps it out, so verdicts are statuses here. An absent name arrives as the text `undefined`.
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

ACCESS = {"1": Action.SUBSCRIBE, "2": Action.PUBLISH}  # the opposite feel of mosquitto's numbers

ALLOWED = json_reply(200, {"result": "allow"})
DENIED = json_reply(403, {"result": "deny"})
UNAVAILABLE = json_reply(503, {"result": "unavailable"})


def parse_auth(request: Request) -> LoginQuestion:
    fields = request.fields
    return LoginQuestion(fields.client("clientid"), fields.text("password"))


def parse_superuser(request: Request) -> SuperuserQuestion:
    return SuperuserQuestion(request.fields.client("clientid"))


def parse_acl(request: Request) -> TopicQuestion:
    """One topic or filter a call; `$share/<group>/` and `$queue/` are taken off before."""
    fields = request.fields
    action = ACCESS.get(fields.text("access"))
    if action is None:
        raise MalformedRequest("access is none of 1, 2")
    return TopicQuestion(fields.client("clientid"), action, [fields.text("topic")])


def render(_request: Request, verdict: Verdict) -> Reply:
    return ALLOWED if verdict.allowed else DENIED


def fault(_request: Request) -> Reply:
    """Denies too; only a service that is gone makes the broker ask its `acl_nomatch`."""
    return UNAVAILABLE


DIALECT = Dialect(
    "emqx4", {"auth": parse_auth, "superuser": parse_superuser, "acl": parse_acl}, render, fault, "auth"
)
