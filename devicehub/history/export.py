"""The export of many readings: CSV for people, lines of JSON for programs, in the order of time.

Memory stays the same for any number of rows. On PostgreSQL a cursor of the server reads one snapshot of the table. On
SQLite each portion is a short query of its own, so that neither a writer nor a checkpoint waits for a slow reader.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any

import orjson
import psycopg
from django.core.exceptions import EmptyResultSet
from django.db import connection, transaction
from django.db.models import DateTimeField, Exists, OuterRef, QuerySet, Subquery, Value

from authsvc.text import harmless
from devicehub.db.statements import PerVendor, execute, query, quoted
from devicehub.errors import DevicehubError
from devicehub.history.exact import as_json
from devicehub.history.pages import Range, long_columns
from devicehub.kinds.registry import Kind

AT_ONCE = 2_000  # rows of a portion
HEAVY_AT_ONCE = 16  # rows of a portion whose values may have 1 MiB each
MOST = 4  # exports at once in a process; each has a connection to the database
MOST_OF_ONE = 2  # exports at once of one caller in a process
BEGINNING = 10.0  # Seconds in which an export has to begin; a client that went away before never begins it.
IDLE = "5min"  # PostgreSQL ends the snapshot of a client that reads nothing for so long.
FORMS = {"csv": "text/csv; charset=utf-8", "ndjson": "application/x-ndjson; charset=utf-8"}
DEVICE, RECEIVED = "export_device", "export_received"
TIMES = frozenset({"timestamp", "received_at", RECEIVED})
# The text of a time in UTC, with all digits.
TIME_TEXTS = PerVendor(
    sqlite="CAST({0} AS text)",
    postgresql="to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')",
)
HEAD = ("device_id", "timestamp", "received_at")

Row = tuple[Any, ...]
Column = Callable[[Any], Any]

_open: weakref.WeakSet[Export] = weakref.WeakSet()
_lock = threading.Lock()


class TooMany(DevicehubError):
    """This process has as many exports as it may have at once."""


class TooManyOfOne(TooMany):
    """The caller has as many exports as one may have at once."""


class Export:
    """An iterator over an export of *kind* as bytes: the readings of *devices*, a query set, within a range.

    *form* is one of FORMS. With *device*, a primary key, they are those of this device alone. *caller* is a name to
    count by. With *units* the names of CSV, or the lines of JSON, have the units that *kind* declares. Close it, also
    after its end. Raise TooMany.
    """

    def __init__(
        self,
        kind: Kind,
        devices: QuerySet[Any],
        form: str,
        within: Range,
        device: int | None = None,
        *,
        caller: str = "",
        units: bool = False,
    ) -> None:
        self.caller = caller
        self._columns = _columns(kind)
        self._rows = _rows(kind, devices, within, device).values_list(*self._columns)
        self._at_once = HEAVY_AT_ONCE if long_columns(kind, list(kind.readings)) else AT_ONCE
        self._write = Csv(kind, units=units) if form == "csv" else Ndjson(kind, units=units)
        self._connection: Any = None
        self._texts = self._iterate()
        self._is_begun, self._made_at = False, time.monotonic()
        with _lock:
            others = [one for one in _open if one.takes_place()]
            if sum(one.caller == caller for one in others) >= MOST_OF_ONE:
                raise TooManyOfOne
            if len(others) >= MOST:
                raise TooMany
            _open.add(self)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._is_begun = True
        return next(self._texts)

    def takes_place(self) -> bool:
        """Return whether it is one of those that run at once: it was begun, or may be begun soon.

        Django drops an answer without closing it if the client goes away while a thread makes it.
        """
        return self._is_begun or time.monotonic() - self._made_at < BEGINNING

    def close(self) -> None:
        """End the query. Call it in the thread that iterates."""
        _open.discard(self)
        self._texts.close()

    def interrupt(self) -> None:
        """End the statement that runs now, from another thread; the iteration then raises a DatabaseError."""
        running = self._connection
        if running is None:
            return
        with suppress(sqlite3.Error, psycopg.Error):
            (running.interrupt if hasattr(running, "interrupt") else running.cancel)()

    def _iterate(self) -> Generator[bytes, None, None]:
        yield self._write.head
        connection.ensure_connection()
        self._connection = connection.connection
        try:
            for portion in self._portions():
                yield self._write(portion)
        finally:
            self._connection = None

    def _portions(self) -> Iterator[list[Row]]:
        try:
            statement, parameters = self._rows.query.sql_with_params()
        except EmptyResultSet:  # A person without a site sees no device.
            return iter(())
        has_cursors = not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
        portions = _by_cursor if connection.vendor == "postgresql" and has_cursors else _by_place
        columns = ", ".join(map(_selected, self._columns))
        return portions(f"SELECT {columns} FROM ({statement}) AS found", list(parameters), self._at_once)


def _columns(kind: Kind) -> list[str]:
    """Return the columns of a row: the time, the key, those of HEAD, and the values."""
    receipt = "received_at"
    if not any(field.name == receipt for field in kind.history_model._meta.concrete_fields):
        receipt = RECEIVED
    narrow = kind.narrow
    values = list(kind.readings) if narrow is None else [narrow.name_column, *narrow.exact]
    return ["timestamp", "id", DEVICE, receipt, *values]


def _rows(kind: Kind, devices: QuerySet[Any], within: Range, device: int | None) -> QuerySet[Any]:
    """Return the rows, each with the id of its device.

    Devices are found row by row, so that the database walks along the times and has nothing to sort.
    """
    rows = within.of(kind.history_model._default_manager.order_by())
    if device is not None:
        rows = rows.filter(device_id=device)
    elif devices.query.where:
        rows = rows.filter(Exists(devices.order_by().filter(pk=OuterRef("device_id"))))
    own = kind.device_model._base_manager.filter(pk=OuterRef("device_id")).order_by()
    none = Value(None, DateTimeField())
    found: QuerySet[Any] = rows.annotate(**{DEVICE: Subquery(own.values("device_id")[:1]), RECEIVED: none})
    return found


def _selected(column: str) -> str:
    """Return *column* as it is selected: a time as its text, which costs a tenth of a time of Python."""
    name = quoted(column)
    return TIME_TEXTS().format(name) if column in TIMES else name


def _order() -> str:
    return f"{quoted('timestamp')}, {quoted('id')}"


def _by_cursor(statement: str, parameters: list[Any], most: int) -> Iterator[list[Row]]:
    """Yield the rows in portions of *most*, by a cursor of PostgreSQL."""
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE}'")
        # The plan with the first row soonest: it walks along an index and sorts nothing.
        execute("SET LOCAL cursor_tuple_fraction = 0.0001")
        cursor.execute(f"{statement} ORDER BY {_order()}", parameters)
        while portion := cursor.fetchmany(most):
            yield portion


def _by_place(statement: str, parameters: list[Any], most: int) -> Iterator[list[Row]]:
    """Yield the rows in portions of *most*; each is a query that begins behind the last row before.

    The time of that row is sent as it was found, so that it is equal to itself in any form.
    """
    moment, key = quoted("timestamp"), quoted("id")
    if connection.vendor == "sqlite":
        behind = f" WHERE {moment} >= %s AND ({moment} > %s OR {key} > %s)"
    else:
        in_utc = "(%s::timestamp AT TIME ZONE 'UTC')"
        behind = f" WHERE {moment} >= {in_utc} AND ({moment} > {in_utc} OR {key} > %s)"
    end = f" ORDER BY {_order()} LIMIT %s"
    portion = query(f"{statement}{end}", [*parameters, most])
    while portion:
        yield portion
        if len(portion) < most:
            return
        at, last, *_ = portion[-1]
        portion = query(f"{statement}{behind}{end}", [*parameters, at, at, last, most])


def _moment(found: str | None) -> str | None:
    """Return a time, in UTC and without a zone, in RFC 3339.

    >>> _moment("2026-03-02 06:00:00"), _moment("2026-03-02 06:00:00.250000"), _moment("2026-03-02 06:00:00.000000")
    ('2026-03-02T06:00:00Z', '2026-03-02T06:00:00.250000Z', '2026-03-02T06:00:00Z')
    """
    if found is None:
        return None
    return f"{found[:10]}T{found[11:].removesuffix('.000000')}Z"


def _bool(found: Any) -> bool | None:
    return None if found is None else bool(found)


def _json(found: Any) -> Any:
    """Return JSON, which the database returns as text, so that each digit stays."""
    return orjson.Fragment(found) if isinstance(found, str | bytes) else found


def _as_it_is(found: Any) -> Any:
    return found


# How the values of a reading become those of as_json(), by its type.
EXACT: Mapping[str, Column] = {"boolean": _bool, "json": _json, "binary": as_json}


def _cell(found: Any) -> Any:
    """Return *found* as a cell. Numbers stay numbers; a text begins with nothing that a spreadsheet computes."""
    if found is None or isinstance(found, float) or type(found) is int:
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, bytes | memoryview):
        return harmless(base64.b64encode(found).decode())
    return harmless(found) if isinstance(found, str) else str(found)


def _cell_of_bool(found: Any) -> str | None:
    return None if found is None else "true" if found else "false"


def _cell_of_json(found: Any) -> Any:
    """Return JSON as text. It needs no apostrophe: it begins with a quote, a bracket, a digit or a word."""
    return found if isinstance(found, str) else None if found is None else json.dumps(found)


CELLS: Mapping[str, Column] = {
    "float": _as_it_is,
    "integer": _as_it_is,
    "boolean": _cell_of_bool,
    "json": _cell_of_json,
}


class Csv:
    """A writer of CSV with a head (RFC 4180)."""

    def __init__(self, kind: Kind, *, units: bool = False) -> None:
        self._narrow = kind.narrow
        self._columns = [CELLS.get(reading.type, _cell) for reading in kind.readings.values()]
        marks = {name: f" [{one.unit}]" if units and one.unit else "" for name, one in kind.readings.items()}
        names = ["name", "value"] if kind.narrow else [f"{name}{mark}" for name, mark in marks.items()]
        self.head = _lines([[harmless(name) for name in (*HEAD, *names)]])

    def __call__(self, portion: list[Row]) -> bytes:
        """Return the lines of *portion*."""
        times, _, devices, received, *values = zip(*portion, strict=True)
        if self._narrow is None:
            cells = [map(column, held) for column, held in zip(self._columns, values, strict=True)]
        else:
            cells = [map(_cell, values[0]), map(_cell, map(self._narrow.read, *values[1:]))]
        return _lines(
            zip(map(_cell, devices), map(_moment, times), map(_moment, received), *cells, strict=True)
        )


def _lines(rows: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


class Ndjson:
    """A writer of one JSON object in each line, with the members of a row of `readings/` and the device id."""

    head = b""

    def __init__(self, kind: Kind, *, units: bool = False) -> None:
        self._narrow = kind.narrow
        declared = {name: reading.unit for name, reading in kind.readings.items()}
        self._units = {"units": declared} if units else {}
        self._names = list(kind.readings)
        self._columns = [EXACT.get(reading.type, _as_it_is) for reading in kind.readings.values()]

    def __call__(self, portion: list[Row]) -> bytes:
        """Return the lines of *portion*."""
        times, _, devices, received, *values = zip(*portion, strict=True)
        if self._narrow is None:
            cells = [map(column, held) for column, held in zip(self._columns, values, strict=True)]
            held = (dict(zip(self._names, row, strict=True)) for row in zip(*cells, strict=True))
        else:
            exact = map(as_json, map(self._narrow.read, *values[1:]))
            held = ({name: value} for name, value in zip(values[0], exact, strict=True))
        rows = zip(devices, map(_moment, times), map(_moment, received), held, strict=True)
        more = self._units
        return b"".join(
            _line(
                {"device_id": device, "timestamp": moment, "received_at": receipt, "values": values, **more}
            )
            for device, moment, receipt, values in rows
        )


def _line(row: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # An integer beyond 64 bits.
        return json.dumps(row, separators=(",", ":")).encode() + b"\n"
