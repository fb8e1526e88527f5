"""Attacks on both entrances: similar names, rows changed by SQL, smuggled proofs, searches for secrets."""

from __future__ import annotations

import base64
import json
import logging
import unicodedata
from io import StringIO
from urllib.parse import quote, urlencode

import pytest
from django.core.management import call_command
from django.db import connection, connections
from passlib.context import CryptContext

from authsvc.core import authority, passwords
from authsvc.core.access import Reason
from authsvc.dialects import DIALECTS
from authsvc.dialects.base import FORM, JSON, Reply
from authsvc.freshness import reader
from authsvc.models import Account, Broker, Denial
from authsvc.operation import denials
from devicehub import provisioning
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig import leaks
from rig.cast import provision
from rig.entrances import both_entrances
from rig.oracles import reads_as_allow, reads_as_deny
from rig.questions import OF_A_SUPERUSER, QUESTIONS, good

STATIONS = WeatherStationDevice._meta.db_table
VALVES = IrrigationValveDevice._meta.db_table
OF_A_DEVICE = [path for path in QUESTIONS if path not in OF_A_SUPERUSER and not path.startswith("jwt/")]
LOGINS = [path for path in OF_A_DEVICE if path.rpartition("/")[2] in ("user", "authn", "auth", "register")]
# The attack aims at parsing and comparing; the SQL of its questions is that of the other attacks.
about_parsing = pytest.mark.sqlite_first


@pytest.fixture
def ask(send, entrance, token):
    """Return a function that asks in any dialect and returns the answer as its broker sees it."""

    def one(path, fields=None, *, proof=token, headers=(), query="", **options):
        sent = {
            "vernemq-hook": f"auth_on_{path.rpartition('/')[2]}",
            "x-broker-secret": proof,
            **dict(headers),
        }
        if fields is not None:
            options["content"] = json.dumps(fields).encode()
            sent.setdefault("content-type", JSON)
        sent = {name: value for name, value in sent.items() if value is not None}
        reply = send(entrance, "POST", f"/mqtt/{path}{query}", headers=sent, **options)
        assert not {"location", "set-cookie", "www-authenticate"} & set(reply.headers)
        return Reply(reply.status_code, reply.content, reply.headers["content-type"])

    return one


def sql(statement, *parameters):
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def counted(monkeypatch):
    """Return a list to which each verified hash is added."""
    seen = []
    verify = CryptContext.verify

    def watched(self, secret, stored, *arguments, **options):
        seen.append(stored)
        return verify(self, secret, stored, *arguments, **options)

    monkeypatch.setattr(CryptContext, "verify", watched)
    return seen


# ---------------------------------------------------------------- names that look alike


def twins(name):
    """Return texts that a part of a system could take for *name*: folded, normalised, trimmed, cut, or similar."""
    wide = "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in name)
    yield from (name.upper(), name.lower(), name.swapcase(), name.title())
    yield from (wide, wide[0] + name[1:], name[:-1] + wide[-1])
    yield from (name.replace("s", "\u017f"), name.replace("e", "\u0435"), name.replace("i", "\u0131"))
    yield from (name.replace("k", "\u212a"), name.replace("1", "\u0661"), name.replace("-", "\u2010"))
    yield unicodedata.normalize("NFD", name.replace("e", "\u00e9"))
    for mark in (
        "\u0301",
        "\u200b",
        "\u200d",
        "\ufeff",
        "\u202e",
        "\u2066",
        "\u00ad",
        "\ufffd",
        "\U000e0041",
    ):
        yield from (name + mark, mark + name, name[:5] + mark + name[5:])
    for mark in (" ", "\t", "\n", "\r", "\x0b", "\x1b[2K", "\x7f", "\x85", "\u00a0", "\u2028", "\u3000"):
        yield from (name + mark, mark + name)
    for mark in (
        "\x00",
        "\x00x",
        "+",
        "#",
        "/",
        "/#",
        "$",
        "*",
        "%",
        "%00",
        "%2F",
        "\\",
        "'",
        '"',
        "{",
        ";",
        "|",
    ):
        yield from (name + mark, mark + name)
    yield from (
        name[:-1],
        name + "1",
        name[:-1] + "?",
        name[:-1] + "_",
        name[:-1] + "%",
        name * 30,
        "$share/g/" + name,
    )


