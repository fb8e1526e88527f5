"""The dialects on the wire: a deny stays a deny whatever a broker looks at, and whatever it is sent."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from django.core.management import call_command
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from authsvc import background, conf, directory, policy
from authsvc.caches import clear_caches
from authsvc.core import authority, passwords, tokens
from authsvc.core.access import (
    Action,
    Client,
    Decision,
    LoginQuestion,
    MalformedRequest,
    Principal,
    Reason,
    Secret,
    TopicQuestion,
    Verdict,
    deny,
)
from authsvc.core.grants import ActionSet, Rule
from authsvc.core.memory import MemoryDirectory
from authsvc.dialects import BY_NAME, DIALECTS, emqx, vernemq
from authsvc.dialects.base import FORM, JSON, MAX_BODY, Options, Reply, Request
from authsvc.freshness import reader
from authsvc.models import Account, Broker
from fleet.models import WeatherStationDevice
from rig import emqx_rules, hub
from rig.cast import Cast, provision
from rig.oracles import GO_AUTHS, reads_as_allow, reads_as_deny
from tests.conftest import ENTRANCES

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
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


OF_A_SUPERUSER = [path for path in QUESTIONS if path.endswith("/superuser")]
# What brokers send beside a question, and we do not look at.
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
    """What the broker sends when *who*, a device, asks for what it may do.

    Under jwt who asks is in the Authorization header; the body names it too, as with `jwt_parse_token`.
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
    if name in ("emqx4", "nanomq"):  # the same vocabulary, all of it text
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
    """A superuser, who is no device."""

    username: str
    password: str

    def topic(self, about):
        return f"things/weatherstation/STATION-001/{about}"


HOSTILE = [
    "",
    "\x00",
    "a\x00",
    "\ud800",
    "x\udfff",
    None,
    True,
    1,
    1.5,
    [],
    ["x"],
    {},
    {"x": "y"},
    "\u202e",
    "+",
    "#",
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


def first(dialect):
    """A question of *dialect*: how a client logs in."""
    return f"{dialect.name}/{next(iter(dialect.questions))}"


@pytest.fixture
def post(loop):
    """One request exactly as it is given: what a client library would mend arrives here broken."""

    async def one(entrance, path, *, query=b"", headers=(), body=b"", method="POST", chunk=None):
        parts = [body] if chunk is None else [body[i : i + chunk] for i in range(0, len(body), chunk)]
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts or [b""]]
        messages[-1]["more_body"] = False
        waiting = iter(messages)
        sent = []

        async def receive():
            message = next(waiting, None)
            if message is None:
                await asyncio.sleep(3600)  # the client stays and says no more
            return message

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": query,
            "headers": [(b"host", b"localhost"), *headers],
            "client": ("10.1.2.3", 40000),
            "server": ("localhost", 8000),
        }
        await ENTRANCES[entrance](scope, receive, send)
        kept = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        content = b"".join(message.get("body", b"") for message in sent[1:])
        assert "location" not in kept
        # VerneMQ, which asks by POST, would keep an allow, even with max-age=0.
        assert kept.get("cache-control") == ("no-store" if method in ("GET", "HEAD") else None)
        return Reply(sent[0]["status"], content, kept.get("content-type", ""))

    return lambda *arguments, **options: loop.run(one(*arguments, **options))


@pytest.fixture
def question(post, entrance, world):
    """Ask one question as a broker that may: fields as JSON, or a body of its own.

    Under jwt *bearer*, in the Authorization header, is whose client it is: the station, or whoever may.
    """

    def one(path, fields=None, *, content_type=JSON, body=None, bearer=None, headers=(), **options):
        name, _, asked = path.partition("/")
        url, sent = f"/mqtt/{path}", [*headers]
        if name == "jwt":
            if bearer is None:
                known = dict(fields or {}).get("username") == world.station.username
                bearer = world.bearers["root" if path in OF_A_SUPERUSER and not known else "station"]
            url = f"/mqtt/k/{world.token}/{path}"
            sent.append((b"authorization", b"Bearer " + bearer.encode()))
        else:
            sent.append((b"x-broker-secret", world.token.encode()))
        if name == "vernemq" and not any(header == b"vernemq-hook" for header, _ in headers):
            sent.append((b"vernemq-hook", f"auth_on_{asked}".encode()))
        if content_type is not None:
            sent.append((b"content-type", content_type.encode("latin-1")))
        if body is None:
            body = json.dumps(fields).encode() if content_type == JSON else urlencode(fields).encode()
        return post(entrance, url, headers=sent, body=body, **options)

    return one


@pytest.fixture
def who_may(station, root):
    """Who is allowed what good() asks: the station, or where superusers are asked for, one."""
    return lambda path: root if path in OF_A_SUPERUSER else station


def token_of(username):
    """A token as `issue_token` writes it."""
    out = StringIO()
    call_command("issue_token", username, stdout=out)
    return out.getvalue().strip()


class World(NamedTuple):
    """Made once for the module: what is asked here changes nothing."""

    token: str
    station: Cast
    neighbour: Cast
    root: Root
    bearers: dict[str, str]


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker) -> Iterator[World]:
    with django_db_blocker.unblock():
        broker = Broker(name="mosquitto-1")
        token = broker.issue_token()
        broker.save()
        account = Account(username="backend", is_superuser=True)
        root = Root("backend", account.generate_password())
        account.save()
        cast = {"station": provision("STATION-001"), "neighbour": provision("STATION-002"), "root": root}
        bearers = {name: token_of(who.username) for name, who in cast.items()}
        bearers["stranger"] = tokens.issue("stranger", 0, conf.options().jwt_keys, 3600)
        yield World(token, *cast.values(), bearers)
        background.stop()
        call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def token(world):
    return world.token


@pytest.fixture
def station(world):
    return world.station


@pytest.fixture
def neighbour(world):
    return world.neighbour


@pytest.fixture
def root(world):
    return world.root


