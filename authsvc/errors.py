"""The base of the errors that authsvc raises on purpose, and how to tell one of those that a database raises."""

from __future__ import annotations

UNDEFINED = ("42P01", "42703")  # a table, a column: error codes of PostgreSQL
MISSING = ("no such table", "no such column", "has no column")  # what SQLite says


class AuthsvcError(Exception):
    """Something cannot be done, for a reason that its text gives to the reader. Commands print it as one line."""


def lacks_tables(error: Exception) -> bool:
    """Return whether *error* of the database says that a table or column is not there."""
    said = str(error).partition("\n")[0]
    return getattr(error.__cause__, "sqlstate", "") in UNDEFINED or any(text in said for text in MISSING)
