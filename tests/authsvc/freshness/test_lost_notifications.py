"""Notifications that cannot arrive: a lost connection, a missing trigger, another table or database."""

from __future__ import annotations

import time

import psycopg
import psycopg.sql
import pytest

from authsvc.freshness import triggers
from authsvc.sources import Source
from devicehub import directory as devices
from devicehub.models import NAMES
from rig import hub
from rig.freshness import DENIED, DEVICES, FAULT, OK, listens
from rig.hub import eventually

# They start their own PostgreSQL, so one run is enough.
pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]


def test_a_process_that_lost_its_listener_reads_until_it_listens_again(ours, fresh_device):
    for url in ours.urls * 2:
        assert ours.login(url, fresh_device) == OK

    ours.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'devicehub changes'"
    )
    ours.sql(f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=fresh_device["device_id"])

    assert ours.all_answer(DENIED, lambda url: ours.login(url, fresh_device))
    for url in ours.urls:
        assert eventually(lambda url=url: listens(ours, url))


def test_a_missing_trigger_disables_the_cache(ours, fresh_device):
    ours.sql(f"ALTER TABLE {DEVICES} DISABLE TRIGGER authsvc_update")
    try:
        for url in ours.urls:
            assert eventually(lambda url=url: not listens(ours, url))
            code, said = ours.ready(url)
            assert code == OK
            assert said["notes"] == [
                f"The trigger {DEVICES}.authsvc_update is missing; run manage.py migrate."
            ]
            assert ours.login(url, fresh_device) == OK
        ours.sql(
            f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=fresh_device["device_id"]
        )
        assert [ours.login(url, fresh_device) for url in ours.urls] == [DENIED, DENIED]
    finally:
        ours.sql(f"ALTER TABLE {DEVICES} ENABLE ALWAYS TRIGGER authsvc_update")


def test_a_missing_trigger_of_grants_disables_their_cache(ours, fresh_device):
    topic = "plant/8/state"
    ours.sql(
        "INSERT INTO authsvc_grant (subject, effect, actions, filter, note, created_at) "
        "VALUES ('everyone', 'allow', 'publish', 'plant/8/state', '', now())"
    )
    assert ours.all_answer(OK, lambda url: ours.publish(url, fresh_device, topic))
    ours.sql("ALTER TABLE authsvc_grant DISABLE TRIGGER authsvc_grant_policy")
    try:
        for url in ours.urls:
            assert eventually(lambda url=url: not listens(ours, url))
        ours.sql("DELETE FROM authsvc_grant WHERE filter = 'plant/8/state'")
        assert [ours.publish(url, fresh_device, topic) for url in ours.urls] == [DENIED, DENIED]
    finally:
        ours.sql("ALTER TABLE authsvc_grant ENABLE ALWAYS TRIGGER authsvc_grant_policy")
    for url in ours.urls:  # The change was not counted, and is still in force.
        assert eventually(lambda url=url: listens(ours, url))
        assert [ours.publish(url, fresh_device, topic) for _ in range(2)] == [DENIED, DENIED]


def test_a_change_that_another_trigger_makes_is_in_force(ours, fresh_device):
    """A trigger on UPDATE OF a column would not fire for it."""
    ours.sql(
        "CREATE FUNCTION lock_stolen() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.is_active := NEW.site <> 'stolen'; RETURN NEW; END $$"
    )
    ours.sql(f"CREATE TRIGGER stolen BEFORE UPDATE ON {DEVICES} FOR EACH ROW EXECUTE FUNCTION lock_stolen()")
    try:
        for url in ours.urls * 2:
            assert ours.login(url, fresh_device) == OK
        ours.sql(
            f"UPDATE {DEVICES} SET site = 'stolen' WHERE device_id = %(id)s", id=fresh_device["device_id"]
        )
        assert ours.all_answer(DENIED, lambda url: ours.login(url, fresh_device))
    finally:
        ours.sql("DROP FUNCTION lock_stolen CASCADE")


@pytest.mark.parametrize("which", ["ALL", "authsvc_update"])
def test_a_change_while_the_triggers_were_off_is_in_force(ours, fresh_device, which):
    """They are off between two checks, as in a bulk load in one transaction or a quick migration."""
    names = ("rows", "update", "truncate")
    again = ", ".join(f"ENABLE ALWAYS TRIGGER authsvc_{name}" for name in names)
    for url in ours.urls * 2:
        assert ours.login(url, fresh_device) == OK

    ours.sql(
        psycopg.sql.SQL(
            f"BEGIN; ALTER TABLE {DEVICES} DISABLE TRIGGER {'USER' if which == 'ALL' else which}; "
            f"UPDATE {DEVICES} SET is_active = false WHERE device_id = {{}}; ALTER TABLE {DEVICES} {again}; COMMIT"
        )
        .format(fresh_device["device_id"])
        .as_string()
    )

    assert ours.all_answer(DENIED, lambda url: ours.login(url, fresh_device))
    for url in ours.urls:
        assert eventually(lambda url=url: listens(ours, url))


