"""A process without its database answers from its cache only."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import psycopg.sql
import pytest

from authsvc.freshness import changes
from rig import hub
from rig.freshness import DENIED, DEVICES, FAULT, OK, Site, listens
from rig.hub import CLIENT, eventually

# They start their own PostgreSQL, so one run is enough.
pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]


@pytest.fixture
def settled(ours: Site) -> Site:
    """Return the site once changes by earlier tests cannot clear its caches any more.

    The next check notices an altered table and starts a new session, which clears the caches.
    """
    noticed = time.monotonic() + 2 * changes.BEAT_SECONDS + changes.PAUSE
    assert eventually(lambda: time.monotonic() > noticed)
    for url in ours.urls:
        assert eventually(lambda url=url: listens(ours, url))
    return ours


class TestWithoutItsDatabase:
    def test_a_locked_table_delays_no_answer(self, settled, fresh_device):
        """A rebuild of the table takes 4 s: each question gets its answer in time, and none waits for another."""
        ours, url = settled, settled.urls[0]
        assert eventually(lambda: listens(ours, url) and ours.login(url, fresh_device) == OK)

        def ask(number: int) -> tuple[int, float]:
            since = time.monotonic()
            password = fresh_device["mqtt_password"] if number % 2 else "wrong"
            who = fresh_device if number % 4 else ours.devices[number % len(ours.devices)]
            return ours.login(url, who, password), time.monotonic() - since

        with psycopg.connect(ours.cluster.url) as locking, ThreadPoolExecutor(32) as pool:
            locking.execute(f"LOCK {DEVICES} IN ACCESS EXCLUSIVE MODE")
            answers = list(pool.map(ask, range(200)))

        assert {status for status, _ in answers} <= {OK, DENIED, FAULT}
        assert {status for status, _ in answers} >= {OK, FAULT}
        assert max(seconds for _, seconds in answers) < 3
        assert eventually(lambda: ours.login(url, fresh_device) == OK and listens(ours, url))
        assert self.connections(ours) <= 2 * 2 + 2

    def test_slow_reads_do_not_pile_up(self, ours):
        """Each read takes half a second, over one connection: a question that waits too long gets a fault."""
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

    @pytest.mark.parametrize("how", ["paused", pytest.param("stopped", marks=pytest.mark.long)])
    def test_recently_read_clients_are_answered_from_the_cache(self, settled, fresh_device, how):
        """They are for AUTHSVC_STALE_SECONDS (6 here). Others get a fault; a denied client is not admitted."""
        ours, url = settled, settled.urls[0]
        assert ours.login(url, fresh_device) == OK
        with ExitStack() as stack:
            if how == "paused":
                stack.enter_context(ours.cluster.paused())
            else:
                ours.cluster.stop()
                stack.callback(ours.cluster.start)
            read = time.monotonic()

            assert eventually(lambda: ours.ready(url)[0] == FAULT, 3)
            assert ours.login(url, fresh_device) == OK
            assert ours.publish(url, fresh_device) == OK
            assert ours.publish(url, fresh_device, "things/weatherstation/S-001/cmd") == DENIED
            assert ours.login(url, fresh_device, "wrong") == DENIED
            assert ours.login(url, {"mqtt_username": "stranger", "mqtt_password": "x"}) == FAULT
            assert ours.login(url, ours.devices[0]) == FAULT
            code, said = ours.ready(url)
            assert code == FAULT
            assert said["reasons"] == [
                "The database does not answer. Clients read within 6 s are answered from the cache."
            ]
            assert said["stale_answers"] > 0
            assert CLIENT.get(f"{url}/healthz").status_code == OK
            time.sleep(max(0, read + 6 - time.monotonic()))
            assert ours.login(url, fresh_device) == FAULT

        for url in ours.urls:  # Without a restart.
            assert eventually(lambda url=url: ours.login(url, fresh_device) == OK)
            assert eventually(lambda url=url: listens(ours, url))

    def test_a_process_starts_and_recovers(self, ours, fresh_device, tmp_path):
        ours.cluster.stop()
        try:
            server = hub.gunicorn(tmp_path, DATABASE_URL=ours.cluster.url, WEB_CONCURRENCY="1")
            url = server.__enter__()
            assert ours.login(url, fresh_device) == FAULT
            assert ours.ready(url)[0] == FAULT
        finally:
            ours.cluster.start()
        try:
            assert eventually(lambda: ours.login(url, fresh_device) == OK)
            assert eventually(lambda: listens(ours, url))
        finally:
            server.__exit__(None, None, None)
