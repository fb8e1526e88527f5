"""Names the test that leaves rows or tables in the test database of SQLite.

The rows of a test are rolled back or deleted after it, unless a thread, a process or a fixture writes past that.
They would make another test fail, in some orders only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

Numbers = dict[str, int]


class LeftRows:
    """Compares the number of rows of each table with the last one, over a connection of its own."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._version = self._read_version()
        self._numbers = self._count()
        self._expected = False

    def find(self) -> dict[str, tuple[int, int]]:
        """Return the numbers of rows before and now of the tables where they differ, and each of them once only."""
        version = self._read_version()
        if self._expected or version == self._version:
            return {}
        before, now = self._numbers, self._count()
        self._version, self._numbers = version, now
        tables = sorted({*before, *now})
        return {
            table: (before.get(table, 0), now.get(table, 0))
            for table in tables
            if before.get(table) != now.get(table)
        }

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Find nothing inside of this context, since the tests of a module share rows."""
        self._expected = True
        try:
            yield
        finally:
            self._expected = False

    def _read_version(self) -> int:
        """Return a number that each commit of another connection changes. It takes 2 us to read."""
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _count(self) -> Numbers:
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = [name for (name,) in self._connection.execute(query)]
        counts = ", ".join(f'(SELECT count(*) FROM "{table}")' for table in tables)
        numbers = self._connection.execute(f"SELECT {counts or '0'}").fetchone()
        return dict(zip(tables, numbers, strict=False))


@contextmanager
def watching(path: str) -> Iterator[LeftRows]:
    """Yield the LeftRows of the database file *path*, and close its connection at the end."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield LeftRows(connection)
