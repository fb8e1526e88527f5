"""Fuzzed tokens: a token with an error is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authsvc.core import tokens
from authsvc.core.access import ExpiredToken, InvalidToken
from authsvc.core.tokens import Claims, Key
from rig import oracles
from rig.examples import examples
from rig.fuzzed import _dump, hostile, numbers, quick, values
from rig.oracles import TOKENS

pytestmark = pytest.mark.sqlite_only  # The parsers need no database, and the entrance reads one row of it.


# Tokens.

PARTS = [base64.urlsafe_b64decode(part + "==") for part in TOKENS["STATION-001"].split(".")]


def _encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def judge_token(token: str) -> None:
    """Check that an accepted token was signed by us for the username in it."""
    try:
        claims = tokens.verify(token, oracles.OPTIONS.jwt_keys)
    except (InvalidToken, ExpiredToken):
        return
    assert claims == Claims(oracles._holder(f"Bearer {token}") or "", 7)


@settings(quick, max_examples=examples(100))
@given(st.data())
def test_a_token_with_an_error_is_refused(data):
    token = TOKENS["STATION-001"]
    start = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(start, min(len(token), start + 3)))
    scrap = data.draw(st.one_of(st.sampled_from([".", "=", "-", "_", "A", "\n", " "]), hostile))

    judge_token(token[:start] + scrap + token[end:])


headers_of_tokens = st.one_of(
    st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), values).map(_dump),
    st.fixed_dictionaries(
        {
            "alg": st.sampled_from(["HS256", "none", "ES256", "HS512", "hs256", None, 1, []]),
            "kid": st.just("k"),
        }
    ).map(json.dumps),
    st.sampled_from(
        ["[" * 5_000, '{"a":' * 900, "null", "1", '"x"', "", '{"alg":"HS256","kid":' + "1" * 4_400]
    ),
).map(lambda text: text.encode("utf-8", "surrogatepass"))
claims_of_tokens = st.one_of(
    st.dictionaries(st.sampled_from(["sub", "iat", "exp", "ver", "nbf"]), values).map(_dump),
    st.fixed_dictionaries(
        {
            "sub": values,
            "exp": st.one_of(st.just(oracles.FOREVER), numbers.filter(lambda n: n != 10**400)),
            "iat": st.one_of(st.just(0), values.filter(lambda n: n != 10**400)),
            "ver": st.one_of(st.just(7), values.filter(lambda n: n != 10**400)),
        }
    ).map(_dump),
    st.sampled_from(["[" * 3_000, "null", "[]", '"x"', ""]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(quick, max_examples=examples(60))
@given(headers_of_tokens, st.one_of(st.just(PARTS[1]), claims_of_tokens), st.booleans())
def test_no_header_makes_a_token(header, claims, signed):
    """Signed with our key or not: the header is untrusted until the signature is verified."""
    text = f"{_encode(header)}.{_encode(claims)}"
    secret = oracles.OPTIONS.jwt_keys[0].signing.encode()
    proof = hmac.digest(secret, text.encode(), hashlib.sha256) if signed else b"x" * 32
    token = f"{text}.{_encode(proof)}"
    try:
        found = tokens.verify(token, oracles.OPTIONS.jwt_keys)
    except (InvalidToken, ExpiredToken):
        return
    assert signed
    assert (found.username, found.version) == (json.loads(claims)["sub"], json.loads(claims)["ver"])
    assert json.loads(claims)["exp"] > time.time()


def test_a_header_that_nests_too_deep_is_a_refusal(monkeypatch):
    """PyJWT before 2.11 raised the error of the JSON parser."""

    def too_deep(_token: str) -> None:
        raise RecursionError

    monkeypatch.setattr(tokens.jwt, "get_unverified_header", too_deep)

    with pytest.raises(InvalidToken):
        tokens.verify("a.b.c", [Key("k", "HS256", "x" * 32, "x" * 32)])
