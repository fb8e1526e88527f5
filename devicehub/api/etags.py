"""`ETag` and `If-Match`: a change is refused if somebody else made one since the caller read the object."""

from __future__ import annotations

import hashlib
from typing import Any

from rest_framework.request import Request

from devicehub.api import bodies
from devicehub.api.problems import Problem


def of(content: Any) -> str:
    """Return the tag of an object whose editable values are *content*."""
    return f'"{hashlib.sha256(bodies.dumps(content)).hexdigest()[:32]}"'


def check(request: Request, content: Any) -> None:
    """Raise Problem `changed` unless *request* has no If-Match, or that of *content*, which was read under a lock."""
    wanted = request.headers.get("If-Match", "").strip()
    if not wanted or wanted == "*":
        return
    # A proxy that compresses answers marks their tags as weak (RFC 9110, 8.8.1).
    if of(content) not in (tag.strip().removeprefix("W/") for tag in wanted.split(",")):
        raise Problem("changed")
