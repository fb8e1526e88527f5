"""Many rows at once: COPY on PostgreSQL, one prepared statement on SQLite, and no model instances.

Values are of types that drivers take without a conversion: texts, numbers, booleans and bytes. The function that
time_writer() returns writes times, and dump_json() writes the values of JSON columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import cache
from itertools import chain
from typing import Any, Protocol

import orjson
from django.db import connection, models
from django.db.models.expressions import RawSQL

from devicehub.db.statements import TIME_WRITERS, PerVendor, Row, execute_many, query, query_value, quoted

PARAMETERS = 900  # of one statement; older versions of SQLite take 999
# Types that orjson encodes and json does not are passed to json, so they behave as in Django.
PLAIN = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def dump_json(value: Any) -> str:
    """Return *value* as the text of a JSON column. Raise what json.dumps() raises."""
    try:
        text = orjson.dumps(value, option=PLAIN).decode()
    except TypeError:  # An integer beyond 64 bits, a lone surrogate, or a key that is not a text.
        return json.dumps(value)
    return json.dumps(value) if "null" in text else text  # orjson writes null for NaN as well.


def time_writer() -> Callable[[datetime], str]:
    """Return a function that writes an aware time as the text of a column.

    It caches its results: in a batch each time stands in several columns.
    """
    return cache(TIME_WRITERS())


def insert(model: type[models.Model], columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Add *rows* to the table of *model*, in their order."""
    if rows:
        _dialect().insert(model._meta.db_table, columns, rows)


def new_keys(model: type[models.Model], count: int) -> Sequence[int]:
    """Return primary keys for *count* new rows, ascending.

    Call it in a transaction; on SQLite that must hold the writer's lock.
    """
    return _dialect().new_keys(model._meta.db_table, count)


def existing(table: str, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those of *pairs* that stand in these two columns, by one look-up each in their index."""
    return _dialect().existing(table, columns, pairs)


def among(column: str, values: Collection[str]) -> models.Q | RawSQL:
    """Return the condition that a row's *column* is one of *values*.

    PostgreSQL gets them as one array: otherwise it would parse, and plan for, one constant each.
    """
    if connection.vendor == "sqlite":
        return models.Q((f"{column}__in", values))
    return RawSQL(f"{quoted(column)} = ANY(%s)", [list(values)], output_field=models.BooleanField())  # noqa: S611


class _Dialect(Protocol):
    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None: ...
    def new_keys(self, table: str, count: int) -> Sequence[int]: ...
    def existing(
        self, table: str, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]
    ) -> set[tuple[int, str]]: ...


def together_on_sqlite(start: str, rows: Sequence[Row], end: str = "") -> None:
    """Execute the statement of *start*, VALUES and *end* for *rows*; many rows in one statement save a third."""
    if not rows:
        return
    places = f"({', '.join(['%s'] * len(rows[0]))})"
    size = max(PARAMETERS // len(rows[0]), 1)
    whole = len(rows) - len(rows) % size
    parts = [tuple(chain.from_iterable(rows[at : at + size])) for at in range(0, whole, size)]
    execute_many(f"{start} VALUES {', '.join([places] * size)} {end}", parts)
    execute_many(f"{start} VALUES {places} {end}", rows[whole:])


class _Sqlite:
    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        together_on_sqlite(f"INSERT INTO {quoted(table)} ({', '.join(map(quoted, columns))})", rows)

    def new_keys(self, table: str, count: int) -> Sequence[int]:
        last = query_value("SELECT seq FROM sqlite_sequence WHERE name = %s", [table]) or 0
        return range(last + 1, last + count + 1)

    def existing(
        self, table: str, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]
    ) -> set[tuple[int, str]]:
        first, second = map(quoted, columns)
        return set(
            query(
                f"SELECT stored.{first}, stored.{second} FROM json_each(%s) AS wanted"
                f" CROSS JOIN {quoted(table)} AS stored ON stored.{first} = wanted.value ->> 0"
                f" AND stored.{second} = wanted.value ->> 1",
                [orjson.dumps(pairs).decode()],
            )
        )


class _Postgresql:
    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        names = ", ".join(map(quoted, columns))
        written = zip(*map(_column_for_copy, zip(*rows, strict=True)), strict=True)
        block = "\n".join(map("\t".join, written)) + "\n"
        with (
            connection.cursor() as cursor,
            connection.wrap_database_errors,
            cursor.copy(f"COPY {quoted(table)} ({names}) FROM STDIN") as copy,
        ):
            copy.write(block)

    def new_keys(self, table: str, count: int) -> Sequence[int]:
        drawn = query(  # OFFSET 0 has the sequence looked up once, not for each key.
            "SELECT nextval(sequence) FROM (SELECT pg_get_serial_sequence(%s, 'id')::regclass AS sequence OFFSET 0)"
            " AS one, generate_series(1, %s)",
            [quoted(table), count],
        )
        return sorted(key for (key,) in drawn)

    def existing(
        self, table: str, columns: tuple[str, str], pairs: Sequence[tuple[int, str]]
    ) -> set[tuple[int, str]]:
        first, second = map(quoted, columns)
        return set(
            query(
                "SELECT wanted.a, wanted.b FROM json_to_recordset(%s) AS wanted (a bigint, b text)"
                f" WHERE EXISTS (SELECT FROM {quoted(table)} AS stored"
                f" WHERE stored.{first} = wanted.a AND stored.{second} = wanted.b)",
                [orjson.dumps([{"a": a, "b": b} for a, b in pairs]).decode()],
            )
        )


def _column_for_copy(values: Sequence[Any]) -> Sequence[str]:
    """Return the *values* of a column in PostgreSQL's text format of COPY.

    Most columns hold texts without a character to escape, so one check serves for all of them together.
    """
    types = set(map(type, values))
    if types == {str}:
        together = "".join(values)
        if "\\" not in together and together.isprintable():
            return values
    if len(types) == 1:
        return list(map(_FOR_COPY[types.pop()], values))
    return [_FOR_COPY[type(value)](value) for value in values]


def _text_for_copy(value: str) -> str:
    """Return *value* in PostgreSQL's text format of COPY."""
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if value.isprintable():
        return value
    return value.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


# By exact type: a value of another type is a bug here, and raises KeyError.
_FOR_COPY: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "\\N",
    str: _text_for_copy,
    int: repr,
    float: repr,
    bool: lambda value: "t" if value else "f",
    bytes: lambda value: "\\\\x" + value.hex(),
}
_dialect = PerVendor[_Dialect](sqlite=_Sqlite(), postgresql=_Postgresql())