@pytest.mark.parametrize("field", ["username", "client id"])
def test_a_name_is_compared_by_its_characters(ask, station, field):
    """Attack: log in under a text that folds, normalises, trims or prints to the station's name."""
    tried = 0
    for twin in twins(station.username):
        if twin == station.username:
            continue
        fields = good("go-auth/user", station) | {"username" if field == "username" else "clientid": twin}
        assert reads_as_deny("go-auth/user", ask("go-auth/user", fields)), ascii(twin)
        fields = good("rabbitmq/user", station) | {"username" if field == "username" else "client_id": twin}
        assert reads_as_deny("rabbitmq/user", ask("rabbitmq/user", fields)), ascii(twin)
        tried += 1
    assert tried > 80
    assert ask("go-auth/user", good("go-auth/user", station)).status == 200


@about_parsing
def test_a_name_that_cannot_be_one_is_not_looked_up(ask, station, monkeypatch):
    """Attack: reach the database with a text that was never an identifier."""
    statements = []
    fetch = reader.fetch

    async def watched(statement, parameters=()):
        statements.append(tuple(parameters))
        return await fetch(statement, parameters)

    monkeypatch.setattr(reader, "fetch", watched)
    for twin in twins(station.username):
        if not twin.isascii() or set(twin) & set("+#/$*%\\'\"{;| \t\n\r\x00"):
            ask("go-auth/user", good("go-auth/user", station) | {"username": twin})

    assert statements
    assert [parameters for parameters in statements if parameters] == []


@about_parsing
def test_bytes_that_are_not_utf_8_are_denied(ask, station):
    """Attack: overlong forms, half surrogate pairs and cut sequences, which a lenient decoder maps to a name."""
    for path in LOGINS:
        fields = good(path, station)
        whole = json.dumps(fields).encode()
        rest = urlencode({name: value for name, value in fields.items() if name != "username"})

        for raw in (
            b"\xc0\xaf",
            b"\xed\xa0\x80",
            b"\xff",
            b"\xf8\x88\x80\x80\x80",
            b"\xe2\x28\xa1",
            b"\xc1\xb3",
        ):
            name = station.username.encode()
            spoiled = whole.replace(name, name + raw)
            assert reads_as_deny(path, ask(path, content=spoiled, headers={"content-type": JSON})), raw
            form = f"username={station.username}{quote(raw)}&{rest}".encode()
            assert reads_as_deny(path, ask(path, content=form, headers={"content-type": FORM})), raw


@about_parsing
@pytest.mark.parametrize("acc", [1, 2, 4])
def test_a_topic_is_compared_by_its_characters(ask, station, acc):
    """Attack: a topic that folds, normalises, decodes or trims to the station's own."""
    own = station.topic({1: "cmd", 2: "data", 4: "cmd"}[acc])
    fields = good("go-auth/acl", station) | {"acc": acc}
    assert ask("go-auth/acl", fields | {"topic": own}).status == 200

    others = {twin for twin in twins(own) if not (acc == 4 and twin == f"$share/g/{own}")} - {own}
    others |= {own.replace("/", mark) for mark in ("//", "\\", "%2F", "\u2044", "\u2215", "\uff0f", ".", ":")}
    others |= {own.replace("/cmd", "/./cmd"), own.replace("STATION", "../things/STATION"), f"./{own}"}
    others |= {
        own.replace("things/", "things/weather_station/../"),
        own.replace("weatherstation", "weather_station"),
    }
    for other in others - {own}:
        assert reads_as_deny("go-auth/acl", ask("go-auth/acl", fields | {"topic": other})), ascii(other)


def test_an_identifier_that_is_a_prefix_of_another_has_no_rights_of_it(ask):
    """Attack: STATION-00 and STATION-0011 use the names and topics of STATION-001, and the reverse."""
    cast = [provision(name) for name in ("STATION-00", "STATION-001", "STATION-0011")]

    for one in cast:
        for other in cast:
            answer = ask("go-auth/acl", good("go-auth/acl", one) | {"topic": other.topic("data")})
            assert (answer.status == 200) == (one is other)
            read = {"acc": 4, "topic": other.topic("cmd")}
            assert (ask("go-auth/acl", good("go-auth/acl", one) | read).status == 200) == (one is other)
            names = {"username": one.username, "clientid": other.username, "password": one.password}
            assert (ask("go-auth/user", names).status == 200) == (one is other)


