"""Parsing of times as text (ISO 8601). Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# The library also reads any sign between date and time, and a fraction of an hour as one of a second; this does not.
FORM = re.compile(
    r"[\dW-]+(?:[T ](?!24)\d\d(?::?\d\d(?::?\d\d(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?)?",
    re.ASCII,
)


def moment(text: str) -> datetime:
    """Return the moment that *text* names, in UTC; a text without a zone is in UTC. Raise ValueError.

    >>> moment("2026-03-01T13:30:00+01:30").isoformat()
    '2026-03-01T12:00:00+00:00'
    """
    text = text.upper()  # RFC 3339 allows t and z, too.
    if not FORM.fullmatch(text):
        raise ValueError("not an ISO 8601 time")
    found = datetime.fromisoformat(text)
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("not a time that exists in UTC") from error
