"""Deletion of many rows in short transactions, so that other writers never wait for long.

Each batch is one statement in a transaction of its own, and after it the table is left alone for a moment: a
writer that waits for SQLite's only lock looks again every 100 ms at most. Two deletions of the same rows may run
at once: the second does not find the rows that the first has deleted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import connection

from devicehub.db import statements
from devicehub.db.statements import Row, query, query_value, quoted
from devicehub.errors import DevicehubError

REST = {"sqlite": 0.12, "postgresql": 0.005}  # The shortest pause between two batches, in seconds.


class Stopped(DevicehubError):
    """A stop was requested: the current batch is done, and rows are left."""


@dataclass
class Pace:
    """The pace of a long deletion: *rows* in one transaction, until *stop* is set.

    *report* is called after each batch with its number of rows; *longest* is the longest transaction, in seconds.
    """

    rows: int = 5_000
    stop: threading.Event = field(default_factory=threading.Event)
    report: Callable[[int], None] = lambda _: None
    longest: float = 0.0

    def execute(self, statement: str, parameters: Sequence[Any]) -> int:
        """Execute one batch, rest as long as it took, and return its number of rows. Raise Stopped if *stop* is set."""
        self.check()
        began = time.monotonic()
        count = statements.execute(statement, parameters)
        took = time.monotonic() - began
        self.longest = max(self.longest, took)
        self.report(count)
        if count:
            self.rest(took)
        return count

    def rest(self, seconds: float) -> None:
        """Leave the table alone for *seconds*, and at least long enough for a waiting writer."""
        self.stop.wait(max(seconds, REST[connection.vendor]))

    def check(self) -> None:
        """Raise Stopped if *stop* is set."""
        if self.stop.is_set():
            raise Stopped


def drain(table: str, condition: str, parameters: Sequence[Any], pace: Pace, *, key: str = "id") -> int:
    """Delete the rows of *table* that fit *condition*, which an index should answer; return their number.

    Stop when less than a batch is left: rows that arrive all the time, or that another deletion is about to delete.
    """
    name, pk = quoted(table), quoted(key)
    statement = f"DELETE FROM {name} WHERE {pk} IN (SELECT {pk} FROM {name} WHERE {condition} LIMIT %s)"
    more = f"SELECT 1 FROM {name} WHERE {condition} LIMIT 1 OFFSET %s"
    total = 0
    while True:
        count = pace.execute(statement, [*parameters, pace.rows])
        total += count
        if count < pace.rows and not query_value(more, [*parameters, pace.rows - 1]):
            return total


class Where(NamedTuple):
    """A condition and its parameters."""

    condition: str
    parameters: Sequence[Any]

    def __and__(self, other: Where | None) -> Where:
        if other is None:
            return self
        return Where(f"{self.condition} AND {other.condition}", [*self.parameters, *other.parameters])


def delete_by_time(
    table: str,
    column: str,
    of: Where,
    pace: Pace,
    *,
    but_only: Where | None = None,
) -> int:
    """Delete the rows that fit *of*, and *but_only* if given, in the order of *column*, a time; return their number."""
    return delete_in_order(table, (column,), of, pace, but_only=but_only)


def delete_in_order(
    table: str,
    columns: Sequence[str],
    of: Where,
    pace: Pace,
    *,
    but_only: Where | None = None,
) -> int:
    """Delete the rows that fit *of*, and *but_only* if given, in the order of *columns*; return their number.

    An index should answer *of* in that order. Windows of it are deleted one by one, and each is searched once:
    deleted rows stay in an index for a while, and a search from its beginning would walk over them again and again.
    """
    name, at, total = quoted(table), ", ".join(map(quoted, columns)), 0
    at_row, at_place = (
        (f"({at})", f"({', '.join(['%s'] * len(columns))})") if len(columns) > 1 else (at, "%s")
    )

    def first(rows: Where, offset: int = 0) -> Row | None:
        statement = f"SELECT {at} FROM {name} WHERE {rows.condition} ORDER BY {at} LIMIT 1 OFFSET %s"
        return next(iter(query(statement, [*rows.parameters, offset])), None)

    floor = first(of)
    while floor is not None:
        pace.check()
        rest = of & Where(f"{at_row} >= {at_place}", floor)
        until = first(rest, pace.rows)
        if until == floor:  # A batch cannot hold all rows of this time.
            window = of & Where(f"{at_row} = {at_place}", floor) & but_only
            total += drain(table, *window, pace)
            until = first(of & Where(f"{at_row} > {at_place}", floor))
        else:
            window = rest if until is None else rest & Where(f"{at_row} < {at_place}", until)
            window &= but_only
            total += pace.execute(f"DELETE FROM {name} WHERE {window.condition}", window.parameters)
        floor = until
    return total


def trim(table: str, column: str, before: Any, pace: Pace) -> int:
    """Delete rows whose *column*, a time without an index, is below *before*, by key; return their number.

    Rows are written in the order of that time. The deletion stops at the first window without an older row. If the
    clock was set back, later rows are deleted once the rows before them are.
    """
    name, at = quoted(table), quoted(column)
    floor, total = query_value(f"SELECT min(id) FROM {name}", []), 0
    while floor is not None:
        pace.check()
        until = query_value(
            f"SELECT id FROM {name} WHERE id >= %s ORDER BY id LIMIT 1 OFFSET %s",
            [floor, pace.rows],
        )
        window, bounds = ("id >= %s", [floor]) if until is None else ("id >= %s AND id < %s", [floor, until])
        count = pace.execute(f"DELETE FROM {name} WHERE {window} AND {at} < %s", [*bounds, before])
        if not count and query_value(f"SELECT 1 FROM {name} WHERE {window} LIMIT 1", bounds):
            break
        total += count
        floor = until
    return total
