"""aMQTT 0.11 and 0.12, plugins UserAuthHttpPlugin and TopicAuthHttpPlugin.

It differs from go-auth: the field is `client_id`, absent values are null or the text `None`, and its `json` mode tests
the truth of `ok`, which so must be a JSON boolean. A 204 makes the plugin raise.
"""

from __future__ import annotations

from authsvc.core.access import Action, LoginQuestion, MalformedRequest, TopicQuestion, Verdict
from authsvc.dialects.base import Dialect, Reply, Request, json_reply

ACC = {1: Action.RECEIVE, 2: Action.PUBLISH, 4: Action.SUBSCRIBE}
ACC_IN_FORMS = {str(number): action for number, action in ACC.items()}

ALLOWED = json_reply(200, {"ok": True})
DENIED = json_reply(403, {"ok": False})
UNAVAILABLE = json_reply(503, {"ok": False})


def parse_user(request: Request) -> LoginQuestion:
    fields = request.fields
    return LoginQuestion(fields.client("client_id"), fields.text("password"))


def parse_acl(request: Request) -> TopicQuestion:
    fields = request.fields
    acc = fields["acc"]
    action = ACC_IN_FORMS.get(acc) if request.is_form else ACC.get(acc) if type(acc) is int else None
    if action is None:  # The plugin sends 0 for an unknown action.
        raise MalformedRequest("acc is not one of 1, 2, 4")
    return TopicQuestion(fields.client("client_id"), action, [fields.text("topic")])


def render(_request: Request, verdict: Verdict) -> Reply:
    return ALLOWED if verdict.allowed else DENIED


def fault(_request: Request) -> Reply:
    """Return a 5xx: a deny in json mode, and no decision (so no access) in status mode."""
    return UNAVAILABLE


DIALECT = Dialect("amqtt", {"user": parse_user, "acl": parse_acl}, render, fault, "user")
