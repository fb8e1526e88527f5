"""Several queries of the ORM in one statement, also ordered and cut ones, of which SQLite takes no union by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet

from devicehub.db.statements import Row, query


def keys(rows: Sequence[QuerySet[Any]]) -> list[Any]:
    """Return the primary keys of the rows that each query set of *rows* finds, by one statement for all of them."""
    if not rows:
        return []
    statement, parameters = _union([one.values("pk") for one in rows])
    return [key for (key,) in query(statement, parameters)]


def first(rows: Sequence[QuerySet[Any]], order: str, most: int) -> list[Row]:
    """Return the first *most* of the rows that each query set of *rows* finds, as raw tuples of its values().

    *order* names columns of the first one as they are written in a statement, such as `timestamp DESC, id DESC`.
    """
    if not rows:
        return []
    statement, parameters = _union(rows)
    return query(f"SELECT * FROM ({statement}) AS found ORDER BY {order} LIMIT %s", [*parameters, most])


def _union(rows: Sequence[QuerySet[Any]]) -> tuple[str, list[Any]]:
    parts = [one.query.sql_with_params() for one in rows]
    statement = " UNION ALL ".join(f"SELECT * FROM ({sql}) AS part" for sql, _ in parts)
    return statement, [value for _, values in parts for value in values]
