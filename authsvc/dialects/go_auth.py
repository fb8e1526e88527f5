"""Mosquitto with mosquitto-go-auth 3.0, `http` backend.

In `status` mode any 2xx is an allow and any 4xx a deny; in `json` mode `ok` decides; in `text` mode only the body `ok`
is an allow. So status and body always agree. A 5xx is an error: it disconnects the client.
"""

from __future__ import annotations

from authsvc.core.access import (
    Action,
    Client,
    LoginQuestion,
    MalformedRequest,
    SuperuserQuestion,
    TopicQuestion,
    Verdict,
)
from authsvc.dialects.base import TEXT, Dialect, Reply, Request, json_reply

# Mosquitto also has 3 (read and write) and 8 (unsubscribe), but never passes them to this plugin.
ACC = {1: Action.RECEIVE, 2: Action.PUBLISH, 4: Action.SUBSCRIBE}
ACC_IN_FORMS = {str(number): action for number, action in ACC.items()}

ALLOWED = json_reply(200, {"ok": True, "error": ""})
DENIED = json_reply(403, {"ok": False, "error": "denied"})
UNAVAILABLE = json_reply(503, {"ok": False, "error": "unavailable"})
ALLOWED_TEXT = Reply(200, b"ok", TEXT)
DENIED_TEXT = Reply(403, b"denied", TEXT)
UNAVAILABLE_TEXT = Reply(503, b"unavailable", TEXT)


def parse_user(request: Request) -> LoginQuestion:
    fields = request.fields
    return LoginQuestion(fields.client("clientid"), fields.text("password"))


def parse_superuser(request: Request) -> SuperuserQuestion:
    """Parse a superuser call, which carries the username only."""
    return SuperuserQuestion(Client(request.fields.text("username"), None))


def parse_acl(request: Request) -> TopicQuestion:
    fields = request.fields
    return TopicQuestion(fields.client("clientid"), parse_acc(request), [fields.text("topic")])


def parse_acc(request: Request) -> Action:
    """Return the action of the field `acc`. Raise MalformedRequest."""
    acc = request.fields["acc"]
    action = ACC_IN_FORMS.get(acc) if request.is_form else ACC.get(acc) if type(acc) is int else None
    if action is None:  # Also for true, 2.0 and "2" in JSON.
        raise MalformedRequest("acc is not one of 1, 2, 4")
    return action


def render(request: Request, verdict: Verdict) -> Reply:
    """Return an allow or a deny without its reason: an unknown name and a wrong password look the same."""
    if _is_text(request):
        return ALLOWED_TEXT if verdict.allowed else DENIED_TEXT
    return ALLOWED if verdict.allowed else DENIED


def fault(request: Request) -> Reply:
    return UNAVAILABLE_TEXT if _is_text(request) else UNAVAILABLE


def _is_text(request: Request) -> bool:
    """Return whether the URL that the operator configured selects the `text` mode: `?format=text`."""
    return "format=text" in request.query.split("&")


DIALECT = Dialect(
    "go-auth", {"user": parse_user, "superuser": parse_superuser, "acl": parse_acl}, render, fault, "user"
)
