"""Hashes of other systems: keys of every length, and passwords that their own library would refuse."""

from __future__ import annotations

import base64
import hashlib

import argon2
import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.core import passwords
from rig.examples import examples
from rig.seeds import HASHES

pytestmark = pytest.mark.sqlite_only
SALT = base64.b64encode(b"0123456789abcdef").decode()


def go_auth(algorithm: str, length: int) -> str:
    key = hashlib.pbkdf2_hmac(algorithm, b"s3cret", base64.b64decode(SALT), 3, length)
    return f"PBKDF2${algorithm}$3${SALT}${base64.b64encode(key).decode()}"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_a_key_of_go_auth_has_16_to_128_bytes(algorithm):
    for length in range(16, 129):
        stored = go_auth(algorithm, length)
        assert passwords.scheme_of(stored).name == "go-auth pbkdf2"
        assert passwords.verify("s3cret", stored), length
        assert not passwords.verify("s3creT", stored), length


@pytest.mark.parametrize("length", [1, 8, 15, 129, 144])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(passwords.UnusableHash):
        passwords.scheme_of(go_auth("sha256", length))


def test_a_key_of_argon2id_has_16_to_128_bytes():
    for length in range(16, 129):
        stored = argon2.low_level.hash_secret(
            b"s3cret", b"0123456789abcdef", 1, 64, 1, length, argon2.low_level.Type.ID
        ).decode()
        assert passwords.verify("s3cret", stored), length
        assert not passwords.verify("s3creT", stored), length


@pytest.mark.parametrize("length", [4, 15, 129])
def test_another_key_of_argon2id_is_refused(length):
    stored = argon2.low_level.hash_secret(
        b"s3cret", b"0123456789abcdef", 1, 64, 1, length, argon2.low_level.Type.ID
    ).decode()

    with pytest.raises(passwords.UnusableHash):
        passwords.scheme_of(stored)


@pytest.mark.parametrize("salt", ["a", "abcde", "ab=d", "abc==", "===="])
@pytest.mark.parametrize("form", ["$6${}$" + "A" * 86 + "==", "$7$101${}$" + "A" * 86 + "=="])
def test_a_salt_that_is_not_base64_is_refused_before_a_login(salt, form):
    with pytest.raises(passwords.UnusableHash):
        passwords.scheme_of(form.format(salt))


def test_bcrypt_reads_72_bytes_of_a_password():
    whole = "é" * 36 + "tail"
    stored = bcrypt.hashpw(whole.encode()[:72], bcrypt.gensalt(4)).decode()

    assert passwords.verify(whole, stored)
    assert passwords.verify("é" * 36, stored)
    assert passwords.verify("é" * 36 + "x" * 3_000, stored)
    assert not passwords.verify("é" * 35 + "e" + "tail", stored)


def test_a_hash_of_bcrypt_is_not_upgraded_for_a_longer_password():
    stored = HASHES["bcrypt"]

    assert passwords.reads_all("x" * 72, stored)
    assert not passwords.reads_all("x" * 73, stored)
    assert passwords.reads_all("x" * 73, HASHES["argon2id"])


@pytest.mark.parametrize("name", sorted(HASHES))
def test_a_good_hash_is_usable_with_every_password(name):
    for secret in ("\x00", "s3cret\x00", "\ud800", "x" * 73, "x" * 4_096, "x" * 4_097, ""):
        assert passwords.verify(secret, HASHES[name]) is False, ascii(secret[:9])


@settings(max_examples=examples(50), deadline=None)
@given(st.text(max_size=100), st.sampled_from(sorted(HASHES)))
def test_no_password_makes_a_good_hash_unusable(secret, name):
    assert isinstance(passwords.verify(secret, HASHES[name]), bool)
