"""The SQL of rollups: the same figures on SQLite and PostgreSQL, up to the last digit of a mean.

Names of tables are passed in quoted, times as parameters of the database (`statements.as_time`). Returned times are
aware, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import orjson

from devicehub.db.statements import PerVendor, as_time, execute, execute_many, query, quoted, read_time
from devicehub.models import Rollup

Figures = tuple[float, float, float, int]
Fresh = tuple[int, datetime, float, float, float, int]


class Source(NamedTuple):
    """A table to roll up: its name, quoted, and the names of its columns of values.

    A narrow table has one column of values, and *name_column* with their names.
    """

    table: str
    columns: Sequence[str]
    name_column: str | None = None


class Bucket(NamedTuple):
    """One hour of a device: lowest, highest, mean and number of the values, by the name of the reading."""

    device: int
    start: datetime
    figures: dict[str, Figures]


# A row of the table of rollups, in the order of COLUMNS.
Part = tuple[str, str, str, datetime, float, float, float, int]
COLUMNS = ("device_key", "name", "period", "start", "low", "high", "mean", "count")


class Rows(NamedTuple):
    """A number of rows, and the highest id among them."""

    number: int
    last_id: int


class Wanted(NamedTuple):
    """The buckets of a page: of the readings *names* of one device, by *period*.

    *since* and *until* are beginnings of buckets, or None; *until* is excluded.
    """

    source: Source
    device: int
    names: Sequence[str]
    period: str
    since: datetime | None
    until: datetime | None
    descending: bool


class SqlDialect(Protocol):
    """The statements in which the two databases differ."""

    def next_rows(self, table: str, after: int, until: int, most: int) -> Rows: ...
    def last_id(self, table: str) -> tuple[int, set[str]]: ...
    def hours(self, source: Source, after: int, until: int) -> list[Bucket]: ...
    def add(self, parts: Sequence[Part]) -> None:
        """Add *parts* to the table of rollups; a part of an existing rollup is merged into it."""

    def fresh(
        self, source: Source, name: str, devices: Sequence[int], after: int, since: Any, period: str
    ) -> list[Fresh]: ...
    def fresh_of(self, wanted: Wanted, after: int, most: int) -> list[Bucket]: ...


# Values beyond this are left out, since their sums, and intermediate results of PostgreSQL, would overflow.
LARGEST = "1e150"
FEW = 100_000  # rows; SQLite reads this many along their ids in a tenth of a second
FEW_OF_ONE = 5_000  # rows; for one device SQLite reads more of them faster along its own index
TABLE = Rollup._meta.db_table
NAMES = ", ".join(COLUMNS)
KEY = "device_key, name, period, start"
ADDED = (
    f"low = {{least}}({TABLE}.low, excluded.low), high = {{greatest}}({TABLE}.high, excluded.high), "
    # The mean moves a step towards the new one, since a sum of all values could overflow.
    f"mean = {TABLE}.mean + (excluded.mean - {TABLE}.mean)"
    f" * (excluded.count * 1.0 / ({TABLE}.count + excluded.count)), "
    f"count = {TABLE}.count + excluded.count"
)


def _counts(column: str) -> str:
    """Return the condition under which a value of *column* counts in rollups; NULL and NaN do not count."""
    return f"{column} BETWEEN -{LARGEST} AND {LARGEST}"


def _together(rows: Iterable[Sequence[Any]], columns: Sequence[str]) -> list[Bucket]:
    """Return one bucket per device and hour of *rows*: device, start, a name or None, and four figures per column.

    A value counts under that name, or else under that of its column.
    """
    found: dict[tuple[int, Any], dict[str, Figures]] = {}
    for device, start, name, *values in rows:
        figures = found.setdefault((device, start), {})
        for column, (low, high, mean, count) in zip(
            columns, zip(*[iter(values)] * 4, strict=True), strict=True
        ):
            if count:
                figures[column if name is None else name] = float(low), float(high), float(mean), count
    return [Bucket(device, read_time(start), figures) for (device, start), figures in found.items()]


class _Both:
    starts: dict[str, str]
    mean: str

    def _figures(self, column: str) -> str:
        """Return the aggregates of *column*: lowest, highest, mean and number of the values that count."""
        value = f"CASE WHEN {_counts(column)} THEN {column} END"
        return f"min({value}), max({value}), {self.mean.format(value)}, count({value})"

    def next_rows(self, table: str, after: int, until: int, most: int) -> Rows:
        """Return the next *most* rows with ids above *after*, up to *until*, as their number and their last id."""
        [(count, last_id)] = query(
            f"SELECT count(*), max(id) FROM (SELECT id FROM {table} WHERE id > %s AND id <= %s"
            " ORDER BY id LIMIT %s) AS coming",
            [after, until, most],
        )
        return Rows(count, last_id or after)

    def hours(self, source: Source, after: int, until: int) -> list[Bucket]:
        """Return one bucket per device and hour of the rows with ids above *after*, up to *until*."""
        start = self.starts["hour"].format("fresh")
        figures = ", ".join(self._figures(f"fresh.{quoted(column)}") for column in source.columns)
        name = "NULL" if source.name_column is None else f"fresh.{quoted(source.name_column)}"
        groups = f"device_id, {start}" + ("" if source.name_column is None else f", {name}")
        rows = query(
            f"SELECT device_id, {start}, {name}, {figures} FROM {source.table} AS fresh"
            f" WHERE id > %s AND id <= %s GROUP BY {groups}",
            [after, until],
        )
        return _together(rows, source.columns)

    def _along_ids(self, table: str, after: int, few: int = FEW) -> str:
        """Return the SQL after the name of the table that makes the database read rows above *after* by their ids.

        That is for at most *few* rows.
        """
        return ""

    def fresh(
        self, source: Source, name: str, devices: Sequence[int], after: int, since: Any, period: str
    ) -> list[Fresh]:
        """Return buckets of the rows with ids above *after*, which are not rolled up yet."""
        if not devices:
            return []
        start, named, parameters = self.starts[period].format("fresh"), "", [after, since]
        column = f"fresh.{quoted(name)}"
        if source.name_column is not None:
            column = f"fresh.{quoted(source.columns[0])}"
            named, parameters = f" AND fresh.{quoted(source.name_column)} = %s", [*parameters, name]
        found = query(
            f"SELECT device_id, {start}, {self._figures(column)}"
            f" FROM {source.table} AS fresh {self._along_ids(source.table, after)}"
            f" WHERE id > %s AND timestamp >= %s AND {_counts(column)}{named}"
            f" AND device_id IN ({', '.join(['%s'] * len(devices))}) GROUP BY device_id, {start}",
            [*parameters, *devices],
        )
        return [
            (device, read_time(moment), float(low), float(high), float(mean), count)
            for device, moment, low, high, mean, count in found
        ]

    def fresh_of(self, wanted: Wanted, after: int, most: int) -> list[Bucket]:
        """Return the first *most* buckets of the rows with ids above *after*, which are not rolled up yet.

        In a wide table a bucket has all names, in a narrow one a single name.
        """
        source, start = wanted.source, self.starts[wanted.period].format("fresh")
        columns = wanted.names if source.name_column is None else source.columns
        values = [f"fresh.{quoted(column)}" for column in columns]
        conditions = ["device_id = %s", "id > %s", f"({' OR '.join(map(_counts, values))})"]
        parameters: list[Any] = [wanted.device, after]
        name, groups = "NULL", start
        if source.name_column is not None:
            name = f"fresh.{quoted(source.name_column)}"
            groups = f"{start}, {name}"
            conditions.append(f"{name} IN ({', '.join(['%s'] * len(wanted.names))})")
            parameters += wanted.names
        for sign, moment in ((">=", wanted.since), ("<", wanted.until)):
            if moment is not None:
                conditions.append(f"timestamp {sign} %s")
                parameters.append(as_time(moment))
        found = query(
            f"SELECT device_id, {start} AS bucket, {name}, {', '.join(map(self._figures, values))}"
            f" FROM {source.table} AS fresh {self._along_ids(source.table, after, FEW_OF_ONE)}"
            f" WHERE {' AND '.join(conditions)} GROUP BY device_id, {groups}"
            f" ORDER BY bucket{' DESC' if wanted.descending else ''} LIMIT %s",
            [*parameters, most],
        )
        return _together(found, columns)


class _Sqlite(_Both):
    mean = "avg({0})"
    starts = {
        "hour": "substr({}.timestamp, 1, 13) || ':00:00'",
        "day": "substr({}.timestamp, 1, 10) || ' 00:00:00'",
    }

    def last_id(self, table: str) -> tuple[int, set[str]]:
        """Return the last id, and no writers: SQLite has one writer, so ids appear in order and are not used again."""
        [(last,)] = query(
            f"SELECT max(coalesce((SELECT max(id) FROM {table}), 0),"
            " coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = %s), 0))",
            [table.strip('"')],
        )
        return last, set()

    def _along_ids(self, table: str, after: int, few: int = FEW) -> str:
        """Return a hint if there are few such rows; SQLite cannot estimate that, and would scan all rows of devices."""
        return "NOT INDEXED" if self.last_id(table)[0] - after <= few else ""

    def add(self, parts: Sequence[Part]) -> None:
        added = ADDED.format(least="min", greatest="max")
        rows = [(*part[:3], as_time(part[3]), *part[4:]) for part in parts]
        execute_many(
            f"INSERT INTO {TABLE} ({NAMES}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            f" ON CONFLICT ({KEY}) DO UPDATE SET {added}",
            rows,
        )


class _Postgresql(_Both):
    mean = "sum({0}) / count({0})"  # avg() of PostgreSQL also adds up squares, which overflow sooner.
    starts = {
        "hour": "date_trunc('hour', {}.timestamp, 'UTC')",
        "day": "date_trunc('day', {}.timestamp, 'UTC')",
    }

    def last_id(self, table: str) -> tuple[int, set[str]]:
        """Return the last id that was assigned, and the transactions that may hold an id up to it.

        The order matters: a transaction that took an id before the last one was read, and is still open, holds its
        lock when the locks are read.
        """
        [(last,)] = query(
            "SELECT greatest(coalesce(pg_sequence_last_value(pg_get_serial_sequence(%s, 'id')::regclass), 0),"
            f" (SELECT coalesce(max(id), 0) FROM {table}))",
            [table],
        )
        writers = query(
            "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND relation IN (%s::regclass, pg_get_serial_sequence(%s, 'id')::regclass)"
            " AND pid IS DISTINCT FROM pg_backend_pid()",
            [table, table],
        )
        return last, {writer for (writer,) in writers}

    def add(self, parts: Sequence[Part]) -> None:
        if not parts:
            return
        added = ADDED.format(least="least", greatest="greatest")
        execute(
            f"INSERT INTO {TABLE} ({NAMES}) SELECT {NAMES} FROM json_to_recordset(%s) AS part"
            " (device_key text, name text, period text, start timestamptz, low float8, high float8,"
            f" mean float8, count bigint) ON CONFLICT ({KEY}) DO UPDATE SET {added}",
            [orjson.dumps([dict(zip(COLUMNS, part, strict=True)) for part in parts]).decode()],
        )


def pairs(after: tuple[str, str], most: int) -> list[tuple[str, str]]:
    """Return the next *most* pairs of device key and reading that have rollups, in the order of the index.

    Each pair is one step along the index from the previous one, for any number of rows.
    """
    later = f"(SELECT min(name) FROM {TABLE} WHERE device_key = found.device_key AND name > found.name)"
    found = query(
        "WITH RECURSIVE found(device_key, name) AS (SELECT CAST(%s AS varchar), CAST(%s AS varchar) UNION ALL"
        f" SELECT CASE WHEN {later} IS NULL THEN (SELECT min(device_key) FROM {TABLE}"
        f" WHERE device_key > found.device_key) ELSE found.device_key END, coalesce({later}, '')"
        " FROM found WHERE device_key IS NOT NULL)"
        " SELECT device_key, name FROM found WHERE name <> '' AND (device_key, name) <> (%s, %s) LIMIT %s",
        [*after, *after, most],
    )
    return [(key, name) for key, name in found]


dialect = PerVendor[SqlDialect](sqlite=_Sqlite(), postgresql=_Postgresql())
