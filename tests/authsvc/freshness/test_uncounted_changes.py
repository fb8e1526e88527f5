"""Changes of brokers and grants are noticed even if no trigger counted them."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlencode

import psycopg
import pytest
from django.db import connection, transaction

from authsvc import gateway, policy
from authsvc.chain import configured
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Request
from authsvc.freshness import changes, reader, triggers
from authsvc.models import Broker, PolicyRevision
from fleet.models import WeatherStationDevice
from rig import servers

OK, DENIED = 200, 403
DEVICES = WeatherStationDevice._meta.db_table
GRANT = (
    "INSERT INTO authsvc_grant (subject, effect, actions, filter, note, created_at) "
    "VALUES ('everyone', '{}', 'publish', 'plant/7/state', '', CURRENT_TIMESTAMP)"
)
# Each removes the right to publish on plant/7/state, and its second statement restores it.
CHANGES = {
    "broker switched off": (
        "UPDATE authsvc_broker SET is_active = false",
        "UPDATE authsvc_broker SET is_active = true",
    ),
    "grant deleted": ("DELETE FROM authsvc_grant", GRANT.format("allow")),
    "deny grant added": (GRANT.format("deny"), "DELETE FROM authsvc_grant WHERE effect = 'deny'"),
}


def sql(*statements: str) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def ask(loop, token, station) -> Callable[..., int]:
    """Return a function that asks a question of go-auth about the station."""

    async def one(question: str, **fields: str) -> int:
        named = {"username": station.username, "clientid": station.username, **fields}
        form = ((b"content-type", b"application/x-www-form-urlencoded"),)
        request = Request("POST", f"k={token}", form, urlencode(named).encode(), question, "::1")
        return (await gateway.answer(request, BY_NAME["go-auth"])).status

    return lambda question, **fields: loop.run(one(question, **fields))


@pytest.fixture
def publish(ask) -> Callable[[], int]:
    """Return a function that asks whether the station may publish on plant/7/state, which a grant allows."""
    sql(GRANT.format("allow"))
    return lambda: ask("acl", acc="2", topic="plant/7/state")


@pytest.fixture
def listen(loop, monkeypatch) -> Iterator[Callable[[], None]]:
    """Return a function that starts to listen on PostgreSQL, with short pauses; SQLite needs no listener."""
    for name in ("BEAT", "PAUSE"):
        monkeypatch.setattr(changes, name, 0.02)

    async def start() -> None:
        changes.start()
        while changes.stamp() is None:
            await asyncio.sleep(0.01)

    yield lambda: loop.run(asyncio.wait_for(start(), 5))
    loop.run(changes.stop())


def soon(loop: asyncio.Runner, status: int, ask: Callable[[], int]) -> bool:
    """Return whether *ask* answers *status* within the bound; at once on SQLite and without a listener."""
    end = time.monotonic() + (changes.BOUND if changes._listener else 0)
    while ask() != status:
        if time.monotonic() > end:
            return False
        loop.run(asyncio.sleep(0.01))
    return True


@pytest.fixture
def each_change(publish, listen, loop) -> Iterator[str]:
    """Yield the changes, each after the policy was in force; on PostgreSQL a second time while listening."""

    def changes() -> Iterator[str]:
        for change, undo in CHANGES.values():
            assert soon(loop, OK, publish)
            assert publish() == OK
            yield change
            triggers.install()
            sql(undo)

    def both() -> Iterator[str]:
        yield from changes()
        if connection.vendor == "postgresql":
            listen()
            yield from changes()

    return both()


def triggers_off() -> list[str]:
    """Return the statements that drop or disable the triggers of the policy."""
    wanted = [trigger for trigger in triggers.expected(connection.vendor) if trigger.table in triggers.TABLES]
    if connection.vendor == "sqlite":
        return [f"DROP TRIGGER {name}" for _, name in wanted]
    return [f"ALTER TABLE {table} DISABLE TRIGGER {name}" for table, name in wanted]


def triggers_on() -> list[str]:
    if connection.vendor == "sqlite":
        return [text for table in triggers.TABLES for text in triggers._policy_sqlite(table).values()]
    wanted = [trigger for trigger in triggers.expected(connection.vendor) if trigger.table in triggers.TABLES]
    return [f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}" for table, name in wanted]


def uncounted(change: str) -> None:
    """Make *change* without a new revision or a notification."""
    if connection.vendor == "sqlite":
        before = PolicyRevision.objects.get().revision
        sql("BEGIN", change, f"UPDATE authsvc_policy SET revision = {before}", "COMMIT")
        return
    [function, *_] = triggers._policy_postgresql("authsvc_grant")
    silent = function.partition(" BEGIN ")[0] + " BEGIN RETURN NULL; END $$"
    sql("BEGIN", silent, change, function, "COMMIT")


def test_triggers_that_were_off_for_one_transaction(each_change, publish, loop):
    """A bulk load does this, and a restore of data with `--disable-triggers`."""
    for change in each_change:
        sql("BEGIN", *triggers_off(), change, *triggers_on(), "COMMIT")
        assert soon(loop, DENIED, publish)


def test_triggers_that_migrate_created_again(each_change, publish, loop):
    for change in each_change:
        sql(*triggers_off(), change)
        triggers.install()
        assert soon(loop, DENIED, publish)


def test_triggers_that_are_missing_and_come_back(each_change, publish, loop):
    """A question in between must not leave anything in a cache that is used later."""
    for change in each_change:
        sql(*triggers_off(), change)
        assert soon(loop, DENIED, publish)
        sql(*triggers_on())
        for _ in range(3):
            assert publish() == DENIED
            loop.run(asyncio.sleep(3 * changes.BEAT))


@pytest.mark.servers
def test_a_read_for_age(each_change, publish, monkeypatch):
    """The change is not notified; it is in force after half of AUTHSVC_STALE_SECONDS."""
    now, passed = time.monotonic, 0
    monkeypatch.setattr(time, "monotonic", lambda: now() + passed)
    for change in each_change:
        uncounted(change)
        passed += 151
        assert publish() == DENIED


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_each_commit_leaves_the_age_of_the_policy_as_it_is(publish, station, monkeypatch):
    """Commits invalidate the last read of the revision, and reading it again does not renew the policy."""
    assert publish() == OK
    uncounted(CHANGES["grant deleted"][0])
    now = time.monotonic
    for seconds in (100, 149, 151):
        sql(f"UPDATE {DEVICES} SET battery_level = {seconds}")
        monkeypatch.setattr(time, "monotonic", lambda seconds=seconds: now() + seconds)
        last = publish()

    assert last == DENIED


REWRITES = {
    "a column of another type": ("ALTER TABLE {} ALTER is_active TYPE boolean USING false",),
    "a column that takes its place": (
        "ALTER TABLE {} ADD COLUMN replacing boolean NOT NULL DEFAULT false",
        "ALTER TABLE {} DROP COLUMN is_active",
        "ALTER TABLE {} RENAME replacing TO is_active",
    ),
}


@pytest.mark.postgresql_only
@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
@pytest.mark.parametrize("heard", [False, True], ids=["read", "listening"])
def test_a_table_that_is_altered(publish, listen, loop, rewrite, heard):
    """ALTER TABLE changes the rows, but neither fires nor creates a trigger."""
    if heard:
        listen()
    assert soon(loop, OK, publish)
    assert publish() == OK

    with transaction.atomic():
        sql(*(text.format(Broker._meta.db_table) for text in rewrite))

    assert soon(loop, DENIED, publish)


@pytest.mark.postgresql_only
def test_a_new_listening_session(publish, listen, loop):
    for change, undo in CHANGES.values():
        listen()
        assert [publish(), publish()] == [OK, OK]
        loop.run(changes.stop())
        uncounted(change)
        listen()
        assert publish() == DENIED
        loop.run(changes.stop())
        sql(undo)


@pytest.mark.sqlite_only
def test_a_migration_that_rebuilds_the_table_and_changes_a_row(publish):
    """Django copies the table to a new one, which has no triggers until `migrate` ends."""
    assert publish() == OK
    with connection.schema_editor() as editor:
        editor._remake_table(Broker)
    assert publish() == OK
    sql("UPDATE authsvc_broker SET is_active = false")
    assert publish() == DENIED
    triggers.install()
    assert publish() == DENIED


@pytest.mark.servers
@pytest.mark.sqlite_only
@pytest.mark.parametrize("change", CHANGES)
def test_another_file_with_the_same_revision(publish, loop, tmp_path, monkeypatch, change):
    """Two copies of one database, changed by hand."""
    served, other = tmp_path / "served", tmp_path / "other"
    for copy in (served, other):
        sql(f"VACUUM INTO '{copy}'")
    with sqlite3.connect(other) as file:
        [(before,)] = file.execute("SELECT revision FROM authsvc_policy").fetchall()
        file.execute(CHANGES[change][0])
        file.execute("UPDATE authsvc_policy SET revision = ?", [before])
    file.close()
    config = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(served)}
    monkeypatch.setattr(reader.connections, "settings", {"default": config})
    loop.run(reader.close())
    try:
        assert publish() == OK
        os.replace(other, served)
        assert publish() == DENIED
    finally:
        loop.run(reader.close())


def test_an_unchanged_policy_stays_the_same_object(publish, loop):
    """So answers that depend on it stay cached."""
    before = loop.run(policy.current())
    sql("BEGIN", *triggers_off(), *triggers_on(), "COMMIT")

    assert loop.run(policy.current()) is before


@pytest.mark.postgresql_only
def test_questions_that_arrive_together_share_one_load(publish, loop, monkeypatch):
    loads = []
    fetch = reader.fetch

    async def watched(statement, parameters=()):
        loads.append(statement)
        return await fetch(statement, parameters)

    async def many() -> None:
        await asyncio.gather(*(policy.current() for _ in range(20)))

    assert publish() == OK
    sql("DELETE FROM authsvc_grant")
    monkeypatch.setattr(reader, "fetch", watched)
    loop.run(many())

    assert loads.count(policy.GRANTS) == 1


def test_migrate_raises_the_revision_only_if_it_created_a_trigger(transactional_db):
    def revision() -> int:
        return PolicyRevision.objects.get().revision

    triggers.install()
    before = revision()
    triggers.install()
    assert revision() == before

    for off in triggers_off():
        before = revision()
        sql(off)
        triggers.install()
        assert revision() > before
        assert triggers.missing() == []


@pytest.mark.postgresql_only
def test_a_device_that_was_disabled_uncounted(ask, listen, loop, station, monkeypatch):
    """Cached principals are invalidated in the same ways."""
    now, passed = time.monotonic, 0
    monkeypatch.setattr(time, "monotonic", lambda: now() + passed)
    off, on = (f"UPDATE {DEVICES} SET is_active = {active}" for active in ("false", "true"))
    dropped = [f"DROP TRIGGER {name} ON {DEVICES}" for name in triggers.OF_SOURCE]
    disabled = [f"ALTER TABLE {DEVICES} DISABLE TRIGGER {name}" for name in triggers.OF_SOURCE]
    enabled = [f"ALTER TABLE {DEVICES} ENABLE ALWAYS TRIGGER {name}" for name in triggers.OF_SOURCE]
    [source] = [source for source in configured().sources() if source.table == DEVICES]
    [function, *_] = triggers._of_source(source)
    silent = function.partition("DECLARE")[0] + "BEGIN RETURN NULL; END $$"

    def login() -> int:
        return ask("user", password=station.password)

    for how in ("off for one transaction", "made again", "session", "age"):
        listen()
        assert soon(loop, OK, login), how
        assert login() == OK
        if how == "off for one transaction":
            sql("BEGIN", *disabled, off, *enabled, "COMMIT")
        elif how == "made again":
            sql(*dropped, off)
            triggers.install()
        elif how == "session":
            loop.run(changes.stop())
            sql("BEGIN", silent, off, function, "COMMIT")
            listen()
        else:
            sql("BEGIN", silent, off, function, "COMMIT")
            passed = 151
        assert soon(loop, DENIED, login), how
        sql(on)


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_logical_replication_counts_as_a_change(tmp_path, needs_real):
    """Its worker fires row triggers only; a notified subscriber reads the replicated rows."""
    tables = (
        "CREATE TABLE authsvc_policy (id int PRIMARY KEY, revision bigint)",
        "CREATE TABLE authsvc_grant (id int PRIMARY KEY, filter text)",
    )
    try:
        cluster = servers.postgresql_cluster(tmp_path, settings=["wal_level=logical"], may="SUPERUSER")
        with cluster as cluster:
            replicate(cluster.url, tables)
    except servers.MissingServer as missing:
        needs_real(missing)


def replicate(url: str, tables: tuple[str, ...]) -> None:
    """Check that each replicated change raises the revision of a subscriber and notifies."""
    other = f"{url.rpartition('/')[0]}/subscriber"
    with psycopg.connect(url, autocommit=True) as here:
        here.execute("CREATE DATABASE subscriber")
        for statement in tables:
            here.execute(statement)
        here.execute("CREATE PUBLICATION ours FOR TABLE authsvc_grant")
        here.execute("SELECT pg_create_logical_replication_slot('ours', 'pgoutput')")
        with psycopg.connect(other, autocommit=True) as there, psycopg.connect(other, autocommit=True) as ear:
            for statement in (*tables, *triggers._policy_postgresql("authsvc_grant")):
                there.execute(statement)
            there.execute("INSERT INTO authsvc_policy VALUES (1, 0)")
            there.execute(
                f"CREATE SUBSCRIPTION ours CONNECTION '{url}' PUBLICATION ours "
                "WITH (create_slot = false, copy_data = false)"
            )
            ear.execute(f"LISTEN {triggers.CHANNEL}")
            last = 0
            for change in (
                "INSERT INTO authsvc_grant VALUES (1, 'plant/7/state'), (2, 'plant/8/state')",
                "UPDATE authsvc_grant SET filter = 'plant/9/state' WHERE id = 1",
                "DELETE FROM authsvc_grant WHERE id = 1",
                "TRUNCATE authsvc_grant",
            ):
                here.execute(change)
                notified = [message.payload for message in ear.notifies(timeout=10, stop_after=1)]
                [(revision,)] = there.execute("SELECT revision FROM authsvc_policy").fetchall()
                assert notified == ['["policy"]'], change
                assert revision > last
                last = revision
            there.execute("DROP SUBSCRIPTION ours")
