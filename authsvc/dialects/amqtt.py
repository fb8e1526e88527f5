"""aMQTT 0.11 and 0.12, plugins UserAuthHttpPlugin and TopicAuthHttpPlugin.

It looks like go-auth and is not: the field is `client_id`, absent values are null or the text `None`, and in
its `json` mode `ok` is tested for truth, so it must be a JSON boolean. A 204 makes the plugin raise.
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
    if action is None:  # 0 is the plugin's word for an action it does not know
        raise MalformedRequest("acc is none of 1, 2, 4")
    return TopicQuestion(fields.client("client_id"), action, [fields.text("topic")])


def render(_request: Request, verdict: Verdict) -> Reply:
    return ALLOWED if verdict.allowed else DENIED


def fault(_request: Request) -> Reply:
    """A 5xx is a deny in json mode, and no opinion (so no entry) in status mode."""
    return UNAVAILABLE


DIALECT = Dialect("amqtt", {"user": parse_user, "acl": parse_acl}, render, fault, "user")
