"""Database triggers that report every change that can affect a decision, by any program.

On both databases a change of a broker or a grant raises the policy revision. On PostgreSQL, where processes cache
principals, a change of a directory's tables also notifies them (`authsvc.freshness.changes`). SQLite does not need
this, because there every question checks for new commits.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from django.db import connections, transaction

from authsvc.chain import configured
from authsvc.models import Broker, Grant, PolicyRevision
from authsvc.sources import Source

CHANNEL = "authsvc_changed"
POLICY = "policy"  # The name in notifications of changes of brokers and grants.
TABLES = (Broker._meta.db_table, Grant._meta.db_table)
OF_SOURCE = ("authsvc_rows", "authsvc_update", "authsvc_truncate")
PAYLOAD = 7_999  # The maximum bytes of a notification in PostgreSQL; more would fail the write itself.
MANY = 1_000  # After so many changes a transaction sends one notification of everything.
# The clock is in the revision, so that a restored backup never reaches a number that a running process has cached.
NEXT = {
    "sqlite": "max(revision + 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000)",
    "postgresql": "greatest(revision + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)",
}

# Returns the number of the backend, whether it listens, the missing triggers (of a list of [table, name]), and a text
# that changes when one of them is disabled or created again, or its table is replaced or altered: ALTER TABLE can
# rewrite the values of a column without firing a trigger.
PROOF = """
SELECT pg_backend_pid(), 'authsvc_changed' IN (SELECT pg_listening_channels()),
    array_agg(wanted ->> 0 || '.' || (wanted ->> 1)) FILTER (WHERE tgname IS NULL),
    string_agg(concat_ws(':', pg_trigger.oid, pg_trigger.xmin, pg_class.xmin), ' ' ORDER BY pg_trigger.oid)
FROM json_array_elements(%s::json) AS wanted LEFT JOIN pg_trigger
    ON tgrelid = to_regclass(quote_ident(wanted ->> 0)) AND tgname = wanted ->> 1 AND tgenabled = 'A'
    LEFT JOIN pg_class ON pg_class.oid = tgrelid
"""


# Returns the policy revision, whether all triggers that raise it exist (otherwise it is not reliable), and a text that
# changes when one of them is disabled, dropped or created again, or its table is altered or replaced.
REVISION = {
    "sqlite": (
        "SELECT (SELECT revision FROM authsvc_policy), (SELECT count(*) = 6 FROM sqlite_master WHERE type = 'trigger' "
        "AND tbl_name IN ('authsvc_broker', 'authsvc_grant') AND name IN (tbl_name || '_insert_policy', "
        "tbl_name || '_update_policy', tbl_name || '_delete_policy')), "
        "(SELECT schema_version FROM pragma_schema_version)"
    ),
    "postgresql": (
        "SELECT (SELECT revision FROM authsvc_policy), count(*) = 4, "
        "string_agg(concat_ws(':', pg_trigger.oid, pg_trigger.xmin, pg_class.xmin), ' ' ORDER BY pg_trigger.oid) "
        "FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid WHERE tgenabled = 'A' AND "
        "(tgrelid = to_regclass('authsvc_broker') AND tgname IN ('authsvc_broker_policy', 'authsvc_broker_policy_all') "
        "OR tgrelid = to_regclass('authsvc_grant') AND tgname IN ('authsvc_grant_policy', 'authsvc_grant_policy_all'))"
    ),
}


class Trigger(NamedTuple):
    table: str
    name: str


def install(using: str = "default", **_: Any) -> None:
    """Create the revision row and the triggers. It runs after every migrate, and changes nothing the second time.

    Changes made while a trigger was missing were not counted. So creating one raises the revision, and on PostgreSQL
    notifies all processes of everything.
    """
    connection = connections[using]
    tables = set(connection.introspection.table_names())
    if not {*TABLES, PolicyRevision._meta.db_table} <= tables:
        return  # Migrated back to before they existed.
    # A new number: a process that runs through a flush must not find its cached revision again.
    PolicyRevision.objects.using(using).get_or_create(id=1, defaults={"revision": time.time_ns() // 1000})
    statements = _STATEMENTS[connection.vendor](connection, tables)
    # On PostgreSQL, two tables must not be locked at once.
    together = transaction.atomic(using) if connection.vendor == "sqlite" else nullcontext()
    with together, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def _statements_sqlite(connection: Any, tables: set[str]) -> list[str]:
    """Return the statements that create missing or different triggers and raise the revision."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        existing = dict(cursor.fetchall())
    wanted = {name: text for table in TABLES for name, text in _policy_sqlite(table).items()}
    statements = []
    for name, text in wanted.items():
        if existing.get(name) != text:
            statements += [f"DROP TRIGGER IF EXISTS {name}", text]
    return [*statements, _raise("sqlite")] if statements else []