class TestEveryDialect:
    """What a broker may rely on, whatever it is called."""

    @by_question
    def test_a_deny_reads_as_a_deny(self, path):
        """For every reason alike, so no reason shows; with one topic of several refused, too."""
        dialect, request = asked(path)
        verdicts = [deny(reason) for reason in Reason]
        verdicts.append(Verdict((Decision(True, Reason.GRANT, "a"), Decision(False, Reason.NO_GRANT, "b"))))
        verdicts.append(Verdict(()))
        verdicts.append(
            Verdict((Decision(False, Reason.NO_GRANT),), Principal("account/r", "r", superuser=True))
        )
        if dialect.name == "vernemq":  # its strangers get a 403, which is no answer to any hook
            stranger = dialect.render(request, verdicts.pop(list(Reason).index(Reason.UNKNOWN_CALLER)))
            assert stranger.status == 403
            assert not reads_as_allow(path, stranger)
        if path == "vernemq/subscribe":  # answers each of several topics (TestVerneMQ)
            verdicts = [verdict for verdict in verdicts if not any(d.allowed for d in verdict.decisions)]

        replies = {dialect.render(request, verdict) for verdict in verdicts}

        (reply,) = replies
        assert reads_as_deny(path, reply)
        assert not reads_as_allow(path, reply)

    @by_question
    def test_an_allow_reads_as_an_allow(self, path):
        dialect, request = asked(path)

        reply = dialect.render(request, Verdict((Decision(True, Reason.GRANT),), Principal("account/r", "r")))

        assert reads_as_allow(path, reply)
        assert reply.status == 200  # a 204 makes aMQTT raise, and says nothing in go-auth's json mode

    @by_question
    def test_a_fault_never_reads_as_an_allow(self, path):
        dialect, request = asked(path)

        assert not reads_as_allow(path, dialect.fault(request))

    @pytest.mark.parametrize("query", ["format=text", "k=x&format=text"])
    def test_in_text_mode_two_bytes_are_an_allow(self, query):
        for name, about in itertools.product(GO_AUTHS, ("user", "acl", "superuser")):
            dialect, request = asked(f"{name}/{about}", query)
            allowed = dialect.render(request, Verdict((Decision(True, Reason.GRANT),)))
            assert (allowed.status, allowed.body) == (200, b"ok")
            for refused in (dialect.render(request, deny(Reason.NO_GRANT)), dialect.fault(request)):
                assert refused.status >= 400
                assert refused.body.strip().lower() != b"ok"

    @by_question
    @pytest.mark.parametrize("content_type", [JSON, FORM])
    def test_who_may_is_allowed(self, question, who_may, path, content_type):
        reply = question(path, good(path, who_may(path)), content_type=content_type)

        if path.startswith("vernemq/") and content_type == FORM:  # a webhook is never a form
            assert reads_as_deny(path, reply)
        else:
            assert reads_as_allow(path, reply)

    @by_question
    @pytest.mark.parametrize("content_type", [JSON, FORM])
    def test_who_may_not_is_denied(self, question, station, neighbour, path, content_type):
        """An unknown name, another's client id, a disabled device: the same bytes for each."""
        fields = good(path, station)
        client_id = next((name for name in fields if name in ("clientid", "client_id")), None)
        replies = [question(path, fields | {"username": "stranger"}, content_type=content_type)]
        if client_id:
            replies.append(
                question(path, fields | {client_id: neighbour.username}, content_type=content_type)
            )
        if "password" in fields:
            replies.append(question(path, fields | {"password": "wrong"}, content_type=content_type))
        WeatherStationDevice.objects.filter(pk=station.device.pk).update(is_active=False)
        replies.append(question(path, fields, content_type=content_type))
        WeatherStationDevice.objects.update(is_active=True)

        assert len(set(replies)) == 1
        assert reads_as_deny(path, replies[0])

    @by_question
    def test_a_device_is_no_superuser_of_its_neighbour(self, question, station, neighbour, path):
        """Every question about the neighbour's things, asked as the station."""
        theirs = good(path, neighbour)
        if path == "jwt/user":
            pass  # the neighbour's name with the station's token: there is nothing else in this call
        elif not {"topic", "topics", "routing_key"} & theirs.keys() and path not in OF_A_SUPERUSER:
            theirs |= {"username": station.username}  # with the neighbour's client id
        else:
            theirs |= {
                name: station.username for name in ("username", "clientid", "client_id") if name in theirs
            }

        assert reads_as_deny(path, question(path, theirs))

    @by_question
    def test_a_hostile_value_is_denied(self, question, who_may, path):
        fields = good(path, who_may(path))
        names = {
            *("username", "password", "clientid", "client_id", "topic", "topics", "routing_key"),
        } & fields.keys()

        for name, value in itertools.product(names, HOSTILE):
            reply = question(path, fields | {name: value})
            assert reads_as_deny(path, reply), (name, value, reply)

    @by_question
    def test_each_field_that_matters_must_be_there_once(self, question, who_may, path):
        fields = good(path, who_may(path))
        needed = fields.keys() - BESIDE
        if path.startswith("jwt/"):
            needed -= {"username"}  # which the token says
        if path.startswith("rabbitmq/"):
            needed -= {"client_id"}  # older versions and AMQP logins send none
            if path == "rabbitmq/user":
                needed -= {"vhost"}  # logins of the management plugin name none

        for name in needed:
            rest = {other: value for other, value in fields.items() if other != name}
            assert reads_as_deny(path, question(path, rest)), f"without {name}"
        for name, value in fields.items():
            pairs = [*((k, str(v)) for k, v in fields.items()), (name, str(value))]
            assert reads_as_deny(path, question(path, pairs, content_type=FORM)), f"{name} twice in a form"
            text = json.dumps(fields)[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"
            assert reads_as_deny(path, question(path, body=text.encode())), f"{name} twice in JSON"

    @by_question
    def test_a_content_type_that_is_none_of_ours_is_denied(self, question, who_may, path):
        body = json.dumps(good(path, who_may(path))).encode()

        for content_type in OTHER_TYPES:
            reply = question(path, content_type=content_type, body=body)
            assert reads_as_deny(path, reply), (content_type, reply)

    @by_question
    def test_parameters_of_a_content_type_change_nothing(self, question, who_may, path):
        right = json.dumps(good(path, who_may(path))).encode()

        for parameters in PARAMETERS:
            content_type = f"application/json; {parameters}"
            reply = question(path, content_type=content_type, body=b'{"username": "stranger"}')
            assert reads_as_deny(path, reply), (parameters, reply)
            assert reads_as_allow(path, question(path, content_type=content_type, body=right)), parameters

    @by_dialect
    @pytest.mark.parametrize("entrance", ["asgi"])
    def test_a_content_type_that_django_cannot_read_is_denied(self, question, dialect):
        """Django's own request raises for it before any view is asked: a limit of that entrance (how-to)."""
        path = first(dialect)

        assert reads_as_deny(
            path, question(path, content_type="application/json; a*=nonsense''x", body=b'{"username": "x"}')
        )

    @by_question
    def test_a_query_that_cannot_be_read_is_denied(self, question, world, path):
        for query, method in itertools.product(QUERIES, ["GET", "POST"]):
            reply = question(path, query=query, method=method, body=b"", bearer=world.bearers["stranger"])
            assert reads_as_deny(path, reply), (query, method, reply)

    @by_dialect
    @pytest.mark.parametrize("entrance", ["asgi"])
    def test_a_query_that_is_not_utf_8_is_denied(self, question, dialect):
        """Django answers 400 by itself, before any view: a limit of that entrance (how-to)."""
        path = first(dialect)

        assert reads_as_deny(path, question(path, query=b"a=\xff", body=b'{"username": "x"}'))

    @by_question
    def test_a_body_that_is_no_question_is_denied(self, question, world, path):
        """Under jwt `null` is a question, so there somebody unknown asks it; more of it in TestJWT."""
        for body, content_type in itertools.product(BODIES, [JSON, FORM]):
            reply = question(path, body=body, content_type=content_type, bearer=world.bearers["stranger"])
            assert reads_as_deny(path, reply), (body[:40], content_type, reply)

    @by_question
    def test_too_many_fields_are_denied(self, question, path):
        body = "&".join(f"f{number}=x" for number in range(70_000)).encode()
        assert len(body) > MAX_BODY
        for size in (len(body), MAX_BODY, 1_000):
            assert reads_as_deny(path, question(path, body=body[:size], content_type=FORM))


def asked(path, query=""):
    """The dialect of *path*, and a request that asks this question."""
    name, _, question = path.partition("/")
    dialect = next(dialect for dialect in DIALECTS if dialect.name == name)
    headers = {"content-type": JSON, "vernemq-hook": f"auth_on_{question}"}
    return dialect, Request("POST", query=query, headers=headers, question=question)


# ---------------------------------------------------------------- garbage

# fmt: off
NAMES = [
    "username", "password", "clientid", "client_id", "acc", "action", "access", "topic", "topics", "qos",
    "vhost", "resource", "name", "permission", "routing_key", "tags", "k", "format",
    "variable_map.username", "variable_map.client_id",
]
# fmt: on
hostile_text = st.one_of(
    st.sampled_from(
        ["", "root", "admin", "guest", "/", "#", "+", "amq.topic", "1", "2", "4", "publish", "write"]
    ),
    st.text(max_size=12),
    st.lists(st.characters(exclude_categories=()), max_size=6).map("".join),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), hostile_text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile_text, inner, max_size=3),
    max_leaves=6,
)
pairs = st.lists(st.tuples(st.sampled_from(NAMES) | hostile_text, values), max_size=14)


def as_json(items):
    """An object as text, with its names as often as they come."""
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in items) + "}").encode()


def as_form(items):
    return urlencode([(n, str(v)) for n, v in items], errors="surrogatepass").encode()


bodies = st.one_of(
    st.binary(max_size=200),
    pairs.map(as_json),
    values.map(lambda value: json.dumps(value).encode()),
    pairs.map(as_form),
    st.tuples(pairs.map(as_json), st.integers(0, 60)).map(lambda cut: cut[0][: -cut[1] or None]),
)
content_types = st.sampled_from(
    [JSON, FORM, JSON, FORM, "application/json; charset=latin-1", "text/html", None]
)
queries = st.one_of(st.just(b""), pairs.map(as_form), st.from_regex(rb"[!-~]{0,30}", fullmatch=True))


