"""The storage of tables: parameters that `migrate` sets in addition to the migrations."""

from __future__ import annotations

import pytest
from django.core.management import call_command
from django.db import connection

from devicehub.retention import page_layout
from fleet.models import IrrigationValveDevice, WeatherStationDevice, WeatherStationReading

TABLES = [IrrigationValveDevice._meta.db_table, WeatherStationDevice._meta.db_table]


@pytest.fixture
def options(db):
    """Return a function that returns the storage parameters of a table; None on SQLite."""

    def read(table: str) -> list[str] | None:
        if connection.vendor != "postgresql":
            return None
        with connection.cursor() as cursor:
            cursor.execute("SELECT reloptions FROM pg_class WHERE oid = %s::regclass", [table])
            return cursor.fetchone()[0]

    return read


def execute_on_postgresql(statement: str) -> None:
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(statement)


def expected(*parameters: str) -> list[str] | None:
    return list(parameters) if connection.vendor == "postgresql" else None


@pytest.mark.parametrize("table", TABLES)
def test_tables_of_devices_have_room_for_new_versions_of_rows(options, table):
    assert options(table) == expected(f"fillfactor={page_layout.FILLFACTOR}")


def test_other_tables_are_left_alone(options):
    assert options(WeatherStationReading._meta.db_table) is None


def test_migrate_keeps_what_an_operator_chose(options):
    chosen, bare = TABLES
    execute_on_postgresql(
        f"ALTER TABLE {chosen} SET (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05)"
    )
    execute_on_postgresql(f"ALTER TABLE {bare} RESET (fillfactor)")

    call_command("migrate", verbosity=0)

    assert options(chosen) == expected("fillfactor=90", "autovacuum_vacuum_scale_factor=0.05")
    assert options(bare) == expected(f"fillfactor={page_layout.FILLFACTOR}")


def test_a_kind_without_a_table_is_no_reason_to_fail(db, monkeypatch):
    """Its migration may not exist yet, or the database was migrated back to a state before it."""
    monkeypatch.setattr(WeatherStationDevice._meta, "db_table", "fleet_of_tomorrow")

    page_layout.leave_room(using="default")

    assert "fleet_of_tomorrow" not in connection.introspection.table_names()
