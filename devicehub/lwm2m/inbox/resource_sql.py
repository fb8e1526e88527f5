"""The latest values of resources, written many at once: each replaces the stored one unless that is newer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson
from django.db import connection

from devicehub.db.bulk import together_on_sqlite
from devicehub.db.statements import PerVendor, execute, query, quoted
from devicehub.lwm2m.models import Endpoint, Resource
from devicehub.lwm2m.models.resources import COLUMNS

LATEST = (
    "device_id", "path", *COLUMNS, "resource_type_id", "object_id", "object_instance", "resource_id",
    "resource_instance", "timestamp", "received_at",
)  # fmt: skip
_TYPES = {
    "device_id": "bigint", "path": "text", "type": "text", "number": "float8", "integer": "bigint", "text": "text",
    "opaque": "text", "resource_type_id": "bigint", "object_id": "int", "object_instance": "int", "resource_id": "int",
    "resource_instance": "int", "timestamp": "timestamptz", "received_at": "timestamptz",
}  # fmt: skip


def lock(pks: Collection[int]) -> set[int] | None:
    """Lock endpoints in the order of their keys; return those that sleep. Return None on SQLite.

    There a transaction has the lock of all writers. The order keeps two workers from waiting for each other.
    """
    if connection.vendor == "sqlite":
        return None
    table = quoted(Endpoint._meta.db_table)
    rows = query(
        f"SELECT id, sleeping FROM {table} WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE", [sorted(pks)]
    )
    return {pk for pk, sleeping in rows if sleeping}


def _statement() -> tuple[str, str]:
    """Return the statement before and after its rows."""
    table, names = quoted(Resource._meta.db_table), ", ".join(map(quoted, LATEST))
    changed = ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in LATEST if name not in _KEY)
    return (
        f"INSERT INTO {table} ({names})",
        f"ON CONFLICT (device_id, path) DO UPDATE SET {changed} WHERE excluded.timestamp >= {table}.timestamp",
    )


_KEY = frozenset({"device_id", "path", "object_id", "object_instance", "resource_id", "resource_instance"})


def _on_sqlite(rows: Sequence[tuple[Any, ...]]) -> None:
    start, end = _statement()
    together_on_sqlite(start, rows, end)


def _on_postgresql(rows: Sequence[tuple[Any, ...]]) -> None:
    if not rows:
        return
    given = ", ".join(f"{quoted(name)} {_TYPES[name]}" for name in LATEST)
    taken = ", ".join("decode(opaque, 'hex')" if name == "opaque" else quoted(name) for name in LATEST)
    documents = orjson.dumps([dict(zip(LATEST, row, strict=True)) for row in rows], default=_hexadecimal)
    source = f"SELECT {taken} FROM json_to_recordset(%s) AS given ({given})"
    start, end = _statement()
    execute(f"{start} {source} {end}", [documents.decode()])


def _hexadecimal(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"a value of type {type(value).__name__} has no column")


_on_this_database = PerVendor(sqlite=_on_sqlite, postgresql=_on_postgresql)


def replace_older(rows: Sequence[tuple[Any, ...]]) -> None:
    """Write *rows* of LATEST, each of another endpoint or path, in their order."""
    _on_this_database()(rows)