@by_question
@in_sessions
@given(
    body=bodies,
    content_type=content_types,
    query=queries,
    method=st.sampled_from(["POST", "PUT", "GET", "POST"]),
)
@example(body=b"", content_type=None, query=b"", method="GET")
def test_garbage_is_denied(question, world, path, body, content_type, query, method):
    """Nobody here is called by these names, so whatever can be read is a deny; so is what cannot."""
    bearer = world.bearers["stranger"]
    reply = question(path, body=body, content_type=content_type, query=query, method=method, bearer=bearer)

    text_mode = path.startswith(("go-auth/", "jwt/")) and b"format=text" in query.split(b"&")
    assert (
        reads_as_deny(path, reply)
        or (text_mode and (reply.status, reply.body) == (403, b"denied"))
        or (path.startswith("vernemq/") and b"k=" in query and reply == vernemq.STRANGER)  # a second proof
    )


@by_question
@in_sessions
@given(data=st.data())
def test_a_known_station_and_garbage_is_denied(question, station, path, data):
    """One field of a right question is replaced by something else: if it is let in, it asked for its own."""
    fields = good(path, station)
    name = data.draw(st.sampled_from(sorted(fields.keys() - BESIDE)))
    fields[name] = data.draw(values)

    reply = question(path, body=as_json(fields.items()))

    assert reads_as_deny(path, reply) or fields in (good(path, station), _still_good(path, station, fields))


def _still_good(path, station, fields):
    """Other words for what the station may do."""
    may = {"acc": [2], "access": ["2"], "topic": [station.topic("data")], "action": ["publish"]}
    if path == "rabbitmq/resource":
        may = {"permission": ["write", "read"]}
    if path == "rabbitmq/topic":
        may = {"permission": ["write"]}
    rest = good(path, station)
    return {name: v if v in may.get(name, []) else rest[name] for name, v in fields.items()}


@settings(deadline=None, database=None)
@given(text=st.text(st.sampled_from("ab=&;%+\x00 /ä"), max_size=20))
def test_a_form_is_read_as_the_standard_library_does(text):
    """The short way for what needs no decoding gives the same answers."""
    request = Request("GET", query=text)
    try:
        expected = (
            parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict") if text else []
        )
    except ValueError:
        with pytest.raises(MalformedRequest):
            _ = request.parameters
    else:
        assert request.parameters == expected


# ---------------------------------------------------------------- faults


@pytest.fixture
def fault(monkeypatch, loop):
    """Makes one part of the service fail."""

    async def broken(*_arguments, **_options):
        raise RuntimeError("provoked")

    def broken_too(*_arguments, **_options):
        raise RuntimeError("provoked")

    places = {
        "the database": lambda: (
            monkeypatch.setattr(reader, "fetch", broken),
            monkeypatch.setattr(reader, "sqlite_version", broken_too),
        ),
        "the policy": lambda: (
            monkeypatch.setattr(policy, "known", broken_too),
            monkeypatch.setattr(policy, "current", broken),
        ),
        "a directory": lambda: monkeypatch.setattr(directory.View, "lookup", broken),
        "the decision": lambda: monkeypatch.setattr(authority, "decide", broken),
        "the password hashing": lambda: (
            monkeypatch.setattr(passwords, "verify", broken_too),
            clear_caches(),
        ),
        "the count of denials": lambda: monkeypatch.setattr(background, "wake", broken_too),
        "the rendering of rules": lambda: monkeypatch.setattr(emqx, "expressed", broken_too),
    }
    return lambda place: places[place]()


@by_question
@pytest.mark.parametrize("place", ["the database", "the policy", "a directory", "the decision"])
def test_a_fault_of_ours_is_never_an_allow(question, station, path, place, fault):
    fault(place)

    for query in (b"", b"format=text"):
        reply = question(path, good(path, station), query=query)
        assert not reads_as_allow(path, reply)
        assert reply.status == (200 if path == "emqx/authz" else 503)


@pytest.mark.parametrize("path", [path for path in QUESTIONS if "password" in good(path, Root("x", "x"))])
def test_a_fault_of_the_hashing_is_never_an_allow(question, station, path, fault):
    fault("the password hashing")

    assert not reads_as_allow(path, question(path, good(path, station)))


@by_question
def test_a_denial_that_cannot_be_counted_is_a_denial(question, station, path, fault):
    """For example when no thread can be started any more: the answer does not depend on the count."""
    fault("the count of denials")

    reply = None
    with suppress(RuntimeError):
        reply = question(path, good(path, station) | {"username": "stranger"})

    assert reply is not None
    assert reads_as_deny(path, reply)


def test_rules_that_cannot_be_rendered_are_answered_as_a_fault(question, station, fault):
    """`answer` promises never to raise; an unanswered question is a dead connection for EMQX."""
    fault("the rendering of rules")

    reply = question("emqx/authn", good("emqx/authn", station))

    assert reply == emqx.UNAVAILABLE


# ---------------------------------------------------------------- paths and methods

NOWHERE = [
    "/mqtt/go-auth/user/",
    "/mqtt/go-auth//user",
    "/mqtt//go-auth/user",
    "/mqtt/go-auth",
    "/mqtt/go-auth/",
    "/mqtt/GO-AUTH/user",
    "/mqtt/go-auth/User",
    "/mqtt/go-auth/user.json",
    "/mqtt/go-auth/../go-auth/user",
    "/mqtt/go-auth/user/extra",
    "/mqtt/emqx/user",
    "/mqtt/nobody/user",
    "/mqtt/k/go-auth/user",
    "/mqtt/k/x/y/go-auth/user",
    "/mqtt/k/",
    "/mqtt/go-auth/user\x00",
    "/mqtt/go-auth/user\ufffd",
    "/mqtt/go-auth/__class__",
    "/mqtt/" + "x" * 5_000,
]
ELSEWHERE = ["/mqtt", "/mqtt/", "/mqtt/go-auth/user\n", "/MQTT/go-auth/user", "//mqtt/go-auth/user"]


def test_there_is_nothing_beside_the_questions(post, entrance, token):
    """No redirect to where it would be right, no page with a status that lets in."""
    headers = [(b"x-broker-secret", token.encode()), (b"content-type", JSON.encode())]

    for path, method in itertools.product(NOWHERE, ["POST", "GET", "HEAD"]):
        reply = post(entrance, path, method=method, headers=headers, body=b"{}")
        assert (reply.status, reply.content_type) == (404, JSON), (path, method)
    for path in ELSEWHERE:
        assert post(entrance, path, query=b"k=" + token.encode()).status == 404, path


@by_question
def test_other_methods_are_not_allowed(post, entrance, token, station, path):
    """With a question that POST would allow."""
    headers = [(b"x-broker-secret", token.encode()), (b"content-type", JSON.encode())]
    body = json.dumps(good(path, station)).encode()

    for method in ("HEAD", "OPTIONS", "DELETE", "PATCH", "TRACE", "CONNECT", "X"):
        assert post(entrance, f"/mqtt/{path}", method=method, headers=headers, body=body).status == 405, (
            method
        )


@by_question
def test_no_session_and_no_csrf(question, who_may, path):
    body = json.dumps(good(path, who_may(path))).encode()

    for header in ((b"cookie", b"sessionid=x"), (b"origin", b"null"), (b"referer", b"http://x/")):
        assert reads_as_allow(path, question(path, body=body, headers=[header])), header


# ---------------------------------------------------------------- long bodies


@by_dialect
@pytest.mark.parametrize("chunk", [None, 1 << 14])
def test_the_longest_body_is_read_and_a_longer_one_denied(question, station, dialect, chunk):
    path = first(dialect)
    fields = good(path, station)
    padding = MAX_BODY - len(json.dumps(fields | {"padding": ""}))
    longest = json.dumps(fields | {"padding": "x" * padding}).encode()
    assert len(longest) == MAX_BODY

    assert reads_as_allow(path, question(path, body=longest, chunk=chunk))
    assert reads_as_deny(path, question(path, body=longest + b" ", chunk=chunk))
    assert reads_as_deny(path, question(path, body=longest * 3, chunk=chunk))


@pytest.fixture(scope="module")
def served(world, tmp_path_factory) -> Iterator[str]:
    """The site behind gunicorn."""
    with hub.gunicorn(tmp_path_factory.mktemp("gunicorn")) as url:
        yield url


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        yield connection


