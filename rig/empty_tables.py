"""Empties the test database after a test, many times faster than Django's flush.

Django empties every table and then makes content types, permissions and triggers anew.
Here only tables that hold rows are emptied, and those that migrations filled are left as they are.
Where a test changed triggers or the rows that migrations wrote, a copy of the whole database of SQLite is restored.
Where it changed tables, and on PostgreSQL, Django's flush does all of it.
"""

from __future__ import annotations

import sqlite3
import weakref

from django.core.management import call_command
from django.db import connection, transaction

from authsvc.audit import triggers as keeping
from authsvc.models import PolicyRevision
from devicehub.lwm2m.models import ObjectType, ResourceType

# A table or a trigger that was replaced by another one changes these, and on PostgreSQL a trigger that was disabled.
SCHEMA = {
    "sqlite": "SELECT group_concat(name), group_concat(sql) FROM sqlite_master",
    "postgresql": (
        "SELECT (SELECT md5(string_agg(relname, ',' ORDER BY oid)) FROM pg_class), "
        "(SELECT md5(string_agg(tgname::text || tgenabled::text, ',' ORDER BY oid)) FROM pg_trigger)"
    ),
}

# Triggers raise the revision of the policy whenever a test writes a broker or a grant, and a flush would do it again.
# The definitions of LwM2M objects are a megabyte, and each change of them changes the table of their revision too.
COUNTED = {model._meta.db_table for model in (PolicyRevision, ObjectType, ResourceType)}

# Undoes the changes of a test to its session. The connection stays open: to open one takes longer than most tests.
NEW_SESSION = "RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP"


class EmptyTables:
    """Deletes the rows of tests when it is called. Make it when the database was just migrated."""

    def __init__(self) -> None:
        self._copy = sqlite3.connect(":memory:") if connection.vendor == "sqlite" else None
        if self._copy is not None:
            weakref.finalize(self, self._copy.close)
        self._state: tuple[object, ...] = ()
        self._look()

    def __call__(self) -> None:
        """Delete all rows that tests wrote; make everything anew if the schema or a filled table changed."""
        if self._read_state() != self._state:
            if self._copy is not None and _tables() == self._tables:
                self._copy.backup(connection.connection)
            else:
                call_command("flush", verbosity=0, interactive=False, database=connection.alias)
                self._look()
            return
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(self._rows)
            for (position,) in cursor.fetchall():
                cursor.execute(f"DELETE FROM {_quoted(self._empty[position])}")
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(NEW_SESSION)

    def accept_schema(self) -> None:
        """Take the present tables and triggers for those of the migrations: a test made a table anew as it was."""
        self._state = (*self._read_state()[:2], *self._state[2:])

    def _look(self) -> None:
        keeping.drop()  # The triggers that keep the entries of the audit; the tests of them create them.
        self._tables = _tables()
        tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
        self._filled = _with_rows(tables)
        self._empty = sorted(set(tables) - set(self._filled))
        self._rows = _which_have_rows(self._empty)
        contents = "".join(f", ({_content(table)})" for table in self._filled)
        self._query = f"SELECT s.*{contents} FROM ({SCHEMA[connection.vendor]}) AS s"
        self._state = self._read_state()
        if self._copy is not None:
            connection.connection.backup(self._copy)

    def _read_state(self) -> tuple[object, ...]:
        """Return the schema in two columns, and the contents of the tables that migrations filled."""
        with connection.cursor() as cursor:
            cursor.execute(self._query)
            state: tuple[object, ...] = cursor.fetchone()
            return state


def _tables() -> object:
    """Return the tables of SQLite with their columns."""
    if connection.vendor != "sqlite":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        return cursor.fetchall()


def _content(table: str) -> str:
    """Return the query of the rows of *table* as one text, and of the tables in COUNTED only their number."""
    if table in COUNTED:
        return f"SELECT count(*) FROM {_quoted(table)}"
    if connection.vendor == "postgresql":
        return f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {_quoted(table)} AS t"
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, table)
    row = " || ',' || ".join(f"quote({_quoted(column.name)})" for column in columns)
    return f"SELECT group_concat({row}) FROM {_quoted(table)}"


def _with_rows(tables: list[str]) -> list[str]:
    """Return those of *tables* that are not empty, by one statement."""
    with connection.cursor() as cursor:
        cursor.execute(_which_have_rows(tables))
        return [tables[position] for (position,) in cursor.fetchall()]


def _which_have_rows(tables: list[str]) -> str:
    """Return the query of the positions of those of *tables* that are not empty."""
    return " UNION ALL ".join(
        f"SELECT {position} WHERE EXISTS (SELECT 1 FROM {_quoted(table)})"
        for position, table in enumerate(tables)
    )


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)
