"""All questions of all dialects, with a correct one for a client, and the fixtures of their tests."""

from __future__ import annotations

from io import StringIO
from typing import NamedTuple

import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, settings

from authsvc.dialects import DIALECTS
from rig.cast import Cast
from rig.examples import examples

by_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
QUESTIONS = [f"{dialect.name}/{question}" for dialect in DIALECTS for question in dialect.questions]
by_question = pytest.mark.parametrize("path", QUESTIONS)
by_access = pytest.mark.parametrize(
    "access",
    ["", "0", "3", "4", "12", "1 ", "+1", "01", "\u0661", "publish", 1, 2, True, None, ["2"]],
    ids=repr,
)
in_sessions = settings(
    deadline=None,
    database=None,
    max_examples=examples(6),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


OF_A_SUPERUSER = [path for path in QUESTIONS if path.endswith("/superuser")]
# Fields that brokers send and that no decision reads.
BESIDE = frozenset(
    [
        "tags",
        "ip",
        "ipaddr",
        "mountpoint",
        "peer_addr",
        "peer_port",
        "clean_session",
        "qos",
        "payload",
        "retain",
    ]
)


def good(path, who):
    """Return the fields of a question at *path* that must be allowed for the device *who*.

    Under jwt the Authorization header names the client; the body names it too, as with `jwt_parse_token`.
    """
    name, _, question = path.partition("/")
    if name == "rabbitmq":
        fields = {"username": who.username, "vhost": "/", "client_id": who.username}
        about = {
            "user": {"password": who.password},
            "vhost": {"ip": "10.0.0.7", "tags": ""},
            "resource": {"resource": "exchange", "name": "amq.topic", "permission": "write", "tags": ""},
            "topic": {
                "resource": "topic",
                "name": "amq.topic",
                "permission": "write",
                "routing_key": who.topic("data").replace("/", "."),
            },
        }
        return fields | about[question]
    about = {
        "go-auth/user": {"clientid": who.username, "password": who.password},
        "go-auth/superuser": {},
        "go-auth/acl": {"clientid": who.username, "acc": 2, "topic": who.topic("data")},
        "emqx/authn": {"clientid": who.username, "password": who.password},
        "emqx/authz": {"clientid": who.username, "action": "publish", "topic": who.topic("data")},
        "amqtt/user": {"client_id": who.username, "password": who.password},
        "amqtt/acl": {"client_id": who.username, "acc": 2, "topic": who.topic("data")},
        "jwt/user": {},
        "jwt/superuser": {},
        "jwt/acl": {"clientid": who.username, "acc": 2, "topic": who.topic("data")},
        "vernemq/register": {
            "client_id": who.username,
            "password": who.password,
            "peer_addr": "10.0.0.7",
            "peer_port": 50123,
            "mountpoint": "",
            "clean_session": True,
        },
        "vernemq/publish": {
            "client_id": who.username,
            "topic": who.topic("data"),
            "mountpoint": "",
            "qos": 1,
            "payload": "MQ==",
            "retain": False,
        },
        "vernemq/subscribe": {
            "client_id": who.username,
            "topics": [{"topic": who.topic("cmd"), "qos": 1}],
            "mountpoint": "",
        },
    }
    if name in ("emqx4", "nanomq"):  # the same fields, all of them text
        about[f"{name}/auth"] = {"clientid": who.username, "password": who.password}
        about[f"{name}/superuser"] = {"clientid": who.username}
        about[f"{name}/acl"] = {
            "clientid": who.username,
            "access": "2",
            "ipaddr": "10.0.0.7",
            "topic": who.topic("data"),
        }
    return {"username": who.username} | about[path]


class Root(NamedTuple):
    """A superuser that is not a device."""

    username: str
    password: str

    def topic(self, about):
        """Return the topic of a device for *about*."""
        return f"things/weatherstation/STATION-001/{about}"


BODIES = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"1e999",
    b'{"username": 1e999}',
    b'{"acc": ' + b"1" * 5_000 + b"}",
    b'{"acc": -0}',
    b"[" * 200_000,
    b'{"username":' * 40_000,
    b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    b"[" * 200_000 + b"]" * 200_000,
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b"\x00" * 1_000,
    b'{"username": "\\ud800"}',
    b'{"\\ud800": "x", "\\ud800": "y"}',
    b'{"username": NaN}',
    b'{"username": Infinity}',
    b"{}{}",
    b"{} ",
    b'{"a": "\x01"}',
]

OTHER_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/jsonp",
    "application/json-patch+json",
    "application/json, application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/octet-stream",
    "*/*",
    ";",
]
PARAMETERS = [
    "charset=utf-16",
    "charset=nonsense",
    "charset",
    "charset=base64",
    "a*0*=utf-8''%ff;a*1=b",
    "=",
    ";;;",
    "a=" + "x" * 20_000,
    "a*=utf-8''%ff",
]
QUERIES = [b"%", b"%ff", b"&", b"=", b"a", b"k", b"format=%ff", b"\x00", b"a=b;c=d", b"&".join([b"a=b"] * 70)]


def first(dialect):
    """Return the first question of *dialect*: the login of a client."""
    return f"{dialect.name}/{next(iter(dialect.questions))}"


def token_of(username):
    """Return a token that `manage.py issue_token` prints."""
    out = StringIO()
    call_command("issue_token", username, stdout=out)
    return out.getvalue().strip()


class World(NamedTuple):
    """The fixtures of a module, created once: no question changes them."""

    token: str
    station: Cast
    neighbour: Cast
    root: Root
    bearers: dict[str, str]
