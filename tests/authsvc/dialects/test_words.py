"""The words of each broker: which request is which question, and each reply byte by byte. No server, no database."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from authsvc.core import tokens
from authsvc.core.access import (
    Action,
    Client,
    Decision,
    InvalidToken,
    LoginQuestion,
    MalformedRequest,
    Principal,
    Reason,
    Refused,
    ResourceQuestion,
    Secret,
    SuperuserQuestion,
    TopicQuestion,
    Verdict,
    deny,
)
from authsvc.core.grants import ActionSet, Rule
from authsvc.core.tokens import Key
from authsvc.dialects import BY_NAME, DIALECTS, emqx
from authsvc.dialects.base import FORM, JSON, Options, Request

pytestmark = pytest.mark.sqlite_only  # needs no database

KEY = Key("one", "HS256", "s" * 32, "s" * 32)
END = 4_000_000_000
TOKEN = tokens.issue("S1", 7, [KEY], 0, now=END)
CLIENT = Client("S1", "C1")
TEXT = "text/plain; charset=utf-8"
ALLOW = Verdict((Decision(True, Reason.GRANT),))
DENY = deny(Reason.NO_GRANT)
PLACE = {"vhost": "/", "username": "S1", "client_id": "C1"}


def request(
    path, *, form=False, bearer=f"Bearer {TOKEN}", hook=None, method="POST", query="", body=None, **fields
):
    """Return the request for the question *path* with *fields*."""
    name, _, question = path.partition("/")
    headers = [(b"Content-Type", (FORM if form else JSON).encode())]
    if name == "jwt":
        headers.append((b"Authorization", bearer.encode()))
    if name == "vernemq":
        headers.append((b"vernemq-hook", (hook or f"auth_on_{question}").encode()))
    if body is None:
        body = urlencode(fields).encode() if form else json.dumps(fields).encode()
    return Request(method, query, tuple(headers), body, question, options=Options(jwt_keys=(KEY,)))


def parse(path, **options):
    """Return the question that a request is."""
    name, _, question = path.partition("/")
    return BY_NAME[name].questions[question](request(path, **options))


def test_every_dialect_has_its_name_and_its_questions():
    assert {dialect.name: (list(dialect.questions), dialect.login) for dialect in DIALECTS} == {
        "go-auth": (["user", "superuser", "acl"], "user"),
        "jwt": (["user", "superuser", "acl"], "user"),
        "emqx": (["authn", "authz"], "authn"),
        "emqx4": (["auth", "superuser", "acl"], "auth"),
        "nanomq": (["auth", "superuser", "acl"], "auth"),
        "rabbitmq": (["user", "vhost", "resource", "topic"], "user"),
        "vernemq": (["register", "publish", "subscribe"], "register"),
        "amqtt": (["user", "acl"], "user"),
    }
    assert list(BY_NAME.values()) == list(DIALECTS)
    assert [dialect.name for dialect in DIALECTS if dialect.authorization_is_the_clients] == ["jwt"]


@pytest.mark.parametrize(
    ("path", "client_id", "wants_rules"),
    [
        ("go-auth/user", "clientid", False),
        ("emqx/authn", "clientid", True),
        ("emqx4/auth", "clientid", False),
        ("nanomq/auth", "clientid", False),
        ("rabbitmq/user", "client_id", False),
        ("vernemq/register", "client_id", False),
        ("amqtt/user", "client_id", False),
    ],
)
def test_a_login_has_its_fields(path, client_id, wants_rules):
    fields = {"username": "S1", client_id: "C1", "password": "s3cret"}

    assert parse(path, **fields) == LoginQuestion(CLIENT, "s3cret", wants_rules)
    for name in {*fields} - ({"client_id"} if path == "rabbitmq/user" else set()):
        with pytest.raises(MalformedRequest):
            parse(path, **{key: value for key, value in fields.items() if key != name})


@pytest.mark.parametrize(("path", "client_id"), [("go-auth/acl", "clientid"), ("amqtt/acl", "client_id")])
@pytest.mark.parametrize(("acc", "action"), [(1, Action.RECEIVE), (2, Action.PUBLISH), (4, Action.SUBSCRIBE)])
def test_acc_is_a_number_in_json_and_a_text_in_a_form(path, client_id, acc, action):
    fields = {"username": "S1", client_id: "C1", "topic": "a/b"}
    expected = TopicQuestion(CLIENT, action, ["a/b"])

    assert parse(path, acc=acc, **fields) == expected
    assert parse(path, form=True, acc=acc, **fields) == expected
    for wrong in (str(acc), float(acc), True, 0, 3, 8, None):
        with pytest.raises(MalformedRequest):
            parse(path, acc=wrong, **fields)


@pytest.mark.parametrize("path", ["emqx4/acl", "nanomq/acl"])
def test_access_is_1_to_subscribe_and_2_to_publish(path):
    fields = {"username": "S1", "clientid": "C1", "topic": "a/b"}

    assert parse(path, access="1", **fields) == TopicQuestion(CLIENT, Action.SUBSCRIBE, ["a/b"])
    assert parse(path, access="2", **fields) == TopicQuestion(CLIENT, Action.PUBLISH, ["a/b"])
    for wrong in (1, "3", "", "X1X"):
        with pytest.raises(MalformedRequest):
            parse(path, access=wrong, **fields)


@pytest.mark.parametrize("path", ["emqx4/superuser", "nanomq/superuser"])
def test_a_superuser_question_has_both_names(path):
    assert parse(path, username="S1", clientid="C1") == SuperuserQuestion(CLIENT)
    with pytest.raises(MalformedRequest):
        parse(path, username="S1")


def test_a_superuser_question_of_go_auth_has_a_username():
    assert parse("go-auth/superuser", username="S1") == SuperuserQuestion(Client("S1", None))


def test_nanomq_joins_filters_by_commas():
    fields = {"username": "S1", "clientid": "C1", "access": "1"}

    assert parse("nanomq/acl", topic="a,b/#,", **fields).topics == ["a", "b/#", ""]
    assert len(parse("nanomq/acl", topic="," * 999, **fields).topics) == 1_000
    with pytest.raises(MalformedRequest):
        parse("nanomq/acl", topic="," * 1_000, **fields)


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({"action": "publish"}, Action.PUBLISH),
        ({"action": "subscribe"}, Action.SUBSCRIBE),
        ({"access": "1"}, Action.SUBSCRIBE),
        ({"access": "2"}, Action.PUBLISH),
        ({"action": "publish", "access": "2"}, Action.PUBLISH),
        ({"action": "publish", "access": "1"}, None),
        ({"action": "publish", "access": "3"}, None),
        ({"action": "receive"}, None),
        ({"access": "3"}, None),
        ({}, None),
    ],
)
def test_emqx_names_the_action_in_either_field(fields, action):
    common = {"username": "S1", "clientid": "C1", "topic": "a/b"}

    if action is None:
        with pytest.raises(MalformedRequest):
            parse("emqx/authz", **common, **fields)
    else:
        assert parse("emqx/authz", **common, **fields) == TopicQuestion(CLIENT, action, ["a/b"])


# RabbitMQ.


def test_rabbitmq_repeats_the_names_of_the_client():
    repeated = {"variable_map.client_id": "C1", "variable_map.username": "S1"}

    assert parse("rabbitmq/vhost", **PLACE) == ResourceQuestion(CLIENT, "vhost /", shared=True)
    assert parse("rabbitmq/vhost", **PLACE, **repeated).client == CLIENT
    assert parse("rabbitmq/vhost", vhost="/", username="S1", **repeated).client == CLIENT
    assert parse("rabbitmq/vhost", vhost="/", username="S1").client == Client("S1", None)
    for name in repeated:
        with pytest.raises(MalformedRequest):
            parse("rabbitmq/vhost", **PLACE, **repeated | {name: "other"})


@pytest.mark.parametrize("question", ["user", "vhost", "resource", "topic"])
def test_rabbitmq_has_one_virtual_host(question):
    fields = PLACE | {"vhost": "other", "password": "s3cret", "permission": "write", "routing_key": "a"}

    with pytest.raises(Refused, match="other"):
        parse(f"rabbitmq/{question}", **fields, resource="topic", name="amq.topic")


@pytest.mark.parametrize(
    ("resource", "name", "permission", "shared"),
    [
        ("exchange", "amq.topic", "write", True),
        ("exchange", "amq.topic", "read", True),
        ("exchange", "amq.topic", "configure", False),
        ("exchange", "amq.direct", "write", False),
        ("queue", "mqtt-subscription-C1qos0", "configure", True),
        ("queue", "mqtt-subscription-C1qos1", "read", True),
        ("queue", "mqtt-will-C1", "write", True),
        ("queue", "mqtt-subscription-C2qos1", "read", False),
        ("queue", "amq.topic", "write", False),
        ("other", "mqtt-will-C1", "write", False),
    ],
)
def test_rabbitmq_shares_one_exchange_and_the_queues_of_the_client(resource, name, permission, shared):
    asked = parse("rabbitmq/resource", **PLACE, resource=resource, name=name, permission=permission)

    assert asked == ResourceQuestion(CLIENT, f"{resource} {name} {permission}", shared)


def test_rabbitmq_gives_no_queue_to_a_client_without_an_id():
    fields = {"vhost": "/", "username": "S1", "resource": "queue", "permission": "read"}

    assert not parse("rabbitmq/resource", name="mqtt-subscription-Noneqos1", **fields).shared
    with pytest.raises(MalformedRequest):
        parse("rabbitmq/resource", **PLACE, resource="queue", name="q", permission="delete")


@pytest.mark.parametrize(
    ("key", "topic"), [("a.b", "a/b"), ("a.*.#", "a/+/#"), ("*", "+"), ("", ""), (".a", "/a")]
)
def test_rabbitmq_sends_topics_as_routing_keys(key, topic):
    fields = PLACE | {"resource": "topic", "name": "amq.topic", "routing_key": key}

    assert parse("rabbitmq/topic", permission="write", **fields) == TopicQuestion(
        CLIENT, Action.PUBLISH, [topic]
    )
    assert parse("rabbitmq/topic", permission="read", **fields) == TopicQuestion(
        CLIENT, Action.SUBSCRIBE, [topic]
    )


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"routing_key": "a/b"}, MalformedRequest),
        ({"routing_key": "a.+"}, MalformedRequest),
        ({"routing_key": "a.b*"}, MalformedRequest),
        ({"routing_key": "**"}, MalformedRequest),
        ({"permission": "configure"}, MalformedRequest),
        ({"resource": "queue"}, MalformedRequest),
        ({"name": "amq.direct"}, Refused),
    ],
)
def test_rabbitmq_topics_are_read_strictly(changes, error):
    fields = PLACE | {"resource": "topic", "name": "amq.topic", "routing_key": "a", "permission": "write"}

    with pytest.raises(error) as raised:
        parse("rabbitmq/topic", **fields | changes)

    assert type(raised.value) is error


# VerneMQ.


def test_vernemq_names_its_hook():
    fields = {"username": "S1", "client_id": "C1", "topic": "a/b", "qos": 1}
    topics = [{"topic": "a", "qos": 0}, {"topic": "b/#", "qos": 2}]

    for suffix in ("", "_m5"):
        published = parse("vernemq/publish", hook=f"auth_on_publish{suffix}", **fields)
        subscribed = parse("vernemq/subscribe", hook=f"auth_on_subscribe{suffix}", **fields, topics=topics)
        assert published == TopicQuestion(CLIENT, Action.PUBLISH, ["a/b"])
        assert subscribed == TopicQuestion(CLIENT, Action.SUBSCRIBE, ["a", "b/#"])
    for hook in ("auth_on_register", "auth_on_publish_m4", "_m5auth_on_publish", "auth_on_publish_m5_m5"):
        with pytest.raises(MalformedRequest):
            parse("vernemq/publish", hook=hook, **fields)
    with pytest.raises(MalformedRequest):
        parse("vernemq/publish", form=True, **fields)


@pytest.mark.parametrize(
    "topics",
    [
        [],
        {},
        "a",
        ["a"],
        [{"topic": "a"}],
        [{"qos": 0}],
        [{"topic": 1, "qos": 0}],
        [{"topic": "a", "qos": 3}],
        [{"topic": "a", "qos": -1}],
        [{"topic": "a", "qos": True}],
        [{"topic": "a", "qos": "0"}],
        [{"topic": "a", "qos": 0}] * 1_001,
    ],
)
def test_vernemq_filters_are_read_strictly(topics):
    with pytest.raises(MalformedRequest):
        parse("vernemq/subscribe", username="S1", client_id="C1", topics=topics)


def test_vernemq_answers_each_filter_in_its_order():
    topics = [{"topic": "a", "qos": 1}, {"topic": "b", "qos": 2}]
    verdict = Verdict((Decision(True, Reason.GRANT), Decision(False, Reason.NO_GRANT)))

    def reply(**options):
        return BY_NAME["vernemq"].render(
            request("vernemq/subscribe", username="S1", client_id="C1", topics=topics, **options), verdict
        )

    assert reply() == (
        200,
        b'{"result":"ok","topics":[{"topic":"a","qos":1},{"topic":"b","qos":128}]}',
        JSON,
        None,
    )
    assert reply(hook="auth_on_subscribe_m5").body == (
        b'{"result":"ok","modifiers":{"topics":[{"topic":"a","qos":1},{"topic":"b","qos":135}]}}'
    )
    most = [{"topic": "a", "qos": 0}] * 1_000
    assert len(parse("vernemq/subscribe", username="S1", client_id="C1", topics=most).topics) == 1_000


def test_vernemq_refuses_an_unknown_caller_with_another_status():
    stranger = BY_NAME["vernemq"].render(request("vernemq/publish"), deny(Reason.UNKNOWN_CALLER))

    assert stranger == (403, b'{"result":{"error":"not_allowed"}}', JSON, None)


# go-auth in its JWT mode.


@pytest.mark.parametrize("body", [b"", b"null", b" null ", b"{}", b'{"username": "S1"}'])
def test_a_token_says_who_the_client_is(body):
    client = Client("S1", None, 7, END)

    assert parse("jwt/user", body=body) == ResourceQuestion(client, "connection", shared=True)
    assert parse("jwt/superuser", body=body) == SuperuserQuestion(client)


def test_a_token_says_it_also_for_a_topic():
    question = parse("jwt/acl", clientid="C1", acc=2, topic="a/b")

    assert question == TopicQuestion(Client("S1", "C1", 7, END), Action.PUBLISH, ["a/b"])
    with pytest.raises(MalformedRequest):
        parse("jwt/acl", acc=2, topic="a/b")


@pytest.mark.parametrize(
    "bearer", ["", "Bearer", "Bearer ", "Bearer  ", f"Basic {TOKEN}", TOKEN, f"Bearer x{TOKEN}"]
)
def test_a_client_without_a_token_is_refused(bearer):
    with pytest.raises(InvalidToken):
        parse("jwt/user", body=b"", bearer=bearer)


def test_a_token_is_found_behind_its_scheme():
    for bearer in (f"bearer {TOKEN}", f"BEARER  {TOKEN} "):
        assert parse("jwt/user", body=b"", bearer=bearer).client.username == "S1"


def test_another_username_than_the_tokens_is_refused():
    with pytest.raises(MalformedRequest):
        parse("jwt/user", username="S2")
    with pytest.raises(MalformedRequest):
        parse("jwt/user", method="GET", body=b"", query="username=S2")
    assert parse("jwt/user", method="GET", body=b"", query="username=S1").client.username == "S1"
    for method in ("GET", "POST"):
        with pytest.raises(MalformedRequest):
            parse("jwt/user", method=method, body=b"nonsense")
    assert parse("jwt/user", method="GET", body=b"null").client.username == "S1"


# Replies.


REPLIES = {
    "go-auth/acl": (
        (200, b'{"ok":true,"error":""}', JSON),
        (403, b'{"ok":false,"error":"denied"}', JSON),
        (503, b'{"ok":false,"error":"unavailable"}', JSON),
    ),
    "emqx/authz": (
        (200, b'{"result":"allow"}', JSON),
        (200, b'{"result":"deny"}', JSON),
        (200, b'{"result":"deny"}', JSON),
    ),
    "emqx/authn": (
        (200, b'{"result":"allow","is_superuser":false}', JSON),
        (200, b'{"result":"deny"}', JSON),
        (503, b'{"result":"ignore"}', JSON),
    ),
    "emqx4/acl": (
        (200, b'{"result":"allow"}', JSON),
        (403, b'{"result":"deny"}', JSON),
        (503, b'{"result":"unavailable"}', JSON),
    ),
    "rabbitmq/topic": ((200, b"allow", TEXT), (200, b"deny", TEXT), (503, b"unavailable", TEXT)),
    "vernemq/publish": (
        (200, b'{"result":"ok"}', JSON),
        (200, b'{"result":{"error":"not_allowed"}}', JSON),
        (503, b'{"result":{"error":"unavailable"}}', JSON),
    ),
    "amqtt/acl": ((200, b'{"ok":true}', JSON), (403, b'{"ok":false}', JSON), (503, b'{"ok":false}', JSON)),
}
REPLIES["jwt/acl"] = REPLIES["go-auth/acl"]
REPLIES["nanomq/acl"] = REPLIES["emqx4/acl"]
REPLIES["vernemq/subscribe"] = REPLIES["vernemq/publish"]


def test_a_verdict_on_nothing_is_a_deny():
    for path, (_, denied, _) in REPLIES.items():
        assert BY_NAME[path.partition("/")[0]].render(request(path), Verdict(()))[:3] == denied


@pytest.mark.parametrize("path", REPLIES)
def test_a_reply_is_written_in_the_words_of_its_broker(path):
    dialect, asked = BY_NAME[path.partition("/")[0]], request(path)

    replies = dialect.render(asked, ALLOW), dialect.render(asked, DENY), dialect.fault(asked)

    assert tuple(reply[:3] for reply in replies) == REPLIES[path]
    assert {reply.until for reply in replies} == {None}


def test_go_auth_reads_text_where_its_url_says_so():
    go_auth = BY_NAME["go-auth"]

    for query in ("format=text", "k=1&format=text"):
        asked = request("go-auth/acl", query=query)
        assert go_auth.render(asked, ALLOW) == (200, b"ok", TEXT, None)
        assert go_auth.render(asked, DENY) == (403, b"denied", TEXT, None)
        assert go_auth.fault(asked) == (503, b"unavailable", TEXT, None)
    for query in ("", "format=json", "xformat=text", "format=text2"):
        assert go_auth.fault(request("go-auth/acl", query=query)).content_type == JSON


# The connect answer of EMQX.


def answered(verdict, ttl=3_600):
    """Return the document of the connect answer, and until when it stays the same."""
    reply = emqx.render(Request("POST", question="authn", options=Options(emqx_rules_ttl=ttl)), verdict)
    assert reply.status == 200
    return json.loads(reply.body), reply.until


def test_emqx_is_told_superusers_attributes_and_the_end_of_a_password():
    root = Principal("account/root", "root", superuser=True, attributes={"type": "pump", "prefix": ""})
    known = Verdict((Decision(True, Reason.CREDENTIALS),), root)

    assert answered(known) == (
        {"result": "allow", "is_superuser": True, "client_attrs": {"type": "pump"}},
        None,
    )
    assert "expire_at" not in answered(known._replace(secret=Secret("h")))[0]
    assert answered(known._replace(secret=Secret("h", 5_000.9)))[0]["expire_at"] == 5_000


def test_emqx_holds_rules_until_the_earlier_end(monkeypatch):
    monkeypatch.setattr(emqx.time, "time", lambda: 1_000_000_030.5)
    held = Verdict((Decision(True, Reason.CREDENTIALS),), rules=(Rule("a", ActionSet.PUBLISH),))
    nothing_else = {"permission": "deny", "action": "all", "topics": ["#", "$SYS/#"]}

    document, until = answered(held)

    assert document["acl"] == [{"permission": "allow", "action": "publish", "topics": ["eq a"]}, nothing_else]
    assert (document["expire_at"], until) == (1_000_003_620, 1_000_000_080)
    assert answered(held._replace(secret=Secret("h", 1_000_000_100.0)))[0]["expire_at"] == 1_000_000_100
    assert answered(held._replace(rules=()))[0]["acl"] == [nothing_else]
    assert answered(held._replace(rules=(Rule("${x}"),))) == (
        {"result": "allow", "is_superuser": False},
        None,
    )


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (1, (1_031, 1_031)),
        (2, (1_032, 1_031)),
        (119, (1_121, 1_061)),
        (120, (1_140, 1_080)),
        (3, (1_033, 1_031)),
    ],
)
def test_rules_end_at_multiples_of_half_their_time(ttl, expected):
    assert emqx.end_of_rules(1_030.5, ttl) == expected


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((Rule("a/+"),), None),
        ((Rule("a/#", ActionSet.SUBSCRIBE),), None),
        ((Rule("a${b"),), None),
        ((Rule("eq a"),), None),
        ((Rule("eq a", allow=False),), None),
        ((Rule("a/+", ActionSet.PUBLISH),), [("allow", "publish", ["a/+"])]),
        ((Rule("a"),), [("allow", "publish", ["eq a"]), ("allow", "subscribe", ["eq a"])]),
        ((Rule("a", ActionSet.RECEIVE),), []),
        ((Rule("$CONTROL/a"),), []),
        (
            (Rule("$CONTROL/a", ActionSet.PUBLISH, allow=False),),
            [("deny", "publish", ["eq $CONTROL/a"])],
        ),
        ((Rule("a", ActionSet.SUBSCRIBE), Rule("+", ActionSet.SUBSCRIBE, allow=False)), []),
        (
            (Rule("a", ActionSet.SUBSCRIBE), Rule("a", ActionSet.PUBLISH, allow=False)),
            [("deny", "publish", ["eq a"]), ("allow", "subscribe", ["eq a"])],
        ),
        (
            (Rule("a", ActionSet.SUBSCRIBE), Rule("b", ActionSet.SUBSCRIBE, allow=False)),
            [("allow", "subscribe", ["eq a"])],
        ),
    ],
)
def test_rules_are_expressed_for_emqx_or_kept(rules, expected):
    acl = emqx.expressed(rules)

    if expected is None:
        assert acl is None
    else:
        assert [tuple(entry.values()) for entry in acl] == [*expected, ("deny", "all", ["#", "$SYS/#"])]
