"""Tokens: claims and end of an issued token, and a refusal for each part that is missing or of another type."""

from __future__ import annotations

import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from authsvc.core import tokens
from authsvc.core.access import ExpiredToken, InvalidToken
from authsvc.core.tokens import Claims, Key

pytestmark = pytest.mark.sqlite_only  # needs no database

SECRET = "s" * 32
OURS = Key("one", "HS256", SECRET, SECRET)
FAR = 4_000_000_000
CLAIMS = {"sub": "S1", "iat": 0, "exp": FAR, "ver": 7}


def signed(key=OURS, *, secret=None, **changes):
    """Return a token with the claims *changes*, without those that are None."""
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return jwt.encode(claims, secret or key.signing, key.algorithm, headers={"kid": key.kid})


def test_an_issued_token_says_who_which_version_and_until_when():
    token = tokens.issue("S1", 7, [OURS, Key("two", "HS256", "x" * 32, "x" * 32)], 3_600, now=FAR + 0.9)

    assert jwt.get_unverified_header(token) == {"alg": "HS256", "kid": "one", "typ": "JWT"}
    assert json.loads(jwt.utils.base64url_decode(token.split(".")[1])) == {
        "sub": "S1",
        "iat": FAR,
        "exp": FAR + 3_600,
        "ver": 7,
    }
    assert tokens.verify_with_end(token, [OURS]) == (Claims("S1", 7), FAR + 3_600)
    assert tokens.verify(token, [OURS]) == ("S1", 7)


def test_a_token_is_issued_now():
    claims, end = tokens.verify_with_end(tokens.issue("S1", 7, [OURS], 3_600), [OURS])

    assert claims == Claims("S1", 7)
    assert abs(end - 3_600 - tokens.time.time()) < 60


def test_a_key_pair_signs_and_verifies():
    private = ec.generate_private_key(ec.SECP256R1())
    pair = Key(
        "pair",
        "ES256",
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )

    assert tokens.verify(tokens.issue("S1", 7, [pair], 60), [OURS, pair]) == Claims("S1", 7)


@pytest.mark.parametrize("name", ["sub", "iat", "exp", "ver"])
def test_a_token_has_all_claims(name):
    with pytest.raises(InvalidToken):
        tokens.verify(signed(**{name: None}), [OURS])


@pytest.mark.parametrize(
    "changes", [{"ver": "7"}, {"ver": True}, {"ver": 7.0}, {"sub": "a/b"}, {"sub": "guest"}]
)
def test_a_claim_of_another_type_or_of_nobody_is_refused(changes):
    with pytest.raises(InvalidToken):
        tokens.verify(signed(**changes), [OURS])


def test_a_token_ends_and_its_beginning_and_audience_do_not_count():
    with pytest.raises(ExpiredToken):
        tokens.verify(signed(exp=1), [OURS])
    assert tokens.verify(signed(iat=FAR - 1, aud="others"), [OURS]) == Claims("S1", 7)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [Key("two", "HS256", SECRET, SECRET)],
        [Key("one", "HS384", SECRET, SECRET)],
        [Key("one", "ES256", SECRET, SECRET)],
        [Key("one", "HS256", "x" * 32, "x" * 32)],
    ],
)
def test_a_token_of_another_key_is_refused(keys):
    with pytest.raises(InvalidToken):
        tokens.verify(signed(), keys)


def test_only_our_algorithms_are_accepted():
    other = Key("one", "HS384", "s" * 48, "s" * 48)

    with pytest.raises(InvalidToken):
        tokens.verify(signed(other), [other])


def test_the_longest_token_has_8000_characters():
    padding = 8_000 - len(signed(pad=""))
    longest = next(
        token
        for size in range(padding * 3 // 4 - 4, padding)
        if len(token := signed(pad="x" * size)) >= 7_999
    )
    longest = longest if len(longest) == 8_000 else longest + "="  # one length in four is not reached

    assert len(longest) == 8_000
    if not longest.endswith("="):
        assert tokens.verify(longest, [OURS]) == Claims("S1", 7)
    with pytest.raises(InvalidToken, match="too long"):
        tokens.verify(longest + "x", [OURS])


def test_a_key_shows_no_secret():
    assert repr(OURS) == "Key('one', 'HS256')"