@about_parsing
@pytest.mark.parametrize(
    "shape",
    [
        "$share/g/$share/h/{own}",
        "$share/g/$queue/{own}",
        "$share/$share/g/{own}",
        "$share//{own}",
        "$share/g//{own}",
        "$share/+/{own}",
        "$share/#/{own}",
        "$share/g+/{own}",
        "$share/g",
        "$share/g/",
        "$share",
        "$SHARE/g/{own}",
        "$share/g/#",
        "$share/g/+/+/+/cmd",
        "$share/g/{other}",
        "$queue/{own}",
        "$exclusive/{own}",
        "$delayed/5/{own}",
        "$delayed/5/{other}",
        "$SYS/#",
        "$CONTROL/dynamic-security/v1",
        "$events/{own}",
        "$file/{own}",
        "/{own}",
        "{own}/",
        "{own}/#",
        "{own}/..",
        "#",
        "+/#",
        "things/#",
        "things/+/+/cmd",
        "things/weatherstation/+/cmd",
    ],
)
def test_a_subscription_reaches_no_further_in_disguise(ask, station, neighbour, shape):
    """Attack: shares of shares, prefixes of brokers, and filters that cover topics of a neighbour."""
    wanted = shape.format(own=station.topic("cmd"), other=neighbour.topic("cmd"))
    for path, more in (
        ("go-auth/acl", {"acc": 4}),
        ("amqtt/acl", {"acc": 4}),
        ("emqx/authz", {"action": "subscribe"}),
        ("emqx4/acl", {"access": "1"}),
        ("nanomq/acl", {"access": "1"}),
        ("vernemq/subscribe", {}),
    ):
        topic = {"topics": [{"topic": wanted, "qos": 0}]} if path.startswith("vernemq") else {"topic": wanted}
        assert reads_as_deny(path, ask(path, good(path, station) | more | topic)), path


# ---------------------------------------------------------------- identities


def test_a_foreign_client_id_takes_over_no_session(ask, station, neighbour):
    """Attack: the right password with the client id under which a neighbour is connected."""
    WeatherStationDevice.objects.filter(pk=neighbour.device.pk).update(mqtt_client_id="roof-sensor")
    for path in OF_A_DEVICE:
        fields = good(path, station)
        name = next(name for name in ("clientid", "client_id") if name in fields)

        for client_id in (neighbour.username, neighbour.device.device_id, "roof-sensor", "ingest", "#"):
            assert reads_as_deny(path, ask(path, fields | {name: client_id})), client_id


def test_an_ambiguous_name_is_denied(ask, station):
    """Attack: SQL gives a valve or an account the station's username, with a password the attacker knows."""
    valve = provision("VALVE-001", "irrigationvalve")

    def verdicts(**fields):
        paths = [path for path in OF_A_DEVICE if fields.keys() <= good(path, station).keys()]
        answers = {path: ask(path, good(path, station) | fields) for path in paths}
        assert all(reads_as_allow(*answer) or reads_as_deny(*answer) for answer in answers.items())
        return {reads_as_allow(*answer) for answer in answers.items()}

    assert verdicts() == {True}
    sql(f"UPDATE {VALVES} SET mqtt_username = %s", station.username)
    assert verdicts() == {False}
    assert verdicts(password=valve.password) == {False}
    sql(f"UPDATE {VALVES} SET mqtt_username = %s", valve.username)
    assert verdicts() == {True}
    sql(
        f"INSERT INTO {Account._meta.db_table} (username, password_hash, previous_password_hash, is_active, "
        "is_superuser, client_ids, created_at) VALUES (%s, %s, '', %s, %s, '[]', CURRENT_TIMESTAMP)",
        *(station.username, passwords.hash_generated("known"), True, True),
    )
    assert verdicts() == {False}
    assert verdicts(password="known") == {False}


def test_no_name_makes_a_superuser(ask, station):
    """Attack: a device or an account with the name of a superuser of other systems."""
    Account.objects.create(username="root", is_superuser=True)
    for name in ("Root", "root ", "root1", "roo", "r\u043eot", "superuser", "admin", "key:root"):
        for path in ("go-auth/superuser", "emqx4/superuser", "nanomq/superuser"):
            answer = ask(path, {"username": name, "clientid": name})
            assert reads_as_deny(path, answer), (path, name)
    assert reads_as_deny("go-auth/superuser", ask("go-auth/superuser", {"username": station.username}))
    assert ask("go-auth/superuser", {"username": "root"}).status == 200


