"""Several queries of the ORM in one statement, also ordered and cut ones, of which SQLite takes no union by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from devicehub.db.statements import query


def keys(rows: Sequence[QuerySet[Any]]) -> list[Any]:
    """Return the primary keys of the rows that each query set of *rows* finds, by one statement for all of them."""
    if not rows:
        return []
    parts = [one.values("pk").query.sql_with_params() for one in rows]
    statement = " UNION ALL ".join(f"SELECT * FROM ({sql}) AS part" for sql, _ in parts)
    return [key for (key,) in query(statement, [value for _, values in parts for value in values])]
