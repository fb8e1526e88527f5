"""Guarantees for all dialects: a deny reads as a deny, and only an allow as an allow."""

from __future__ import annotations

import itertools
import json

import pytest

from authsvc.core.access import Decision, Principal, Reason, Verdict, deny
from authsvc.dialects import DIALECTS
from authsvc.dialects.base import FORM, JSON, MAX_BODY, Request
from fleet.models import WeatherStationDevice
from rig.oracles import GO_AUTHS, reads_as_allow, reads_as_deny
from rig.questions import (
    BESIDE,
    BODIES,
    OF_A_SUPERUSER,
    OTHER_TYPES,
    PARAMETERS,
    QUERIES,
    by_dialect,
    by_question,
    first,
    good,
)

pytestmark = pytest.mark.sqlite_first

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


@by_question
def test_a_hostile_value_is_denied(question, allowed_client, path):
    fields = good(path, allowed_client(path))
    names = {
        *("username", "password", "clientid", "client_id", "topic", "topics", "routing_key"),
    } & fields.keys()

    for name, value in itertools.product(names, HOSTILE):
        reply = question(path, fields | {name: value})
        assert reads_as_deny(path, reply), (name, value, reply)


@pytest.mark.sqlite_first  # The SQL is that of test_cases.py.
class TestEveryDialect:
    """Guarantees for every broker."""

    @by_question
    def test_a_deny_reads_as_a_deny(self, path):
        """For every reason the reply is the same, so no reason shows; also if one topic of several is refused."""
        dialect, request = example(path)
        verdicts = [deny(reason) for reason in Reason]
        verdicts.append(Verdict((Decision(True, Reason.GRANT, "a"), Decision(False, Reason.NO_GRANT, "b"))))
        verdicts.append(Verdict(()))
        verdicts.append(
            Verdict((Decision(False, Reason.NO_GRANT),), Principal("account/r", "r", superuser=True))
        )
        if dialect.name == "vernemq":  # Unknown callers get a 403, which is not an answer to any hook.
            stranger = dialect.render(request, verdicts.pop(list(Reason).index(Reason.UNKNOWN_CALLER)))
            assert stranger.status == 403
            assert not reads_as_allow(path, stranger)
        if path == "vernemq/subscribe":  # Each of several topics has its own answer (TestVerneMQ).
            verdicts = [verdict for verdict in verdicts if not any(d.allowed for d in verdict.decisions)]

        replies = {dialect.render(request, verdict) for verdict in verdicts}

        (reply,) = replies
        assert reads_as_deny(path, reply)
        assert not reads_as_allow(path, reply)

    @by_question
    def test_an_allow_reads_as_an_allow(self, path):
        dialect, request = example(path)

        reply = dialect.render(request, Verdict((Decision(True, Reason.GRANT),), Principal("account/r", "r")))

        assert reads_as_allow(path, reply)
        assert reply.status == 200  # A 204 makes aMQTT raise, and has no `ok` for the json mode of go-auth.

    @by_question
    def test_a_fault_never_reads_as_an_allow(self, path):
        dialect, request = example(path)

        assert not reads_as_allow(path, dialect.fault(request))

    @pytest.mark.parametrize("query", ["format=text", "k=x&format=text"])
    def test_in_text_mode_two_bytes_are_an_allow(self, query):
        for name, about in itertools.product(GO_AUTHS, ("user", "acl", "superuser")):
            dialect, request = example(f"{name}/{about}", query)
            allowed = dialect.render(request, Verdict((Decision(True, Reason.GRANT),)))
            assert (allowed.status, allowed.body) == (200, b"ok")
            for refused in (dialect.render(request, deny(Reason.NO_GRANT)), dialect.fault(request)):
                assert refused.status >= 400
                assert refused.body.strip().lower() != b"ok"

    @by_question
    @pytest.mark.parametrize("content_type", [JSON, FORM])
    def test_an_allowed_client_is_allowed(self, question, allowed_client, path, content_type):
        reply = question(path, good(path, allowed_client(path)), content_type=content_type)

        if path.startswith("vernemq/") and content_type == FORM:  # A webhook is never a form.
            assert reads_as_deny(path, reply)
        else:
            assert reads_as_allow(path, reply)

    @by_question
    @pytest.mark.parametrize("content_type", [JSON, FORM])
    def test_other_clients_are_denied(self, question, station, neighbour, path, content_type):
        """An unknown name, a foreign client id, a disabled device: the same bytes for each."""
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
    def test_a_device_has_no_rights_of_its_neighbour(self, question, station, neighbour, path):
        """Every question about the neighbour's names and topics, asked for the station."""
        theirs = good(path, neighbour)
        if path == "jwt/user":
            pass  # The call holds nothing else than the neighbour's name and the station's token.
        elif not {"topic", "topics", "routing_key"} & theirs.keys() and path not in OF_A_SUPERUSER:
            theirs |= {"username": station.username}  # With the neighbour's client id.
        else:
            theirs |= {
                name: station.username for name in ("username", "clientid", "client_id") if name in theirs
            }

        assert reads_as_deny(path, question(path, theirs))

    @by_question
    def test_each_field_that_matters_must_be_there_once(self, question, allowed_client, path):
        fields = good(path, allowed_client(path))
        needed = fields.keys() - BESIDE
        if path.startswith("jwt/"):
            needed -= {"username"}  # The token has it.
        if path.startswith("rabbitmq/"):
            needed -= {"client_id"}  # Older versions and AMQP logins send none.
            if path == "rabbitmq/user":
                needed -= {"vhost"}  # Logins of the management plugin have none.

        for name in needed:
            rest = {other: value for other, value in fields.items() if other != name}
            assert reads_as_deny(path, question(path, rest)), f"without {name}"
        for name, value in fields.items():
            pairs = [*((k, str(v)) for k, v in fields.items()), (name, str(value))]
            assert reads_as_deny(path, question(path, pairs, content_type=FORM)), f"{name} twice in a form"
            text = json.dumps(fields)[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"
            assert reads_as_deny(path, question(path, body=text.encode())), f"{name} twice in JSON"

    @by_question
    def test_an_unsupported_content_type_is_denied(self, question, allowed_client, path):
        body = json.dumps(good(path, allowed_client(path))).encode()

        for content_type in OTHER_TYPES:
            reply = question(path, content_type=content_type, body=body)
            assert reads_as_deny(path, reply), (content_type, reply)

    @by_question
    def test_parameters_of_a_content_type_change_nothing(self, question, allowed_client, path):
        right = json.dumps(good(path, allowed_client(path))).encode()

        for parameters in PARAMETERS:
            content_type = f"application/json; {parameters}"
            reply = question(path, content_type=content_type, body=b'{"username": "stranger"}')
            assert reads_as_deny(path, reply), (parameters, reply)
            assert reads_as_allow(path, question(path, content_type=content_type, body=right)), parameters

    @by_dialect
    def test_a_content_type_that_django_cannot_read_is_denied(self, question, dialect):
        """Django raises for it before it calls a view: a limit of that entrance (how-to)."""
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
    def test_a_query_that_is_not_utf_8_is_denied(self, question, dialect):
        """Django itself answers 400 before it calls a view: a limit of that entrance (how-to)."""
        path = first(dialect)

        assert reads_as_deny(path, question(path, query=b"a=\xff", body=b'{"username": "x"}'))

    @by_question
    def test_a_body_that_is_no_question_is_denied(self, question, world, path):
        """Under jwt `null` is a question, so there an unknown client is used; TestJWT has more."""
        for body, content_type in itertools.product(BODIES, [JSON, FORM]):
            reply = question(path, body=body, content_type=content_type, bearer=world.bearers["stranger"])
            assert reads_as_deny(path, reply), (body[:40], content_type, reply)

    @by_question
    def test_too_many_fields_are_denied(self, question, path):
        body = "&".join(f"f{number}=x" for number in range(70_000)).encode()
        assert len(body) > MAX_BODY
        for size in (len(body), MAX_BODY, 1_000):
            assert reads_as_deny(path, question(path, body=body[:size], content_type=FORM))


def example(path, query=""):
    """Return the dialect of *path*, and a request of this question."""
    name, _, question = path.partition("/")
    dialect = next(dialect for dialect in DIALECTS if dialect.name == name)
    headers = {"content-type": JSON, "vernemq-hook": f"auth_on_{question}"}
    return dialect, Request("POST", query=query, headers=headers, question=question)