def _statements_postgresql(connection: Any, tables: set[str]) -> list[str]:
    """Return all statements, or none if they were run already: they lock the tables that devices are read from.

    The comment of a function is a digest of the statements that were run.
    """
    found = [source for source in configured().sources() if source.table in tables]
    statements = [statement for table in TABLES for statement in _policy_postgresql(table)]
    statements += [statement for source in found for statement in _of_source(source)]
    mark = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    with connection.cursor() as cursor:
        cursor.execute("SELECT obj_description(to_regproc('authsvc_raise_policy'), 'pg_proc')")
        if cursor.fetchone() == (mark,) and not missing(connection.alias):
            return []
    payload = f"SELECT pg_notify('{CHANNEL}', '*')"
    return [
        *statements,
        _raise("postgresql"),
        payload,
        f"COMMENT ON FUNCTION authsvc_raise_policy() IS '{mark}'",
    ]


def _raise(vendor: str) -> str:
    return f"UPDATE authsvc_policy SET revision = {NEXT[vendor]}"


def remove(using: str = "default", plan: Sequence[Any] = (), **_: Any) -> None:
    """Drop triggers before a migration: PostgreSQL cannot alter a column that one names. install() follows."""
    connection = connections[using]
    if not plan or connection.vendor != "postgresql":
        return
    tables = set(connection.introspection.table_names())
    with connection.cursor() as cursor:
        for source in configured().sources():
            if source.table in tables:
                for name in OF_SOURCE:
                    cursor.execute(f'DROP TRIGGER IF EXISTS {name} ON "{source.table}"')


def wanted() -> list[str]:
    """Return the triggers that PostgreSQL should have, as the parameter of PROOF."""
    return [json.dumps(expected("postgresql"))]


def missing(using: str = "default") -> list[str]:
    """Return the missing triggers, as `table.name`. Without them a change goes unnoticed."""
    connection = connections[using]
    with connection.cursor() as cursor:
        cursor.execute(_EXISTING[connection.vendor])
        existing = {Trigger(*row) for row in cursor.fetchall()}
    tables = set(connection.introspection.table_names())
    present = [trigger for trigger in expected(connection.vendor) if trigger.table in tables]
    return sorted(f"{trigger.table}.{trigger.name}" for trigger in present if trigger not in existing)


def expected(vendor: str) -> list[Trigger]:
    """Return the triggers that a database of *vendor* should have."""
    if vendor == "sqlite":
        events = ("insert", "update", "delete")
        return [Trigger(table, f"{table}_{event}_policy") for table in TABLES for event in events]
    found = [Trigger(table, f"{table}_policy{which}") for table in TABLES for which in ("", "_all")]
    return found + [Trigger(source.table, name) for source in configured().sources() for name in OF_SOURCE]


_EXISTING = {
    "sqlite": "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": (
        "SELECT relname, tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid "
        "WHERE NOT tgisinternal AND tgenabled = 'A'"
    ),
}


