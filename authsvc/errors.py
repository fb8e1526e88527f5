"""The base class of errors of authsvc, and a test for one error of databases."""

from __future__ import annotations

UNDEFINED = ("42P01", "42703")  # Error codes of PostgreSQL for a table and a column.
MISSING = ("no such table", "no such column", "has no column")  # Texts of SQLite.


class AuthsvcError(Exception):
    """An error with a text that gives the reason to the reader. Commands print it as one line."""


def lacks_tables(error: Exception) -> bool:
    """Return whether *error* of the database means that a table or column is missing."""
    said = str(error).partition("\n")[0]
    return getattr(error.__cause__, "sqlstate", "") in UNDEFINED or any(text in said for text in MISSING)
