"""Delete many rows in short transactions, so that whoever writes meanwhile never waits for long.

Each batch is one statement in a transaction of its own, and after it the table is left alone for a moment: a
writer that waits for SQLite's only lock looks again every 100 ms at most. Two deletions of the same rows may run
at once: what one has taken the other does not find.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import connection

from devicehub.db import statements
from devicehub.db.statements import query_value, quoted
from devicehub.errors import DevicehubError

REST = {"sqlite": 0.12, "postgresql": 0.005}  # seconds at least between two batches


class Stopped(DevicehubError):
    """Somebody asked to stop: the batch at hand is done, and more is left."""


@dataclass
class Pace:
    """How a long deletion goes: *rows* in one transaction, until *stop* is set.

    *report* is told after each batch how many rows went; *longest* is the longest transaction, in seconds.
    """

    rows: int = 5_000
    stop: threading.Event = field(default_factory=threading.Event)
    report: Callable[[int], None] = lambda _: None
    longest: float = 0.0

    def execute(self, statement: str, parameters: Sequence[Any]) -> int:
        """One batch, and a rest as long as it took. Raises Stopped, before it, when that was asked for."""
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
        """Leave the table alone for so long, and long enough for who waits for it."""
        self.stop.wait(max(seconds, REST[connection.vendor]))

    def check(self) -> None:
        if self.stop.is_set():
            raise Stopped


def drain(table: str, condition: str, parameters: Sequence[Any], pace: Pace, *, key: str = "id") -> int:
    """Delete the rows of *table* that fit *condition*, which an index should answer; how many there were.

    It ends when less than a batch is left: what comes all the time, and what another one is about to delete.
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


def delete_by_time(table: str, column: str, of: Where, pace: Pace, *, but_only: Where | None = None) -> int:
    """Delete the rows *of* a condition, of these *but_only* some, in the order of *column*, a time.

    An index should answer *of* in that order. A window of it is deleted at a time, and looked at once: what was
    deleted stays in an index for a while, and a search from its beginning would walk over it again and again.
    """
    name, at = quoted(table), quoted(column)
    floor, total = query_value(f"SELECT min({at}) FROM {name} WHERE {of.condition}", of.parameters), 0
    while floor is not None:
        pace.check()
        rest = of & Where(f"{at} >= %s", [floor])
        until = query_value(
            f"SELECT {at} FROM {name} WHERE {rest.condition} ORDER BY {at} LIMIT 1 OFFSET %s",
            [*rest.parameters, pace.rows],
        )
        if until == floor:  # more rows of one time than fit into a batch
            total += drain(table, *(of & Where(f"{at} = %s", [floor]) & but_only), pace)
            later = of & Where(f"{at} > %s", [floor])
            until = query_value(f"SELECT min({at}) FROM {name} WHERE {later.condition}", later.parameters)
        else:
            window = rest if until is None else rest & Where(f"{at} < %s", [until])
            window &= but_only
            total += pace.execute(f"DELETE FROM {name} WHERE {window.condition}", window.parameters)
        floor = until
    return total


def trim(table: str, column: str, before: Any, pace: Pace) -> int:
    """Delete rows whose *column*, a time without an index, is below *before*, in the order of their keys.

    Rows are written in the order of that time. It ends with the first window that holds nothing older; behind
    a clock that was set back, rows go when what lies before them does.
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
