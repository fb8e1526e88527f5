"""Short-lived tokens (JWT, RFC 7519) that stand for a username and one version of its credentials. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import jwt

from authsvc.core.access import ExpiredToken, InvalidToken, is_username

ALGORITHMS: Final = ("HS256", "ES256")
MIN_KEY_BYTES: Final = 32  # of a secret that signs: whoever holds a token can try shorter ones offline
MAX_LENGTH: Final = 8_000  # characters; a longer one dies in the header limit of the server anyway


class Key(NamedTuple):
    """A signing key by id. HS256: *signing* and *verifying* are the same secret; ES256: PEM private, public."""

    kid: str
    algorithm: str
    signing: Any
    verifying: Any

    def __repr__(self) -> str:
        return f"Key({self.kid!r}, {self.algorithm!r})"


class Claims(NamedTuple):
    """What a token says: who, and for which version of the credentials it was issued."""

    username: str
    version: int


def issue(username: str, version: int, keys: Sequence[Key], ttl: int, now: float | None = None) -> str:
    """A token for *username* that ends after *ttl* seconds, or with the next change of its credentials."""
    key = keys[0]
    issued = int(time.time() if now is None else now)
    claims = {"sub": username, "iat": issued, "exp": issued + ttl, "ver": version}
    return jwt.encode(claims, key.signing, key.algorithm, headers={"kid": key.kid})


def verify(token: str, keys: Sequence[Key]) -> Claims:
    """The claims of a token that one of *keys* signed. Raises InvalidToken, ExpiredToken."""
    return verify_with_end(token, keys)[0]


def verify_with_end(token: str, keys: Sequence[Key]) -> tuple[Claims, int]:
    """Return the claims of a token that one of *keys* signed, and its end in Unix seconds.

    Raises InvalidToken, ExpiredToken. The algorithm is the key's, never the token's: `none`, and a public key
    used as an HS256 secret, have no way in. All of sub, iat, exp, ver must be there.
    """
    if len(token) > MAX_LENGTH:
        raise InvalidToken("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
        key = next((k for k in keys if k.kid == header.get("kid")), None)
        if key is None or key.algorithm not in ALGORITHMS or header.get("alg") != key.algorithm:
            raise InvalidToken("no key of ours signed the token")
        claims = jwt.decode(
            token,
            key.verifying,
            algorithms=[key.algorithm],
            # A token ends on the second. When it was issued decides nothing, and replicas' clocks differ.
            options={"require": ["sub", "iat", "exp", "ver"], "verify_aud": False, "verify_iat": False},
        )
    except jwt.ExpiredSignatureError as error:
        raise ExpiredToken("the token has expired") from error
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise InvalidToken("the token is not one of ours") from error
    version = claims["ver"]
    if not is_username(claims["sub"]) or type(version) is not int:
        raise InvalidToken("the token names nobody")
    return Claims(claims["sub"], version), int(claims["exp"])
