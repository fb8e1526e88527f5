"""The answer of a broker's question as it goes over the wire: asked and rendered as for a broker, without its token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from authsvc import chain, policy
from authsvc.brokers.base import NAMES
from authsvc.conf import options
from authsvc.core import authority
from authsvc.core.access import (
    Action,
    AmbiguousIdentity,
    Client,
    Directory,
    Principal,
    Question,
    Refused,
    ResourceQuestion,
    TopicQuestion,
    Verify,
    deny,
)
from authsvc.dialects import BY_NAME, go_auth
from authsvc.dialects.base import JSON, Dialect, Request

CONNECT = "connect"
# Brokers that also ask about each delivery. The others check a subscription only.
ASK_ABOUT_DELIVERIES = frozenset({"go-auth", "jwt", "amqtt"})


@dataclass(frozen=True)
class WireAnswer:
    """The answer to one broker. Without a *status* it does not ask about this."""

    dialect: str
    broker: str
    path: str
    allowed: bool
    status: int | None
    content_type: str
    body: str


class Asked(NamedTuple):
    """A question of a client, in the words of MQTT; *action* may be `connect`, which has no topic."""

    username: str
    client_id: str
    action: str
    topic: str


class _Call(NamedTuple):
    """The call of one broker: the name of the question, its fields, and a header that the dialect reads."""

    question: str
    fields: Mapping[str, Any]
    header: tuple[bytes, bytes] | None = None


SENT_PASSWORD = "-"  # noqa: S105 - It stands for any: the right password is assumed.


async def answers(asked: Asked, verify: Verify, dialects: tuple[str, ...] = tuple(NAMES)) -> list[WireAnswer]:
    """Return the answers of *dialects* to *asked*. *verify* decides on the password. Raise errors of the database."""
    rules = (await policy.read_now()).rules
    directory = _Remembered(chain.configured())
    return [await _answer(asked, BY_NAME[name], rules, directory, verify) for name in dialects]


async def _answer(
    asked: Asked, dialect: Dialect, rules: authority.Rules, directory: Directory, verify: Verify
) -> WireAnswer:
    call = _CALLS[dialect.name](asked)
    path = f"{dialect.name}/{call.question}"
    if asked.action == Action.RECEIVE and dialect.name not in ASK_ABOUT_DELIVERIES:
        return WireAnswer(dialect.name, NAMES[dialect.name], path, True, None, "", "")
    headers = ((b"content-type", JSON.encode()), *([call.header] if call.header else []))
    body = json.dumps(call.fields).encode()
    request = Request("POST", "", headers, body, call.question, options=options())
    try:
        question = _of_token(asked) if dialect.name == "jwt" else dialect.questions[call.question](request)
    except Refused as refusal:
        verdict = deny(refusal.reason)
    else:
        verdict = await authority.decide(question, rules, directory, verify=verify)
    reply = dialect.render(request, verdict)
    text = reply.body.decode(errors="replace")
    return WireAnswer(
        dialect.name, NAMES[dialect.name], path, verdict.allowed, reply.status, reply.content_type, text
    )


class _Remembered:
    """The directories for the questions of several brokers, which all read the same identity."""

    def __init__(self, directory: chain.Chain) -> None:
        self._directory = directory
        self._found: dict[str, Principal | None] = {}
        self._ambiguous: set[str] = set()

    async def lookup(self, username: str) -> Principal | None:
        if username in self._ambiguous:
            raise AmbiguousIdentity(username)
        if username not in self._found:
            try:
                self._found[username] = await self._directory.lookup(username)
            except AmbiguousIdentity:
                self._ambiguous.add(username)
                raise
        return self._found[username]

    async def claimants(self, client_id: str) -> set[str]:
        return await self._directory.claimants(client_id)

    async def groups(self, key: str) -> frozenset[str]:
        return await self._directory.groups(key)


def _of_token(asked: Asked) -> Question:
    """Return the question in which the client's token stands for its name and its password."""
    if asked.action == CONNECT:
        return ResourceQuestion(Client(asked.username, None), "connection", shared=True)
    return TopicQuestion(Client(asked.username, asked.client_id), Action(asked.action), [asked.topic])


def _numbered(asked: Asked, login: str, client_id: str) -> _Call:
    """Return a call with a number for the action, as go-auth and aMQTT number them."""
    fields: dict[str, Any] = {"username": asked.username, client_id: asked.client_id}
    if asked.action == CONNECT:
        return _Call(login, fields | {"password": SENT_PASSWORD})
    number = {action: number for number, action in go_auth.ACC.items()}[Action(asked.action)]
    return _Call("acl", fields | {"topic": asked.topic, "acc": number})


def _with_access(asked: Asked) -> _Call:
    """Return a call of EMQX 4 or NanoMQ, which have other numbers, as texts."""
    fields = {"username": asked.username, "clientid": asked.client_id}
    if asked.action == CONNECT:
        return _Call("auth", fields | {"password": SENT_PASSWORD})
    access = "2" if asked.action == Action.PUBLISH else "1"
    return _Call("acl", fields | {"topic": asked.topic, "access": access})


def _emqx(asked: Asked) -> _Call:
    fields = {"username": asked.username, "clientid": asked.client_id}
    if asked.action == CONNECT:
        return _Call("authn", fields | {"password": SENT_PASSWORD})
    return _Call("authz", fields | {"topic": asked.topic, "action": asked.action})


def _rabbitmq(asked: Asked) -> _Call:
    """Return a call of RabbitMQ, which writes topics as routing keys."""
    vhost = options().rabbitmq_vhost
    fields = {"username": asked.username, "client_id": asked.client_id, "vhost": vhost}
    if asked.action == CONNECT:
        return _Call("user", fields | {"password": SENT_PASSWORD})
    about = {
        "resource": "topic",
        "name": options().rabbitmq_exchange,
        "permission": "write" if asked.action == Action.PUBLISH else "read",
        "routing_key": asked.topic.replace("/", ".").replace("+", "*"),
    }
    return _Call("topic", fields | about)


def _vernemq(asked: Asked) -> _Call:
    fields: dict[str, Any] = {"username": asked.username, "client_id": asked.client_id}
    if asked.action == CONNECT:
        call = _Call("register", fields | {"password": SENT_PASSWORD})
    elif asked.action == Action.PUBLISH:
        call = _Call("publish", fields | {"topic": asked.topic})
    else:
        call = _Call("subscribe", fields | {"topics": [{"topic": asked.topic, "qos": 1}]})
    return call._replace(header=(b"vernemq-hook", f"auth_on_{call.question}".encode()))


_CALLS: Mapping[str, Callable[[Asked], _Call]] = {
    "go-auth": lambda asked: _numbered(asked, "user", "clientid"),
    "jwt": lambda asked: _numbered(asked, "user", "clientid"),
    "emqx": _emqx,
    "emqx4": _with_access,
    "nanomq": _with_access,
    "rabbitmq": _rabbitmq,
    "vernemq": _vernemq,
    "amqtt": lambda asked: _numbered(asked, "user", "client_id"),
}
