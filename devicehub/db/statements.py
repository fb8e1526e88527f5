"""SQL without the ORM: one way to query, to execute, and to write a name or a time, on both databases.

All statements go to the default database. They are built from names of models and constants; values are always
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from django.db import connection

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]
Either = TypeVar("Either")


class PerVendor(Generic[Either]):
    """A value with one form for each of the two databases."""

    def __init__(self, *, sqlite: Either, postgresql: Either) -> None:
        self._by_vendor = {"sqlite": sqlite, "postgresql": postgresql}

    def __call__(self) -> Either:
        """Return the form of the default database."""
        return self._by_vendor[connection.vendor]


def query(statement: str, parameters: Parameters | None = None) -> list[Row]:
    """Return all rows of *statement*."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())


def query_value(statement: str, parameters: Parameters | None = None) -> Any:
    """Return the first column of the first row of *statement*, or None if it has no row."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        row = cursor.fetchone()
    return row[0] if row else None


def execute(statement: str, parameters: Parameters | None = None) -> int:
    """Execute *statement* and return how many rows it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return max(int(cursor.rowcount), 0)


def execute_many(statement: str, rows: Sequence[Sequence[Any]] | Sequence[Mapping[str, Any]]) -> None:
    """Execute *statement*, with %s or %(name)s for values, once for each of *rows*."""
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(statement, rows)


def quoted(name: str) -> str:
    """Return the name of a table, a column or an index as it is written in a statement."""
    return connection.ops.quote_name(name)


def as_time(moment: datetime) -> str:
    """Return an aware time as a parameter of a statement, or as the text of a column."""
    return TIME_WRITERS()(moment)


def read_time(found: str | datetime) -> datetime:
    """Return a time that a statement found as an aware one, in UTC. SQLite returns a text, or a time without a zone."""
    moment = datetime.fromisoformat(found) if isinstance(found, str) else found
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _sqlite_time(moment: datetime) -> str:
    """Write a time as Django keeps it there: in UTC and without a zone."""
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(" ")[: -len("+00:00")]


def _postgresql_time(moment: datetime) -> str:
    return moment.isoformat(" ")


TIME_WRITERS = PerVendor(sqlite=_sqlite_time, postgresql=_postgresql_time)
