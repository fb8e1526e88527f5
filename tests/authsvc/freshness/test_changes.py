"""Nothing stale: what a process remembers on PostgreSQL is true, however it was changed, and without a database."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import psycopg.sql
import pytest

from authsvc.freshness import changes, remembered, triggers
from authsvc.freshness.reader import DatabaseAway
from authsvc.freshness.remembered import Remembered
from authsvc.sources import Source
from devicehub import directory as devices
from devicehub.models import NAMES
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig import hub, servers
from rig.hub import ROOT, eventually

pytestmark = pytest.mark.sqlite_only  # a PostgreSQL of its own, so once is enough
BOUND = 1.0  # seconds from the commit
DEVICES = WeatherStationDevice._meta.db_table
VALVES = IrrigationValveDevice._meta.db_table  # of which there are none
OK, DENIED, FAULT = 200, 403, 503


# A client for each question would read the certificates of the system each time, which takes longer than the answer.
CLIENT = httpx.Client(timeout=5, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass
class Site:
    """PostgreSQL, and two processes that answer questions about what is in it."""

    cluster: servers.Cluster
    token: str
    devices: list[dict[str, Any]]
    account: str
    urls: list[str]

    def sql(self, statement: str, **values: Any) -> None:
        """Change what is in the database, as any program could."""
        with psycopg.connect(self.cluster.url, autocommit=True) as connection:
            connection.execute(statement, values)

    def all_say(self, wanted: int, ask: Callable[[str], int]) -> bool:
        """Whether all processes answer *wanted* within BOUND, from now on."""
        end = time.monotonic() + BOUND
        return all(
            eventually(lambda url=url: ask(url) == wanted, end - time.monotonic()) for url in self.urls
        )

    def ask(self, url: str, question: str, **fields: Any) -> int:
        asked = CLIENT.post(f"{url}/mqtt/go-auth/{question}?k={self.token}", json=fields)
        return asked.status_code

    def login(self, url: str, device: dict[str, Any], password: str | None = None) -> int:
        name = device["mqtt_username"]
        password = password or device["mqtt_password"]
        return self.ask(url, "user", username=name, clientid=name, password=password)

    def publish(self, url: str, device: dict[str, Any], topic: str | None = None) -> int:
        name = device["mqtt_username"]
        topic = topic or device["topics"]["data"]
        return self.ask(url, "acl", username=name, clientid=name, topic=topic, acc=2)

    def ready(self, url: str) -> tuple[int, dict[str, Any]]:
        answer = httpx.get(f"{url}/readyz", timeout=5)
        return answer.status_code, answer.json()

    def settled_reads(self, url: str, device: Any) -> float:
        """Log *device* in until that costs no read for two beats, and return the number of reads.

        A listening session that begins anew, as after an ALTER TABLE of another test, reads once more.
        """
        since, reads = time.monotonic(), -1.0
        end = since + 20
        while time.monotonic() - since < 2 * changes.BEAT:
            assert time.monotonic() < end
            assert self.login(url, device) == OK
            if (now := self.memory(url, "reads")) != reads:
                since, reads = time.monotonic(), now
            time.sleep(0.05)
        return reads

    def memory(self, url: str, event: str) -> float:
        wanted = f'devicehub_auth_memory_total{{event="{event}"}} '
        [line] = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith(wanted)]
        return float(line.removeprefix(wanted))


def listens(site: Site, url: str) -> bool:
    code, said = site.ready(url)
    return code == 200 and said["notes"] == []


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, needs_real) -> Iterator[servers.Cluster]:
    try:
        with servers.postgresql_cluster(tmp_path_factory.mktemp("postgresql")) as cluster:
            yield cluster
    except servers.MissingServer as missing:
        needs_real(missing)


@pytest.fixture(scope="module")
def site(cluster, tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    variables = {"DATABASE_URL": cluster.url, "AUTHSVC_STALE_SECONDS": "6"}

    def manage(*arguments: str) -> str:
        command = [sys.executable, "manage.py", *arguments]
        env = hub.environment(**variables)
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    manage("migrate")
    token = json.loads(manage("create_broker", "mosquitto", "go-auth", "--json"))["token"]
    fleet = ["--count", "40", "--prefix", "S-", "--output", "-"]
    devices = json.loads(manage("provision_devices", "weatherstation", *fleet))
    manage("create_account", "ingest", "--ingest")
    with ExitStack() as stack:
        urls = [
            stack.enter_context(hub.gunicorn(folder / str(number), **variables, WEB_CONCURRENCY="1"))
            for number in range(2)
        ]
        yield Site(cluster, token, devices, "ingest", urls)


@pytest.fixture
def ours(site) -> Site:
    """The site, listening; what a test does to its devices is undone by using other devices."""
    for url in site.urls:
        assert eventually(lambda url=url: listens(site, url)), site.ready(url)
    return site


@pytest.fixture
def station(site) -> dict[str, Any]:
    """A device that no other test touched."""
    return site.devices.pop()


# Changes behind the back of the product, each of which ends a login that was right.
CHANGES = {
    "disabled": f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s",
    "another hash": f"UPDATE {DEVICES} SET mqtt_password_hash = 'gone' WHERE device_id = %(id)s",
    "expired": f"UPDATE {DEVICES} SET password_expires_at = now() - interval '1 h' WHERE device_id = %(id)s",
    "another username": f"UPDATE {DEVICES} SET mqtt_username = 'not-it' WHERE device_id = %(id)s",
    "deleted": f"DELETE FROM {DEVICES} WHERE device_id = %(id)s",
    "an account of that name": (
        "INSERT INTO authsvc_account (username, password_hash, previous_password_hash, is_active, is_superuser, "
        "client_ids, created_at) VALUES (%(username)s, '', '', true, false, '[]', now())"
    ),
    "a device of that client id": f"UPDATE {DEVICES} SET mqtt_client_id = %(username)s WHERE device_id = %(other)s",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_in_force_in_every_process(ours, station, change):
    for url in ours.urls * 2:
        assert ours.login(url, station) == OK
    other = ours.devices.pop()["device_id"]

    ours.sql(CHANGES[change], id=station["device_id"], username=station["mqtt_username"], other=other)

    assert ours.all_say(DENIED, lambda url: ours.login(url, station))


def test_a_grant_is_in_force_and_out_of_force_in_every_process(ours, station):
    topic = "plant/7/state"
    key = f"key:weatherstation/{station['device_id']}"
    for url in ours.urls * 2:
        assert ours.publish(url, station, topic) == DENIED

    ours.sql(
        "INSERT INTO authsvc_grant (subject, effect, actions, filter, note, created_at) "
        "VALUES (%(key)s, 'allow', 'publish', 'plant/+/state', '', now())",
        key=key,
    )
    assert ours.all_say(OK, lambda url: ours.publish(url, station, topic))

    ours.sql("DELETE FROM authsvc_grant WHERE subject = %(key)s", key=key)
    assert ours.all_say(DENIED, lambda url: ours.publish(url, station, topic))


def test_a_broker_that_was_shut_out_is_a_stranger_in_every_process(ours, station):
    for url in ours.urls * 2:
        assert ours.login(url, station) == OK

    ours.sql("UPDATE authsvc_broker SET is_active = false")
    try:
        assert ours.all_say(DENIED, lambda url: ours.login(url, station))
    finally:
        ours.sql("UPDATE authsvc_broker SET is_active = true")
    assert ours.all_say(OK, lambda url: ours.login(url, station))


def test_a_disabled_account_is_out_in_every_process(ours):
    def connect(url: str) -> int:
        return ours.ask(
            url, "acl", username="ingest", clientid="ingest", topic="things/weatherstation/+/data", acc=4
        )

    for url in ours.urls * 2:
        assert connect(url) == OK

    ours.sql("UPDATE authsvc_account SET is_active = false WHERE username = 'ingest'")
    assert ours.all_say(DENIED, connect)
    ours.sql("UPDATE authsvc_account SET is_active = true WHERE username = 'ingest'")
    assert ours.all_say(OK, connect)


def test_what_is_remembered_is_not_read(ours, station):
    url = ours.urls[0]
    before = ours.settled_reads(url, station)

    for _ in range(10):
        assert ours.login(url, station) == OK

    assert ours.memory(url, "reads") == before


def test_a_wrong_password_is_refused_on_what_is_read(ours, station):
    """As an unknown name is: what a refusal costs tells nobody who exists."""
    url = ours.urls[0]
    ours.settled_reads(url, station)

    def reads(device: dict[str, Any]) -> float:
        before = ours.memory(url, "reads")
        assert ours.login(url, device, "wrong") == DENIED
        return ours.memory(url, "reads") - before

    assert reads(station) == reads(station | {"mqtt_username": "stranger"}) == 1


def test_unknown_names_are_not_remembered(ours, station):
    url, stranger = ours.urls[0], {"mqtt_username": "stranger", "mqtt_password": "x"}
    assert ours.login(url, stranger) == DENIED
    before = ours.settled_reads(url, station)

    for _ in range(5):
        assert ours.login(url, stranger) == DENIED

    assert ours.memory(url, "reads") == before + 5


@pytest.fixture
def heard(cluster, site) -> Callable[[str, Any], list[str]]:
    """What is notified while a statement runs."""

    def during(*statements: str) -> list[str]:
        with psycopg.connect(cluster.url, autocommit=True) as listening:
            listening.execute("LISTEN authsvc_changed")
            with psycopg.connect(cluster.url) as writing:
                for statement in statements:
                    writing.execute(statement)
            found = list(listening.notifies(timeout=0.2))
        return [message.payload for message in found if "proof" not in message.payload]

    return during


def test_only_what_decides_is_notified(heard, station):
    here = f"WHERE device_id = '{station['device_id']}'"
    telemetry = (
        "last_seen = now(), status = 'online', battery_level = 3, connected = true, last_message_at = now()"
    )

    assert heard(f"UPDATE {DEVICES} SET {telemetry}") == []
    assert heard(f"UPDATE {DEVICES} SET is_active = is_active, mqtt_username = mqtt_username") == []
    assert heard("UPDATE authsvc_account SET is_superuser = is_superuser") == []
    [told] = heard(f"UPDATE {DEVICES} SET api_key = 'k' {here}")
    assert {station["device_id"], station["mqtt_username"]} <= set(json.loads(told))


def test_a_directory_may_name_any_table(ours, heard):
    """Names that must be quoted, that PostgreSQL would cut to one, and rows too long for a notification."""
    for number in range(2):
        table = f"{'long' * 14} {number}"
        source = Source(table, ("Name", f"n{number}"), ("group",))
        ours.sql(f'CREATE TABLE "{table}" ("Name" text, n{number} int, "group" text)')
        for statement in triggers._of_source(source):
            ours.sql(statement)
    for number in range(2):
        table = f"{'long' * 14} {number}"

        told = heard(
            f"INSERT INTO \"{table}\" VALUES ('a', 5, NULL)", f'UPDATE "{table}" SET "group" = \'b\''
        )
        assert [json.loads(payload) for payload in told] == [[None, None, "a", 5], ["a", 5, "a", 5]]
        assert heard(f'UPDATE "{table}" SET "Name" = repeat(\'x\', 8000)') == ["*"]
        ours.sql(f'DROP TABLE "{table}" CASCADE')


def test_a_rename_is_told_by_both_names(heard, station):
    [told] = heard(
        f"UPDATE {DEVICES} SET mqtt_username = 'after' WHERE mqtt_username = '{station['mqtt_username']}'"
    )

    assert {station["mqtt_username"], "after"} <= set(json.loads(told))


def test_many_changes_are_told_as_everything(heard):
    """A million rows in one transaction must not become a million messages to each process."""
    rows = (
        f"INSERT INTO {DEVICES} (device_id, name, status, firmware_version, is_active, mqtt_password_hash, metadata, "
        "created_at, updated_at, previous_password_hash, connected, reported_status, site) "
        "SELECT 'BULK-' || n, '', 'offline', '', true, '', '{}', now(), now(), '', false, '', '' "
        "FROM generate_series(1, 5000) AS n"
    )
    told = heard(rows)
    assert len(told) == 1_001
    assert told[-1] == "*"
    assert heard(f"TRUNCATE {VALVES} CASCADE") == ["*"]


def test_a_name_that_sql_wrote_is_told_whatever_it_holds(heard, station):
    odd = 'a\n"b\\\u00e4\u2028\U0001f600' * 10

    [told] = heard(
        psycopg.sql.SQL("UPDATE {} SET mqtt_client_id = {} WHERE device_id = {}")
        .format(psycopg.sql.Identifier(DEVICES), odd, station["device_id"])
        .as_string()
    )

    assert odd in json.loads(told)


def test_a_process_that_lost_its_ear_reads_until_it_listens_again(ours, station):
    for url in ours.urls * 2:
        assert ours.login(url, station) == OK

    ours.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'devicehub changes'"
    )
    ours.sql(f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=station["device_id"])

    assert ours.all_say(DENIED, lambda url: ours.login(url, station))
    for url in ours.urls:
        assert eventually(lambda url=url: listens(ours, url))


def test_a_missing_trigger_ends_the_memory(ours, station):
    ours.sql(f"ALTER TABLE {DEVICES} DISABLE TRIGGER authsvc_update")
    try:
        for url in ours.urls:
            assert eventually(lambda url=url: not listens(ours, url))
            code, said = ours.ready(url)
            assert code == OK
            assert said["notes"] == [
                f"The trigger {DEVICES}.authsvc_update is missing; run manage.py migrate."
            ]
            assert ours.login(url, station) == OK
        ours.sql(f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=station["device_id"])
        assert [ours.login(url, station) for url in ours.urls] == [DENIED, DENIED]
    finally:
        ours.sql(f"ALTER TABLE {DEVICES} ENABLE ALWAYS TRIGGER authsvc_update")


def test_a_missing_trigger_of_grants_ends_their_memory(ours, station):
    topic = "plant/8/state"
    ours.sql(
        "INSERT INTO authsvc_grant (subject, effect, actions, filter, note, created_at) "
        "VALUES ('everyone', 'allow', 'publish', 'plant/8/state', '', now())"
    )
    assert ours.all_say(OK, lambda url: ours.publish(url, station, topic))
    ours.sql("ALTER TABLE authsvc_grant DISABLE TRIGGER authsvc_grant_policy")
    try:
        for url in ours.urls:
            assert eventually(lambda url=url: not listens(ours, url))
        ours.sql("DELETE FROM authsvc_grant WHERE filter = 'plant/8/state'")
        assert [ours.publish(url, station, topic) for url in ours.urls] == [DENIED, DENIED]
    finally:
        ours.sql("ALTER TABLE authsvc_grant ENABLE ALWAYS TRIGGER authsvc_grant_policy")
    for url in ours.urls:  # the change was not counted, and stays in force
        assert eventually(lambda url=url: listens(ours, url))
        assert [ours.publish(url, station, topic) for _ in range(2)] == [DENIED, DENIED]


def test_a_change_that_another_trigger_makes_is_in_force(ours, station):
    """PostgreSQL does not count it for a trigger on UPDATE OF a column."""
    ours.sql(
        "CREATE FUNCTION lock_stolen() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.is_active := NEW.site <> 'stolen'; RETURN NEW; END $$"
    )
    ours.sql(f"CREATE TRIGGER stolen BEFORE UPDATE ON {DEVICES} FOR EACH ROW EXECUTE FUNCTION lock_stolen()")
    try:
        for url in ours.urls * 2:
            assert ours.login(url, station) == OK
        ours.sql(f"UPDATE {DEVICES} SET site = 'stolen' WHERE device_id = %(id)s", id=station["device_id"])
        assert ours.all_say(DENIED, lambda url: ours.login(url, station))
    finally:
        ours.sql("DROP FUNCTION lock_stolen CASCADE")


@pytest.mark.parametrize("which", ["ALL", "authsvc_update"])
def test_a_change_while_the_triggers_were_off_is_in_force(ours, station, which):
    """For a moment that no proof saw: a bulk load does so in one transaction, and so does a quick migration."""
    names = ("rows", "update", "truncate")
    again = ", ".join(f"ENABLE ALWAYS TRIGGER authsvc_{name}" for name in names)
    for url in ours.urls * 2:
        assert ours.login(url, station) == OK

    ours.sql(
        psycopg.sql.SQL(
            f"BEGIN; ALTER TABLE {DEVICES} DISABLE TRIGGER {'USER' if which == 'ALL' else which}; "
            f"UPDATE {DEVICES} SET is_active = false WHERE device_id = {{}}; ALTER TABLE {DEVICES} {again}; COMMIT"
        )
        .format(station["device_id"])
        .as_string()
    )

    assert ours.all_say(DENIED, lambda url: ours.login(url, station))
    for url in ours.urls:
        assert eventually(lambda url=url: listens(ours, url))


def test_a_table_that_took_the_place_of_another_is_read(ours, station):
    """A blue-green change: the new table has its triggers already, and nothing in it changes any more."""
    for url in ours.urls * 2:
        assert ours.login(url, station) == OK
    names = ("rows", "update", "truncate")
    events = ("INSERT OR DELETE", "UPDATE", "TRUNCATE")
    ours.sql(f"CREATE TABLE green (LIKE {DEVICES} INCLUDING ALL)")
    ours.sql(f"INSERT INTO green SELECT * FROM {DEVICES}")
    ours.sql("UPDATE green SET is_active = false WHERE device_id = %(id)s", id=station["device_id"])
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
        assert ours.all_say(DENIED, lambda url: ours.login(url, station))
    finally:
        ours.sql(swap.format(DEVICES, "green", "blue"))
        ours.sql("DROP TABLE green")
    assert ours.all_say(OK, lambda url: ours.login(url, station))


def test_a_grant_removed_from_another_schema_is_out_of_force(ours, station):
    """Its session knows another table of policies, or, as a dump that is restored, none."""
    topic, key = "plant/8/state", f"key:weatherstation/{station['device_id']}"
    ours.sql("CREATE SCHEMA tenant")
    ours.sql("CREATE TABLE tenant.authsvc_policy (id int, revision bigint)")
    try:
        for path in ("tenant", "''"):
            ours.sql(
                "INSERT INTO authsvc_grant (subject, effect, actions, filter, note, created_at) "
                "VALUES (%(key)s, 'allow', 'publish', 'plant/+/state', '', now())",
                key=key,
            )
            assert ours.all_say(OK, lambda url: ours.publish(url, station, topic))
            ours.sql(f"SET search_path = {path}; DELETE FROM public.authsvc_grant WHERE subject = '{key}'")
            assert ours.all_say(DENIED, lambda url: ours.publish(url, station, topic))
    finally:
        ours.sql("DROP SCHEMA tenant CASCADE")


def test_what_was_not_heard_is_not_answered_in_the_next_outage(ours, station, tmp_path):
    """The connection breaks, a device is disabled unheard, the connection is back, then the database goes away."""
    url = ours.urls[0]
    for _ in range(2):
        assert ours.login(url, station) == OK
    ours.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'devicehub changes'"
    )
    ours.sql(f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=station["device_id"])
    time.sleep(0.2)
    assert eventually(lambda: listens(ours, url))

    ours.cluster.stop()
    try:
        assert ours.login(url, station) == FAULT
    finally:
        ours.cluster.start()


def test_an_ear_at_another_database_is_not_believed(ours, tmp_path, station):
    dsn = f"{ours.cluster.url.rpartition('/')[0]}/other"
    ours.sql("CREATE DATABASE other")
    variables = {"DATABASE_URL": ours.cluster.url, "AUTHSVC_LISTEN_DSN": dsn, "WEB_CONCURRENCY": "1"}
    with hub.gunicorn(tmp_path, **variables) as url:
        assert eventually(lambda: "not heard" in str(ours.ready(url)[1]["notes"]))
        assert ours.ready(url)[0] == OK
        assert ours.login(url, station) == OK
        ours.sql(f"UPDATE {DEVICES} SET is_active = false WHERE device_id = %(id)s", id=station["device_id"])
        assert ours.login(url, station) == DENIED


def test_a_migration_of_a_column_needs_no_restart(ours, station):
    """PostgreSQL refuses what was prepared before: "cached plan must not change result type"."""
    url = ours.urls[0]
    for _ in range(3):
        assert ours.login(url, station, "wrong") == DENIED

    drop = "; ".join(f"DROP TRIGGER {name} ON {DEVICES}" for name in triggers.OF_SOURCE)
    ours.sql(f"{drop}; ALTER TABLE {DEVICES} ALTER mqtt_password_hash TYPE varchar(300)")
    try:
        assert ours.login(url, station, "wrong") == DENIED
        assert ours.login(url, station) == OK
    finally:
        source = Source(DEVICES, NAMES, devices.DECIDE)
        for statement in triggers._of_source(source):
            ours.sql(statement)


class TestWithoutItsDatabase:
    def test_a_table_that_is_locked_holds_up_nobody(self, ours, station):
        """A rebuild of the table takes 4 s: each question has its answer in time, and none waits for another's."""
        url = ours.urls[0]
        # A table that a test before altered makes a new session, which forgets: it is noticed by the next proof.
        noticed = time.monotonic() + 2 * changes.BEAT_SECONDS + changes.PAUSE
        assert eventually(lambda: time.monotonic() > noticed)
        assert eventually(lambda: listens(ours, url) and ours.login(url, station) == OK)

        def ask(number: int) -> tuple[int, float]:
            since = time.monotonic()
            password = station["mqtt_password"] if number % 2 else "wrong"
            who = station if number % 4 else ours.devices[number % len(ours.devices)]
            return ours.login(url, who, password), time.monotonic() - since

        with psycopg.connect(ours.cluster.url) as locking, ThreadPoolExecutor(32) as pool:
            locking.execute(f"LOCK {DEVICES} IN ACCESS EXCLUSIVE MODE")
            answers = list(pool.map(ask, range(200)))

        assert {status for status, _ in answers} <= {OK, DENIED, FAULT}
        assert {status for status, _ in answers} >= {OK, FAULT}
        assert max(seconds for _, seconds in answers) < 3
        assert eventually(lambda: ours.login(url, station) == OK and listens(ours, url))
        assert self.connections(ours) <= 2 * 2 + 2

    def test_slow_reads_do_not_pile_up(self, ours):
        """Half a second each, over one connection: who waits too long has a fault answer instead of a turn."""
        url, ingest = ours.urls[0], {"mqtt_username": ours.account, "mqtt_password": "x"}

        def ask(_: int) -> tuple[int, float]:
            since = time.monotonic()
            return ours.login(url, ingest), time.monotonic() - since

        ours.sql(
            "CREATE POLICY slow ON authsvc_account USING (pg_sleep(0.5) IS NOT NULL); "
            "ALTER TABLE authsvc_account ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        )
        try:
            with ThreadPoolExecutor(32) as pool:
                answers = list(pool.map(ask, range(64)))
        finally:
            ours.sql("DROP POLICY slow ON authsvc_account")
            ours.sql("ALTER TABLE authsvc_account NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY")

        assert {status for status, _ in answers} <= {DENIED, FAULT}
        assert max(seconds for _, seconds in answers) < 4

    @staticmethod
    def connections(site: Site) -> int:
        with psycopg.connect(site.cluster.url) as connection:
            found = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'devicehub%'"
            ).fetchone()
        assert found is not None
        return int(found[0])

    @pytest.mark.parametrize("how", ["stopped", "paused"])
    def test_who_was_read_lately_is_answered_from_memory(self, ours, station, how):
        """For AUTHSVC_STALE_SECONDS, which is 6 here. Nobody else is, and nobody is let in by it who was not."""
        url = ours.urls[0]
        assert ours.login(url, station) == OK
        with ExitStack() as stack:
            if how == "paused":
                stack.enter_context(ours.cluster.paused())
            else:
                ours.cluster.stop()
                stack.callback(ours.cluster.start)
            read = time.monotonic()

            assert eventually(lambda: ours.ready(url)[0] == FAULT, 3)
            assert ours.login(url, station) == OK
            assert ours.publish(url, station) == OK
            assert ours.publish(url, station, "things/weatherstation/S-001/cmd") == DENIED
            assert ours.login(url, station, "wrong") == DENIED
            assert ours.login(url, {"mqtt_username": "stranger", "mqtt_password": "x"}) == FAULT
            assert ours.login(url, ours.devices[0]) == FAULT
            code, said = ours.ready(url)
            assert code == FAULT
            assert said["reasons"] == [
                "The database does not answer. Who was read within 6 s is answered from memory."
            ]
            assert said["stale_answers"] > 0
            assert httpx.get(f"{url}/healthz").status_code == OK
            time.sleep(max(0, read + 6 - time.monotonic()))
            assert ours.login(url, station) == FAULT

        for url in ours.urls:  # without a restart
            assert eventually(lambda url=url: ours.login(url, station) == OK)
            assert eventually(lambda url=url: listens(ours, url))

    def test_a_process_starts_and_recovers(self, ours, station, tmp_path):
        ours.cluster.stop()
        try:
            server = hub.gunicorn(tmp_path, DATABASE_URL=ours.cluster.url, WEB_CONCURRENCY="1")
            url = server.__enter__()
            assert ours.login(url, station) == FAULT
            assert ours.ready(url)[0] == FAULT
        finally:
            ours.cluster.start()
        try:
            assert eventually(lambda: ours.login(url, station) == OK)
            assert eventually(lambda: listens(ours, url))
        finally:
            server.__exit__(None, None, None)


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
def test_what_is_told_in_no_known_way_is_everything(payload, names):
    assert changes._names(payload) == names


