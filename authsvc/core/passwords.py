"""Passwords: made here with 256 random bits, kept as a hash, verified at equal cost for everybody."""

from __future__ import annotations

import secrets
import string
from typing import Final

from passlib.context import CryptContext

MAX_BYTES: Final = 4_096
LENGTH: Final = 43  # letters and digits hold 5.95 bits each: 43 of them hold 256
ALPHABET: Final = string.ascii_letters + string.digits  # no `-`: go-auth joins its cache key with it

# A secret of 256 random bits cannot be guessed, so one salted SHA-256 is enough (NIST SP 800-63B, 5.1.2),
# and a thousand devices that reconnect at once cost milliseconds.
_CONTEXT = CryptContext(schemes=["ldap_salted_sha256"])


class UnusableHash(ValueError):
    """The stored text is no password hash of a scheme that is accepted here."""


def generate() -> str:
    """A new secret of 256 random bits, in letters and digits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def hash_generated(secret: str) -> str:
    """The hash to store for a secret from generate(). Not for passwords that a person chose."""
    return str(_CONTEXT.hash(secret))


def verify(secret: str, stored: str) -> bool:
    """Whether *secret* is the one that *stored* was made from. Raises UnusableHash."""
    if too_long(secret):
        return False
    try:
        # An empty one is nobody's, and costs as much as any other to refuse.
        return bool(_CONTEXT.verify(secret, stored)) and bool(secret)
    except (ValueError, TypeError) as error:  # passlib: unknown scheme, truncated or damaged hash
        raise UnusableHash("The stored hash is of no accepted scheme") from error


def too_long(secret: str) -> bool:
    return len(secret) > MAX_BYTES or len(secret.encode("utf-8", "surrogatepass")) > MAX_BYTES


def spend(secret: str) -> None:
    """Do the work of one verification for somebody who has nothing to verify against."""
    _CONTEXT.verify(secret, _NOBODY)


_NOBODY: Final = hash_generated(generate())