def test_a_table_that_took_the_place_of_another_is_read(ours, fresh_device):
    """A blue-green change: the new table already has its triggers, and no row in it changes afterwards."""
    for url in ours.urls * 2:
        assert ours.login(url, fresh_device) == OK
    names = ("rows", "update", "truncate")
    events = ("INSERT OR DELETE", "UPDATE", "TRUNCATE")
    ours.sql(f"CREATE TABLE green (LIKE {DEVICES} INCLUDING ALL)")
    ours.sql(f"INSERT INTO green SELECT * FROM {DEVICES}")
    ours.sql("UPDATE green SET is_active = false WHERE device_id = %(id)s", id=fresh_device["device_id"])
    for name, event in zip(names, events, strict=True):
        each = "STATEMENT" if name == "truncate" else "ROW"
        ours.sql(
            f"CREATE TRIGGER authsvc_{name} AFTER {event} ON green FOR EACH {each} "
            f'EXECUTE FUNCTION "{DEVICES}_authsvc"()'
        )
        ours.sql(f"ALTER TABLE green ENABLE ALWAYS TRIGGER authsvc_{name}")
    swap = "BEGIN; ALTER TABLE {0} RENAME TO {1}; ALTER TABLE {2} RENAME TO {0}; COMMIT"
    ours.sql(swap.format(DEVICES, "blue", "green"))
    try:
        assert ours.all_answer(DENIED, lambda url: ours.login(url, fresh_device))
    finally:
        ours.sql(swap.format(DEVICES, "green", "blue"))
        ours.sql("DROP TABLE green")
    assert ours.all_answer(OK, lambda url: ours.login(url, fresh_device))


def test_a_grant_removed_from_another_schema_is_out_of_force(ours, fresh_device):
    """Its search path leads to another policy table or, as in the restore of a dump, to none."""
    topic, key = "plant/8/state", f"key:weatherstation/{fresh_device['device_id']}"
    ours.sql("CREATE SCHEMA tenant")
    ours.sql("CREATE TABLE tenant.authsvc_policy (id int, revision bigint)")
    try:
        for path in ("tenant", "''"):
            ours.sql(
                "INSERT INTO authsvc_grant (subject, effect, actions, filter, note, created_at) "
                "VALUES (%(key)s, 'allow', 'publish', 'plant/+/state', '', now())",
                key=key,
            )
            assert ours.all_answer(OK, lambda url: ours.publish(url, fresh_device, topic))
            ours.sql(f"SET search_path = {path}; DELETE FROM public.authsvc_grant WHERE subject = '{key}'")
            assert ours.all_answer(DENIED, lambda url: ours.publish(url, fresh_device, topic))
    finally:
        ours.sql("DROP SCHEMA tenant CASCADE")


def test_a_missed_change_is_not_answered_from_the_cache_in_the_next_outage(ours, fresh_device, tmp_path):
    """The connection breaks, a device is disabled meanwhile, the connection is back, then the database stops."""
    url = ours.urls[0]
    for _ in range(2):
        assert ours.login(url, fresh_device) == OK
    ours.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'devicehub changes'"
    )
    ours.sql(f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=fresh_device["device_id"])
    time.sleep(0.2)
    assert eventually(lambda: listens(ours, url))

    ours.cluster.stop()
    try:
        assert ours.login(url, fresh_device) == FAULT
    finally:
        ours.cluster.start()


def test_a_listener_at_another_database_is_not_used(ours, tmp_path, fresh_device):
    dsn = f"{ours.cluster.url.rpartition('/')[0]}/other"
    ours.sql("CREATE DATABASE other")
    variables = {"DATABASE_URL": ours.cluster.url, "AUTHSVC_LISTEN_DSN": dsn, "WEB_CONCURRENCY": "1"}
    with hub.gunicorn(tmp_path, **variables) as url:
        assert eventually(lambda: "do not arrive over AUTHSVC_LISTEN_DSN" in str(ours.ready(url)[1]["notes"]))
        assert ours.ready(url)[0] == OK
        assert ours.login(url, fresh_device) == OK
        ours.sql(
            f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=fresh_device["device_id"]
        )
        assert ours.login(url, fresh_device) == DENIED


def test_a_migration_of_a_column_needs_no_restart(ours, fresh_device):
    """PostgreSQL refuses earlier prepared statements: "cached plan must not change result type"."""
    url = ours.urls[0]
    for _ in range(3):
        assert ours.login(url, fresh_device, "wrong") == DENIED

    drop = "; ".join(f"DROP TRIGGER {name} ON {DEVICES}" for name in triggers.OF_SOURCE)
    ours.sql(f"{drop}; ALTER TABLE {DEVICES} ALTER mqtt_password_hash TYPE varchar(300)")
    try:
        assert ours.login(url, fresh_device, "wrong") == DENIED
        assert ours.login(url, fresh_device) == OK
    finally:
        source = Source(DEVICES, NAMES, devices.DECIDE)
        for statement in triggers._of_source(source):
            ours.sql(statement)
