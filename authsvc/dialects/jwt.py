"""Mosquitto with mosquitto-go-auth 3.0, `jwt` backend in remote mode: the MQTT username is a token of this service.

The plugin sends it as `Authorization: Bearer`, and the body of the user and superuser calls is `null` or empty.
The verified token alone identifies the client. Replies are those of the http backend of go-auth.
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
    """Parse a user call. It has no client id in any mode; acl calls have one, and it is checked there."""
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
    """Return the client that the token names. A username in the body (`jwt_parse_token`) must be the same."""
    scheme, _, token = (request.header(b"authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidToken("there is no token")
    claims, end = tokens.verify_with_end(token.strip(), request.options.jwt_keys)
    in_query = request.method == "GET" and not request.body
    has_no_fields = request.body.strip() in EMPTY_BODIES and not request.oversized and not in_query
    fields = Fields() if has_no_fields else request.fields
    if "username" in fields and fields.text("username") != claims.username:
        raise MalformedRequest("the body has another username than the token")
    return Client(claims.username, None, claims.version, end)


DIALECT = Dialect(
    "jwt",
    {"user": parse_user, "superuser": parse_superuser, "acl": parse_acl},
    render,
    fault,
    "user",
    authorization_is_the_clients=True,
)
