"""The indexes of tables of devices by which lists of many devices are filtered, in the order of their ids.

`migrate` makes them for all kinds, so that no migration of a project's own tables needs them. With the device id as
the second column a page of a list is one short read, however many devices fit its filter.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.backends.utils import names_digest

from devicehub.kinds.registry import registry

COLUMNS = ("site", "status", "connected", "is_active")


def make(*, using: str, **_: Any) -> None:
    """Make the missing indexes of each table of devices that exists."""
    connection = connections[using]
    quoted = connection.ops.quote_name
    with connection.cursor() as cursor:
        existing = set(connection.introspection.table_names(cursor))
        for kind in registry:
            table = kind.device_model._meta.db_table
            for column in COLUMNS if table in existing else ():
                name = f"{table[:30]}_{column}_{names_digest(table, column, length=8)}"
                cursor.execute(
                    f"CREATE INDEX IF NOT EXISTS {quoted(name)} ON {quoted(table)} ({column}, device_id)"
                )
