"""The rows that hold values under a name: of the table of a kind's readings, or of its narrow table."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from devicehub.db.statements import query, quoted
from devicehub.kinds.registry import Kind

MOST_NAMES = 1_000


def under(kind: Kind, name: str, rows: QuerySet[Any] | None = None) -> tuple[QuerySet[Any], str]:
    """Return the *rows* that may have a value under *name*, and the column of that value; without *rows*, all."""
    if rows is None:
        rows = kind.history_model.objects.all()
    if kind.narrow is None:
        return rows, name
    return rows.filter(**{kind.narrow.name_column: name}), kind.narrow.value_column


def names(kind: Kind, device: int, most: int = MOST_NAMES, after: str = "") -> list[str]:
    """Return the next *most* names after *after* under which a device (a primary key) may have values, in order.

    They are the declared readings of *kind*, or the names in its narrow table: each of these is one step along the
    index from the previous one, for any number of rows.
    """
    if kind.narrow is None:
        return sorted(name for name in kind.readings if name > after)[:most]
    table, column = quoted(kind.narrow.model._meta.db_table), quoted(kind.narrow.name_column)
    later = f"SELECT min({column}) FROM {table} WHERE device_id = %s AND {column} >"
    found = query(
        f"WITH RECURSIVE found(name) AS ({later} %s UNION ALL"
        f" SELECT ({later} found.name) FROM found WHERE name IS NOT NULL)"
        " SELECT name FROM found WHERE name IS NOT NULL LIMIT %s",
        [device, after, device, most],
    )
    return [name for (name,) in found]
