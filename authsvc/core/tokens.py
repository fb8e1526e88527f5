"""Short-lived tokens (JWT, RFC 7519) for a username and one version of its credentials. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import jwt

from authsvc.core.access import ExpiredToken, InvalidToken, is_username

ALGORITHMS: Final = ("HS256", "ES256")
# A shorter signing secret could be found offline by trying, with one token.
MIN_KEY_BYTES: Final = 32
# In characters. The server already refuses longer ones by its limit of headers.
MAX_LENGTH: Final = 8_000


class Key(NamedTuple):
    """A signing key by id. HS256: *signing* and *verifying* are the same secret; ES256: PEM private, public."""

    kid: str
    algorithm: str
    signing: Any
    verifying: Any

    def __repr__(self) -> str:
        return f"Key({self.kid!r}, {self.algorithm!r})"


class Claims(NamedTuple):
    """The contents of a token: the username, and the version of the credentials it was issued for."""

    username: str
    version: int


def issue(username: str, version: int, keys: Sequence[Key], ttl: int, now: float | None = None) -> str:
    """Return a token for *username*, valid for *ttl* seconds or until the next change of its credentials."""
    key = keys[0]
    issued = int(time.time() if now is None else now)
    claims = {"sub": username, "iat": issued, "exp": issued + ttl, "ver": version}
    return jwt.encode(claims, key.signing, key.algorithm, headers={"kid": key.kid})


def verify(token: str, keys: Sequence[Key]) -> Claims:
    """Return the claims of a token that one of *keys* signed. Raise InvalidToken, ExpiredToken."""
    return verify_with_end(token, keys)[0]


def verify_with_end(token: str, keys: Sequence[Key]) -> tuple[Claims, int]:
    """Return the claims of a token that one of *keys* signed, and its expiry in Unix seconds.

    Raise InvalidToken, ExpiredToken. The algorithm is that of the key, never that of the token. So `none`, and a
    public key used as an HS256 secret, are refused. All of sub, iat, exp, ver are required.
    """
    if len(token) > MAX_LENGTH:
        raise InvalidToken("the token is too long")
    try:
        header = jwt.get_unverified_header(token)
        key = next((k for k in keys if k.kid == header.get("kid")), None)
        if key is None or key.algorithm not in ALGORITHMS or header.get("alg") != key.algorithm:
            raise InvalidToken("the token is not signed with a configured key")
        claims = jwt.decode(
            token,
            key.verifying,
            algorithms=[key.algorithm],
            # The time of issue is not checked, since the clocks of replicas differ. Expiry has no leeway.
            options={"require": ["sub", "iat", "exp", "ver"], "verify_aud": False, "verify_iat": False},
        )
    except jwt.ExpiredSignatureError as error:
        raise ExpiredToken("the token has expired") from error
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise InvalidToken("the token was not issued here") from error
    version = claims["ver"]
    if not is_username(claims["sub"]) or type(version) is not int:
        raise InvalidToken("the token has no valid username or version")
    return Claims(claims["sub"], version), int(claims["exp"])
