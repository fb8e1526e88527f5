"""Callers: admitted brokers, their proofs, and that no token reaches a log."""

from __future__ import annotations

import base64
import json

import pytest

from authsvc import policy
from authsvc.core.access import Reason
from authsvc.dialects import DIALECTS
from authsvc.dialects.base import MAX_BODY
from authsvc.freshness import reader, triggers
from authsvc.models import Broker, Denial
from rig.asking import DENIED, OK, broken, everything_logged, reasons, sql
from rig.entrances import both_entrances
from rig.verifications import count_verifications

pytestmark = pytest.mark.usefixtures("nothing_pending")


# ---------------------------------------------------------------- callers


class TestCallers:
    @pytest.fixture
    def call(self, send, entrance, station):
        """Return a function that asks a question with a given proof and returns the whole answer."""

        def one(*, query="", headers=(), path="", body=None, dialect="go-auth/user"):
            fields = {"username": station.username, "password": station.password}
            fields |= {"clientid": station.username, "client_id": station.username}
            reply = send(
                entrance,
                "POST",
                f"/mqtt/{path}{dialect}{query}",
                headers=[("content-type", "application/json"), *headers],
                content=json.dumps(fields | (body or {})).encode(),
            )
            return reply.status_code, reply.content

        return one

    @pytest.fixture
    def broker(self, token):
        return Broker.objects.get()

    @staticmethod
    def basic(text):
        return "Basic " + base64.b64encode(text.encode()).decode()

    @both_entrances
    def test_each_way_to_present_the_proof(self, call, token):
        assert call(query=f"?k={token}")[0] == OK
        assert call(path=f"k/{token}/")[0] == OK
        for headers in (
            [("Authorization", f"Bearer {token}")],
            [("authorization", f"bearer  {token} ")],
            [("AUTHORIZATION", f"BEARER {token}")],
            [("Authorization", self.basic(f"anybody:{token}"))],
            [("Authorization", self.basic(f":{token}"))],
            [("X-Broker-Secret", token)],
            [("x-broker-secret", token)],
        ):
            assert call(headers=headers)[0] == OK, headers

    @pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
    def test_a_stranger_gets_the_same_answer_for_every_name(self, call, dialect, token, monkeypatch):
        """For a caller that is not a broker no name is looked up, and no password is hashed."""
        path = f"{dialect.name}/{next(iter(dialect.questions))}"
        statements = []
        fetch = reader.fetch

        async def watched(statement, parameters=()):
            statements.append((statement, parameters))
            return await fetch(statement, parameters)

        hashed = count_verifications(monkeypatch)
        monkeypatch.setattr(reader, "fetch", watched)

        replies = {
            call(dialect=path, headers=headers, query=query, body=body)
            for headers in ([], [("Authorization", "Bearer wrong")], [("X-Broker-Secret", "")])
            for query in ("", "?k=wrong", "?k=")
            for body in (
                {},
                {"password": "wrong"},
                {"username": "stranger"},
                {"username": "a/b"},
                {"username": None},
            )
        }

        assert len(replies) == 1
        assert {statement for statement, _ in statements} <= {
            *triggers.REVISION.values(),
            policy.BROKERS,
            policy.GRANTS,
        }
        assert not any(parameters for _, parameters in statements)
        assert hashed == []
        assert reasons() == {Reason.UNKNOWN_CALLER}
        assert set(Denial.objects.values_list("username", "client_id", "principal")) == {("", "", "")}

    @both_entrances
    def test_a_stranger_gets_the_same_answer_for_every_body(self, send, entrance, token):
        replies = {
            (reply.status_code, reply.content, tuple(sorted(reply.headers.items())))
            for body in (b"", b"{", b"\xff", b"[" * 9_000, b"x" * (MAX_BODY + 1), b'{"username":"a"}')
            for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded")
            for reply in [
                send(
                    entrance,
                    "POST",
                    "/mqtt/go-auth/acl",
                    content=body,
                    headers={"content-type": content_type},
                )
            ]
        }

        assert len(replies) == 1

    @both_entrances
    def test_invalid_proofs(self, call, token):
        for query in (
            "",
            "?k=",
            "?k",
            f"?K={token}",
            f"?k={token}x",
            f"?k={token[:-1]}",
            f"?k={token.swapcase()}",
            f"?token={token}",
            f"?k=%20{token}",
            f"?k={token}%00",
            f"?k={token}&k=",
            f"?k={token}&x",
            f"?a=b;k={token}",
        ):
            assert call(query=query)[0] == DENIED, query
        for name, value in (
            ("Authorization", token),
            ("Authorization", "Bearer"),
            ("Authorization", "Bearer "),
            ("Authorization", f"Bearer{token}"),
            ("Authorization", f"Token {token}"),
            ("Authorization", f"Basic {token}"),
            ("Authorization", self.basic(token)),
            ("Authorization", self.basic(f"{token}:")),
            ("Authorization", self.basic(f"a:b:{token}")),
            ("Authorization", f"Digest {token}"),
            ("X-Broker-Secret", f"Bearer {token}"),
            ("X_Broker_Secret", token),
            ("Broker-Secret", token),
            ("Proxy-Authorization", f"Bearer {token}"),
            ("Cookie", f"k={token}"),
        ):
            assert call(headers=[(name, value)])[0] == DENIED, (name, value)
        for path in (f"k/{token}x/", f"k/{token.lower()}/", "k/x/"):
            assert call(path=path)[0] == DENIED, path

    @both_entrances
    def test_garbage_in_place_of_a_proof_is_a_denial(self, call):
        stranger = call()

        for value in (
            b"Basic",
            b"Basic ",
            b"Basic =",
            b"Basic ====",
            b"Basic a",
            b"Basic !!!!",
            b"Basic /w==",
            b"Basic YQ==",
            b"Bearer \xe9",
            b"\xe9",
            b"",
            b" ",
            b"Basic " + b"QQ" * 3_000,
        ):
            assert call(headers=[(b"authorization", value)]) == stranger, value

    @pytest.mark.parametrize("value", [b"Basic \xe9", b"Basic \xff\xfe"])
    @both_entrances
    def test_a_basic_proof_that_is_not_ascii_is_a_denial(self, call, caplog, value):
        """It is not a fault, and does not log a line for each request."""
        assert call(headers=[(b"authorization", value)]) == call()
        assert "auth.fault" not in caplog.text

    def test_a_token_in_the_body_is_not_a_proof(self, call, token):
        for name in ("k", "token", "secret", "Authorization", "x-broker-secret"):
            assert call(body={name: token})[0] == DENIED

    def test_a_token_in_a_form_is_not_a_proof(self, send, entrance, token, station):
        fields = {"username": station.username, "clientid": station.username, "password": station.password}

        reply = send(entrance, "POST", "/mqtt/go-auth/user", data=fields | {"k": token})

        assert reply.status_code == DENIED

    def test_two_proofs_that_differ_are_none(self, call, token):
        other = Broker(name="other")
        second = other.issue_token()
        other.save()

        for wrong in (second, "x", ""):
            for query, headers, path in (
                (f"?k={token}&k={wrong}", [], ""),
                (f"?k={wrong}", [("X-Broker-Secret", token)], ""),
                ("", [("X-Broker-Secret", token), ("Authorization", f"Bearer {wrong}")], ""),
                ("", [("X-Broker-Secret", token), ("X-Broker-Secret", wrong)], ""),
                ("", [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {wrong}")], ""),
                ("", [("Authorization", self.basic(f"a:{wrong}"))], f"k/{token}/"),
                (f"?k={token}", [], f"k/{wrong or 'x'}/"),
                (f"?k={token}", [("Authorization", f"Negotiate {wrong}")], ""),
            ):
                assert call(query=query, headers=headers, path=path)[0] == DENIED, (
                    wrong,
                    query,
                    headers,
                    path,
                )

    def test_one_proof_twice_is_fine(self, call, token):
        everywhere = [("X-Broker-Secret", token), ("Authorization", f"Bearer {token}")]

        assert call(query=f"?k={token}", headers=everywhere, path=f"k/{token}/")[0] == OK
        assert call(query=f"?k={token}&k={token}", headers=everywhere)[0] == OK
        assert call(headers=[("Authorization", self.basic(f"u:{token}")), everywhere[0]])[0] == OK

    @both_entrances
    def test_a_repeated_header_is_not_a_proof(self, call, token):
        """A proxy may have read only the first value, for any way of joining them."""
        assert call(headers=[("X-Broker-Secret", token)] * 2)[0] == DENIED
        assert call(headers=[("Authorization", f"Bearer {token}")] * 2)[0] == DENIED

    def test_a_broker_is_disabled_and_enabled_with_the_next_question(self, call, token, broker):
        assert call(query=f"?k={token}")[0] == OK
        Broker.objects.update(is_active=False)
        assert call(query=f"?k={token}")[0] == DENIED
        sql(f"UPDATE {Broker._meta.db_table} SET is_active = %s", True)
        assert call(query=f"?k={token}")[0] == OK
        sql(f"DELETE FROM {Broker._meta.db_table}")
        assert call(query=f"?k={token}")[0] == DENIED

    def test_a_new_token_ends_the_old_one(self, call, token, broker):
        new = broker.issue_token()
        assert call(query=f"?k={new}")[0] == DENIED  # Not saved yet.
        broker.save()

        assert call(query=f"?k={new}")[0] == OK
        assert call(query=f"?k={token}")[0] == DENIED

    def test_the_digest_is_not_a_token(self, call, token, broker):
        """A reader of the table cannot ask questions with it."""
        assert token not in broker.token_digest
        assert call(query=f"?k={broker.token_digest}")[0] == DENIED

    def test_a_broker_asks_in_its_dialects_only(self, call, token, broker):
        proof = f"?k={token}"
        Broker.objects.update(dialects=["emqx", "amqtt"])

        assert call(query=proof)[0] == DENIED
        assert call(query=proof, dialect="rabbitmq/user")[1] == b"deny"
        assert b"allow" in call(query=proof, dialect="emqx/authn")[1]
        assert call(query=proof, dialect="amqtt/user")[0] == OK
        Broker.objects.update(dialects=["go-auth"])
        assert call(query=proof)[0] == OK
        assert call(query=proof, dialect="emqx/authn")[1] == b'{"result":"deny"}'

    @both_entrances
    def test_a_broker_asks_from_its_networks_only(self, call, token, broker):
        claims = [
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Real-IP", "192.0.2.1"),
            ("Forwarded", "for=192.0.2.1"),
        ]
        for networks, status in (
            ([], OK),
            (["10.1.2.3"], OK),
            (["10.1.2.0/24"], OK),
            (["192.168.0.0/16", "10.0.0.0/8"], OK),
            (["0.0.0.0/0"], OK),
            (["10.1.2.4"], DENIED),
            (["10.1.3.0/24"], DENIED),
            (["::/0"], DENIED),
            (["2001:db8::/32"], DENIED),
        ):
            Broker.objects.update(networks=networks)
            assert call(query=f"?k={token}", headers=claims)[0] == status, networks
            assert call(query=f"?k={token}")[0] == status, networks

    @both_entrances
    def test_a_claimed_address_is_not_read(self, call, token, broker):
        Broker.objects.update(networks=["192.0.2.1"])

        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "Client-IP"):
            assert call(query=f"?k={token}", headers=[(name, "192.0.2.1")])[0] == DENIED

    def test_an_ipv4_caller_of_a_dual_stack_socket_is_its_ipv4_address(self):
        """gunicorn on [::] reports ::ffff:10.1.2.3."""
        caller = policy.Caller(networks=(policy.ipaddress.ip_network("10.1.0.0/16"),))

        assert caller.admits("go-auth", "10.1.2.3")
        assert caller.admits("go-auth", "::ffff:10.1.2.3")
        for peer in ("::ffff:10.2.2.3", "", "localhost", "10.1.2.3:5", "10.1.2", "unix:", "2001:db8::1"):
            assert not caller.admits("go-auth", peer), peer

    @pytest.mark.parametrize("networks", [["10.1.2.3/8"], "10.0.0.0/8"], ids=ascii)
    def test_an_unreadable_broker_row_refuses_that_broker_only(self, call, token, networks):
        """save() does not validate; one bad row must not stop all logins of the fleet."""
        bad = Broker(name="bad", networks=networks)
        bad_token = bad.issue_token()
        bad.save()

        assert call(query=f"?k={bad_token}")[0] != OK
        assert call(query=f"?k={token}")[0] == OK

    def test_without_any_broker_every_caller_is_refused(self, call, token):
        sql(f"DELETE FROM {Broker._meta.db_table}")

        for query in ("", "?k=", "?k=None", f"?k={token}"):
            assert call(query=query)[0] == DENIED

    @both_entrances
    def test_a_token_never_reaches_a_log(self, call, token, send, caplog, monkeypatch):
        """It does not for a right question, a denial, a fault, or a request that Django itself refuses."""
        with everything_logged(caplog):
            call(query=f"?k={token}")
            call(path=f"k/{token}/", body={"username": "stranger"})
            call(headers=[("Authorization", f"Bearer {token}")], dialect="go-auth/nothing")
            call(path=f"k/{token}/", dialect="go-auth/user/")
            monkeypatch.setattr(policy, "current", broken)
            monkeypatch.setattr(policy, "cached", lambda _stamp: None)
            call(path=f"k/{token}/")
            call(headers=[("X-Broker-Secret", token)])

        assert "auth.fault" in caplog.text
        assert token not in caplog.text

    @both_entrances
    def test_a_host_that_django_refuses_logs_no_token(self, call, token, caplog):
        """A host that is missing in ALLOWED_HOSTS is the most common mistake at the Django entrance."""
        with everything_logged(caplog):
            call(path=f"k/{token}/", headers=[("Host", "auth.example")])

        assert token not in caplog.text

    @both_entrances
    def test_a_path_that_django_does_not_find_logs_no_token(self, send, entrance, token, caplog):
        """The configured URL ends in a slash, and the path begins with one."""
        with everything_logged(caplog):
            for path in (f"//mqtt/k/{token}/go-auth/user", f"/mqtt/k/{token}/go-auth/user%0a"):
                assert send(entrance, "POST", f"http://localhost{path}").status_code == 404

        assert token not in caplog.text
