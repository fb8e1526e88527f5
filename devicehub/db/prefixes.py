"""The condition that a column begins with a text, in a form that uses the index of the column on both databases."""

from __future__ import annotations

from django.db import connection
from django.db.models import Q


def begins_with(column: str, prefix: str) -> Q:
    """Return the condition that *column* begins with *prefix*; case-sensitive."""
    if connection.vendor == "sqlite":  # LIKE on SQLite ignores case, and does not use the index.
        return Q((f"{column}__gte", prefix), (f"{column}__lt", f"{prefix}{chr(0x10FFFF)}"))
    return Q((f"{column}__startswith", prefix))