# ---------------------------------------------------------------- passwords


def test_answers_do_not_show_which_names_exist(ask, station, neighbour):
    """Attack: learn from the answer which names exist. Unknown, disabled, unusable, wrong: the same bytes."""
    cast = {
        state: provision(f"CASE-{state}") for state in ("disabled", "revoked", "unusable", "empty", "expired")
    }
    rows = WeatherStationDevice.objects
    rows.filter(device_id="CASE-disabled").update(is_active=False)
    rows.filter(device_id="CASE-unusable").update(mqtt_password_hash="!")
    rows.filter(device_id="CASE-empty").update(mqtt_password_hash="")
    rows.filter(device_id="CASE-expired").update(password_expires_at="2020-01-01T00:00:00Z")
    provisioning.revoke(cast["revoked"].device)

    for path in LOGINS:
        answers = {state: ask(path, good(path, who)) for state, who in cast.items()}
        answers["wrong"] = ask(path, good(path, station) | {"password": "wrong"})
        answers["no password"] = ask(path, good(path, station) | {"password": ""})
        answers["too long"] = ask(path, good(path, station) | {"password": "x" * 5_000})
        answers["unknown"] = ask(path, good(path, station) | {"username": "fleet-nobody"})
        answers["no name"] = ask(path, good(path, station) | {"username": "+"})
        answers["the neighbour's"] = ask(path, good(path, station) | {"password": neighbour.password})

        assert len(set(answers.values())) == 1, answers
        assert reads_as_deny(path, answers["wrong"])
        assert reads_as_allow(path, ask(path, good(path, station)))


@about_parsing
def test_a_huge_password_costs_no_hash(ask, station, monkeypatch):
    """Attack: keep the processor busy with a megabyte to hash, for existing and unknown names."""
    hashed = counted(monkeypatch)

    for path in LOGINS:
        for size in (4_097, 400_000, 1 << 20):
            fields = good(path, station) | {"password": "x" * size}
            assert reads_as_deny(path, ask(path, fields))
            assert reads_as_deny(path, ask(path, fields | {"username": "fleet-nobody"}))

    assert hashed == []


@pytest.mark.parametrize(
    "change",
    [
        "",
        " ",
        "*",
        "!",
        "x",
        "!{hash}",
        "*{hash}",
        "{hash}\n",
        "{hash}\r\n",
        "\n{hash}",
        " {hash}",
        "{hash} ",
        "{hash}\x0b",
        "{hash}=",
        "{hash}A",
        "{hash}{hash}",
        "{lower}",
        "{password}",
        "{{PLAIN}}{password}",
        "{{SSHA256}}",
        "{{SSHA256}}=",
        "{{SHA256}}{rest}",
    ],
)
def test_a_row_whose_hash_was_changed_by_sql_is_denied(ask, station, change):
    """Attack: replace a hash by a text that a lenient verifier would accept. A lock such as `!` must be a deny."""
    stored = station.device.mqtt_password_hash
    put = change.format(hash=stored, lower=stored.lower(), password=station.password, rest=stored[9:])
    sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", put)

    for password in (station.password, put, stored, "", "*", "!", "x"):
        fields = good("go-auth/user", station) | {"password": password}
        assert reads_as_deny("go-auth/user", ask("go-auth/user", fields)), ascii(password)
    sql(f"UPDATE {STATIONS} SET mqtt_password_hash = %s", stored)
    assert ask("go-auth/user", good("go-auth/user", station)).status == 200


def test_sql_that_disables_and_enables_counts_at_once(ask, station):
    """Attack: repeat a question that was allowed a moment ago, for every question."""
    for active in (True, False, True, False):
        sql(f"UPDATE {STATIONS} SET is_active = %s", active)
        for path in OF_A_DEVICE:
            answer = ask(path, good(path, station))
            assert reads_as_allow(path, answer) if active else reads_as_deny(path, answer), path


def test_an_open_connection_of_a_revoked_device_may_do_nothing_more(ask, station):
    """Attack: stay connected, and continue to publish and subscribe after the credentials were revoked."""
    for path in OF_A_DEVICE:
        assert reads_as_allow(path, ask(path, good(path, station))), path

    provisioning.revoke(station.device)

    for path in OF_A_DEVICE:
        assert reads_as_deny(path, ask(path, good(path, station))), path


