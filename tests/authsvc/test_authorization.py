"""Who may ask, who is who, what is in force when, and what is written down about those who were refused."""

from __future__ import annotations

import base64
import json
import logging
import sqlite3
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import DatabaseError, InterfaceError, connection, connections, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from passlib.context import CryptContext

from authsvc import background, gateway, policy
from authsvc.checks import check_triggers
from authsvc.core import authority, passwords
from authsvc.core.access import (
    Action,
    Client,
    LoginQuestion,
    Principal,
    Reason,
    Secret,
    TopicQuestion,
    Verdict,
    deny,
)
from authsvc.dialects import BY_NAME, DIALECTS
from authsvc.dialects.base import MAX_BODY, Request
from authsvc.freshness import reader, triggers
from authsvc.models import Account, Broker, Denial, Grant
from authsvc.operation import denials
from config.settings import database
from devicehub import provisioning
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.cast import provision
from rig.hub import eventually
from tests.conftest import WAKE

STATIONS = WeatherStationDevice._meta.db_table
OK, DENIED = 200, 403


@pytest.fixture(autouse=True)
def nothing_pending(transactional_db):
    """Denials of this test only, all written before its database is emptied."""
    background.stop()
    denials.clear()
    yield
    background.stop()
    denials.clear()


def reasons():
    """Every reason that a question was refused for, of which nothing shows on the wire."""
    denials.flush()
    return set(Denial.objects.values_list("reason", flat=True))


def sql(statement, *parameters):
    """Change the database behind the back of the ORM."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


@pytest.fixture
def login(ask):
    """The status that go-auth gets for a login."""

    def one(who, password=None, **fields):
        password = who.password if password is None else password
        known = {"username": who.username, "clientid": who.username, "password": password}
        return ask("go-auth/user", **(known | fields)).status_code

    return one


@pytest.fixture
def may(ask):
    """Whether a client may do something with a topic; acc is 1 receive, 2 publish, 4 subscribe."""

    def one(who, acc, topic, **fields):
        known = {"username": who.username, "clientid": who.username, "acc": acc, "topic": topic}
        return ask("go-auth/acl", **(known | fields)).status_code == OK

    return one


# ---------------------------------------------------------------- callers


class TestCallers:
    @pytest.fixture
    def call(self, send, entrance, station):
        """Ask what the station may, with a proof of one's own making; the whole answer."""

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
    def test_a_stranger_is_told_the_same_whoever_is_asked_about(self, call, dialect, token, monkeypatch):
        """No name is looked up and no password hashed for somebody who is no broker of ours."""
        path = f"{dialect.name}/{next(iter(dialect.questions))}"
        asked = []
        fetch = reader.fetch

        async def watched(statement, parameters=()):
            asked.append((statement, parameters))
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
        assert {statement for statement, _ in asked} <= {
            *triggers.REVISION.values(),
            policy.BROKERS,
            policy.GRANTS,
        }
        assert not any(parameters for _, parameters in asked)
        assert hashed == []
        assert reasons() == {Reason.UNKNOWN_CALLER}
        assert set(Denial.objects.values_list("username", "client_id", "principal")) == {("", "", "")}

    def test_a_stranger_cannot_tell_a_readable_body_from_another(self, send, entrance, token):
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

    def test_what_is_no_proof(self, call, token):
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

    def test_garbage_for_a_proof_is_a_denial(self, call):
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
    def test_a_basic_proof_that_is_not_ascii_is_a_denial(self, call, caplog, value):
        """As for every stranger: no fault, and nothing in the log that grows with each request."""
        assert call(headers=[(b"authorization", value)]) == call()
        assert "auth.fault" not in caplog.text

    def test_a_token_in_the_body_is_no_proof(self, call, token):
        for name in ("k", "token", "secret", "Authorization", "x-broker-secret"):
            assert call(body={name: token})[0] == DENIED

    def test_a_token_in_a_form_is_no_proof(self, send, entrance, token, station):
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

    def test_a_header_that_comes_twice_is_no_proof(self, call, token):
        """However its values are joined, nobody knows what a proxy in front made of the first."""
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
        assert call(query=f"?k={new}")[0] == DENIED  # not saved yet
        broker.save()

        assert call(query=f"?k={new}")[0] == OK
        assert call(query=f"?k={token}")[0] == DENIED

    def test_the_digest_is_no_token(self, call, token, broker):
        """Whoever reads the table cannot ask."""
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

    def test_a_claimed_address_admits_nobody(self, call, token, broker):
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
    def test_a_broker_row_that_cannot_be_read_shuts_out_that_broker_alone(self, call, token, networks):
        """save() runs no validator; one bad row must not stop every login of the fleet."""
        bad = Broker(name="bad", networks=networks)
        bad_token = bad.issue_token()
        bad.save()

        assert call(query=f"?k={bad_token}")[0] != OK
        assert call(query=f"?k={token}")[0] == OK

    def test_without_any_broker_nobody_may_ask(self, call, token):
        sql(f"DELETE FROM {Broker._meta.db_table}")

        for query in ("", "?k=", "?k=None", f"?k={token}"):
            assert call(query=query)[0] == DENIED

    def test_a_token_never_reaches_a_log(self, call, token, send, caplog, monkeypatch):
        """Not for a right question, a denial, a fault, or what Django itself refuses."""
        with everything_logged(caplog):
            call(query=f"?k={token}")
            call(path=f"k/{token}/", body={"username": "stranger"})
            call(headers=[("Authorization", f"Bearer {token}")], dialect="go-auth/nothing")
            call(path=f"k/{token}/", dialect="go-auth/user/")
            monkeypatch.setattr(policy, "current", broken)
            monkeypatch.setattr(policy, "known", lambda _stamp: None)
            call(path=f"k/{token}/")
            call(headers=[("X-Broker-Secret", token)])

        assert "auth.fault" in caplog.text
        assert token not in caplog.text

    def test_what_django_refuses_before_the_view_logs_no_token(self, call, token, caplog):
        """A host that ALLOWED_HOSTS lacks is the commonest mistake at the Django entrance."""
        with everything_logged(caplog):
            call(path=f"k/{token}/", headers=[("Host", "auth.example")])

        assert token not in caplog.text

    def test_a_path_that_django_does_not_know_logs_no_token(self, send, entrance, token, caplog):
        """A configured URL that ends in a slash, and a path that begins with one."""
        with everything_logged(caplog):
            for path in (f"//mqtt/k/{token}/go-auth/user", f"/mqtt/k/{token}/go-auth/user%0a"):
                assert send(entrance, "POST", f"http://localhost{path}").status_code == 404

        assert token not in caplog.text


