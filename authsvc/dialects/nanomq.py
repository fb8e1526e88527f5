"""NanoMQ 0.21 to 0.25 and EMQX Edge. Status 200 is an allow, everything else a deny; the body is not read.

All filters of one SUBSCRIBE come in one `topic`, joined by commas, and the answer applies to all of them.
Before 0.25.2 a client could inject fields through its name, so a repeated field is a deny.
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

ACCESS = {"1": Action.SUBSCRIBE, "2": Action.PUBLISH}
MAX_FILTERS = 1_000  # Filters in one SUBSCRIBE.

ALLOWED = json_reply(200, {"result": "allow"})
DENIED = json_reply(403, {"result": "deny"})
UNAVAILABLE = json_reply(503, {"result": "unavailable"})


def parse_auth(request: Request) -> LoginQuestion:
    fields = request.fields
    return LoginQuestion(fields.client("clientid"), fields.text("password"))


def parse_superuser(request: Request) -> SuperuserQuestion:
    return SuperuserQuestion(request.fields.client("clientid"))


def parse_acl(request: Request) -> TopicQuestion:
    """Parse topics. A comma is legal in a topic, but here it always separates two: each part must be allowed."""
    fields = request.fields
    action = ACCESS.get(fields.text("access"))
    if action is None:
        raise MalformedRequest("access is not one of 1, 2")
    topics = fields.text("topic").split(",")
    if len(topics) > MAX_FILTERS:
        raise MalformedRequest(f"more than {MAX_FILTERS} filters")
    return TopicQuestion(fields.client("clientid"), action, topics)


def render(_request: Request, verdict: Verdict) -> Reply:
    return ALLOWED if verdict.allowed else DENIED


def fault(_request: Request) -> Reply:
    return UNAVAILABLE


DIALECT = Dialect(
    "nanomq", {"auth": parse_auth, "superuser": parse_superuser, "acl": parse_acl}, render, fault, "auth"
)
