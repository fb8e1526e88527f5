"""The statements of rollups: the same figures on SQLite and PostgreSQL, up to the last digit of a mean.

Tables come quoted, times as parameters of the database (`statements.as_time`), and go out as aware times in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import orjson

from devicehub.db.statements import PerVendor, as_time, execute, execute_many, query, quoted
from devicehub.models import Rollup

Figures = tuple[float, float, float, int]
Fresh = tuple[int, datetime, float, float, float, int]


class Bucket(NamedTuple):
    """One hour of a device: for each reading lowest, highest, mean and number of its values."""

    device: int
    start: datetime
    figures: list[Figures]


# A row of the table of rollups, in the order of COLUMNS.
Part = tuple[str, str, str, datetime, float, float, float, int]
COLUMNS = ("device_key", "name", "period", "start", "low", "high", "mean", "count")


class Rows(NamedTuple):
    """So many rows, up to this id."""

    number: int
    last_id: int


class SqlDialect(Protocol):
    """What the two databases say in their own words."""

    def next_rows(self, table: str, after: int, until: int, most: int) -> Rows: ...
    def last_id(self, table: str) -> tuple[int, set[str]]: ...
    def hours(self, table: str, names: Sequence[str], after: int, until: int) -> list[Bucket]: ...
    def add(self, parts: Sequence[Part]) -> None: ...
    def fresh(
        self, table: str, name: str, devices: Sequence[int], after: int, since: Any, period: str
    ) -> list[Fresh]: ...


# Finite values beyond it are left out: their sums, and what PostgreSQL computes beside them, would overflow.
LARGEST = "1e150"
FEW = 100_000  # rows that are not rolled up yet: SQLite reads them along their ids in a tenth of a second
TABLE = Rollup._meta.db_table
NAMES = ", ".join(COLUMNS)
KEY = "device_key, name, period, start"
ADDED = (
    f"low = {{least}}({TABLE}.low, excluded.low), high = {{greatest}}({TABLE}.high, excluded.high), "
    # A step towards the new mean: a sum of all values could overflow.
    f"mean = {TABLE}.mean + (excluded.mean - {TABLE}.mean)"
    f" * (excluded.count * 1.0 / ({TABLE}.count + excluded.count)), "
    f"count = {TABLE}.count + excluded.count"
)


def _counts(column: str) -> str:
    """The condition that the value of *column* counts in rollups; neither NULL nor NaN does."""
    return f"{column} BETWEEN -{LARGEST} AND {LARGEST}"


def _bucket(row: Sequence[Any]) -> Bucket:
    device, start, *values = row
    figures = [
        (float(low), float(high), float(mean), count) if count else (0.0, 0.0, 0.0, 0)
        for low, high, mean, count in zip(*[iter(values)] * 4, strict=True)
    ]
    return Bucket(device, _aware(start), figures)


def _aware(moment: str | datetime) -> datetime:
    if isinstance(moment, str):
        return datetime.fromisoformat(moment).replace(tzinfo=UTC)
    return moment.astimezone(UTC)


class _Both:
    starts: dict[str, str]
    mean: str

    def _figures(self, column: str) -> str:
        """The aggregates of *column*: lowest, highest, mean and number of the values that count."""
        value = f"CASE WHEN {_counts(column)} THEN {column} END"
        return f"min({value}), max({value}), {self.mean.format(value)}, count({value})"

    def next_rows(self, table: str, after: int, until: int, most: int) -> Rows:
        [(count, last_id)] = query(
            f"SELECT count(*), max(id) FROM (SELECT id FROM {table} WHERE id > %s AND id <= %s"
            " ORDER BY id LIMIT %s) AS coming",
            [after, until, most],
        )
        return Rows(count, last_id or after)

    def hours(self, table: str, names: Sequence[str], after: int, until: int) -> list[Bucket]:
        """What the rows above *after*, up to *until*, say of each hour that one of them is in."""
        start = self.starts["hour"].format("fresh")
        figures = ", ".join(self._figures(f"fresh.{quoted(name)}") for name in names)
        return [
            _bucket(row)
            for row in query(
                f"SELECT device_id, {start}, {figures} FROM {table} AS fresh"
                f" WHERE id > %s AND id <= %s GROUP BY device_id, {start}",
                [after, until],
            )
        ]

    def _along_ids(self, table: str, after: int) -> str:
        """What to say after the table's name so that rows above *after* are looked for by their ids."""
        return ""

    def fresh(
        self, table: str, name: str, devices: Sequence[int], after: int, since: Any, period: str
    ) -> list[Fresh]:
        """Buckets of the rows above *after*, which no rollup knows yet."""
        if not devices:
            return []
        start, column = self.starts[period].format("fresh"), f"fresh.{quoted(name)}"
        found = query(
            f"SELECT device_id, {start}, {self._figures(column)}"
            f" FROM {table} AS fresh {self._along_ids(table, after)}"
            f" WHERE id > %s AND timestamp >= %s AND {_counts(column)}"
            f" AND device_id IN ({', '.join(['%s'] * len(devices))}) GROUP BY device_id, {start}",
            [after, since, *devices],
        )
        return [
            (device, _aware(moment), float(low), float(high), float(mean), count)
            for device, moment, low, high, mean, count in found
        ]


class _Sqlite(_Both):
    mean = "avg({0})"
    starts = {
        "hour": "substr({}.timestamp, 1, 13) || ':00:00'",
        "day": "substr({}.timestamp, 1, 10) || ' 00:00:00'",
    }

    def last_id(self, table: str) -> tuple[int, set[str]]:
        """There is one writer, so ids are there in their order; those of deleted rows are not used again."""
        [(last,)] = query(
            f"SELECT max(coalesce((SELECT max(id) FROM {table}), 0),"
            " coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = %s), 0))",
            [table.strip('"')],
        )
        return last, set()

    def _along_ids(self, table: str, after: int) -> str:
        """SQLite cannot tell how few rows there are, and would walk over all that the devices ever sent."""
        return "NOT INDEXED" if self.last_id(table)[0] - after <= FEW else ""

    def add(self, parts: Sequence[Part]) -> None:
        added = ADDED.format(least="min", greatest="max")
        rows = [(*part[:3], as_time(part[3]), *part[4:]) for part in parts]
        execute_many(
            f"INSERT INTO {TABLE} ({NAMES}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"
            f" ON CONFLICT ({KEY}) DO UPDATE SET {added}",
            rows,
        )


class _Postgresql(_Both):
    mean = "sum({0}) / count({0})"  # its avg() also adds up squares, which overflow sooner
    starts = {
        "hour": "date_trunc('hour', {}.timestamp, 'UTC')",
        "day": "date_trunc('day', {}.timestamp, 'UTC')",
    }

    def last_id(self, table: str) -> tuple[int, set[str]]:
        """The last id that was given out, and the transactions that may hold one of those up to it.

        In this order: who drew an id before it was read, and is not done, holds the lock when that is read.
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
    """The next *most* pairs of a device's key and a reading that have rollups, in the order of the index.

    Each is one step along the index from the one before, however many rows it has.
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