def http(path: str, token: str, body: bytes, *extra: str) -> bytes:
    lines = [
        f"POST /mqtt/{path}?k={token} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Type: {JSON}",
        *(extra or [f"Content-Length: {len(body)}"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def replies_of(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """The next *count* answers on *connection*, as status and body."""
    data, found = b"", []
    while len(found) < count:
        head, separator, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1]) if separator else 0
        if not separator or len(rest) < length:
            part = connection.recv(1 << 16)
            assert part, f"closed after {len(found)} of {count} answers: {data[:200]!r}"
            data += part
            continue
        found.append((int(head.split(b" ")[1]), rest[:length]))
        data = rest[length:]
    assert not data
    return found


ALLOWED = (200, b'{"ok":true,"error":""}')
DENIED = (403, b'{"ok":false,"error":"denied"}')


class TestOnAConnection:
    def test_pipelined_questions_are_answered_in_order(self, served, token, station):
        """EMQX sends up to a hundred before it reads."""
        right = json.dumps(good("go-auth/acl", station)).encode()
        wrong = right.replace(b"/data", b"/cmd")
        order = [right, wrong, wrong, right] * 25

        with connected(served) as connection:
            connection.sendall(b"".join(http("go-auth/acl", token, body) for body in order))

            assert replies_of(connection, 100) == [ALLOWED if body is right else DENIED for body in order]

    @pytest.mark.parametrize("size", [MAX_BODY + 1, 2_000_000])
    def test_a_long_body_is_denied_and_the_connection_stays(self, served, token, station, size):
        right = json.dumps(good("go-auth/acl", station)).encode()

        with connected(served) as connection:
            connection.sendall(
                http("go-auth/acl", token, right + b" " * size) + http("go-auth/acl", token, right)
            )
            assert replies_of(connection, 2) == [DENIED, ALLOWED]

            connection.sendall(http("go-auth/acl", token, right))
            assert replies_of(connection, 1) == [ALLOWED]

    def test_a_body_in_chunks_is_one_body(self, served, token, station):
        right = json.dumps(good("go-auth/acl", station)).encode()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in right) + b"0\r\n\r\n"

        with connected(served) as connection:
            connection.sendall(
                http("go-auth/acl", token, chunks, "Transfer-Encoding: chunked")
                + http("go-auth/acl", token, right)
            )

            assert replies_of(connection, 2) == [ALLOWED, ALLOWED]

    def test_a_stranger_with_a_long_body_gets_what_strangers_get(self, served, token, station):
        right = json.dumps(good("go-auth/acl", station)).encode()

        with connected(served) as connection:
            connection.sendall(
                http("go-auth/acl", "x", b"x" * (MAX_BODY + 1)) + http("go-auth/acl", token, right)
            )

            assert replies_of(connection, 2) == [DENIED, ALLOWED]

    @pytest.mark.parametrize(
        "headers",
        [
            ["Content-Length: 5", "Transfer-Encoding: chunked"],
            ["Content-Length: 5", "Content-Length: 6"],
            ["Content-Length: -1"],
            ["Content-Length: +5"],
            ["Transfer-Encoding: chunked, identity"],
        ],
        ids=" and ".join,
    )
    def test_a_smuggled_question_is_not_answered(self, served, token, station, headers):
        """Two readings of where a body ends: the server takes neither, or closes after the first."""
        right = json.dumps(good("go-auth/acl", station)).encode()
        smuggled = b"0\r\n\r\n" + http("go-auth/acl", token, right)

        with connected(served) as connection:
            connection.sendall(http("go-auth/acl", "x", smuggled, *headers))
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            end = time.monotonic() + 5
            while time.monotonic() < end and (part := connection.recv(1 << 16)):
                answer += part

        assert b'"ok":true' not in answer


# ---------------------------------------------------------------- EMQX: rules in the connect answer

LEVELS = ["a", "b", "", "$SYS", "device", "eq x", "${username}"]
plain_topics = (
    st.lists(st.sampled_from([*LEVELS, "$CONTROL"]), min_size=1, max_size=3).map("/".join).filter(bool)
)
topic_filters = st.tuples(
    st.lists(st.sampled_from([*LEVELS, "+"]), max_size=3), st.sampled_from([[], [], ["#"]])
).map(lambda parts: "/".join(parts[0] + parts[1]))
grants = st.lists(
    st.builds(
        Rule,
        topic_filters.filter(bool),
        st.sampled_from(ActionSet),
        st.sampled_from([True, True, False]),
        st.just("one"),
    ),
    max_size=5,
)
HASH = passwords.hash_generated("right")


def connect_answer(held, operators=()):
    """What EMQX is told of a principal with the grants *held*."""
    principal = Principal(
        "account/device", "device", (Secret(HASH),), client_ids=("device",), grants=tuple(held)
    )
    rules = authority.Rules({"everyone": tuple(operators)} if operators else {})
    known = MemoryDirectory([principal])
    client = Client("device", "device")
    verdict = asyncio.run(authority.decide(LoginQuestion(client, "right", wants_rules=True), rules, known))
    reply = emqx.render(Request("POST", question="authn", options=Options(emqx_rules_ttl=60)), verdict)

    def authorizer(action, topic):
        question = TopicQuestion(client, Action(action), [topic])
        return asyncio.run(authority.decide(question, rules, known)).allowed

    return json.loads(reply.body), authorizer


@settings(deadline=None, max_examples=250, database=None)
@given(
    held=grants,
    operators=grants,
    topics=st.lists(plain_topics, min_size=1, max_size=6),
    filters=st.lists(topic_filters.filter(bool), min_size=1, max_size=4),
)
@example(
    held=[Rule("a/#", ActionSet.PUBLISH)],
    operators=[Rule("a/b", allow=False)],
    topics=["a/b", "a"],
    filters=["a"],
)
@example(
    held=[Rule("a/b", ActionSet.SUBSCRIBE)],
    operators=[Rule("a/#", allow=False)],
    topics=["a/b"],
    filters=["a/b"],
)
def test_rules_say_what_the_authorizer_would(held, operators, topics, filters):
    """A client that holds its rules may exactly what it could if EMQX asked each time."""
    answer, authorizer = connect_answer(held, operators)

    assert answer["result"] == "allow"
    if "acl" not in answer:
        return
    for topic in [
        *topics,
        *(grant.filter for grant in held if "+" not in grant.filter and "#" not in grant.filter),
    ]:
        assert emqx_rules.allows(answer["acl"], "publish", topic) == authorizer("publish", topic), topic
    for text in [*filters, *topics, *(grant.filter for grant in held)]:
        assert emqx_rules.allows(answer["acl"], "subscribe", text) == authorizer("subscribe", text), text


@settings(deadline=None, max_examples=100, database=None)
@given(held=grants)
def test_rules_are_well_formed_or_left_out(held):
    """One bad rule, a null or an `expire_at` that is over makes EMQX refuse the login."""
    answer, _ = connect_answer(held)

    assert None not in answer.values()
    assert answer.keys() <= {"result", "is_superuser", "acl", "expire_at"}
    assert ("acl" in answer) == ("expire_at" in answer)
    if "acl" in answer:
        assert type(answer["expire_at"]) is int
        assert 0 < answer["expire_at"] - time.time() < 70
        assert answer["acl"][-1] == {"permission": "deny", "action": "all", "topics": ["#", "$SYS/#"]}
        for rule in answer["acl"]:
            assert rule["permission"] in ("allow", "deny")
            assert rule["action"] in ("publish", "subscribe", "all")
            assert all(type(topic) is str and "${" not in topic for topic in rule["topics"])


@pytest.mark.parametrize(
    "inexpressible",
    [
        Rule("a/+", ActionSet.SUBSCRIBE),
        Rule("a/#", ActionSet.ALL),
        Rule("#"),
        Rule("eq a", ActionSet.PUBLISH),
        Rule("a/${b", ActionSet.PUBLISH),
        Rule("a/${b", ActionSet.SUBSCRIBE, allow=False),
    ],
    ids=lambda grant: grant.filter,
)
def test_rules_that_emqx_would_read_otherwise_are_left_out(inexpressible):
    answer, _ = connect_answer([Rule("a/b"), inexpressible])

    assert answer == {"result": "allow", "is_superuser": False}


@pytest.mark.parametrize("text", ["$CONTROL/dynamic-security/v1", "$CONTROL/#", "$CONTROL/+", "$CONTROL"])
@pytest.mark.parametrize("actions", [ActionSet.ALL, ActionSet.PUBLISH, ActionSet.SUBSCRIBE])
def test_no_rule_opens_the_brokers_own_topics(text, actions):
    """Grant.clean refuses such a grant, create() and SQL do not; the authorizer refuses the topic to everybody."""
    answer, authorizer = connect_answer([Rule("a"), Rule(text, actions)])

    for action, topic in itertools.product(("publish", "subscribe"), (text, "$CONTROL/dynamic-security/v1")):
        assert not authorizer(action, topic)
        assert "acl" not in answer or not emqx_rules.allows(answer["acl"], action, topic)


def test_a_superuser_gets_no_rules(question, root):
    reply = question("emqx/authn", good("emqx/authn", root))

    assert json.loads(reply.body) == {"result": "allow", "is_superuser": True}


def test_a_device_gets_exactly_its_own_rules(question, station):
    acl = json.loads(question("emqx/authn", good("emqx/authn", station)).body)["acl"]

    for about in ("data", "status", "reply"):
        assert emqx_rules.allows(acl, "publish", station.topic(about))
        assert not emqx_rules.allows(acl, "subscribe", station.topic(about))
    assert emqx_rules.allows(acl, "subscribe", station.topic("cmd"))
    for text in (
        "#",
        "+/+/+/cmd",
        "things/weatherstation/+/cmd",
        station.topic("#"),
        station.topic("+"),
        "$SYS/#",
    ):
        assert not emqx_rules.allows(acl, "subscribe", text)
        assert not emqx_rules.allows(acl, "publish", text)


# ---------------------------------------------------------------- RabbitMQ


class TestRabbitMQ:
    @pytest.fixture
    def may(self, question):
        """Whether a client may; None leaves a field out."""

        def one(path, who, **more):
            fields = {k: v for k, v in (good(f"rabbitmq/{path}", who) | more).items() if v is not None}
            reply = question(f"rabbitmq/{path}", fields, content_type=FORM)
            assert reply.body in (b"allow", b"deny")
            return reply.body == b"allow"

        return one

    def test_a_device_uses_the_queues_of_its_client_id(self, may, station):
        names = ("mqtt-subscription-{}qos0", "mqtt-subscription-{}qos1", "mqtt-will-{}")
        for name, permission in itertools.product(names, ("configure", "write", "read")):
            name = name.format(station.username)
            assert may("resource", station, resource="queue", name=name, permission=permission)

    def test_other_queues_are_not_its(self, may, station, neighbour):
        for name in (
            "",
            "mqtt-subscription-qos0",
            "mqtt-subscription-{0}",
            "mqtt-subscription-{0}qos2",
            "mqtt-subscription-{0}qos10",
            "mqtt-subscription-{0}qos0 ",
            "mqtt-subscription-{0}qos0\n",
            "mqtt-subscription-{1}qos0",
            "mqtt-subscription-{0}{1}qos0",
            "MQTT-SUBSCRIPTION-{0}QOS0",
            "mqtt-will-{1}",
            "mqtt-will-",
            "mqtt-will-{0}1",
            "{0}",
            "amq.topic",
            "mqtt-subscription-*qos0",
            "#",
        ):
            name = name.format(station.username, neighbour.username)
            assert not may("resource", station, resource="queue", name=name, permission="read"), name

    @pytest.mark.parametrize("client_id", [None, ""])
    def test_without_a_client_id_no_queue_is_the_callers(self, may, station, client_id):
        """An AMQP login with the device's password must not bind a queue to everything."""
        for name in ("mqtt-subscription-{}qos0", "mqtt-will-{}", "mqtt-subscription-qos0", "mqtt-will-"):
            name = name.format(station.username)
            assert not may(
                "resource", station, resource="queue", name=name, permission="configure", client_id=client_id
            )

    def test_there_is_one_exchange(self, may, station):
        assert may("resource", station, permission="write")
        assert may("resource", station, permission="read")
        for permission in ("configure", "admin", "", "WRITE", "write "):
            assert not may("resource", station, permission=permission)
        for name in ("", "amq.default", "amq.fanout", "amq.topic ", "AMQ.TOPIC", "mqtt"):
            assert not may("resource", station, name=name)
            assert not may("topic", station, name=name)
        for kind in ("topic", "vhost", "Exchange", "queue", "exchange ", ""):
            assert not may("resource", station, resource=kind)

    def test_there_is_one_virtual_host(self, may, station):
        for path, vhost in itertools.product(
            ("user", "vhost", "resource", "topic"), ("", "other", "//", "%2F", "/ ")
        ):
            assert may(path, station)
            assert not may(path, station, vhost=vhost)

    def test_a_client_id_is_bound_where_it_is_said(self, may, station, neighbour):
        for path in ("user", "vhost", "resource", "topic"):
            assert may(path, station)
            assert may(path, station, client_id=None)
            for client_id in (neighbour.username, "", "x"):
                assert not may(path, station, client_id=client_id)

    def test_the_variable_map_names_the_same_client(self, may, station, neighbour):
        for name in ("variable_map.client_id", "variable_map.username"):
            assert may("topic", station, **{name: station.username})
            assert not may("topic", station, **{name: neighbour.username})
        assert may("topic", station, **{"client_id": None, "variable_map.client_id": station.username})
        assert not may("topic", station, **{"client_id": None, "variable_map.client_id": neighbour.username})

    @pytest.mark.parametrize(
        ("permission", "keys"),
        [
            (
                "write",
                "things.weatherstation.*.data things.weatherstation.STATION-001.# # "
                "things.weatherstation.STATION-001.cmd things/weatherstation/STATION-001/data "
                "things.weatherstation.STATION-001.data. things..weatherstation.STATION-001.data "
                ".things.weatherstation.STATION-001.data things.weatherstation.STATION-002.data",
            ),
            (
                "read",
                "things.weatherstation.*.cmd things.weatherstation.+.cmd things.weatherstation.STATION-001.* "
                "things.weatherstation.STATION-00*.cmd # *.*.*.* things.weatherstation.STATION-001.data "
                "things.weatherstation.STATION-001.# $share.g.#",
            ),
            ("configure", "things.weatherstation.STATION-001.data things.weatherstation.STATION-001.cmd"),
        ],
    )
    def test_a_routing_key_that_is_not_the_stations_is_denied(self, may, station, permission, keys):
        for routing_key in keys.split(" "):
            assert not may("topic", station, permission=permission, routing_key=routing_key), routing_key

    def test_virtual_host_and_exchange_are_settings(self, may, station, settings):
        settings.AUTHSVC_RABBITMQ_VHOST, settings.AUTHSVC_RABBITMQ_EXCHANGE = "iot", "mqtt"

        assert not may("topic", station)
        assert may("topic", station, vhost="iot", name="mqtt")


# ---------------------------------------------------------------- EMQX 4


class TestEMQX4:
    @pytest.fixture
    def unchecked(self, monkeypatch):
        """Lets names into the table that only SQL could write."""
        monkeypatch.setattr("authsvc.models.validate_username", lambda _name: None)

    @pytest.fixture
    def may(self, question):
        """Whether a client may, by JSON and by form alike; None leaves a field out."""

        def one(path, who, **more):
            fields = {k: v for k, v in (good(f"emqx4/{path}", who) | more).items() if v is not None}
            json_reply, form_reply = (question(f"emqx4/{path}", fields, content_type=t) for t in (JSON, FORM))
            assert json_reply == form_reply
            return reads_as_allow(f"emqx4/{path}", json_reply)

        return one

    @pytest.mark.parametrize("absent", ["undefined", "null", "None", "", None])
    def test_who_gives_no_name_or_password_is_nobody(self, may, station, absent, unchecked):
        """An absent value is the text `undefined`, or `null`; an account of that name must not match."""
        Account.objects.bulk_create([Account(username=name) for name in ("undefined", "null", "None")])
        try:
            for path, name in itertools.product(("auth", "superuser", "acl"), ("username", "clientid")):
                assert not may(path, station, **{name: absent}), (path, name)
            assert not may("auth", station, password=absent)
            assert not may("auth", station, username=absent, clientid=absent, password=absent)
            assert not may("superuser", station, username=absent, clientid=absent)
            assert not may("acl", station, username=absent, clientid=absent)
        finally:
            Account.objects.filter(username__in=("undefined", "null", "None")).delete()

    @pytest.mark.parametrize("prefix", ["$", "$SYS/", "$share/g/"])
    def test_a_name_with_a_dollar_is_refused_at_the_door(self, may, station, root, prefix):
        """Such clients are never asked about again: what they want to do ends in acl_nomatch."""
        for who in (station, root):
            assert may("auth", who)
            assert not may("auth", who, username=prefix + who.username)
            assert not may("auth", who, clientid=prefix + who.username, username=prefix + who.username)

    def test_an_account_with_a_dollar_is_refused_too(self, may, unchecked):
        account = Account(username="$dollar", is_superuser=True)
        who = Root("$dollar", account.generate_password())
        Account.objects.bulk_create([account])
        try:
            assert not any(may(path, who) for path in ("auth", "superuser", "acl"))
        finally:
            Account.objects.filter(username="$dollar").delete()

    @pytest.mark.parametrize(
        "topic", ["$SYS/brokers", "$SYS/#", "$share/g/{}", "$queue/{}", "$CONTROL/x", "$"]
    )
    def test_a_device_gets_no_topic_with_a_dollar(self, may, station, topic):
        """`$share/<group>/` and `$queue/` are taken off before, so to publish there is to publish there."""
        assert may("acl", station)
        assert not may("acl", station, topic=topic.format(station.topic("data")))
        assert topic.startswith("$share") or not may(
            "acl", station, access="1", topic=topic.format(station.topic("cmd"))
        )

    def test_access_1_subscribes_and_2_publishes(self, may, station):
        assert may("acl", station, access="2", topic=station.topic("data"))
        assert may("acl", station, access="1", topic=station.topic("cmd"))
        assert not may("acl", station, access="1", topic=station.topic("data"))
        assert not may("acl", station, access="2", topic=station.topic("cmd"))

    @by_access
    def test_any_other_access_is_denied(self, question, station, access):
        assert reads_as_deny(
            "emqx4/acl", question("emqx4/acl", good("emqx4/acl", station) | {"access": access})
        )

    def test_no_answer_is_the_word_that_passes_the_question_on(self, question, station):
        for path in ("auth", "superuser", "acl"):
            for name in (station.username, "stranger"):
                fields = good(f"emqx4/{path}", station) | {"username": name}
                assert question(f"emqx4/{path}", fields).body.strip() != b"ignore"


# ---------------------------------------------------------------- NanoMQ


class TestNanoMQ:
    @pytest.fixture
    def may(self, question, station):
        """Whether the station may, by JSON and by form alike."""

        def one(access, topic, **more):
            fields = good("nanomq/acl", station) | {"access": access, "topic": topic} | more
            json_reply, form_reply = (question("nanomq/acl", fields, content_type=t) for t in (JSON, FORM))
            assert json_reply == form_reply
            assert reads_as_allow("nanomq/acl", json_reply) or reads_as_deny("nanomq/acl", json_reply)
            return reads_as_allow("nanomq/acl", json_reply)

        return one

    def test_every_filter_of_a_packet_must_be_allowed(self, may, station, neighbour):
        own, shared = station.topic("cmd"), f"$share/g/{station.topic('cmd')}"

        assert may("1", own)
        assert may("1", f"{own},{own}")
        assert may("1", f"{own},{shared}")
        for other in (
            neighbour.topic("cmd"),
            "#",
            "+/+/+/cmd",
            "$SYS/#",
            station.topic("data"),
            f" {own}",
            f"$share/g/{neighbour.topic('cmd')}",
            "$share/g/#",
        ):
            for order in itertools.permutations([own, own, other]):
                assert not may("1", ",".join(order)), order

    @pytest.mark.parametrize("topic", ["", ",", ",,", "{},", ",{}", "{},,{}", "{},\x00", "{0}%2C#", "{0};#"])
    def test_an_empty_part_is_no_filter(self, may, station, topic):
        assert not may("1", topic.format(station.topic("cmd"), station.topic("cmd")))

    def test_a_thousand_filters_and_no_more(self, may, station):
        own = station.topic("cmd")

        assert may("1", ",".join([own] * 1_000))
        assert not may("1", ",".join([own] * 1_001))
        assert not may("1", ",".join([own] * 999 + ["#"]))
        assert not may("1", "," * 60_000)

    def test_a_comma_in_a_published_topic_parts_it_too(self, may, station, neighbour):
        """Nobody can tell the two apart, so each part must be allowed; a grant never reaches over a comma."""
        own = station.topic("data")

        assert may("2", own)
        for topic in (
            f"{own},x",
            f"x,{own}",
            f"{own},",
            f",{own}",
            f"{own},{neighbour.topic('data')}",
            f"{own},#",
            f"{station.topic('')},data",
        ):
            assert not may("2", topic), topic

    def test_a_superuser_is_held_to_every_part_as_well(self, may, root):
        who = {"username": root.username, "clientid": root.username}

        assert may("1", "#,$SYS/#,a/+", **who)
        assert not may("1", "#,$CONTROL/x", **who)
        assert not may("1", "#,a/#/b", **who)
        assert not may("2", "a,b/+", **who)

    def test_injected_fields_are_a_deny(self, question, station, root):
        """Before 0.25.2 values stood raw in a form, so a client could write fields behind its name."""
        fields = good("nanomq/acl", station)
        for name, value in {"username": root.username, "topic": "#", "access": "1", "clientid": "x"}.items():
            body = f"clientid={station.username}&username={station.username}&{name}={value}&" + "&".join(
                f"{k}={v}" for k, v in fields.items() if k not in ("clientid", "username")
            )
            assert reads_as_deny("nanomq/acl", question("nanomq/acl", body=body.encode(), content_type=FORM))

    @by_access
    def test_any_other_access_is_denied(self, question, station, access):
        fields = good("nanomq/acl", station) | {"access": access}

        assert reads_as_deny("nanomq/acl", question("nanomq/acl", fields))


# ---------------------------------------------------------------- VerneMQ

HOOK = b"vernemq-hook"


class TestVerneMQ:
    @pytest.fixture
    def subscribe(self, question, station):
        """The answer to one SUBSCRIBE of the station."""

        def one(topics, hook="auth_on_subscribe", **more):
            fields = good("vernemq/subscribe", station) | {"topics": topics} | more
            return question("vernemq/subscribe", fields, headers=[(HOOK, hook.encode())])

        return one

    @pytest.fixture
    def mixed(self, station, neighbour):
        """What a client may ask in one packet: the filter, its QoS, and whether it is granted."""
        own, shared = station.topic("cmd"), f"$share/g/{station.topic('cmd')}"
        return [
            (neighbour.topic("cmd"), 1, False),
            (own, 2, True),
            ("#", 0, False),
            (own, 0, True),
            (shared, 1, True),
            ("a/#/b", 2, False),
            ("", 0, False),
            (station.topic("data"), 1, False),
            ("$share/g/#", 1, False),
        ]

    def test_each_filter_is_answered_for_itself_in_mqtt_3(self, subscribe, mixed):
        """In the order they came and none left out: the broker counts."""
        reply = subscribe([{"topic": topic, "qos": qos} for topic, qos, _ in mixed])

        assert reply.status == 200
        assert json.loads(reply.body) == {
            "result": "ok",
            "topics": [{"topic": topic, "qos": qos if granted else 128} for topic, qos, granted in mixed],
        }

    def test_each_filter_is_answered_for_itself_in_mqtt_5(self, subscribe, mixed):
        more = {"no_local": True, "rap": False, "retain_handling": "send_retain"}
        topics = [{"topic": topic, "qos": qos} | more for topic, qos, _ in mixed]

        reply = subscribe(topics, "auth_on_subscribe_m5", properties={"p_subscription_id": 1})

        assert reply.status == 200
        answered = [{"topic": topic, "qos": qos if granted else 135} for topic, qos, granted in mixed]
        assert json.loads(reply.body) == {"result": "ok", "modifiers": {"topics": answered}}

    @pytest.mark.parametrize("hook", ["auth_on_subscribe", "auth_on_subscribe_m5"])
    def test_all_granted_and_all_refused_need_no_list(self, subscribe, station, neighbour, hook):
        own, other = ({"topic": who.topic("cmd"), "qos": 1} for who in (station, neighbour))

        assert json.loads(subscribe([own] * 3, hook).body) == {"result": "ok"}
        assert reads_as_deny("vernemq/subscribe", subscribe([other] * 3, hook))
        assert reads_as_deny("vernemq/subscribe", subscribe([other], hook))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, other], hook, username="stranger"))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, other], hook, client_id=neighbour.username))

    @pytest.mark.parametrize("hook", ["auth_on_subscribe", "auth_on_subscribe_m5"])
    def test_what_is_no_list_of_filters_is_denied_as_a_whole(self, subscribe, station, hook):
        """An empty list in an answer would allow everything, so nothing like it is asked or answered."""
        own = {"topic": station.topic("cmd"), "qos": 1}
        for topics in (
            [],
            {},
            None,
            "",
            station.topic("cmd"),
            own,
            [own, station.topic("cmd")],
            [own, {}],
            [own, []],
            [own, None],
            [own, {"qos": 1}],
            [own, own | {"topic": None}],
            [own, own | {"topic": ["a"]}],
            [[own]],
            [own] * 1_001,
        ):
            assert reads_as_deny("vernemq/subscribe", subscribe(topics, hook)), topics
        assert json.loads(subscribe([own] * 1_000, hook).body) == {"result": "ok"}

    @pytest.mark.parametrize("topic", ["\x00", "a\x00", "\ud800", "x\udfff"])
    def test_a_text_that_is_none_is_never_granted(self, subscribe, station, topic):
        own = {"topic": station.topic("cmd"), "qos": 1}

        reply = subscribe([own, {"topic": topic, "qos": 1}])

        assert reads_as_deny("vernemq/subscribe", reply) or [
            entry["qos"] for entry in json.loads(reply.body)["topics"]
        ] == [1, 128]

    @pytest.mark.parametrize("qos", ["1", 1.0, True, False, None, -1, 3, 128, 135, [1], {}, 1e999])
    def test_a_qos_that_is_none_is_denied(self, subscribe, station, qos):
        own = {"topic": station.topic("cmd"), "qos": 1}

        assert reads_as_allow("vernemq/subscribe", subscribe([own]))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, own | {"qos": qos}]))
        assert reads_as_deny("vernemq/subscribe", subscribe([own, {"topic": own["topic"]}]))

    @pytest.mark.parametrize("about", ["register", "publish", "subscribe"])
    def test_the_header_names_the_hook_of_the_url(self, question, post, entrance, world, station, about):
        path = f"vernemq/{about}"
        fields = good(path, station)
        wrong = {
            "",
            "auth_on_",
            "x",
            about,
            f"auth_on_{about} x",
            f"AUTH_ON_{about}",
            f"auth_on_{about}_m5_m5",
        }
        wrong |= {f"auth_on_{other}" for other in ("register", "publish", "subscribe") if other != about}
        wrong |= {f"{hook}_m5" for hook in wrong} | {f"on_{about}", f"auth_on_{about}_m6"}

        for hook in (f"auth_on_{about}", f"auth_on_{about}_m5"):
            assert reads_as_allow(path, question(path, fields, headers=[(HOOK, hook.encode())]))
            twice = [(HOOK, hook.encode()), (HOOK, hook.encode())]
            assert reads_as_deny(path, question(path, fields, headers=twice))
        for hook in wrong - {f"auth_on_{about}_m5"}:
            assert reads_as_deny(path, question(path, fields, headers=[(HOOK, hook.encode())])), hook
        missing = post(
            entrance,
            f"/mqtt/k/{world.token}/{path}",
            headers=[(b"content-type", JSON.encode())],
            body=json.dumps(fields).encode(),
        )
        assert reads_as_deny(path, missing)

    @pytest.mark.parametrize("about", ["register", "publish", "subscribe"])
    def test_a_stranger_gets_what_is_no_answer(self, post, entrance, station, about):
        path = f"vernemq/{about}"
        headers = [(b"content-type", JSON.encode()), (HOOK, f"auth_on_{about}".encode())]
        body = json.dumps(good(path, station)).encode()

        for url in (f"/mqtt/{path}", f"/mqtt/k/x/{path}"):
            reply = post(entrance, url, headers=headers, body=body)
            assert (reply.status, json.loads(reply.body)) == (403, {"result": {"error": "not_allowed"}})

    def test_no_answer_is_kept(self, post, entrance, world, station, neighbour, monkeypatch):
        """The `post` fixture looks at every reply; here is one of each kind, a fault included."""
        own, other = ({"topic": who.topic("cmd"), "qos": 1} for who in (station, neighbour))
        headers = [(b"content-type", JSON.encode()), (HOOK, b"auth_on_subscribe")]
        seen = []
        for topics, proof in (
            ([own], world.token),
            ([own, other], world.token),
            ([other], world.token),
            ([], "x"),
        ):
            body = json.dumps(good("vernemq/subscribe", station) | {"topics": topics}).encode()
            seen.append(
                post(entrance, f"/mqtt/k/{proof}/vernemq/subscribe", headers=headers, body=body).status
            )
        monkeypatch.setattr(policy, "current", None)
        monkeypatch.setattr(policy, "known", None)
        seen.append(post(entrance, f"/mqtt/k/{world.token}/vernemq/subscribe", headers=headers).status)

        assert seen == [200, 200, 200, 403, 503]

    def test_absent_credentials_are_null(self, question, station):
        fields = good("vernemq/register", station)
        for absent in ({"username": None}, {"password": None}, {"username": None, "password": None}):
            assert reads_as_deny("vernemq/register", question("vernemq/register", fields | absent))

    def test_a_webhook_is_no_query(self, question, station):
        """GET, with all that POST would have in its body."""
        fields = {k: v for k, v in good("vernemq/register", station).items() if type(v) is str}

        reply = question("vernemq/register", body=b"", method="GET", query=urlencode(fields).encode())

        assert reads_as_deny("vernemq/register", reply)


