"""Database triggers that raise the policy revision when a broker or a grant changes, whoever changes it."""

from __future__ import annotations

import time
from typing import Any

from django.db import connections

from authsvc.models import Broker, Grant, PolicyRevision

RAISE = "UPDATE authsvc_policy SET revision = revision + 1"
TABLES = (Broker._meta.db_table, Grant._meta.db_table)


def install(using: str = "default", **_: Any) -> None:
    """Make the revision row and the triggers. Run after every migrate; running it again changes nothing."""
    connection = connections[using]
    if not {*TABLES, PolicyRevision._meta.db_table} <= set(connection.introspection.table_names()):
        return  # migrated back to before they existed
    # A revision that was never used before: a process that outlived a flush must not take it for its own.
    PolicyRevision.objects.using(using).get_or_create(id=1, defaults={"revision": time.time_ns() // 1000})
    with connection.cursor() as cursor:
        for table in TABLES:
            for statement in _STATEMENTS[connection.vendor](table):
                cursor.execute(statement)


def missing(using: str = "default") -> list[str]:
    """The triggers that should be there and are not: without them a change would go unnoticed."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(_EXISTING[connection.vendor])
        existing = {name for (name,) in cursor.fetchall()}
    return sorted({name for table in TABLES for name in NAMES[connection.vendor](table)} - existing)


_EXISTING = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D'",
}
NAMES = {
    "sqlite": lambda table: [f"{table}_{event}_policy" for event in ("insert", "update", "delete")],
    "postgresql": lambda table: [f"{table}_policy"],
}


def _sqlite(table: str) -> list[str]:
    return [
        f"CREATE TRIGGER IF NOT EXISTS {table}_{event.lower()}_policy AFTER {event} ON {table} BEGIN {RAISE}; END"
        for event in ("INSERT", "UPDATE", "DELETE")
    ]


def _postgresql(table: str) -> list[str]:
    return [
        "CREATE OR REPLACE FUNCTION authsvc_raise_policy() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {RAISE}; RETURN NULL; END $$",
        f"CREATE OR REPLACE TRIGGER {table}_policy AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION authsvc_raise_policy()",
    ]


_STATEMENTS = {"sqlite": _sqlite, "postgresql": _postgresql}
