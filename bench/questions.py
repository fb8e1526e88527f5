"""Questions of a broker as bytes, in each dialect, and scripts of wrk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

from rig.serving import Device

FORM = "application/x-www-form-urlencoded"
PUBLISH = 2
IN_TURN = """\
local requests = {{{requests}}}
local last = 0
function request()
  last = last % #requests + 1
  return requests[last]
end
"""
AT_RANDOM = """\
local parts = {{{parts}}}
math.randomseed({seed})
function request()
  return table.concat(parts, string.format("{template}", math.random({count})))
end
"""


def login(token: str, device: Device) -> str:
    """Return the login of *device* in go-auth."""
    return _go_auth("user", token, device, password=device.password)


def acl(token: str, device: Device) -> str:
    """Return the question whether *device* may publish to its topic, in go-auth."""
    return _go_auth("acl", token, device, acc=PUBLISH, topic=device.topic)


def of_dialect(name: str) -> dict[str, Callable[[str, Device], str]]:
    """Return functions for the login and for the right to publish in dialect *name*, by the name of the question.

    The bytes are those of the configuration that create_broker prints.
    """
    if name == "go-auth":
        return {"login": login, "acl": acl}
    found = {"login": _OTHERS[name][0], "acl": _OTHERS[name][1]}
    return {f"{name} {question}": make for question, make in found.items()}


def _go_auth(question: str, token: str, device: Device, **fields: object) -> str:
    fields = {"clientid": device.device_id, "username": device.username, **fields}
    return _json(f"go-auth/{question}?k={token}", fields)


def _json(path: str, fields: Mapping[str, object] | None, *headers: str) -> str:
    return _post(path, json.dumps(fields), "Content-Type: application/json", *headers)


def _form(path: str, fields: Mapping[str, str], *headers: str) -> str:
    return _post(path, urlencode(fields), f"Content-Type: {FORM}", *headers)


def _post(path: str, body: str, *headers: str) -> str:
    head = [f"POST /mqtt/{path} HTTP/1.1", "Host: localhost", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", body])


def _names(device: Device, client_id: str = "clientid") -> dict[str, str]:
    return {client_id: device.device_id, "username": device.username}


def _rabbitmq(device: Device) -> dict[str, str]:
    return {**_names(device, "client_id"), "vhost": "/"}


def _topic_of_rabbitmq(device: Device) -> dict[str, str]:
    key = device.topic.replace("/", ".")
    about = {"resource": "topic", "name": "amq.topic", "permission": "write", "routing_key": key}
    return {**_rabbitmq(device), **about}


def _bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


# The login and the right to publish, by dialect.
_OTHERS: dict[str, tuple[Callable[[str, Device], str], Callable[[str, Device], str]]] = {
    "emqx": (
        lambda token, device: _json(
            "emqx/authn", {**_names(device), "password": device.password}, _bearer(token)
        ),
        lambda token, device: _json(
            "emqx/authz", {**_names(device), "action": "publish", "topic": device.topic}, _bearer(token)
        ),
    ),
    "emqx4": (
        lambda token, device: _form(
            "emqx4/auth", {**_names(device), "password": device.password}, _bearer(token)
        ),
        lambda token, device: _form(
            "emqx4/acl", {"access": "2", **_names(device), "topic": device.topic}, _bearer(token)
        ),
    ),
    "nanomq": (
        lambda token, device: _json(
            "nanomq/auth", {**_names(device), "password": device.password}, f"X-Broker-Secret: {token}"
        ),
        lambda token, device: _json(
            "nanomq/acl",
            {**_names(device), "access": "2", "topic": device.topic},
            f"X-Broker-Secret: {token}",
        ),
    ),
    "rabbitmq": (
        lambda token, device: _form(
            f"rabbitmq/user?k={token}", {**_rabbitmq(device), "password": device.password}
        ),
        lambda token, device: _form(f"rabbitmq/topic?k={token}", _topic_of_rabbitmq(device)),
    ),
    "vernemq": (
        lambda token, device: _json(
            f"k/{token}/vernemq/register",
            {**_names(device, "client_id"), "password": device.password, "mountpoint": ""},
            "vernemq-hook: auth_on_register",
        ),
        lambda token, device: _json(
            f"k/{token}/vernemq/publish",
            {
                **_names(device, "client_id"),
                "mountpoint": "",
                "qos": 1,
                "topic": device.topic,
                "retain": False,
            },
            "vernemq-hook: auth_on_publish",
        ),
    ),
    "amqtt": (
        lambda token, device: _json(
            f"amqtt/user?k={token}", {**_names(device, "client_id"), "password": device.password}
        ),
        lambda token, device: _json(
            f"amqtt/acl?k={token}", {**_names(device, "client_id"), "acc": PUBLISH, "topic": device.topic}
        ),
    ),
    "jwt": (
        lambda token, device: _json(f"jwt/user?k={token}", None, _bearer(device.jwt)),
        lambda token, device: _json(
            f"jwt/acl?k={token}",
            {"clientid": device.device_id, "acc": PUBLISH, "topic": device.topic},
            _bearer(device.jwt),
        ),
    ),
}
DIALECTS = ("go-auth", *_OTHERS)


def in_turn(requests: list[str]) -> str:
    """Return a script that sends *requests* in turn. All text exists before wrk starts its clock."""
    return IN_TURN.format(requests=", ".join(map(json.dumps, requests)))


def at_random(request: str, device_id: str, template: str, count: int, seed: int) -> str:
    """Return a script that sends *request* with a random id, *template* of 1 to *count*, in place of *device_id*."""
    parts = ", ".join(map(json.dumps, request.split(device_id)))
    return AT_RANDOM.format(parts=parts, seed=seed, template=template, count=count)
