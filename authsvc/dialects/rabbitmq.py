"""RabbitMQ 3.10 to 4.3 with rabbitmq_auth_backend_http and rabbitmq_mqtt.

Replies are always 200 and one word: any other status is an error, and `allowed` would be an allow with the tag `ed`.
Topics come as routing keys: `/` became `.`, `+` became `*`. A `.` or `*` of the original looks the same, so
identifiers here contain neither.
"""

from __future__ import annotations

from authsvc.core.access import (
    Action,
    Client,
    LoginQuestion,
    MalformedRequest,
    Refused,
    ResourceQuestion,
    TopicQuestion,
    Verdict,
)
from authsvc.dialects.base import TEXT, Dialect, Fields, Reply, Request

ALLOWED = Reply(200, b"allow", TEXT)
DENIED = Reply(200, b"deny", TEXT)
UNAVAILABLE = Reply(503, b"unavailable", TEXT)

ACTIONS = {"write": Action.PUBLISH, "read": Action.SUBSCRIBE}
PERMISSIONS = frozenset({"configure", "write", "read"})


def parse_user(request: Request) -> LoginQuestion:
    fields = request.fields
    if "vhost" in fields:  # Logins of the management plugin have none.
        _check_vhost(request)
    return LoginQuestion(_client(fields), fields.text("password"))


def parse_vhost(request: Request) -> ResourceQuestion:
    fields = request.fields
    _check_vhost(request)
    return ResourceQuestion(_client(fields), f"vhost {fields.text('vhost')}", shared=True)


def parse_resource(request: Request) -> ResourceQuestion:
    """Parse a resource call. Clients use one exchange, and the queues that the MQTT plugin names by client id."""
    fields = request.fields
    _check_vhost(request)
    client = _client(fields)
    kind, name, permission = fields.text("resource"), fields.text("name"), fields.text("permission")
    if permission not in PERMISSIONS:
        raise MalformedRequest("permission is not one of configure, write, read")
    if kind == "exchange":
        shared = name == request.options.rabbitmq_exchange and permission != "configure"
    else:
        shared = kind == "queue" and name in _queues(client.client_id)
    return ResourceQuestion(client, f"{kind} {name} {permission}", shared)


def parse_topic(request: Request) -> TopicQuestion:
    fields = request.fields
    _check_vhost(request)
    if fields.text("resource") != "topic":
        raise MalformedRequest("resource is not topic")
    if fields.text("name") != request.options.rabbitmq_exchange:
        raise Refused(f"{fields.text('name')} is not the exchange of MQTT")
    action = ACTIONS.get(fields.text("permission"))
    if action is None:
        raise MalformedRequest("permission is not one of write, read")
    return TopicQuestion(_client(fields), action, [_topic(fields.text("routing_key"))])


def render(_request: Request, verdict: Verdict) -> Reply:
    return ALLOWED if verdict.allowed else DENIED


def fault(_request: Request) -> Reply:
    return UNAVAILABLE


def _client(fields: Fields) -> Client:
    """Return the client. RabbitMQ repeats both names in `variable_map`; older 3.x and AMQP send no client id."""
    username = fields.text("username")
    client_ids = [fields.text(n) for n in ("client_id", "variable_map.client_id") if n in fields]
    if fields.get("variable_map.username", username) != username or len(set(client_ids)) > 1:
        raise MalformedRequest("variable_map names another client")
    return Client(username, client_ids[0] if client_ids else None)


def _check_vhost(request: Request) -> None:
    """Raise Refused for another vhost. A username `vhost:name` selects one, so every call is checked."""
    vhost = request.fields.text("vhost")
    if vhost != request.options.rabbitmq_vhost:
        raise Refused(f"{vhost} is not the virtual host of MQTT")


def _queues(client_id: str | None) -> tuple[str, ...]:
    if not client_id:
        return ()
    subscription = f"mqtt-subscription-{client_id}qos"
    return (f"{subscription}0", f"{subscription}1", f"mqtt-will-{client_id}")


def _topic(routing_key: str) -> str:
    """Return the MQTT topic or filter of a routing key.

    >>> _topic("things.weatherstation.*.cmd"), _topic("things.#")
    ('things/weatherstation/+/cmd', 'things/#')
    """
    words = routing_key.split(".")
    if "/" in routing_key or "+" in routing_key or any("*" in word and word != "*" for word in words):
        raise MalformedRequest("the routing key is not that of an MQTT topic")
    return "/".join("+" if word == "*" else word for word in words)


DIALECT = Dialect(
    "rabbitmq",
    {"user": parse_user, "vhost": parse_vhost, "resource": parse_resource, "topic": parse_topic},
    render,
    fault,
    "user",
)
