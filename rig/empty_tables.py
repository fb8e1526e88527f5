"""Empties the test database after a test, many times faster than Django's flush.

Django empties every table and then makes content types, permissions and triggers anew.
Here only tables that hold rows are emptied, and those that migrations filled are left as they are.
Where a test changed the schema or the number of rows that migrations wrote, Django's flush does all of it.
"""

from __future__ import annotations

from django.core.management import call_command
from django.db import connection, transaction

# A table or a trigger that was replaced by another one changes these, and on PostgreSQL a trigger that was disabled.
SCHEMA = {
    "sqlite": "SELECT group_concat(name), group_concat(sql) FROM sqlite_master",
    "postgresql": (
        "SELECT (SELECT md5(string_agg(relname, ',' ORDER BY oid)) FROM pg_class), "
        "(SELECT md5(string_agg(tgname::text || tgenabled::text, ',' ORDER BY oid)) FROM pg_trigger)"
    ),
}


class EmptyTables:
    """Deletes the rows of tests when it is called. Make it when the database was just migrated."""

    def __init__(self) -> None:
        self._look()

    def __call__(self) -> None:
        """Delete all rows that tests wrote; flush everything if the schema or a filled table changed."""
        if self._read_state() != self._state:
            call_command("flush", verbosity=0, interactive=False, database=connection.alias)
            self._look()
            return
        with transaction.atomic(), connection.cursor() as cursor:
            for table in _with_rows(self._empty):
                cursor.execute(f"DELETE FROM {_quoted(table)}")

    def _look(self) -> None:
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        self._filled = _with_rows(tables)
        self._empty = sorted(set(tables) - set(self._filled))
        self._state = self._read_state()

    def _read_state(self) -> object:
        """Return the schema, and the numbers of rows in the tables that migrations filled."""
        counts = "".join(f", (SELECT count(*) FROM {_quoted(table)})" for table in self._filled)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT s.*{counts} FROM ({SCHEMA[connection.vendor]}) AS s")
            return cursor.fetchone()


def _with_rows(tables: list[str]) -> list[str]:
    """Return those of *tables* that are not empty, by one statement."""
    statement = " UNION ALL ".join(
        f"SELECT {position} WHERE EXISTS (SELECT 1 FROM {_quoted(table)})"
        for position, table in enumerate(tables)
    )
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [tables[position] for (position,) in cursor.fetchall()]


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)
