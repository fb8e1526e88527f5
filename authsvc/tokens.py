"""Issue tokens for existing, active principals."""

from __future__ import annotations

from authsvc import chain
from authsvc.conf import options
from authsvc.core import tokens
from authsvc.core.access import is_username
from authsvc.errors import AuthsvcError

LONGEST = 30 * 24 * 3600  # Maximum validity in seconds.


class NotIssued(AuthsvcError):
    """The username may not have a token, or not for that long."""


async def issue(username: str, ttl: int) -> str:
    """Return a token for *username*, valid for *ttl* seconds. Raise NotIssued, AmbiguousIdentity."""
    if not 0 < ttl <= LONGEST:
        raise NotIssued(f"A token is valid for 1 second to {LONGEST // 86400} days")
    principal = await chain.configured().lookup(username) if is_username(username) else None
    if principal is None:
        raise NotIssued(f"There is no {username}")
    if not principal.active:
        raise NotIssued(f"{principal.key} is disabled")
    if principal.revoked:
        raise NotIssued(f"The credentials of {principal.key} are revoked: issue new ones first")
    return tokens.issue(username, principal.version, options().jwt_keys, ttl)
