"""Limits of imported hashes: the highest cost of each scheme is accepted, the next one is refused unverified."""

from __future__ import annotations

import base64
import hashlib
import string

import pytest

from authsvc.core import passwords
from authsvc.core.passwords import UnusableHash

pytestmark = pytest.mark.sqlite_only  # needs no database

B64_12, B64_86 = "A" * 16, "A" * 86 + "=="
ARGON2 = "$argon2id$v=19$m={memory},t={cost},p={lanes}$" + "A" * 22 + "$" + "A" * 43
FORMS = [
    ("bcrypt", "$2b${0:02d}$" + "A" * 21 + "." + "A" * 30 + ".", 14),
    ("bcrypt", "$2a${0:02d}$" + "A" * 21 + "u" + "A" * 30 + "y", 14),
    ("bcrypt", "$2y${0:02d}$" + "A" * 21 + "e" + "A" * 30 + "6", 14),
    ("passlib pbkdf2", "$pbkdf2-sha256${0}$AAAA$" + "A" * 43, 2_000_000),
    ("passlib pbkdf2", "$pbkdf2-sha512${0}$AAAA$" + "A" * 86, 2_000_000),
    ("passlib pbkdf2", "$pbkdf2${0}$AAAA$" + "A" * 27, 2_000_000),
    ("django pbkdf2", "pbkdf2_sha256${0}$salt$" + "A" * 43 + "=", 2_000_000),
    ("django pbkdf2", "pbkdf2_sha1${0}$salt$" + "A" * 27 + "=", 2_000_000),
    ("mosquitto pbkdf2", "$7${0}$" + B64_12 + "$" + B64_86, 2_000_000),
    ("go-auth pbkdf2", "PBKDF2$sha1${0}$" + B64_12 + "$" + B64_86, 2_000_000),
]


@pytest.mark.parametrize(("name", "form", "limit"), FORMS)
def test_a_cost_is_accepted_up_to_its_limit(name, form, limit):
    for cost in (1, limit):
        assert passwords.scheme_of(form.format(cost)).name == name
    for cost in (0, limit + 1, 10**9, 10**20):
        with pytest.raises(UnusableHash):
            passwords.scheme_of(form.format(cost))


def test_a_refused_cost_is_named_with_its_limit():
    with pytest.raises(UnusableHash, match=r"passlib pbkdf2: cost 2000001 is not in 1\.\.2000000"):
        passwords.scheme_of("$pbkdf2-sha512$2000001$AAAA$" + "A" * 86)
    with pytest.raises(UnusableHash, match=r"mosquitto pbkdf2: cost 999999999999 is not in 1\.\.2000000"):
        passwords.scheme_of("$7$" + "9" * 30 + "$" + B64_12 + "$" + B64_86)


@pytest.mark.parametrize(("number", "limit"), [("memory", 262_144), ("cost", 16), ("lanes", 16)])
def test_argon2id_is_limited_in_memory_passes_and_threads(number, limit):
    least = {"memory": 8, "cost": 1, "lanes": 1}

    assert passwords.scheme_of(ARGON2.format(**least | {number: limit})).name == "argon2id"
    for cost in (0, limit + 1):
        with pytest.raises(UnusableHash, match=f"argon2id: {number} {cost} "):
            passwords.scheme_of(ARGON2.format(**least | {number: cost}))


@pytest.mark.parametrize(("size", "accepted"), [(0, True), (1_366, True), (1_367, False)])
def test_a_salt_of_passlib_has_at_most_1366_characters(size, accepted):
    for form in (
        "$pbkdf2-sha256$1${}$" + "A" * 43,
        "$pbkdf2-sha512$1${}$" + "A" * 86,
        "$pbkdf2$1${}$" + "A" * 27,
    ):
        if accepted:
            assert passwords.scheme_of(form.format("A" * size)).name == "passlib pbkdf2"
        else:
            with pytest.raises(UnusableHash):
                passwords.scheme_of(form.format("A" * size))


@pytest.mark.parametrize(("size", "accepted"), [(0, False), (1, True), (64, True), (65, False)])
def test_a_salt_of_django_has_1_to_64_characters(size, accepted):
    for form in ("pbkdf2_sha256$1${}$" + "A" * 43 + "=", "pbkdf2_sha1$1${}$" + "A" * 27 + "="):
        if accepted:
            assert passwords.scheme_of(form.format("s" * size)).name == "django pbkdf2"
        else:
            with pytest.raises(UnusableHash):
                passwords.scheme_of(form.format("s" * size))


def test_a_generated_password_has_43_letters_and_digits():
    drawn = {passwords.generate() for _ in range(50)}

    assert len(drawn) == 50
    assert {len(password) for password in drawn} == {43}
    assert set("".join(drawn)) == set(string.ascii_letters + string.digits)
    assert string.ascii_letters + string.digits == passwords.ALPHABET


def test_hashes_are_of_their_schemes_and_fast_or_slow():
    generated, chosen = passwords.hash_generated("s3cret"), passwords.hash_chosen("s3cret")

    assert passwords.scheme_of(generated).name == "generated"
    assert passwords.scheme_of(chosen).name == "argon2id"
    assert passwords.is_fast(generated)
    assert passwords.is_fast("$6$" + B64_12 + "$" + B64_86)
    assert not passwords.is_fast(chosen)
    assert not passwords.is_fast("$7$1$" + B64_12 + "$" + B64_86)
    assert passwords.verify("s3cret", generated)
    assert not passwords.verify("s3creT", generated)
    assert passwords.scheme_of(passwords.DUMMY_HASH).name == "generated"


@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_a_password_has_at_most_4096_bytes(character):
    most = 4_096 // len(character.encode())

    assert not passwords.too_long(character * most)
    assert passwords.too_long(character * most + "x")
    assert not passwords.too_long(character * (most // 4))


def test_a_salt_of_go_auth_may_be_text():
    text = "PBKDF2$sha512$3$sälz$" + B64_86

    assert passwords.with_utf8_salt(text) == (
        "PBKDF2$sha512$3$" + base64.b64encode("sälz".encode()).decode() + "$" + B64_86
    )


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
def test_nul_is_not_padding(algorithm):
    """HMAC fills its key with NUL, so the digest of a password and of the same with a NUL are one."""
    salt = b"0123456789ab"
    digest = base64.b64encode(hashlib.pbkdf2_hmac(algorithm, b"s3cret", salt, 1)).decode()
    stored = f"PBKDF2${algorithm}$1${base64.b64encode(salt).decode()}${digest}"

    assert passwords.verify("s3cret", stored)
    for wrong in ("s3cret\x00", "s3cret\x01", "", "\x00", "s3cre"):
        assert not passwords.verify(wrong, stored)


def test_an_empty_password_matches_not_even_its_own_hash():
    """A broker sends an empty text for a client without a password."""
    digest = base64.b64encode(hashlib.sha512(base64.b64decode(B64_12)).digest()).decode()

    assert not passwords.verify("", f"$6${B64_12}${digest}")
    assert not passwords.verify("", passwords.hash_generated(""))