def token_of(who):
    out = StringIO()
    call_command("issue_token", who.username, stdout=out)
    return out.getvalue().strip()


@about_parsing
def test_a_secret_is_accepted_in_its_own_place_only(ask, station, token):
    """Attack: an API key, a token of a broker, a JWT or a stored hash as MQTT password; other secrets as the proof.

    The other secrets are a password, an API key, a digest and a JWT.
    """
    issued = token_of(station)
    device = WeatherStationDevice.objects.get()
    digest = Broker.objects.get().token_digest
    for path in LOGINS:
        for secret in (station.api_key, device.api_key, token, digest, issued, device.mqtt_password_hash):
            assert reads_as_deny(path, ask(path, good(path, station) | {"password": secret}))
        stranger = ask(path, good(path, station), proof=None)
        for proof in (
            station.password,
            station.api_key,
            digest,
            issued,
            token[:-1],
            token + "=",
            token.swapcase(),
        ):
            assert ask(path, good(path, station), proof=proof) == stranger
        assert not reads_as_allow(path, stranger)


# ---------------------------------------------------------------- proofs


def basic(raw):
    return "Basic " + base64.b64encode(raw if isinstance(raw, bytes) else raw.encode()).decode()


@about_parsing
@both_entrances
def test_a_malformed_proof_is_refused(ask, station, token):
    """Attack: proofs in invalid base64, of another scheme, in lists, folded, or under a similar name."""
    right = base64.b64encode(f"b:{token}".encode()).decode()
    spoiled = [
        {"authorization": value}
        for value in (
            token,
            f"Token {token}",
            f"Bearer{token}",
            f"Bearer,{token}",
            f"Bearer {token},{token}",
            f"Bearer {token}, Bearer {token}",
            f'Bearer "{token}"',
            f"Bearer token={token}",
            f"Digest {token}",
            f"Basic {token}",
            f"Basic {right[:8]} {right[8:]}",
            f"Basic {right}!",
            f"Basic {right[:-1]}",
            f"Basic -{right}",
            f"Basic {right},{right}",
            basic(token),
            basic(f"a:b:{token}"),
            basic(f"b:{token}\x00"),
            basic(f"b:{token}\n"),
            basic(f"b: {token}"),
            basic(b"b:" + token.encode() + b"\xff"),
            basic(f"b:{token}".encode("utf-16")),
        )
    ]
    spoiled += [
        {name: token}
        for name in (
            "x_broker_secret",
            "x-broker-secret2",
            "broker-secret",
            "x-api-key",
            "proxy-authorization",
            "k",
        )
    ]
    spoiled += [
        {"cookie": f"k={token}"},
        {"referer": f"http://x/?k={token}"},
        {"x-original-url": f"/?k={token}"},
    ]
    spoiled += [{"x-broker-secret": value} for value in (f"{token},{token}", f"{token}, x", f'"{token}"', "")]

    for headers in spoiled:
        answer = ask("go-auth/user", good("go-auth/user", station), proof=None, headers=headers)
        assert reads_as_deny("go-auth/user", answer), headers
    for query in (
        f"?K={token}",
        f"?k[]={token}",
        f"?k={token}&k=x",
        f"?kk={token}",
        f"?x=%26k={token}",
        "?k=",
        "?k",
    ):
        answer = ask("go-auth/user", good("go-auth/user", station), proof=None, query=query)
        assert reads_as_deny("go-auth/user", answer), query
    assert ask("go-auth/user", good("go-auth/user", station)).status == 200


@pytest.mark.parametrize("own", [dialect.name for dialect in DIALECTS if dialect.name != "jwt"])
def test_a_token_of_one_dialect_is_refused_in_the_others(ask, station, token, own):
    """Attack: a token that leaked from one broker, in the path of the questions of another."""
    Broker.objects.update(dialects=[own])
    for path in LOGINS:
        answer = ask(
            f"k/{token}/{path}", good(path, station), proof=None, headers={"vernemq-hook": "auth_on_register"}
        )
        if path.startswith(f"{own}/"):
            assert reads_as_allow(path, answer)
        else:
            assert answer == ask(path, good(path, station), proof=None)
            assert not reads_as_allow(path, answer)