# ---------------------------------------------------------------- JWT: the username is a token


class TestJWT:
    @pytest.fixture
    def ask_with(self, post, entrance, world):
        """Ask with headers of one's own, and the broker's proof in the path unless said otherwise."""

        def one(path, body=b"null", *, authorization=(), proof=None, **options):
            url = f"/mqtt/k/{world.token}/jwt/{path}" if proof is None else f"/mqtt/{proof}jwt/{path}"
            headers = [(b"content-type", JSON.encode())]
            headers += [(b"authorization", value.encode("latin-1")) for value in authorization]
            reply = post(entrance, url, headers=[*headers, *options.pop("headers", ())], body=body, **options)
            assert reply.status == 200 or reads_as_deny(f"jwt/{path}", reply)
            return reply.status == 200

        return one

    @pytest.fixture
    def bearer(self, world):
        return f"Bearer {world.bearers['station']}"

    @pytest.mark.parametrize("about", ["user", "superuser", "acl"])
    def test_a_body_that_names_somebody_else_is_denied(
        self, question, world, station, neighbour, root, about
    ):
        """Whoever's token, whoever is named: the token says who asks, and the body may say it again."""
        path = f"jwt/{about}"
        cast = {"station": station, "neighbour": neighbour, "root": root}
        for (holder, who), named in itertools.product(
            cast.items(), [*cast.values(), Root("x", ""), Root("", "")]
        ):
            for content_type in (JSON, FORM):
                fields = good(path, who) | {"username": named.username}
                reply = question(path, fields, bearer=world.bearers[holder], content_type=content_type)
                may = who is named and (about != "superuser" or who is root)
                assert reads_as_allow(path, reply) if may else reads_as_deny(path, reply)

    @pytest.mark.parametrize("body", [b"", b"null", b"{}", b" null\n"])
    def test_a_user_call_needs_no_body(self, ask_with, world, bearer, body):
        assert ask_with("user", body, authorization=[bearer])
        assert ask_with("superuser", body, authorization=[f"Bearer {world.bearers['root']}"])
        assert not ask_with("superuser", body, authorization=[bearer])
        assert not ask_with("acl", body, authorization=[bearer])

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_a_body_that_cannot_be_read_is_denied(self, ask_with, bearer, method):
        """It could have named somebody else."""
        names_nobody = {b"", b"null", b"{} ", b'{"acc": -0}'}
        for body in BODIES:
            answer = ask_with("user", body, authorization=[bearer], method=method)
            assert answer is (body in names_nobody), body[:40]

    def test_a_body_that_is_too_long_is_denied(self, ask_with, bearer, neighbour):
        """It is thrown away unread, so whom it names nobody knows."""
        named = json.dumps({"username": neighbour.username}).encode()

        assert not ask_with("user", named, authorization=[bearer])
        assert not ask_with("user", named + b" " * MAX_BODY, authorization=[bearer])
        assert not ask_with("user", b"null" + b" " * MAX_BODY, authorization=[bearer])

    def test_a_query_of_a_get_names_nobody_else(self, ask_with, bearer, station, neighbour):
        """There the fields are in the query, and `username` counts as it does in a body."""
        for path in ("user", "acl"):
            for who, may in ((station, True), (neighbour, False)):
                fields = good(f"jwt/{path}", station) | {"username": who.username}
                query = urlencode(fields).encode()
                answer = ask_with(path, b"", authorization=[bearer], method="GET", query=query)
                assert answer is may, (path, who.username)

    def test_a_token_of_another_principal_opens_only_its_own(self, question, world, station, neighbour):
        fields = {k: v for k, v in good("jwt/acl", station).items() if k != "username"}

        assert reads_as_allow("jwt/acl", question("jwt/acl", fields, bearer=world.bearers["station"]))
        for holder in ("neighbour", "stranger"):
            assert reads_as_deny("jwt/acl", question("jwt/acl", fields, bearer=world.bearers[holder]))
        for other in ({"clientid": neighbour.username}, {"topic": neighbour.topic("data")}):
            theirs = fields | other
            assert reads_as_deny("jwt/acl", question("jwt/acl", theirs, bearer=world.bearers["station"]))

    def test_a_token_is_there_once(self, ask_with, world, bearer):
        """Two headers are joined, and two tokens in one are none, be they the same or not."""
        token, other = world.bearers["station"], f"Bearer {world.bearers['neighbour']}"

        assert ask_with("user", authorization=[bearer])
        for twice in ([bearer, bearer], [bearer, other], [other, bearer], [bearer, "x"], ["x", bearer]):
            assert not ask_with("user", authorization=twice)
        for joined in (f"{bearer} {token}", f"{bearer},{token}", f"{bearer}, {bearer}", f"Bearer {bearer}"):
            assert not ask_with("user", authorization=[joined])

    def test_only_the_bearer_header_holds_a_token(self, ask_with, world, bearer):
        token = world.bearers["station"]
        basic = base64.b64encode(f"x:{token}".encode()).decode()

        for authorization in (
            f"Basic {basic}",
            f"Basic {token}",
            f"Token {token}",
            f"Digest {token}",
            token,
            f"Bearer{token}",
            f"Bearer:{token}",
            f"Bearer\t{token}",
            "Bearer",
            "Bearer ",
            "",
        ):
            assert not ask_with("user", authorization=[authorization]), authorization
        assert not ask_with("user")
        for authorization in (f"bearer {token}", f"BEARER  {token} "):  # RFC 7235: the scheme has no case
            assert ask_with("user", authorization=[authorization])

    def test_a_token_elsewhere_than_in_the_header_counts_for_nothing(self, ask_with, world, station):
        token = world.bearers["station"]

        for name in ("access_token", "token", "jwt", "bearer", "authorization", "username", "password"):
            query = f"{name}={token}".encode()
            for method, body in (("POST", b"null"), ("GET", b"")):
                assert not ask_with("user", body, query=query, method=method)
            body = json.dumps({name: token}).encode()
            assert not ask_with("user", body)
        assert not ask_with("user", query=b"k=" + token.encode(), proof="")
        for name in (b"x-broker-secret", b"x-authorization", b"proxy-authorization", b"cookie"):
            assert not ask_with("user", headers=[(name, f"Bearer {token}".encode())])
            assert not ask_with("user", headers=[(name, token.encode())])

    @pytest.mark.parametrize("about", ["user", "acl"])
    def test_the_token_of_somebody_disabled_is_worth_nothing(self, question, station, about):
        path = f"jwt/{about}"
        assert reads_as_allow(path, question(path, good(path, station)))

        WeatherStationDevice.objects.filter(pk=station.device.pk).update(is_active=False)
        refused = question(path, good(path, station))
        WeatherStationDevice.objects.update(is_active=True)

        assert reads_as_deny(path, refused)
        assert reads_as_allow(path, question(path, good(path, station)))

    def test_the_token_of_a_disabled_superuser_is_worth_nothing(self, question, root):
        path = "jwt/superuser"
        assert reads_as_allow(path, question(path, good(path, root)))

        Account.objects.filter(username=root.username).update(is_active=False)
        refused = question(path, good(path, root))
        Account.objects.update(is_active=True)

        assert reads_as_deny(path, refused)

    @pytest.mark.parametrize(
        "change", [{"version": 1}, {"ttl": -60}, {"username": "undefined"}, {"keys": "another"}], ids=str
    )
    def test_a_token_that_does_not_hold_is_denied_at_each_question(self, question, station, root, change):
        keys = conf.options().jwt_keys
        if "keys" in change:
            secret = "a secret of more than 32 bytes, of somebody else"
            keys = (keys[0]._replace(signing=secret, verifying=secret),)
        for about, who in (("user", station), ("acl", station), ("superuser", root)):
            principal = who.username
            bearer = tokens.issue(
                change.get("username", principal),
                change.get("version", version(who)),
                keys,
                change.get("ttl", 60),
            )
            fields = {k: v for k, v in good(f"jwt/{about}", who).items() if k != "username"}
            assert reads_as_deny(f"jwt/{about}", question(f"jwt/{about}", fields, bearer=bearer))
            right = tokens.issue(principal, version(who), conf.options().jwt_keys, 60)
            assert reads_as_allow(f"jwt/{about}", question(f"jwt/{about}", fields, bearer=right))

    def test_only_the_query_and_the_path_prove_the_caller(self, ask_with, world, bearer):
        secret = world.token
        for proof, query in ((f"k/{secret}/", b""), ("", b"k=" + secret.encode())):
            assert ask_with("user", authorization=[bearer], proof=proof, query=query)
            assert not ask_with("user", authorization=[f"Bearer {secret}"], proof=proof, query=query)
        for authorization in ([bearer], [f"Bearer {secret}"], [bearer, f"Bearer {secret}"]):
            headers = [(b"x-broker-secret", secret.encode())]
            assert not ask_with("user", authorization=authorization, proof="", headers=headers)
            assert not ask_with("user", authorization=authorization, proof="")

    def test_two_proofs_that_differ_are_none(self, ask_with, world, bearer):
        right, wrong = b"k=" + world.token.encode(), b"k=" + b"x" * 43

        for query in (right, b"%s&%s" % (right, right)):
            assert ask_with("user", authorization=[bearer], query=query)
        for query in (wrong, b"k=", b"%s&%s" % (right, wrong), b"%s&%s" % (wrong, right)):
            assert not ask_with("user", authorization=[bearer], query=query)
            assert not ask_with("user", authorization=[bearer], query=query, proof="")
        assert not ask_with("user", authorization=[bearer], query=right, proof="k/x/")

    def test_a_header_that_is_no_proof_is_no_second_one(self, ask_with, bearer):
        """X-Broker-Secret does not count here, so a wrong one does no harm."""
        assert ask_with("user", authorization=[bearer], headers=[(b"x-broker-secret", b"x")])


def version(who):
    """Of the credentials of *who*, as their tokens say it."""
    return tokens.verify(token_of(who.username), conf.options().jwt_keys).version


@pytest.mark.parametrize("path", ["go-auth/user", "emqx/authz", "rabbitmq/user", "vernemq/publish"])
def test_a_wrong_setting_is_a_fault_in_the_words_of_the_broker(question, station, settings, path):
    """A 500 of the server would mean "ask the next one" to EMQX."""
    settings.AUTHSVC_JWT_KEYS = {"k": "too short"}

    reply = question(path, good(path, station))

    assert not reads_as_allow(path, reply)
    assert reply == BY_NAME[path.partition("/")[0]].fault(Request("POST", question=path.partition("/")[2]))
