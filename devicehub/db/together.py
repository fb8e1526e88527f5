"""Several queries of the ORM in one statement, also ordered and cut ones, of which SQLite takes no union by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from devicehub.db.statements import Row, query


def first(rows: Sequence[QuerySet[Any]], order: str, most: int) -> list[Row]:
    """Return the first *most* of the rows that each query set of *rows* finds, as raw tuples of its values().

    *order* names columns of the first one as they are written in a statement, such as `timestamp DESC, id DESC`.
    """
    if not rows:
        return []
    parts = [one.query.sql_with_params() for one in rows]
    union = " UNION ALL ".join(f"SELECT * FROM ({sql}) AS part" for sql, _ in parts)
    parameters = [value for _, values in parts for value in values]
    return query(f"SELECT * FROM ({union}) AS found ORDER BY {order} LIMIT %s", [*parameters, most])
