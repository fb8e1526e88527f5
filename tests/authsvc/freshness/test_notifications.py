"""Notifications of the database: all changes that can affect a decision, by name, and no others."""

from __future__ import annotations

import json

import psycopg
import psycopg.sql
import pytest

from authsvc.freshness import changes, triggers
from authsvc.sources import Source
from rig.freshness import DEVICES, VALVES

# They start their own PostgreSQL, so one run is enough.
pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]


def test_only_deciding_columns_are_notified(heard, fresh_device):
    here = f"WHERE device_id = '{fresh_device['device_id']}'"
    telemetry = (
        "last_seen = now(), status = 'online', battery_level = 3, connected = true, last_message_at = now()"
    )

    assert heard(f"UPDATE {DEVICES} SET {telemetry}") == []
    assert heard(f"UPDATE {DEVICES} SET is_active = is_active, mqtt_username = mqtt_username") == []
    assert heard("UPDATE authsvc_account SET is_superuser = is_superuser") == []
    [notified] = heard(f"UPDATE {DEVICES} SET api_key = 'k' {here}")
    assert {fresh_device["device_id"], fresh_device["mqtt_username"]} <= set(json.loads(notified))


def test_a_directory_may_name_any_table(ours, heard):
    """Names that need quotes or that PostgreSQL would cut, and rows too long for a notification."""
    for number in range(2):
        table = f"{'long' * 14} {number}"
        source = Source(table, ("Name", f"n{number}"), ("group",))
        ours.sql(f'CREATE TABLE "{table}" ("Name" text, n{number} int, "group" text)')
        for statement in triggers._of_source(source):
            ours.sql(statement)
    for number in range(2):
        table = f"{'long' * 14} {number}"

        notified = heard(
            f"INSERT INTO \"{table}\" VALUES ('a', 5, NULL)", f'UPDATE "{table}" SET "group" = \'b\''
        )
        assert [json.loads(payload) for payload in notified] == [[None, None, "a", 5], ["a", 5, "a", 5]]
        assert heard(f'UPDATE "{table}" SET "Name" = repeat(\'x\', 8000)') == ["*"]
        ours.sql(f'DROP TABLE "{table}" CASCADE')


def test_a_rename_is_notified_by_both_names(heard, fresh_device):
    [notified] = heard(
        f"UPDATE {DEVICES} SET mqtt_username = 'after' WHERE mqtt_username = '{fresh_device['mqtt_username']}'"
    )

    assert {fresh_device["mqtt_username"], "after"} <= set(json.loads(notified))


def test_many_changes_are_notified_as_everything(heard):
    """A million rows in one transaction must not cause a million notifications to each process."""
    rows = (
        f"INSERT INTO {DEVICES} (device_id, name, status, firmware_version, is_active, mqtt_password_hash, metadata, "
        "created_at, updated_at, previous_password_hash, connected, reported_status, site) "
        "SELECT 'BULK-' || n, '', 'offline', '', true, '', '{}', now(), now(), '', false, '', '' "
        "FROM generate_series(1, 5000) AS n"
    )
    notified = heard(rows)
    assert len(notified) == 1_001
    assert notified[-1] == "*"
    assert heard(f"TRUNCATE {VALVES} CASCADE") == ["*"]


def test_any_name_that_sql_wrote_is_notified(heard, fresh_device):
    odd = 'a\n"b\\\u00e4\u2028\U0001f600' * 10

    [notified] = heard(
        psycopg.sql.SQL("UPDATE {} SET mqtt_client_id = {} WHERE device_id = {}")
        .format(psycopg.sql.Identifier(DEVICES), odd, fresh_device["device_id"])
        .as_string()
    )

    assert odd in json.loads(notified)


@pytest.mark.parametrize(
    ("payload", "names"),
    [
        ('["a", null, "b"]', ["a", "b"]),
        ("[]", []),
        ('["a", 5]', [None]),
        ("*", [None]),
        ("", [None]),
        ('{"a": 1}', [None]),
        ('["a"', [None]),
    ],
)
def test_an_unreadable_notification_means_everything(payload, names):
    assert changes._names(payload) == names