@about_parsing
def test_no_answer_changes_its_meaning_with_the_response_mode(ask, station):
    """Attack: get a deny in a format that the configured mode of the broker reads as an allow."""
    for path in OF_A_DEVICE:
        for mode in ("text", "TEXT", "json", "text&format=json", "status", "text&acc=2"):
            query = f"?format={mode}"
            assert reads_as_allow(path, ask(path, good(path, station), query=query)), mode
            for fields in (
                good(path, station) | {"username": "stranger"},
                {},
                {"ok": True, "result": "allow"},
            ):
                answer = ask(path, fields, query=query)
                assert not reads_as_allow(path, answer), mode
                assert answer.body.strip() not in (b"ok", b"allow")
            assert not reads_as_allow(path, ask(path, good(path, station), proof="x", query=query)), mode


@about_parsing
@both_entrances
def test_a_method_in_a_header_or_a_field_is_ignored(ask, station):
    """Attack: change the question with headers and fields that frameworks and proxies read."""
    for path in LOGINS:
        fields = good(path, station) | {"username": "stranger"}
        denied = ask(path, fields)

        for name in ("x-http-method-override", "x-original-url", "x-rewrite-url", "x-forwarded-prefix"):
            assert ask(path, fields, headers={name: "/mqtt/go-auth/user"}) == denied
        assert ask(path, fields | {"_method": "GET", "csrfmiddlewaretoken": "x"}) == denied


# ---------------------------------------------------------------- secrets


async def broken(*_arguments, **_options):
    raise RuntimeError("provoked")


@both_entrances
def test_no_secret_is_in_any_log_answer_or_row(ask, send, entrance, station, token, monkeypatch):
    """Attack: search every log at DEBUG, every answer and every table of operators for issued secrets."""
    issued = token_of(station)
    ours = {"password": station.password, "token": token, "key": station.api_key, "jwt": issued}
    texts = []
    paths = OF_A_DEVICE if entrance == "asgi" else LOGINS  # Django logs one question as another.
    with leaks.everything_logged() as logged:
        for fault in (False, True):
            if fault:
                monkeypatch.setattr(authority, "decide", broken)
            for path in paths:
                fields = good(path, station)
                texts.append(ask(path, fields).body)
                texts.append(ask(f"k/{token}/{path}", fields, proof=None).body)
                texts.append(ask(path, fields, proof=None, query=f"?k={token}").body)
                texts.append(
                    ask(path, fields, proof=None, headers={"authorization": basic(f"b:{token}")}).body
                )
                for secret in ours.values():
                    for name in fields.keys() & {"username", "password", "clientid", "client_id", "topic"}:
                        if name == "password" or secret is issued:
                            texts.append(ask(path, fields | {name: secret}).body)
                    texts.append(ask(path, fields, proof=secret).body)
                texts.append(
                    ask(path, content=json.dumps(fields)[:-9].encode(), headers={"content-type": JSON}).body
                )
            jwt = {"authorization": f"Bearer {issued}", "content-type": JSON}
            for about in ("user", "superuser", "acl"):
                reply = send(entrance, "POST", f"/mqtt/k/{token}/jwt/{about}", headers=jwt, content=b"null")
                texts.append(reply.content)
        logging.getLogger("authsvc").debug("the end")

    assert "the end" in logged.text
    assert "provoked" in logged.text
    assert leaks.leaked(logged.text, ours.values()) == []
    assert leaks.leaked(b"\n".join(texts).decode(), ours.values()) == []
    denials.flush()
    rows = json.dumps(list(Denial.objects.exclude(reason=Reason.CLIENT_ID).values()), default=str)
    assert leaks.leaked(rows, [station.password, token, station.api_key]) == []
    shown = repr([*WeatherStationDevice.objects.all(), *Broker.objects.all(), connections["default"]])
    assert leaks.leaked(shown, ours.values()) == []


@pytest.mark.sqlite_only
def test_each_form_of_a_secret_would_be_found():
    """The tests above rely on this search."""
    secret = "s3cret/with+signs-of_all"
    for before in ("", "a", "ab", "abc"):
        packed = base64.b64encode(f"{before}:{secret}:x".encode()).decode()
        assert leaks.leaked(packed, [secret]), before
    for text in (quote(secret, safe=""), secret.encode().hex(), f"x{secret}y"):
        assert leaks.leaked(text, [secret])
    assert leaks.leaked("s3cret", [secret]) == []
