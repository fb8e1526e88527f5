"""VerneMQ 1.x and 2.x webhooks, the three hooks and their MQTT 5 twins (`_m5`).

Only a 200 with one of its JSON objects is an answer; a text such as `deny` crashes the session. A deny is an error
object. `max-age` is never sent: VerneMQ would cache an allow beyond a revocation.
"""

from __future__ import annotations

import json
from typing import Any

from authsvc.core.access import Action, LoginQuestion, MalformedRequest, Reason, TopicQuestion, Verdict
from authsvc.dialects.base import Dialect, Reply, Request, json_reply

HOOKS = {"register": "auth_on_register", "publish": "auth_on_publish", "subscribe": "auth_on_subscribe"}
DENIED_V3, DENIED_V5 = 128, 135  # In place of a granted QoS: SUBACK failure, not authorized.
MAX_FILTERS = 1_000

ALLOWED = json_reply(200, {"result": "ok"})
DENIED = json_reply(200, {"result": {"error": "not_allowed"}})
UNKNOWN_CALLER = json_reply(403, {"result": {"error": "not_allowed"}})
UNAVAILABLE = json_reply(503, {"result": {"error": "unavailable"}})


def parse_register(request: Request) -> LoginQuestion:
    fields = _fields(request)
    return LoginQuestion(fields.client("client_id"), fields.text("password"))


def parse_publish(request: Request) -> TopicQuestion:
    fields = _fields(request)
    return TopicQuestion(fields.client("client_id"), Action.PUBLISH, [fields.text("topic")])


def parse_subscribe(request: Request) -> TopicQuestion:
    """Parse all filters of one SUBSCRIBE; each gets its own answer. VerneMQ reads an empty list as "allow all"."""
    fields = _fields(request)
    wanted = [entry["topic"] for entry in _entries(fields["topics"])]
    return TopicQuestion(fields.client("client_id"), Action.SUBSCRIBE, wanted)


def render(request: Request, verdict: Verdict) -> Reply:
    if verdict.allowed:
        return ALLOWED
    if verdict.decisions and verdict.decisions[0].reason is Reason.UNKNOWN_CALLER:
        return UNKNOWN_CALLER
    if request.question != "subscribe" or not any(decision.allowed for decision in verdict.decisions):
        return DENIED
    return _each(request, verdict)


def fault(_request: Request) -> Reply:
    return UNAVAILABLE


def _each(request: Request, verdict: Verdict) -> Reply:
    """Return the reply if some filters are granted: all filters in their order, each with its QoS or refusal."""
    is_v5 = (request.header(b"vernemq-hook") or "").endswith("_m5")
    refused = DENIED_V5 if is_v5 else DENIED_V3
    topics = [
        {"topic": entry["topic"], "qos": entry["qos"] if decision.allowed else refused}
        for entry, decision in zip(request.fields["topics"], verdict.decisions, strict=True)
    ]
    shape = {"modifiers": {"topics": topics}} if is_v5 else {"topics": topics}
    return Reply(200, json.dumps({"result": "ok", **shape}, separators=(",", ":")).encode())


def _fields(request: Request) -> Any:
    """Return the fields. Raise MalformedRequest if the header names another hook than the URL, a misconfiguration."""
    hook = (request.header(b"vernemq-hook") or "").removesuffix("_m5")
    if hook != HOOKS[request.question]:
        raise MalformedRequest("the header vernemq-hook names another hook")
    if request.is_form:
        raise MalformedRequest("a webhook must be JSON")
    return request.fields


def _entries(topics: Any) -> list[dict[str, Any]]:
    if type(topics) is not list or not 0 < len(topics) <= MAX_FILTERS:
        raise MalformedRequest(f"topics is not a list of 1 to {MAX_FILTERS} filters")
    for entry in topics:
        if type(entry) is not dict or type(entry.get("topic")) is not str:
            raise MalformedRequest("a filter is not an object with a topic")
        if type(entry.get("qos")) is not int or entry["qos"] not in (0, 1, 2):
            raise MalformedRequest("a filter does not have a QoS of 0, 1 or 2")
    return topics


DIALECT = Dialect(
    "vernemq",
    {"register": parse_register, "publish": parse_publish, "subscribe": parse_subscribe},
    render,
    fault,
    "register",
)