def _policy_sqlite(table: str) -> dict[str, str]:
    """Return the statements that create the triggers of *table*, by the name of the trigger."""
    names = {event: f"{table}_{event.lower()}_policy" for event in ("INSERT", "UPDATE", "DELETE")}
    return {
        name: f"CREATE TRIGGER {name} AFTER {event} ON {table} BEGIN {_raise('sqlite')}; END"
        for event, name in names.items()
    }


def _policy_postgresql(table: str) -> list[str]:
    """Return the statements for the policy triggers of *table*.

    They fire for each row, because logical replication fires no others, and raise the revision once per transaction.
    The function names its schema, because the search path of the session may be empty, as in the restore of a dump.
    """
    change = f"UPDATE %I.authsvc_policy SET revision = {NEXT['postgresql']}"
    function = "EXECUTE FUNCTION authsvc_raise_policy()"
    return [
        "CREATE OR REPLACE FUNCTION authsvc_raise_policy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF current_setting('authsvc.raised', true) = TG_TABLE_SCHEMA THEN RETURN NULL; END IF; "
        f"EXECUTE format('{change}', TG_TABLE_SCHEMA); "
        f"PERFORM pg_notify('{CHANNEL}', '[\"{POLICY}\"]'), set_config('authsvc.raised', TG_TABLE_SCHEMA, true); "
        "RETURN NULL; END $$",
        f"CREATE OR REPLACE TRIGGER {table}_policy AFTER INSERT OR UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW {function}",
        f"CREATE OR REPLACE TRIGGER {table}_policy_all AFTER TRUNCATE ON {table} FOR EACH STATEMENT {function}",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_policy",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_policy_all",
    ]


_STATEMENTS = {"sqlite": _statements_sqlite, "postgresql": _statements_postgresql}


def _of_source(source: Source) -> list[str]:
    """Return the statements for a function that notifies the names in the old and the new row, and for its triggers.

    ENABLE ALWAYS makes them fire also where replication or a restore has disabled ordinary triggers in its session.
    UPDATE OF is not used: it would miss columns that another trigger changes.
    """
    table, function = f'"{source.table}"', f'"{_function(source.table)}"'
    names = ", ".join(f'{row}."{column}"' for row in ("OLD", "NEW") for column in source.names)
    payload = f"json_build_array({names})" if names else "'*'"
    columns = (*source.names, *source.decides)
    changed = " OR ".join(f'OLD."{column}" IS DISTINCT FROM NEW."{column}"' for column in columns)
    counter = "coalesce(nullif(current_setting('authsvc.changes', true), ''), '0')::int"
    return [
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$ "
        f"DECLARE already int := {counter}; payload text := '*'; BEGIN "
        f"IF already > {MANY} THEN RETURN NULL; END IF; "
        f"IF TG_OP <> 'TRUNCATE' AND already < {MANY} THEN payload := {payload}; END IF; "
        f"IF octet_length(payload) > {PAYLOAD} THEN payload := '*'; END IF; "
        f"PERFORM pg_notify('{CHANNEL}', payload), set_config('authsvc.changes', (already + 1)::text, true); "
        "RETURN NULL; END $$",
        f"CREATE OR REPLACE TRIGGER authsvc_rows AFTER INSERT OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {function}()",
        f"CREATE OR REPLACE TRIGGER authsvc_update AFTER UPDATE ON {table} "
        f"FOR EACH ROW WHEN ({changed}) EXECUTE FUNCTION {function}()",
        f"CREATE OR REPLACE TRIGGER authsvc_truncate AFTER TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()",
        *(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for name in OF_SOURCE),
    ]


def _function(table: str) -> str:
    """Return the name of the function of *table*. It is unique, although PostgreSQL cuts names after 63 bytes."""
    name = f"{table}_authsvc"
    if len(name.encode()) <= 63:
        return name
    return f"authsvc_{hashlib.sha256(table.encode()).hexdigest()[:40]}"
