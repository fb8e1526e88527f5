"""SECRET_KEY: its least length, and the separate key of tokens."""

from __future__ import annotations

import hmac
import os
import subprocess
import sys

import jwt
import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from authsvc import conf
from authsvc.checks import check_keys, check_secret_key
from authsvc.core import tokens
from authsvc.core.access import InvalidToken
from config.settings import secret_key
from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only
GOOD = "w7Vd-0kq3uNf_T2yRzLx8aHcB5eJmP4s"  # 32 bytes


@pytest.mark.servers
def test_the_start_refuses_a_short_secret_key_in_one_line_that_says_how_to_make_one(tmp_path):
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    refused = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env={**kept, "DATABASE_URL": f"sqlite:///{tmp_path}/devicehub.sqlite3", "SECRET_KEY": "x"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(
        "manage.py: SECRET_KEY has 1 byte and needs at least 32 random ones; make one with: "
    )
    command = line.partition("make one with: ")[2].replace("python3", sys.executable)
    made = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert len(made.stdout.strip()) >= 32


def test_a_short_key_from_a_file_is_refused_alike(tmp_path, monkeypatch):
    (tmp_path / "key").write_text(GOOD[:31] + "\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / "key"))

    with pytest.raises(
        ImproperlyConfigured, match="SECRET_KEY has 31 bytes and needs at least 32"
    ) as refused:
        secret_key(debug=False)
    assert GOOD[:8] not in str(refused.value)


def test_while_debugging_it_may_be_short(monkeypatch):
    monkeypatch.delenv("SECRET_KEY_FILE", raising=False)
    monkeypatch.setenv("SECRET_KEY", "x")

    assert secret_key(debug=True) == "x"


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("x", ["authsvc.E020"]),
        (b"x", ["authsvc.E020"]),
        (GOOD[:31], ["authsvc.E020"]),
        (GOOD, []),
        (GOOD.encode(), []),
        ("ü" * 8 + GOOD[:16], []),
        ("x" * 50, ["authsvc.W021"]),
        ("abcd" * 20, ["authsvc.W021"]),
        (f"django-insecure-{GOOD}", ["authsvc.W021"]),
    ],
)
def test_a_check_reports_a_weak_secret_key_in_every_project(settings, key, found):
    settings.SECRET_KEY = key

    assert [message.id for message in check_secret_key()] == found
    assert {"authsvc.E020", "authsvc.W021"} & {message.id for message in run_checks()} == set(found)
    assert check_keys() == []  # reported once

    settings.DEBUG = True
    assert check_secret_key() == []


def test_no_token_is_signed_with_what_follows_from_a_short_key(settings):
    """No check has run under WSGI."""
    settings.AUTHSVC_JWT_KEYS, settings.SECRET_KEY = None, "x"

    with pytest.raises(conf.InvalidKeys, match="SECRET_KEY, from which the key of tokens is derived"):
        conf.settings.jwt_keys  # noqa: B018


def test_the_key_of_tokens_is_derived_with_a_label_of_its_own(settings):
    settings.AUTHSVC_JWT_KEYS, settings.SECRET_KEY = None, GOOD
    (key,) = conf.settings.jwt_keys
    claims = {"sub": "STATION-001", "iat": 1, "exp": 4_000_000_000, "ver": 7}

    assert len(key.signing) == 32
    assert tokens.verify(jwt.encode(claims, key.signing, headers={"kid": key.kid}), [key]).version == 7
    for other in (GOOD.encode(), hmac.digest(GOOD.encode(), b"authsvc.jwt", "sha256")):  # as it was before
        with pytest.raises(InvalidToken):
            tokens.verify(jwt.encode(claims, other, headers={"kid": key.kid}), [key])


def test_an_older_secret_key_signs_and_verifies_no_token(settings):
    settings.AUTHSVC_JWT_KEYS, settings.SECRET_KEY = None, GOOD
    before = conf.settings.jwt_keys
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = GOOD[::-1], [GOOD]

    token = tokens.issue("STATION-001", 7, before, 60)

    with pytest.raises(InvalidToken):
        tokens.verify(token, conf.settings.jwt_keys)


@pytest.mark.parametrize("as_stored", [str, str.encode])
def test_a_configured_key_is_another_one_than_the_secret_key(settings, as_stored):
    settings.SECRET_KEY, settings.AUTHSVC_JWT_KEYS = as_stored(GOOD), {"k": GOOD}

    with pytest.raises(conf.InvalidKeys, match="the key k is SECRET_KEY itself"):
        conf.settings.jwt_keys  # noqa: B018
    assert [error.id for error in check_keys()] == ["authsvc.E002"]
