"""The transactions that wrote to a table and are still open: no reader sees yet what they wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from devicehub.db.statements import PerVendor, query, quoted

# A transaction holds this lock of a table that it changed, or of a sequence from which it drew a key, until its
# changes are visible. OFFSET 0 has each name looked up once.
_OPEN = """
SELECT wanted.name, held.virtualtransaction FROM (
  SELECT name, COALESCE(pg_get_serial_sequence(name, key)::regclass, name::regclass) AS relation
  FROM unnest(%s::text[], %s::text[]) AS names (name, key) OFFSET 0
) AS wanted JOIN pg_locks AS held ON held.relation = wanted.relation
WHERE held.locktype = 'relation' AND held.mode = 'RowExclusiveLock' AND held.granted
  AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND held.pid IS DISTINCT FROM pg_backend_pid()"""


def open_writers(tables: Mapping[str, str | None]) -> dict[str, set[str]]:
    """Return the open transactions that wrote to each of *tables*, by one query.

    *tables* has a column by the name of its table: then only those that drew a key for this column. SQLite has none:
    it has one writer, which draws its keys under its lock, so that keys become visible in their order.
    """
    found: dict[str, set[str]] = {}
    for name, writer in _rows()(tables):
        found.setdefault(name, set()).add(writer)
    return found


def _none(tables: Mapping[str, str | None]) -> Collection[tuple[str, str]]:
    return ()


def _of_postgresql(tables: Mapping[str, str | None]) -> Collection[tuple[str, str]]:
    names = {quoted(name): name for name in tables}
    rows = query(_OPEN, [list(names), list(tables.values())])
    return [(names[name], writer) for name, writer in rows]


_rows = PerVendor(sqlite=_none, postgresql=_of_postgresql)
