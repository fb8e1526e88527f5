"""The page layout of tables of devices on PostgreSQL: each page has room for the next version of a row.

Every message changes its device, and its latest values if a store keeps them. A new version of the row that fits on
the page of the old one needs no entry in the indexes, of which a table of devices has a dozen. `migrate` sets the
layout for all kinds, so that no migration of theirs needs it.
"""

from __future__ import annotations

from typing import Any

from django.db import connections

from devicehub.kinds.registry import registry

FILLFACTOR = 60  # per cent of a page that is filled at first; one batch may change each row on it


def leave_room(*, using: str, **_: Any) -> None:
    """Set the fillfactor of each table of devices or latest values that has none; keep one that an operator chose.

    It applies to pages that are filled from now on: rewrite an old table (VACUUM FULL) to apply it to all pages.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE oid IN (SELECT to_regclass(quote_ident(name))"
            " FROM unnest(%s::text[]) AS name)"
            " AND NOT COALESCE(array_to_string(reloptions, ' ') ~ '\\mfillfactor=', false)",
            [[m._meta.db_table for kind in registry for m in (kind.device_model, *kind.current_models)]],
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"ALTER TABLE {table} SET (fillfactor = {FILLFACTOR})")
