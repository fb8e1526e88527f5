"""The token that the caller of a question presents. Pure."""

from __future__ import annotations

import base64
from collections.abc import Hashable

from authsvc.core.access import MalformedRequest
from authsvc.dialects.base import Dialect, Request


def proof(request: Request, dialect: Dialect) -> Hashable:
    """Return the parts of *request* that can authenticate its caller, as a key for a cache."""
    return (
        dialect.name,
        request.peer,
        request.path_token,
        request.query,
        request.header(b"authorization"),
        request.header(b"x-broker-secret"),
    )


def token(request: Request, dialect: Dialect) -> str | None:
    """Return the token of *request*, or None. Two different tokens, or an unreadable one, count as none.

    It may be in `Authorization: Bearer`, in a Basic password, in `X-Broker-Secret`, in `?k=` or in the path. If the
    Authorization header is that of the MQTT client, it is not read.
    """
    presented = [value for name, value in _parameters(request) if name == "k"]
    if request.path_token is not None:
        presented.append(request.path_token)
    if not dialect.authorization_is_the_clients:
        if (secret := request.header(b"x-broker-secret")) is not None:
            presented.append(secret)
        if (authorization := request.header(b"authorization")) is not None:
            presented.append(_from_authorization(authorization))
    if not presented or len(set(presented)) > 1:
        return None
    return presented[0] or None


def _parameters(request: Request) -> list[tuple[str, str]]:
    if not request.query:
        return []
    try:
        return request.parameters
    except MalformedRequest:
        return []


def _from_authorization(header: str) -> str:
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # Not base64, or not UTF-8 inside it.
            return ""
    return ""