class TestRemembered:
    """The memory by itself."""

    @pytest.fixture
    def run(self) -> Iterator[Callable[..., Any]]:
        with asyncio.Runner() as runner:
            yield runner.run

    def test_a_read_that_overlaps_a_change_is_not_kept(self, run):
        """By force: the change is told while the read is under way, by its name or as everything."""
        for told in ("station", None):
            answers = iter(["before", "after"])

            async def read(name: str, told: str | None = told, answers: Iterator[str] = answers) -> str:
                value = next(answers)
                if value == "before":
                    remembered.invalidate("neighbour")
                    remembered.invalidate(told)
                return value

            memory = Remembered(read)
            assert run(memory.get("station", "now")) == "before"
            assert memory.peek("station", "now") is None
            assert run(memory.get("station", "now")) == "after"
            assert memory.peek("station", "now") == "after"

    def test_a_change_of_another_spoils_nothing(self, run):
        async def read(name: str) -> str:
            remembered.invalidate("neighbour")
            return name

        memory = Remembered(read)
        run(memory.get("station", "now"))

        assert memory.peek("station", "now") == "station"

    def test_it_is_true_under_one_stamp(self, run):
        memory = Remembered(self.echo)
        run(memory.get("station", "then"))

        assert memory.peek("station", "then") == "station"
        assert memory.peek("station", "now") is None
        assert memory.peek("station", None) is None

    def test_without_a_stamp_everything_is_read(self, run):
        reads = []

        async def read(name: str) -> str:
            reads.append(name)
            return name

        memory = Remembered(read)
        for _ in range(3):
            run(memory.get("station", None))

        assert reads == ["station"] * 3

    def test_nobody_is_not_kept(self, run):
        async def nobody(name: str) -> None:
            return None

        memory: Remembered[str] = Remembered(nobody)
        assert run(memory.get("stranger", "now")) is None
        assert len(memory) == 0

    def test_it_is_bounded_and_drops_who_was_asked_for_longest_ago(self, run, settings):
        settings.AUTHSVC_CACHE_SIZE = 3
        memory = Remembered(self.echo)
        for name in ("a", "b", "c"):
            run(memory.get(name, "now"))
        assert memory.peek("a", "now") == "a"
        run(memory.get("d", "now"))

        assert [name for name in "abcd" if memory.peek(name, "now")] == ["a", "c", "d"]

    def test_what_is_asked_for_is_read_again_in_time(self, run, settings, monkeypatch):
        settings.AUTHSVC_STALE_SECONDS = 300
        clock = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        memory = Remembered(self.echo)
        run(memory.get("station", "now"))

        clock[0] += 149
        assert memory.peek("station", "now") == "station"
        clock[0] += 2
        assert memory.peek("station", "now") is None

    @pytest.mark.parametrize(("age", "answered"), [(0, True), (299, True), (300, False), (10_000, False)])
    def test_a_database_that_is_away_makes_it_stale_for_a_time(
        self, run, settings, monkeypatch, age, answered
    ):
        settings.AUTHSVC_STALE_SECONDS = 300
        clock = [1000.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        away = []

        async def read(name: str) -> str:
            if away:
                raise DatabaseAway
            return name

        memory = Remembered(read)
        run(memory.get("station", "now"))
        away.append(True)
        clock[0] += age

        if answered:
            assert run(memory.read("station", None)) == "station"
        else:
            with pytest.raises(DatabaseAway):
                run(memory.read("station", None))
        with pytest.raises(DatabaseAway):
            run(memory.read("stranger", None))

    def test_what_was_read_by_who_hears_nothing_is_not_answered_when_the_database_is_away(self, run):
        away = []

        async def read(name: str) -> str:
            if away:
                raise DatabaseAway
            return name

        memory = Remembered(read)
        assert run(memory.get("station", None)) == "station"
        away.append(True)

        with pytest.raises(DatabaseAway):
            run(memory.get("station", None))

    def test_what_changed_is_not_answered_when_the_database_is_away(self, run):
        away = []

        async def read(name: str) -> str:
            if away:
                raise DatabaseAway
            return name

        memory = Remembered(read)
        run(memory.get("station", "now"))
        away.append(True)
        remembered.invalidate("station")

        with pytest.raises(DatabaseAway):
            run(memory.get("station", None))

    @staticmethod
    async def echo(name: str) -> str:
        return name
