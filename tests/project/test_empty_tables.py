"""The rows of a test are deleted after it, and a changed schema is repaired."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from authsvc.freshness import triggers
from authsvc.models import Account, Grant, PolicyRevision
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.asking import sql
from rig.empty_tables import EmptyTables

TRIGGER = "authsvc_grant_policy" if connection.vendor == "postgresql" else "authsvc_grant_insert_policy"


@pytest.fixture
def empty_tables(transactional_db: None) -> EmptyTables:
    return EmptyTables()


def text_of_the_trigger() -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT tgenabled::text FROM pg_trigger WHERE tgname = %s", [TRIGGER])
        else:
            cursor.execute("SELECT sql FROM sqlite_master WHERE name = %s", [TRIGGER])
        return str(cursor.fetchone()[0])


def test_rows_of_tests_are_deleted_and_those_of_migrations_stay(empty_tables: EmptyTables) -> None:
    types = set(ContentType.objects.values_list("pk", flat=True))
    Account.objects.create(username="backend")
    device = WeatherStationDevice.objects.create(device_id="STATION-001")
    WeatherStationReading.objects.create(device=device, timestamp=device.created_at, temperature=20)

    empty_tables()

    for model in (Account, WeatherStationDevice, WeatherStationReading):
        assert not model.objects.exists()
    assert set(ContentType.objects.values_list("pk", flat=True)) == types
    assert PolicyRevision.objects.count() == 1


def test_deleted_rows_of_migrations_come_back(empty_tables: EmptyTables) -> None:
    ContentType.objects.get(app_label="authsvc", model="account").delete()
    PolicyRevision.objects.all().delete()

    empty_tables()

    assert ContentType.objects.filter(app_label="authsvc", model="account").exists()
    assert PolicyRevision.objects.count() == 1


def test_changed_rows_of_migrations_come_back(empty_tables: EmptyTables) -> None:
    """Their numbers stay the same."""
    types = set(ContentType.objects.values_list("app_label", "model"))
    permissions = set(Permission.objects.values_list("codename", flat=True))
    ContentType.objects.filter(app_label="authsvc", model="account").update(model="other")
    Permission.objects.filter(codename="add_grant").update(codename="other")

    empty_tables()

    assert set(ContentType.objects.values_list("app_label", "model")) == types
    assert set(Permission.objects.values_list("codename", flat=True)) == permissions


@pytest.mark.sqlite_only
def test_on_sqlite_rows_and_triggers_come_back_from_a_copy(
    empty_tables: EmptyTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("rig.empty_tables.call_command")
    types, trigger = list(ContentType.objects.order_by("pk").values()), text_of_the_trigger()
    ContentType.objects.filter(model="grant").delete()
    Account.objects.create(username="backend")
    sql(f"DROP TRIGGER {TRIGGER}")

    empty_tables()

    assert list(ContentType.objects.order_by("pk").values()) == types
    assert text_of_the_trigger() == trigger
    assert not Account.objects.exists()
    empty_tables()


def test_a_raised_revision_needs_no_flush(empty_tables: EmptyTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("rig.empty_tables.call_command")
    before = PolicyRevision.objects.get().revision
    Grant.objects.create(subject="everyone", actions="publish", filter="plant/#")
    assert PolicyRevision.objects.get().revision > before

    empty_tables()

    assert not Grant.objects.exists()


def test_a_trigger_that_was_replaced_or_disabled_comes_back(empty_tables: EmptyTables) -> None:
    """The numbers of tables and triggers stay the same."""
    before = text_of_the_trigger()
    if connection.vendor == "postgresql":
        sql(f"ALTER TABLE authsvc_grant DISABLE TRIGGER {TRIGGER}")
    else:
        sql(f"DROP TRIGGER {TRIGGER}")
        sql(f"CREATE TRIGGER {TRIGGER} AFTER INSERT ON authsvc_grant BEGIN SELECT 1; END")
    assert text_of_the_trigger() != before

    empty_tables()

    assert text_of_the_trigger() == before
    assert triggers.missing() == []


def test_a_table_that_is_made_anew_as_it_was_needs_no_flush(
    empty_tables: EmptyTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(WeatherStationReading)
        editor.create_model(WeatherStationReading)
    device = WeatherStationDevice.objects.create(device_id="STATION-001")
    WeatherStationReading.objects.create(device=device, timestamp=device.created_at, temperature=20)

    with monkeypatch.context() as without_flush:
        without_flush.delattr("rig.empty_tables.call_command")
        empty_tables.accept_schema()
        empty_tables()

    assert not WeatherStationReading.objects.exists()
