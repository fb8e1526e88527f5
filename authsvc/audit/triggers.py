"""Database triggers that keep the entries of the audit: no program changes one, or deletes a young one.

They refuse UPDATE, and DELETE of entries younger than the retention, which stands in the row of AuditRetention. So an
SQL client or a bug of ours cannot rewrite the past unnoticed; the owner of the database can still drop the triggers,
which a system check reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from django.db import connections, transaction

from authsvc.audit import retention
from authsvc.models import AuditEntry, AuditRetention

TABLE, PERIOD = AuditEntry._meta.db_table, AuditRetention._meta.db_table
NAMES = {
    # REPLACE deletes the row that it replaces without firing a trigger, so an insertion over a row is refused too.
    "sqlite": tuple(f"{TABLE}_keep_{event}" for event in ("insert", "update", "delete")),
    "postgresql": (f"{TABLE}_keep", f"{TABLE}_keep_all"),
}
FUNCTION = "authsvc_keep_audit"
REFUSAL = (
    "entries of the audit cannot be changed, and deleted only when they are older than AUTHSVC_KEEP_AUDIT"
)


def install(using: str = "default", **_: Any) -> None:
    """Write the retention of the settings and create missing triggers. It runs after every migrate."""
    connection = connections[using]
    if not {TABLE, PERIOD} <= set(connection.introspection.table_names()):
        return  # Migrated back to before they existed.
    retention.apply(using)
    statements = _STATEMENTS[connection.vendor](connection)
    together = transaction.atomic(using) if connection.vendor == "sqlite" else nullcontext()
    with together, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def before_migration(using: str = "default", plan: Sequence[Any] = (), **_: Any) -> None:
    """Drop the triggers before migrations of this app, which may alter the table or its rows. install() follows."""
    if any(migration.app_label == AuditEntry._meta.app_label for migration, _backwards in plan):
        drop(using)


def drop(using: str = "default") -> None:
    """Drop the triggers: for migrations, for `flush`, and for tests that empty tables."""
    connection = connections[using]
    if TABLE not in connection.introspection.table_names():
        return
    on = f" ON {TABLE}" if connection.vendor == "postgresql" else ""
    with connection.cursor() as cursor:
        for name in NAMES[connection.vendor]:
            cursor.execute(f"DROP TRIGGER IF EXISTS {name}{on}")


def missing(using: str = "default") -> list[str]:
    """Return the names of the missing triggers; none before the first migrate."""
    connection = connections[using]
    if TABLE not in connection.introspection.table_names():
        return []
    with connection.cursor() as cursor:
        cursor.execute(_EXISTING[connection.vendor], [TABLE])
        existing = {name for (name,) in cursor.fetchall()}
    return [name for name in NAMES[connection.vendor] if name not in existing]


_EXISTING = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = %s",
    "postgresql": "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgenabled = 'A'",
}


def _sqlite(connection: Any) -> list[str]:
    """Return the statements that create missing or different triggers.

    Django stores times of UTC as texts of one form, so they compare as texts; a row of another form stays.
    """
    refuse = f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    oldest = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || keep_seconds || ' seconds')"
    expired = f"EXISTS (SELECT 1 FROM {PERIOD} WHERE id = {retention.ROW} AND OLD.at < {oldest})"
    insert, update, delete = NAMES["sqlite"]
    wanted = {
        insert: f"BEFORE INSERT ON {TABLE} WHEN EXISTS (SELECT 1 FROM {TABLE} WHERE id = NEW.id) {refuse}",
        update: f"BEFORE UPDATE ON {TABLE} {refuse}",
        delete: f"BEFORE DELETE ON {TABLE} WHEN NOT {expired} {refuse}",
    }
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        existing = dict(cursor.fetchall())
    statements = []
    for name, rest in wanted.items():
        text = f"CREATE TRIGGER {name} {rest}"
        if existing.get(name) != text:
            statements += [f"DROP TRIGGER IF EXISTS {name}", text]
    return statements


def _postgresql(connection: Any) -> list[str]:
    """Return all statements, or none if they were run already: the comment of the function is their digest.

    ENABLE ALWAYS makes them fire also where replication or a restore has disabled ordinary triggers in its session.
    The function names its schema, because the search path of the session may be empty.
    """
    rows, everything = NAMES["postgresql"]
    period = f"SELECT keep_seconds FROM %I.{PERIOD} WHERE id = {retention.ROW}"
    statements = [
        f"CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE kept bigint; BEGIN "
        f"IF TG_OP = 'DELETE' THEN EXECUTE format('{period}', TG_TABLE_SCHEMA) INTO kept; "
        "IF OLD.at < clock_timestamp() - make_interval(secs => kept) THEN RETURN OLD; END IF; END IF; "
        f"RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'restrict_violation'; END $$",
        f"CREATE OR REPLACE TRIGGER {rows} BEFORE UPDATE OR DELETE ON {TABLE} "
        f"FOR EACH ROW EXECUTE FUNCTION {FUNCTION}()",
        f"CREATE OR REPLACE TRIGGER {everything} BEFORE TRUNCATE ON {TABLE} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {FUNCTION}()",
        *(f"ALTER TABLE {TABLE} ENABLE ALWAYS TRIGGER {name}" for name in (rows, everything)),
    ]
    mark = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT obj_description(to_regproc('{FUNCTION}'), 'pg_proc')")
        if cursor.fetchone() == (mark,) and not missing(connection.alias):
            return []
    return [*statements, f"COMMENT ON FUNCTION {FUNCTION}() IS '{mark}'"]


_STATEMENTS = {"sqlite": _sqlite, "postgresql": _postgresql}
