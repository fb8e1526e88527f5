"""Tokens in place of passwords: their issue, their revocation, and forged ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from io import StringIO
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from django.core.management import CommandError, call_command

from authsvc import conf
from authsvc.core import tokens
from authsvc.core.access import ExpiredToken, InvalidToken
from authsvc.core.tokens import Key
from authsvc.models import Account
from devicehub import provisioning
from fleet.models import WeatherStationDevice
from rig.cast import Cast

pytestmark = pytest.mark.sqlite_first

SECRET = "a secret of 64 bytes or even more, which HS512 would also be content with"
KEY = Key("k1", "HS256", SECRET, SECRET)
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PUBLIC_PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
EC_KEY = Key("ec", "ES256", PRIVATE, PRIVATE.public_key())


@pytest.fixture
def present(send: Callable[..., httpx.Response], entrance: str, token: str) -> Callable[..., httpx.Response]:
    """Return a function that asks under /mqtt/jwt/ with a token as the MQTT username."""

    def one(path: str, bearer: str, body: Any = None) -> httpx.Response:
        return send(
            entrance,
            "POST",
            f"/mqtt/jwt/{path}?k={token}",
            headers={"Authorization": f"Bearer {bearer}"},
            json=body,
        )

    return one


def issue(username: str, *options: str) -> str:
    out = StringIO()
    call_command("issue_token", username, *options, stdout=out)
    return out.getvalue().strip()


@pytest.fixture
def exchange(send: Callable[..., httpx.Response], transactional_db: None) -> Callable[..., httpx.Response]:
    """Return a function that sends `POST /api/token` with an API key."""

    def one(key: str | None, **options: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Api-Key {key}"}
        return send("asgi", "POST", "/api/token", headers=headers, **options)

    return one


def test_a_device_uses_its_token_as_username(station: Cast, present):
    bearer = issue(station.username)

    assert present("user", bearer).status_code == 200
    own = {"acc": 2, "clientid": station.username, "topic": station.topic("data")}
    assert present("acl", bearer, own).status_code == 200
    assert (
        present("acl", bearer, own | {"topic": "things/weatherstation/STATION-002/data"}).status_code == 403
    )
    assert present("acl", bearer, own | {"clientid": "STATION-002"}).status_code == 403
    assert present("superuser", bearer).status_code == 403


def generate(device):
    device.generate_credentials()
    device.save()


@pytest.mark.parametrize(
    "change",
    [
        lambda device: provisioning.rotate_password(device, valid_until=None),
        lambda device: provisioning.rotate_api_key(device),
        lambda device: provisioning.revoke(device),
        generate,
        lambda device: type(device).objects.update(is_active=False),
        lambda device: device.delete(),
    ],
    ids=["password", "api-key", "revoke", "generate", "disable", "delete"],
)
def test_any_change_of_the_credentials_revokes_the_token(station: Cast, present, change):
    bearer = issue(station.username)
    assert present("user", bearer).status_code == 200

    change(WeatherStationDevice.objects.get())

    assert present("user", bearer).status_code == 403


def test_a_token_is_not_a_password_elsewhere(station: Cast, ask):
    bearer = issue(station.username)

    reply = ask("go-auth/user", username=station.username, clientid=station.username, password=bearer)

    assert reply.status_code == 403


def test_a_token_of_a_device_does_not_prove_the_caller(station: Cast, send, entrance, token):
    """The Authorization header is that of the MQTT client; a token of the broker in it is not read."""
    for bearer in (issue(station.username), token):
        reply = send(
            entrance, "POST", "/mqtt/jwt/user", headers={"Authorization": f"Bearer {bearer}"}, json=None
        )
        assert reply.status_code == 403


def test_an_account_may_have_a_token(present):
    account = Account(username="ingest", is_superuser=True)
    account.generate_password()
    account.save()
    bearer = issue("ingest", "--ttl", "15m")

    assert present("superuser", bearer).status_code == 200
    claims = jwt.decode(bearer, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 900
    assert claims.keys() == {"sub", "iat", "exp", "ver"}

    account.generate_password()
    account.save()
    assert present("superuser", bearer).status_code == 403


@pytest.mark.sqlite_only  # It is about words.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "There is no nobody"),
        (["a/b"], "There is no a/b"),
        (["x", "--ttl", "soon"], "'soon' is not a duration"),
        (["x", "--ttl", "31d"], "1 second to 30 days"),
        (["x", "--ttl", "0s"], "1 second to 30 days"),
    ],
)
def test_a_refused_token_is_explained(transactional_db, arguments, message):
    with pytest.raises(CommandError, match=message):
        issue(*arguments)


def test_a_disabled_device_gets_none(station: Cast):
    WeatherStationDevice.objects.update(is_active=False)

    with pytest.raises(CommandError, match="weatherstation/STATION-001 is disabled"):
        issue(station.username)


def test_a_revoked_device_gets_none(station: Cast):
    provisioning.revoke(station.device)

    with pytest.raises(CommandError, match="weatherstation/STATION-001 are revoked: issue new ones first"):
        issue(station.username)


def test_a_device_gets_a_token_for_its_api_key(station: Cast, exchange, present):
    reply = exchange(station.api_key)

    assert reply.status_code == 200
    assert reply.json()["expires_in"] == 3600
    assert reply.headers["cache-control"] == "no-store"
    assert present("user", reply.json()["token"]).status_code == 200


def test_a_device_may_request_less_time_and_never_more(station: Cast, exchange):
    short = exchange(station.api_key, json={"ttl": 60})

    assert short.json()["expires_in"] == 60
    for ttl in (0, -1, 3601, "60", True, 1.5, None):
        assert exchange(station.api_key, json={"ttl": ttl}).status_code == 400
    assert exchange(station.api_key, content=b"{" * 900).status_code == 400
    assert exchange(station.api_key, content=b"x" * 5000).status_code == 400


@pytest.mark.parametrize("key", [None, "", "0" * 64, "x" * 100_000, "Basic abc", "é"])
def test_all_invalid_keys_get_the_same_answer(station: Cast, exchange, key):
    reply = exchange(None) if key is None or not key.isascii() else exchange(key)

    assert (reply.status_code, reply.json()["error"]) == (401, "This API key is not valid.")
    assert reply.json()["type"] == "/problems/not-authenticated"


def test_secrets_are_accepted_in_their_own_place_only(station: Cast, exchange, ask):
    """The MQTT password is not an API key, and the API key is not an MQTT password."""
    assert exchange(station.password).status_code == 401
    stored_digest = WeatherStationDevice.objects.get().api_key
    assert exchange(stored_digest).status_code == 401
    reply = ask(
        "go-auth/user", username=station.username, clientid=station.username, password=station.api_key
    )
    assert reply.status_code == 403


def test_a_disabled_devices_key_is_not_valid(station: Cast, exchange):
    WeatherStationDevice.objects.update(is_active=False)

    assert exchange(station.api_key).status_code == 401


def forged(claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256", kid: str = "k1") -> str:
    return jwt.encode(claims, key, algorithm, headers={"kid": kid})


NOW = int(time.time())
GOOD = {"sub": "STATION-001", "iat": NOW, "exp": NOW + 3600, "ver": 7}


@pytest.mark.sqlite_only
def test_issued_tokens_are_accepted():
    for key in (KEY, EC_KEY):
        token = tokens.issue("STATION-001", 7, [key], 60)
        assert tokens.verify(token, [KEY, EC_KEY]) == ("STATION-001", 7)
    assert SECRET not in repr(KEY)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "token",
    [
        "",
        "a.b.c",
        "x" * 9_000,
        forged(GOOD, "another secret of 32 bytes or more"),
        forged(GOOD, kid="unknown"),
        forged(GOOD, algorithm="HS512"),
        forged(GOOD, None, "none"),
        forged(GOOD, kid="ec"),  # HS256 for an ES256 key.
        *(forged({k: v for k, v in GOOD.items() if k != name}) for name in GOOD),
        forged(GOOD | {"ver": "7"}),
        forged(GOOD | {"ver": True}),
        forged(GOOD | {"sub": "a/b"}),
        forged(GOOD | {"sub": "guest"}),
        forged(GOOD | {"exp": "soon"}),
        forged(GOOD)[:-2],
    ],
)
def test_tokens_that_were_not_issued_are_refused(token):
    with pytest.raises(InvalidToken):
        tokens.verify(token, [KEY, EC_KEY])


@pytest.mark.sqlite_only
def test_a_public_key_is_not_accepted_as_a_secret():
    """The classic attack: an HS256 token signed with the public key of ES256."""
    import base64
    import hashlib
    import hmac

    def part(value: dict[str, Any]) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    signed = part({"alg": "HS256", "kid": "ec"}) + b"." + part(GOOD)
    mac = hmac.new(PUBLIC_PEM, signed, hashlib.sha256).digest()
    token = (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()

    with pytest.raises(InvalidToken):
        tokens.verify(token, [EC_KEY])


@pytest.mark.sqlite_only
def test_an_expired_token_has_its_own_error():
    with pytest.raises(ExpiredToken):
        tokens.verify(forged(GOOD | {"exp": NOW - 1}), [KEY])


@pytest.mark.sqlite_only
def test_a_replica_with_a_clock_ahead_issues_valid_tokens():
    assert tokens.verify(forged(GOOD | {"iat": NOW + 30}), [KEY]) == ("STATION-001", 7)


@pytest.mark.sqlite_only
def test_the_first_key_signs_and_the_others_still_verify(settings):
    settings.AUTHSVC_JWT_KEYS = {"new": PEM, "old": SECRET}
    keys = conf.options().jwt_keys

    token = tokens.issue("STATION-001", 7, keys, 60)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": "new", "typ": "JWT"}
    assert tokens.verify(forged(GOOD, kid="old"), keys) == ("STATION-001", 7)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("too short", "the key k has fewer than 32 bytes"),
        ("-----BEGIN PRIVATE KEY-----\nxx\n-----END PRIVATE KEY-----", "not a PEM private key"),
        (
            ec.generate_private_key(ec.SECP384R1())
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            .decode(),
            "not on the curve P-256",
        ),
    ],
)
def test_an_invalid_key_is_refused(settings, text, message):
    settings.AUTHSVC_JWT_KEYS = {"k": text}

    with pytest.raises(conf.InvalidKeys, match=message):
        conf.settings.jwt_keys  # noqa: B018


@pytest.mark.sqlite_only
def test_without_keys_one_is_derived_and_is_not_the_secret_key(settings):
    settings.AUTHSVC_JWT_KEYS = None
    first = conf.settings.jwt_keys
    assert first[0].signing != settings.SECRET_KEY.encode()

    settings.SECRET_KEY = "another one, of which another key is derived"
    assert conf.settings.jwt_keys[0].signing != first[0].signing
