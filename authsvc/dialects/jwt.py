"""Mosquitto with mosquitto-go-auth 3.0, `jwt` backend in remote mode: the MQTT username is a token of ours.

The plugin sends it as `Authorization: Bearer`, and the body of the user and superuser calls is `null` or empty.
Who asks is taken from the verified token alone. Replies are those of go-auth's http backend.
"""

from __future__ import annotations

from authsvc.core import tokens
from authsvc.core.access import (
    Action,
    Client,
    InvalidToken,
    MalformedRequest,
    ResourceQuestion,
    SuperuserQuestion,
    TopicQuestion,
)
from authsvc.dialects.base import Dialect, Fields, Request
from authsvc.dialects.go_auth import fault, parse_acc, render

EMPTY_BODIES = (b"", b"null")


def parse_user(request: Request) -> ResourceQuestion:
    """The plugin sends no client id here in any mode; the acl calls bring it, and bind it."""
    return ResourceQuestion(_client(request), "connection", shared=True)


def parse_superuser(request: Request) -> SuperuserQuestion:
    return SuperuserQuestion(_client(request))


def parse_acl(request: Request) -> TopicQuestion:
    client = _client(request)
    fields = request.fields
    action: Action = parse_acc(request)
    bound = client._replace(client_id=fields.text("clientid"))
    return TopicQuestion(bound, action, [fields.text("topic")])


def _client(request: Request) -> Client:
    """Who the token says. A username in the body (`jwt_parse_token`) must say the same."""
    scheme, _, token = (request.header(b"authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidToken("there is no token")
    claims, end = tokens.verify_with_end(token.strip(), request.options.jwt_keys)
    in_query = request.method == "GET" and not request.body
    names_nobody = request.body.strip() in EMPTY_BODIES and not request.oversized and not in_query
    fields = Fields() if names_nobody else request.fields
    if "username" in fields and fields.text("username") != claims.username:
        raise MalformedRequest("the body names somebody else than the token")
    return Client(claims.username, None, claims.version, end)


DIALECT = Dialect(
    "jwt",
    {"user": parse_user, "superuser": parse_superuser, "acl": parse_acl},
    render,
    fault,
    "user",
    authorization_is_the_clients=True,
)