async def broken(*_arguments, **_options):
    raise RuntimeError("provoked")


@contextmanager
def everything_logged(caplog):
    """Also what Django's logger keeps from the root's handlers; not what the asking side logs."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.WARNING, "httpx")
    caplog.handler.setLevel(logging.DEBUG)
    logging.getLogger("django").addHandler(caplog.handler)
    yield
    logging.getLogger("django").removeHandler(caplog.handler)


def count_verifications(monkeypatch):
    """The stored hashes that passlib is asked to verify from now on, in a list."""
    seen = []
    verify = CryptContext.verify

    def counted(self, secret, stored, *arguments, **options):
        seen.append(stored)
        return verify(self, secret, stored, *arguments, **options)

    monkeypatch.setattr(CryptContext, "verify", counted)
    return seen


# ---------------------------------------------------------------- passwords and identity


class TestPasswords:
    def test_any_text_can_be_a_password(self, login, station):
        """Compared by code point: nothing is trimmed, folded or normalised."""
        for password in [
            "x",
            "x" * 4_096,
            "ä" * 2_048,
            "\U0001f511" * 1_024,
            "pass word ",
            " ",
            "\t\n",
            "\u202e\u200b",
            "e\u0301",
            "%00%",
            '"\\',
            "True",
            "{SSHA256}",
        ]:
            WeatherStationDevice.objects.update(mqtt_password_hash=passwords.hash_generated(password))

            assert login(station, password) == OK
            for other in (password + " ", password[:-1], password + "x", " " + password, "é" + password[1:]):
                assert login(station, other) == DENIED

    def test_the_normalised_form_is_another_password(self, login, station):
        WeatherStationDevice.objects.update(mqtt_password_hash=passwords.hash_generated("\u00e9"))

        assert login(station, "\u00e9") == OK
        assert login(station, "e\u0301") == DENIED

    @pytest.mark.parametrize(
        "password", ["x" * 4_097, "ä" * 2_049, "\U0001f511" * 1_025, "x" * 65_535], ids=len
    )
    def test_a_longer_one_is_refused_without_hashing(self, login, station, monkeypatch, password):
        hashed = count_verifications(monkeypatch)

        assert login(station, password) == DENIED
        assert login(station, password, username="stranger") == DENIED
        assert hashed == []
        assert reasons() == {Reason.PASSWORD_TOO_LONG}

    @pytest.mark.parametrize(
        "password", ["", "\x00", "{password}\x00", "\x00{password}", "{password}\x00x"], ids=ascii
    )
    def test_empty_and_nul_are_nobodys_password(self, login, station, password):
        """C strings end at a NUL: what comes after it must not be ignored."""
        assert login(station, password.format(password=station.password)) == DENIED

        WeatherStationDevice.objects.update(mqtt_password_hash=passwords.hash_generated(""))
        assert login(station, "") == DENIED
        WeatherStationDevice.objects.update(mqtt_password_hash="")
        assert login(station, "") == DENIED

    def test_a_stored_text_that_is_no_hash_of_ours_is_a_denial(self, login, station, caplog):
        """Its own reason, no fault, and quick however costly it claims to be."""
        begun = time.process_time()

        for stored in [
            "plaintext",
            "x" * 256,
            " ",
            "!",
            "*",
            "{SSHA256}",
            "{SSHA256}!!!!",
            "{SSHA256}AAAA",
            "{SSHA256}" + "A" * 200,
            "{ssha256}AAAA",
            "{PLAIN}plaintext",
            "{CLEARTEXT}plaintext",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
            "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8",
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
            "$2b$31$" + "a" * 53,
            "$6$rounds=999999999$salt$" + "a" * 86,
            "$argon2id$v=19$m=4294967295,t=4294967295,p=1$c2FsdHNhbHQ$aGFzaA",
            "pbkdf2_sha256$999999999$salt$aGFzaA==",
            "PBKDF2$sha512$999999999$c2FsdA==$aGFzaA==",
            "\u00e4",
            "None",
            "True",
        ]:
            sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", stored)
            for password in (stored, station.password, "plaintext", "password"):
                assert login(station, password) == DENIED, stored

        assert time.process_time() - begun < 5
        assert reasons() == {Reason.UNUSABLE_HASH}
        assert "auth.fault" not in caplog.text

    def test_a_truncated_hash_is_a_denial(self, login, station):
        whole = passwords.hash_generated("right")

        for size in range(1, len(whole)):
            sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", whole[:size])
            assert login(station, "right") == DENIED, size
        sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", whole)
        assert login(station, "right") == OK

    def test_an_unusable_hash_does_not_spoil_the_previous_one(self, login, station):
        WeatherStationDevice.objects.update(
            mqtt_password_hash="plaintext",
            previous_password_hash=passwords.hash_generated("old"),
            previous_valid_until=timezone.now() + timedelta(hours=1),
        )

        assert login(station, "old") == OK
        assert login(station, "plaintext") == DENIED

    def test_a_previous_password_is_valid_until_its_date(self, login, station):
        def keep_old(until):
            WeatherStationDevice.objects.update(
                previous_password_hash=passwords.hash_generated("old"), previous_valid_until=until
            )

        keep_old(timezone.now() + timedelta(seconds=30))
        assert login(station, "old") == OK
        assert login(station) == OK
        keep_old(timezone.now() - timedelta(seconds=1))
        assert login(station, "old") == DENIED
        assert login(station) == OK
        assert reasons() == {Reason.EXPIRED_PASSWORD}
        keep_old(None)
        assert login(station, "old") == DENIED

    def test_a_password_expires(self, login, station):
        WeatherStationDevice.objects.update(password_expires_at=timezone.now() + timedelta(seconds=30))
        assert login(station) == OK

        WeatherStationDevice.objects.update(password_expires_at=timezone.now() - timedelta(seconds=1))
        assert login(station) == DENIED
        assert reasons() == {Reason.EXPIRED_PASSWORD}
        assert login(station, "wrong") == DENIED
        assert reasons() == {Reason.EXPIRED_PASSWORD, Reason.WRONG_PASSWORD}

    def test_a_date_in_another_time_zone_is_that_moment(self, login, station):
        """SQL that writes an offset means it."""
        later = (timezone.now() + timedelta(hours=1)).replace(microsecond=0)
        for offset in (-11, 0, 12):
            local = later.astimezone(timezone.get_fixed_timezone(offset * 60))
            sql(f"UPDATE {STATIONS} SET password_expires_at = %s", str(local))
            assert login(station) == OK
            local = (later - timedelta(hours=2)).astimezone(timezone.get_fixed_timezone(offset * 60))
            sql(f"UPDATE {STATIONS} SET password_expires_at = %s", str(local))
            assert login(station) == DENIED

    def test_new_credentials_end_the_old_ones_with_the_next_question(self, login, station):
        assert login(station) == OK

        new = station.device.generate_credentials()
        station.device.save()

        assert login(station) == DENIED
        assert login(station, new["mqtt_password"]) == OK

    def test_an_api_key_is_no_password(self, login, station):
        assert login(station, station.api_key) == DENIED
        assert login(station, station.device.api_key) == DENIED
        assert login(station, station.device.mqtt_password_hash) == DENIED

    def test_a_login_writes_nothing(self, login, station):
        before = WeatherStationDevice.objects.values().get()

        assert login(station) == OK
        assert login(station, "wrong") == DENIED

        assert WeatherStationDevice.objects.values().get() == before


class TestEqualCost:
    """Time tells nobody who exists: verifications are counted here, and timed in test_timing.py."""

    KNOWN = authority.SECRETS
    STRANGER = KNOWN + 1  # for the row that there is none of

    @pytest.fixture
    def cost(self, login, monkeypatch):
        def one(who, password=None, **fields):
            with monkeypatch.context() as patch:
                hashed = count_verifications(patch)
                assert login(who, password, **fields) == DENIED
            return len(hashed)

        return one

    def test_of_whoever_is_refused(self, cost, station):
        assert cost(station, "wrong") == self.KNOWN
        assert cost(station, username="stranger") == self.STRANGER
        assert cost(station, username="a/b") == self.STRANGER
        assert cost(station, clientid="x") == 1  # who asks knows the password
        for change in ({"mqtt_password_hash": ""}, {"is_active": False}):
            WeatherStationDevice.objects.update(**change)
            assert cost(station) == self.KNOWN
            assert cost(station, "wrong") == self.KNOWN

    def test_of_an_account(self, cost):
        account = Account(username="ingest", is_active=False)
        account.generate_password()
        account.save()
        account.password = "wrong"

        assert cost(account) == self.KNOWN
        Account.objects.update(is_active=True)
        assert cost(account) == self.KNOWN
        Account.objects.update(password_hash="")
        assert cost(account) == self.KNOWN

    def test_of_a_name_that_two_have(self, cost, station):
        Account.objects.create(username=station.username)

        assert cost(station) == self.KNOWN

    def test_of_an_empty_password(self, cost, station):
        """Known or not: EMQX sends an empty text for an absent password, so anybody can ask this."""
        assert cost(station, "") == self.KNOWN
        assert cost(station, "", username="stranger") == self.STRANGER

    def test_of_a_password_that_is_too_long(self, cost, station):
        assert cost(station, "x" * 5_000) == cost(station, "x" * 5_000, username="stranger")

    def test_of_a_hash_that_cannot_be_used(self, station, login, monkeypatch):
        """The first is refused by its form; the work is that of the others."""
        WeatherStationDevice.objects.update(mqtt_password_hash="plaintext")
        hashed = count_verifications(monkeypatch)

        assert login(station) == DENIED
        assert len([stored for stored in hashed if stored != "plaintext"]) == self.KNOWN


class TestIdentity:
    """Every change is in force with the next question, whoever makes it."""

    @pytest.mark.parametrize("how", ["orm", "sql"])
    def test_disabled_and_enabled(self, login, may, station, how):
        def turn(active):
            if how == "orm":
                WeatherStationDevice.objects.update(is_active=active)
            else:
                sql(f"UPDATE {STATIONS} SET is_active = %s", active)

        assert login(station) == OK
        assert may(station, 2, station.topic("data"))
        turn(False)
        assert login(station) == DENIED
        assert not may(station, 2, station.topic("data"))
        assert reasons() == {Reason.DISABLED}
        turn(True)
        assert login(station) == OK
        assert may(station, 2, station.topic("data"))

    @pytest.mark.parametrize("how", ["orm", "sql"])
    def test_deleted(self, login, may, station, how):
        assert login(station) == OK
        if how == "orm":
            station.device.delete()
        else:
            sql(f"DELETE FROM {STATIONS}")

        assert login(station) == DENIED
        assert not may(station, 2, station.topic("data"))
        assert reasons() == {Reason.UNKNOWN_USERNAME}

    def test_renamed(self, login, station):
        sql(f"UPDATE {STATIONS} SET mqtt_username = %s", "renamed")

        assert login(station) == DENIED
        assert login(station, username="renamed", clientid="renamed") == OK

    def test_a_change_that_is_rolled_back_was_none(self, login, station):
        with transaction.atomic():
            WeatherStationDevice.objects.update(is_active=False)
            transaction.set_rollback(True)

        assert login(station) == OK

    def test_client_ids_of_a_device(self, login, may, station, neighbour):
        WeatherStationDevice.objects.filter(pk=station.device.pk).update(mqtt_client_id="radio-7")

        for client_id in (station.username, "STATION-001", "radio-7"):
            assert login(station, clientid=client_id) == OK
            assert may(station, 2, station.topic("data"), clientid=client_id)
        for client_id in (
            neighbour.username,
            "STATION-002",
            "station-001",
            "STATION-00",
            "STATION-0011",
            "radio-",
            "*",
            " ",
        ):
            assert login(station, clientid=client_id) == DENIED
            assert not may(station, 2, station.topic("data"), clientid=client_id)
        assert reasons() == {Reason.CLIENT_ID}

    def test_a_wrong_password_is_told_before_a_wrong_client_id(self, login, station):
        """Or somebody without a password would learn which client ids a name has."""
        assert login(station, "wrong", clientid="x") == DENIED

        assert reasons() == {Reason.WRONG_PASSWORD}

    def test_client_ids_of_an_account(self, login):
        account, account_password = provisioning.create_account("ingest", client_ids=["ingest-*", "backup"])
        account.password = account_password

        for client_id in ("ingest", "ingest-1", "ingest-", "backup"):
            assert login(account, clientid=client_id) == OK
        for client_id in (
            "ingest1",
            "Ingest-1",
            "backup-1",
            "*",
            "x",
            "fleet-weatherstationdevice-STATION-001",
        ):
            assert login(account, clientid=client_id) == DENIED
        sql(f"UPDATE {Account._meta.db_table} SET client_ids = %s", '["*"]')
        assert login(account, clientid="anything") == OK
        sql(f"UPDATE {Account._meta.db_table} SET client_ids = %s", "[]")
        assert login(account, clientid="ingest-1") == DENIED

    def test_the_binding_can_be_lifted(self, login, station, settings):
        settings.AUTHSVC_CLIENT_ID = "any"
        assert login(station, clientid="whatever") == OK
        assert login(station, "wrong", clientid="whatever") == DENIED

        settings.AUTHSVC_CLIENT_ID = "ANY"  # a word it does not know lifts nothing
        assert login(station, clientid="whatever") == DENIED


# ---------------------------------------------------------------- grants


class TestGrants:
    @pytest.fixture
    def grant(self, transactional_db):
        def one(subject, text, actions="all", effect="allow"):
            made = Grant.objects.create(subject="key:x/x", filter=text, actions=actions, effect=effect)
            # By SQL, because the model refuses some of the subjects that must mean nothing.
            sql(f"UPDATE {Grant._meta.db_table} SET subject = %s WHERE id = %s", subject, made.pk)
            return made

        return one

    def test_new_and_removed_with_the_next_question(self, may, station, grant):
        assert not may(station, 4, "news/#")
        new = grant("everyone", "news/#")
        assert may(station, 4, "news/#")
        new.delete()
        assert not may(station, 4, "news/#")

    def test_by_sql_too(self, may, station):
        table = Grant._meta.db_table
        sql(
            f"INSERT INTO {table} (subject, effect, actions, filter, note, created_at) "
            "VALUES ('everyone', 'allow', 'all', 'news/+', '', %s)",
            timezone.now(),
        )
        assert may(station, 2, "news/1")
        sql(f"UPDATE {table} SET effect = 'deny'")
        assert not may(station, 2, "news/1")
        sql(f"UPDATE {table} SET effect = 'allow', actions = 'subscribe'")
        assert not may(station, 2, "news/1")
        assert may(station, 4, "news/1")
        sql(f"DELETE FROM {table}")
        assert not may(station, 4, "news/1")

    def test_by_other_writers(self, may, station, grant):
        """bulk_create, update() and a savepoint raise no signal; the triggers see them."""
        Grant.objects.bulk_create([Grant(subject="everyone", effect="allow", actions="all", filter="a")])
        assert may(station, 2, "a")
        Grant.objects.update(filter="b")
        assert not may(station, 2, "a")
        assert may(station, 2, "b")
        Grant.objects.all()._raw_delete("default")
        assert not may(station, 2, "b")

    def test_without_a_revision_nothing_is_kept(self, may, station, grant):
        """A flush, or a restore without that row, must not freeze what was read before."""
        grant("everyone", "a")
        assert may(station, 2, "a")
        sql("DELETE FROM authsvc_policy")
        assert may(station, 2, "a")
        Grant.objects.all().delete()
        assert not may(station, 2, "a")
        grant("everyone", "b")
        assert may(station, 2, "b")

    def test_subjects(self, may, station, neighbour, grant):
        valve = provision("V1", "irrigationvalve")
        account, _ = provisioning.create_account("backend")
        grant("everyone", "all/x")
        grant("type:weatherstation", "stations/x")
        grant("key:weatherstation/STATION-001", "one/x")
        grant("key:account/backend", "backend/x")
        grant("type:account", "nobody/x")
        grant("key:", "nobody/x")
        grant("key:STATION-001", "nobody/x")
        grant("Everyone", "nobody/x")

        rights = {
            station: ["all/x", "stations/x", "one/x"],
            neighbour: ["all/x", "stations/x"],
            valve: ["all/x"],
            account: ["all/x", "backend/x"],
        }
        for who, topics in rights.items():
            for topic in ("all/x", "stations/x", "one/x", "backend/x", "nobody/x"):
                assert may(who, 2, topic) is (topic in topics), (who.username, topic)

    def test_a_subject_without_a_type_is_no_subject(self, may, grant):
        """The model refuses it, SQL does not; accounts have no type, and it is not theirs."""
        account, _ = provisioning.create_account("backend")
        grant("type:", "a")

        assert not may(account, 2, "a")

    def test_placeholders(self, may, station, neighbour, grant):
        grant("everyone", "u/{username}/{client_id}/#")
        grant("everyone", "{prefix}/{type}/{device_id}/extra")

        own = f"u/{station.username}/{station.username}/x"
        assert may(station, 2, own)
        assert may(station, 2, station.topic("extra"))
        assert may(station, 2, f"u/{station.username}/STATION-001/x", clientid="STATION-001")
        assert not may(station, 2, own, clientid="STATION-001")
        assert not may(neighbour, 2, own)
        assert not may(neighbour, 2, station.topic("extra"))
        for topic in (own.replace(station.username, "+"), "u/{username}/{client_id}/x", "u/#"):
            assert not may(station, 4, topic)

    @pytest.mark.parametrize("client_id", ["+", "#", "a/b", "$SYS", "\u0000"], ids=ascii)
    def test_a_client_id_cannot_widen_a_grant(self, may, station, grant, settings, client_id):
        settings.AUTHSVC_CLIENT_ID = "any"
        grant("everyone", "{client_id}/x")

        for topic in (f"{client_id}/x", "a/x", "a/b/x", "$SYS/x"):
            for acc in (1, 2, 4):
                assert not may(station, acc, topic, clientid=client_id), (acc, topic)

    def test_a_deny_wins(self, may, station, grant):
        own, commands = station.topic("data"), station.topic("cmd")
        grant("everyone", "news/#")
        assert may(station, 4, "news/#")
        grant("type:weatherstation", "news/secret", "subscribe", "deny")

        assert not may(station, 4, "news/#")
        assert not may(station, 4, "news/+")
        assert not may(station, 4, "news/secret")
        assert may(station, 4, "news/other")
        assert may(station, 2, "news/secret")
        assert may(station, 2, own)
        grant("key:weatherstation/STATION-001", "things/#", "all", "deny")
        assert not may(station, 2, own)
        assert not may(station, 4, commands)
        assert not may(station, 1, commands)
        assert reasons() == {Reason.DENY_GRANT}
        assert Denial.objects.filter(topic=own).get().rule.startswith("grant ")

    @pytest.mark.parametrize(("actions", "acc"), [("publish", 2), ("subscribe", 4), ("receive", 1)])
    def test_an_action_is_that_action(self, may, station, grant, actions, acc):
        grant("everyone", "a", actions)

        assert [may(station, number, "a") for number in (1, 2, 4)] == [acc == number for number in (1, 2, 4)]

    def test_a_share_is_judged_by_its_filter(self, may, station, grant):
        grant("everyone", "news/+", "subscribe")

        assert may(station, 4, "$share/g/news/+")
        for topic in (
            "$share/g/news/#",
            "$share/g/#",
            "$share/+/news/+",
            "$share//news/+",
            "$share/g/$share/g/news/+",
        ):
            assert not may(station, 4, topic)

    def test_a_superuser_keeps_to_mqtt(self, may):
        root, _ = provisioning.create_account("root", superuser=True)

        assert may(root, 4, "#")
        assert may(root, 2, "things/weatherstation/STATION-001/cmd")
        for acc, topic in (
            (2, "a/+"),
            (2, "#"),
            (2, ""),
            (4, "a/#/b"),
            (2, "$CONTROL/x"),
            (4, "$CONTROL/#"),
            (2, "a\n"),
        ):
            assert not may(root, acc, topic)


# ---------------------------------------------------------------- denials


def refused(username="stranger", topic="a/b", reason=Reason.NO_GRANT, client_id="c", principal=None):
    question = TopicQuestion(Client(username, client_id), Action.PUBLISH, [topic])
    return deny(reason, principal, question)


class TestDenials:
    def test_each_is_recorded_with_its_reason_and_none_shows(self, ask, station):
        Account.objects.create(username="old", is_active=False)
        WeatherStationDevice.objects.create(device_id="TWIN", mqtt_username="twin")
        Account.objects.create(username="twin")
        good = {"username": station.username, "clientid": station.username}
        asked = {
            Reason.WRONG_PASSWORD: ("go-auth/user", good | {"password": "wrong"}),
            Reason.CLIENT_ID: ("go-auth/user", good | {"password": station.password, "clientid": "x"}),
            Reason.UNKNOWN_USERNAME: ("go-auth/user", good | {"password": "x", "username": "stranger"}),
            Reason.INVALID_USERNAME: ("go-auth/user", good | {"password": "x", "username": "a/b"}),
            Reason.DISABLED: ("go-auth/user", {"username": "old", "clientid": "old", "password": "x"}),
            Reason.PASSWORD_TOO_LONG: ("go-auth/user", good | {"password": "x" * 5_000}),
            Reason.MALFORMED: ("go-auth/user", good),
            Reason.AMBIGUOUS_IDENTITY: ("go-auth/superuser", {"username": "twin"}),
            Reason.NO_GRANT: ("go-auth/acl", good | {"acc": 2, "topic": "a"}),
            Reason.WILDCARD_PUBLISH: ("go-auth/acl", good | {"acc": 2, "topic": "a/+"}),
            Reason.MALFORMED_TOPIC: ("go-auth/acl", good | {"acc": 4, "topic": "a/#/b"}),
            Reason.RESERVED_TOPIC: ("go-auth/acl", good | {"acc": 2, "topic": "$CONTROL/x"}),
        }

        replies = {
            (reply.status_code, reply.content) for path, f in asked.values() for reply in [ask(path, **f)]
        }

        assert replies == {(403, b'{"ok":false,"error":"denied"}')}
        assert reasons() == set(asked)
        row = Denial.objects.get(reason=Reason.NO_GRANT)
        assert (row.dialect, row.username, row.client_id, row.action, row.topic, row.principal) == (
            "go-auth",
            station.username,
            station.username,
            "publish",
            "a",
            "weatherstation/STATION-001",
        )

    def test_the_same_ones_are_counted(self, ask, station):
        good = {"username": station.username, "clientid": station.username, "acc": 2}
        before = timezone.now()
        for _ in range(3):
            ask("go-auth/acl", **good, topic="a")
        denials.flush()
        middle = timezone.now()
        for _ in range(4):
            ask("go-auth/acl", **good, topic="a")
        ask("go-auth/acl", **good, topic="b")
        denials.flush()

        row = Denial.objects.get(topic="a")
        assert row.count == 7
        assert before <= row.first_at <= middle <= row.last_at <= timezone.now()
        assert Denial.objects.get(topic="b").count == 1

    def test_to_be_no_superuser_is_no_denial(self, ask, station):
        """go-auth asks it before every topic question; about somebody unknown it is one."""
        assert ask("go-auth/superuser", username=station.username).status_code == DENIED
        assert reasons() == set()
        assert ask("go-auth/superuser", username="stranger").status_code == DENIED
        assert reasons() == {Reason.UNKNOWN_USERNAME}

    def test_an_allow_is_not_counted(self, ask, station):
        ask("go-auth/user", username=station.username, clientid=station.username, password=station.password)
        denials.flush()

        assert not Denial.objects.exists()

    def test_the_writer_writes_without_being_asked(self, ask, monkeypatch):
        monkeypatch.setattr(background, "SECONDS", 0.02)
        monkeypatch.setattr(background, "wake", WAKE)
        ask("go-auth/user", username="stranger", clientid="c", password="x")

        assert eventually(Denial.objects.filter(username="stranger").exists, 5)

    def test_a_flood_of_made_up_names_is_bounded_in_memory(self, monkeypatch):
        monkeypatch.setattr(denials, "dropped", 0)
        monkeypatch.setattr(background, "wake", lambda: None)
        monkeypatch.setattr(denials, "MAX_PENDING", 100)
        for number in range(150):
            known = Principal(f"account/name-{number}", f"name-{number}")
            denials.note("go-auth", "acl", refused(f"name-{number}", principal=known))
        for _ in range(10):
            denials.note("go-auth", "acl", refused("name-0"))

        assert len(denials._pending) == 100
        assert denials.dropped == 50
        assert denials.flush() == 100
        assert Denial.objects.count() == 100
        assert Denial.objects.get(username="name-0").count == 11

    def test_the_table_is_bounded_and_keeps_the_latest(self, monkeypatch):
        monkeypatch.setattr(denials, "MAX_ROWS", 50)
        monkeypatch.setattr(background, "wake", lambda: None)
        for part in range(4):
            for number in range(30):
                denials.note("go-auth", "acl", refused(f"name-{part}-{number}"))
            denials.flush()
            assert Denial.objects.count() <= 50

        assert Denial.objects.filter(username__startswith="name-3-").count() == 30
        assert not Denial.objects.filter(username__startswith="name-0-").exists()

    @pytest.mark.parametrize(
        "text",
        [
            "a\x00b",
            "\x00" * 10_000,
            "x" * 10_000,
            "\U0001f4a3" * 10_000,
            "\u202egnissap\u202c",
            "<script>alert(1)</script>",
            "'; DROP TABLE authsvc_denial; --",
            "\ud800",
            "%s %d {0}",
            "\r\nSet-Cookie: x",
            "",
            "\uffff\ufdd0",
        ],
        ids=lambda text: ascii(text)[:20],
    )
    def test_hostile_text_is_stored(self, text):
        """Whatever is in it: cut to its column, without what a database refuses, and no other row suffers."""
        denials.note("go-auth", "acl", refused(text, topic=text, client_id=text))
        denials.note("go-auth", "acl", refused("somebody"))

        assert denials.flush() == 2

        row = Denial.objects.exclude(username="somebody").get()
        assert len(row.username) <= 128
        assert len(row.client_id) <= 128
        assert len(row.topic) <= 256
        assert "\x00" not in row.username + row.client_id + row.topic
        row.full_clean(exclude=["username", "client_id", "topic"])
        assert Denial.objects.filter(username="somebody").exists()

    @settings(
        deadline=None,
        database=None,
        max_examples=40,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        texts=st.lists(st.text(st.characters(exclude_categories=()), max_size=300), min_size=3, max_size=3)
    )
    def test_any_text_is_stored(self, texts):
        username, topic, client_id = texts
        denials.note("go-auth", "acl", refused(username, topic=topic, client_id=client_id))

        assert denials.flush() == 1

    def test_a_table_that_is_away_loses_nothing(self):
        """As for a locked or full database: put back, counted on, written when it is there again."""
        table = Denial._meta.db_table
        denials.note("go-auth", "acl", refused("one"))
        first = next(iter(denials._pending.values())).first_at
        sql(f"ALTER TABLE {table} RENAME TO {table}_away")
        try:
            for _ in range(3):
                with pytest.raises(DatabaseError):
                    denials.flush()
                denials.note("go-auth", "acl", refused("one"))
                denials.note("go-auth", "acl", refused("two"))
        finally:
            sql(f"ALTER TABLE {table}_away RENAME TO {table}")

        denials.flush()

        assert dict(Denial.objects.values_list("username", "count")) == {"one": 4, "two": 3}
        assert abs(Denial.objects.get(username="one").first_at - first) < timedelta(milliseconds=1)

    def test_what_is_put_back_stays_bounded(self, monkeypatch):
        monkeypatch.setattr(denials, "MAX_PENDING", 10)
        monkeypatch.setattr(denials, "dropped", 0)
        monkeypatch.setattr(background, "wake", lambda: None)

        def away(_items):
            for number in range(10):  # meanwhile
                denials.note("go-auth", "acl", refused(f"new-{number}"))
            raise DatabaseError("provoked")

        for number in range(10):
            denials.note("go-auth", "acl", refused(f"old-{number}"))
        monkeypatch.setattr(denials, "_write", away)
        with pytest.raises(DatabaseError):
            denials.flush()

        assert len(denials._pending) == 10
        assert denials.dropped == 10

    def test_a_broken_connection_loses_nothing(self, monkeypatch):
        """Django's InterfaceError is no DatabaseError, and is what a driver says of a closed connection."""

        def away(_items):
            raise InterfaceError("connection already closed")

        denials.note("go-auth", "acl", refused("one"))
        with monkeypatch.context() as patch:
            patch.setattr(denials, "_write", away)
            with pytest.raises((DatabaseError, InterfaceError)):
                denials.flush()

        denials.flush()
        assert Denial.objects.filter(username="one").exists()

    @pytest.mark.sqlite_only
    def test_the_writer_survives_a_locked_database(self, ask, monkeypatch, caplog):
        """The answers keep coming meanwhile, and every denial is there afterwards."""
        monkeypatch.setattr(background, "SECONDS", 0.02)
        monkeypatch.setattr(background, "wake", WAKE)
        config = connections["default"].settings_dict
        monkeypatch.setitem(config["OPTIONS"], "timeout", 0.05)
        lock = sqlite3.connect(config["NAME"], isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        try:
            for number in range(20):
                reply = ask("go-auth/user", username=f"name-{number % 4}", clientid="c", password="x")
                assert reply.status_code == DENIED
            assert eventually(lambda: "background.not_written" in caplog.text, 5)
        finally:
            lock.execute("ROLLBACK")
            lock.close()

        rows = Denial.objects.filter(username__startswith="name-")
        assert eventually(lambda: sum(rows.values_list("count", flat=True)) == 20, 5)
        assert background._thread.is_alive()

    def test_threads_lose_nothing_among_them(self, monkeypatch):
        monkeypatch.setattr(background, "wake", lambda: None)
        done = threading.Event()

        def work():
            for number in range(200):
                denials.note("go-auth", "acl", refused(f"name-{number % 7}"))

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        while not done.is_set():
            denials.flush()
            if not any(worker.is_alive() for worker in workers):
                done.set()
        denials.flush()

        assert sum(Denial.objects.values_list("count", flat=True)) == 800


# ---------------------------------------------------------------- secrets


class TestSecrets:
    SECRET = "a-secret-to-look-for"

    def test_none_is_in_the_denials(self, ask, send, entrance, station, token):
        ask("go-auth/user", username=station.username, clientid=station.username, password=self.SECRET)
        ask("go-auth/user", username="stranger", clientid="c", password=self.SECRET)
        ask("go-auth/acl", proof=self.SECRET, username="a", clientid="c", acc=2, topic="t")
        ask("go-auth/user", username=station.username, clientid="x", password=station.password)
        send(entrance, "POST", f"/mqtt/go-auth/user?k={token}", content=self.SECRET.encode())
        denials.flush()

        rows = json.dumps(list(Denial.objects.values()), default=str)
        assert Denial.objects.count() >= 4
        for secret in (self.SECRET, station.password, token):
            assert secret not in rows

    def test_none_is_in_the_log_of_a_fault(self, ask, station, token, caplog, monkeypatch):
        monkeypatch.setattr(authority, "decide", broken)
        with everything_logged(caplog):
            ask("go-auth/user", username=station.username, clientid=station.username, password=self.SECRET)
            ask("rabbitmq/user", username=station.username, client_id="c", password=self.SECRET)

        assert "auth.fault" in caplog.text
        assert self.SECRET not in caplog.text
        assert token not in caplog.text

    @pytest.mark.parametrize("dialect", ["go-auth", "emqx", "amqtt"])
    def test_none_is_in_the_repr_of_a_question(self, dialect):
        """What a debugger, an error tracker or a failed assert prints."""
        fields = {"username": "u", "clientid": "c", "client_id": "c", "password": self.SECRET}
        name = next(iter(BY_NAME[dialect].questions))
        request = Request(
            "POST",
            headers=((b"content-type", b"application/json"),),
            body=json.dumps(fields).encode(),
            question=name,
        )
        question = BY_NAME[dialect].questions[name](request)

        assert isinstance(question, LoginQuestion)
        assert question.password == self.SECRET
        for shown in (question, deny(Reason.WRONG_PASSWORD, None, question)):
            assert self.SECRET not in repr(shown)

    def test_none_is_in_the_repr_of_a_request(self):
        for request in (
            Request("POST", query=f"k={self.SECRET}"),
            Request("POST", path_token=self.SECRET),
            Request("POST", headers=((b"authorization", f"Bearer {self.SECRET}".encode()),)),
            Request("POST", headers=((b"x-broker-secret", self.SECRET.encode()),)),
            Request("POST", body=json.dumps({"password": self.SECRET}).encode()),
        ):
            assert self.SECRET not in repr(request)

    def test_none_is_in_the_repr_of_a_principal(self):
        principal = Principal("account/a", "a", (Secret(self.SECRET, 1.0), Secret(self.SECRET)))

        for shown in (principal, principal.secrets, principal.secrets[0], Verdict((), principal)):
            assert self.SECRET not in repr(shown)
            assert self.SECRET not in f"{shown}"

    def test_none_is_in_the_repr_of_what_is_kept(self, loop, token):
        digest = Broker.objects.get().token_digest
        now = loop.run(policy.current())

        assert digest in now.callers
        assert digest not in repr(now)
        for shown in (repr(Broker.objects.get()), str(Broker.objects.get())):
            assert digest not in shown


def test_the_two_types_of_devices_do_not_share_rights(may):
    """The same id under two types is two devices, and two places."""
    valve = provision("V1", "irrigationvalve")
    assert IrrigationValveDevice.objects.exists()

    assert may(valve, 2, "things/irrigationvalve/V1/data")
    for topic in (
        "things/weatherstation/V1/data",
        "things/irrigationvalve/V1/cmd",
        "things/irrigationvalve/v1/data",
    ):
        assert not may(valve, 2, topic)


def test_every_question_enters_by_the_one_door():
    """What is found by a path is what `answer` is given, with its token and nothing else."""
    for dialect in DIALECTS:
        for name in dialect.questions:
            assert gateway.find(f"{dialect.name}/{name}") == (dialect, name, None)
            assert gateway.find(f"k/t/{dialect.name}/{name}") == (dialect, name, "t")
            assert gateway.find(f"k//{dialect.name}/{name}") == (dialect, name, "")
            assert gateway.find(f"/{dialect.name}/{name}") is None


@pytest.mark.sqlite_only
@pytest.mark.parametrize("name", ["a b", "a%20b", "a#b", "a?b", "ä"])
def test_the_reader_opens_the_file_that_the_orm_writes(loop, tmp_path, monkeypatch, name):
    """Its path goes into a URI: what means something there is to be quoted, and nothing else is opened or made."""
    path = tmp_path / f"{name}.sqlite3"
    file = sqlite3.connect(path)
    file.execute("CREATE TABLE known (name)")
    file.commit()
    file.close()
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", str(path))

    try:
        assert loop.run(reader.fetch("SELECT name FROM known")) == []
    finally:
        loop.run(reader.close())
        assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_missing_trigger_is_found_and_made_again(transactional_db):
    """Without it a change of a broker or a grant goes unnoticed: a restore or a table remade can lose it."""
    assert check_triggers(databases=["default"]) == []
    wanted = triggers.expected(connection.vendor)
    assert {trigger.table for trigger in wanted} >= {Broker._meta.db_table, Grant._meta.db_table}
    for table, name in wanted:
        sql(f"DROP TRIGGER {name}" + (f" ON {table}" if connection.vendor == "postgresql" else ""))

        found = check_triggers(databases=["default"])
        message = f"The trigger {table}.{name} is missing."
        assert [(error.id, error.msg) for error in found] == [("authsvc.W005", message)]

        triggers.install()
        assert check_triggers(databases=["default"]) == []


@pytest.mark.sqlite_only
def test_the_reader_connects_as_the_orm_does():
    """TLS and all else that DATABASE_URL says is libpq's; what is Django's own is left out."""
    config = database("postgres://hub:s%40@db:5433/hub?sslmode=verify-full&sslrootcert=/ca.pem") | {
        "PORT": 5433
    }
    config["OPTIONS"] |= {"pool": True, "options": "-c search_path=hub"}

    told = reader.connection_arguments(config)

    assert (told["sslmode"], told["sslrootcert"]) == ("verify-full", "/ca.pem")
    assert (told["host"], told["port"], told["user"], told["password"], told["dbname"]) == (
        "db", 5433, "hub", "s@", "hub",
    )  # fmt: skip
    assert told["options"] == "-c search_path=hub -c statement_timeout=2000"
    assert "pool" not in told
