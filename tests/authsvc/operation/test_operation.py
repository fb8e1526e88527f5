"""A running hub for its operators: probes, metrics, and a stop that is short and loses nothing."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bcrypt
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from authsvc.core.access import Reason
from authsvc.dialects import DIALECTS
from authsvc.operation import metrics
from rig import hub, servers
from rig.entrances import both_entrances
from rig.hub import CLIENT, ROOT, eventually

pytestmark = pytest.mark.servers

OK, DENIED, FAULT = 200, 403, 503
STOP_SECONDS = 3.0
Key = tuple[str, ...]

of_sqlite = pytest.mark.sqlite_only  # It uses its own database, so one run is enough.


@dataclass
class Fleet:
    """The rows of a database: two brokers that may ask, and two devices."""

    url: str
    token: str
    emqx_token: str
    station: dict[str, Any]
    neighbour: dict[str, Any]

    @classmethod
    def made(cls, url: str) -> Fleet:
        two = ["weatherstation", "--count", "2", "--prefix", "S-", "--output", "-"]
        _, *brokers, devices = hub.run_commands(
            url,
            ["migrate"],
            *(["create_broker", f"of {dialect}", dialect, "--json"] for dialect in ("go-auth", "emqx")),
            ["provision_devices", *two],
        )
        return cls(url, *(json.loads(broker)["token"] for broker in brokers), *json.loads(devices))


@dataclass
class Site:
    """The shipped gunicorn with two workers. *temporary* is its folder for temporary folders."""

    fleet: Fleet
    url: str
    server: subprocess.Popen[bytes]
    temporary: Path

    @property
    def database(self) -> Path:
        return Path(self.fleet.url.removeprefix("sqlite:///"))

    def workers(self) -> list[int]:
        return sorted(servers._children(self.server.pid))

    @contextmanager
    def only(self, worker: int) -> Iterator[None]:
        """Make *worker* answer all new connections meanwhile."""
        others = [pid for pid in self.workers() if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def get(self, path: str) -> httpx.Response:
        return CLIENT.get(f"{self.url}{path}")

    def counted(self) -> Counter[Key]:
        """Return the counted questions once the workers have shared their numbers."""
        time.sleep(1.2)
        return questions(self.get("/metrics").text)

    def ready(self) -> tuple[int, list[str]]:
        answer = self.get("/readyz")
        return answer.status_code, answer.json()["reasons"]

    def ask(self, question: str, *, token: str | None = None, **fields: Any) -> int:
        path = f"{self.url}/mqtt/{question}?k={token or self.fleet.token}"
        return CLIENT.post(path, json=fields).status_code

    def login(self, device: dict[str, Any], password: str | None = None) -> int:
        name, right = device["mqtt_username"], device["mqtt_password"]
        return self.ask("go-auth/user", username=name, clientid=name, password=password or right)

    def publish(self, device: dict[str, Any], topic: str | None = None) -> int:
        name = device["mqtt_username"]
        topic = topic or device["topics"]["data"]
        return self.ask("go-auth/acl", username=name, clientid=name, topic=topic, acc=2)

    def denied(self) -> int:
        """Return the number of stored denials."""
        with closing(sqlite3.connect(self.database)) as database:
            return int(database.execute("SELECT coalesce(sum(count), 0) FROM authsvc_denial").fetchone()[0])

    def stop(self) -> float:
        """Send SIGTERM; return the seconds until it exits, which must be with code 0."""
        since = time.monotonic()
        self.server.terminate()
        code = self.server.wait(30)
        took = time.monotonic() - since
        assert code == 0
        return took

    def left(self) -> list[str]:
        """Return processes of its session and temporary folders that still exist after a stop."""
        found = [path.name for path in self.temporary.iterdir()]
        try:
            os.killpg(self.server.pid, 0)
        except ProcessLookupError:
            return found
        return [*found, "processes"]


@contextmanager
def serving(fleet: Fleet, folder: Path) -> Iterator[Site]:
    temporary = folder / "temporary"
    temporary.mkdir(parents=True)
    variables = {"DATABASE_URL": fleet.url, "WEB_CONCURRENCY": "2", "TMPDIR": str(temporary)}
    with hub.gunicorn_process(folder, **variables) as (url, server):
        site = Site(fleet, url, server, temporary)
        assert eventually(lambda: len(list(temporary.glob("*/*.json"))) == 2)  # Both workers are up.
        yield site
        if server.poll() is None:  # Other tests do not wait for a stop.
            os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet.made(f"sqlite:///{tmp_path_factory.mktemp('template')}/hub.sqlite3")


def copied(template: Fleet, folder: Path) -> Fleet:
    shutil.copy(template.url.removeprefix("sqlite:///"), folder / "hub.sqlite3")
    return replace(template, url=f"sqlite:///{folder}/hub.sqlite3")


@pytest.fixture(scope="module")
def site(template: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield one site for all tests that do not stop it."""
    folder = tmp_path_factory.mktemp("site")
    with serving(copied(template, folder), folder) as site:
        yield site


@pytest.fixture
def fleeting(template: Fleet, tmp_path: Path) -> Iterator[Site]:
    """Yield a site of its own for a test that stops it."""
    with serving(copied(template, tmp_path), tmp_path) as site:
        yield site


@contextmanager
def idle_connections(url: str, number: int = 20) -> Iterator[None]:
    """Hold connections open as brokers do, after one question each."""
    with ExitStack() as stack:
        for _ in range(number):
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
            stack.callback(connection.close)
            connection.request("GET", "/healthz")
            answer = connection.getresponse()
            answer.read()
            assert not answer.will_close
        yield


@contextmanager
def away(database: Path) -> Iterator[None]:
    """Move *database* and its other files away, and back afterwards."""
    # The denials of earlier questions are written first. A later write would make an empty file.
    time.sleep(1.2)
    elsewhere = database.parent / "away"
    elsewhere.mkdir()
    for path in database.parent.glob(f"{database.name}*"):
        path.rename(elsewhere / path.name)
    try:
        yield
    finally:
        for path in elsewhere.iterdir():
            path.rename(database.parent / path.name)
        elsewhere.rmdir()


class TestProbes:
    @of_sqlite
    def test_healthz_reads_nothing(self, site):
        with away(site.database):
            answers = [site.get("/healthz") for _ in range(6)]

            assert {(answer.status_code, answer.text) for answer in answers} == {(OK, '{"status":"alive"}')}
            assert not site.database.exists()

    @of_sqlite
    def test_a_missing_database_is_a_fault_until_it_is_back(self, site):
        """It is never an allow, and no restart is needed."""
        station = site.fleet.station
        assert [site.login(station) for _ in range(6)] == [OK] * 6
        assert site.ready() == (OK, [])

        with away(site.database):
            for worker in site.workers():
                with site.only(worker):
                    assert site.login(station) == FAULT
                    assert site.publish(station) == FAULT
                    assert site.ready() == (FAULT, ["The database does not answer."])

        for worker in site.workers():
            with site.only(worker):
                assert site.ready() == (OK, [])
                assert site.login(station) == OK

    @of_sqlite
    def test_readyz_itself_notices_a_missing_database(self, site):
        """It does so before any question has failed."""
        assert [site.ready() for _ in range(6)] == [(OK, [])] * 6

        with away(site.database):
            assert [site.ready()[0] for _ in range(6)] == [FAULT] * 6

    @of_sqlite
    def test_a_database_without_tables_is_not_ready_until_it_is_migrated(self, tmp_path, template):
        fleet = replace(template, url=f"sqlite:///{tmp_path}/hub.sqlite3")
        with serving(fleet, tmp_path) as site:
            assert site.ready() == (FAULT, ["The tables are missing; run manage.py migrate."])
            assert site.login(template.station) == FAULT

            hub.run_commands(fleet.url, ["migrate"])

            assert [site.ready() for _ in range(6)] == [(OK, [])] * 6
            assert site.login(template.station) == DENIED

    @of_sqlite
    def test_a_lost_revision_is_not_ready(self, site):
        with closing(sqlite3.connect(site.database, isolation_level=None)) as database:
            database.execute("DELETE FROM authsvc_policy")

        assert site.ready() == (FAULT, ["The policy revision is missing; run manage.py migrate."])
        hub.run_commands(site.fleet.url, ["migrate"])
        assert site.ready() == (OK, [])

    @both_entrances
    def test_both_entrances_answer_probes(self, send, entrance, transactional_db):
        alive, ready = (send(entrance, "GET", path) for path in ("/healthz", "/readyz"))

        assert (alive.status_code, alive.json()) == (OK, {"status": "alive"})
        assert ready.status_code == OK
        assert set(ready.json()) == {"status", "reasons", "notes", "stale_answers", "slow_verifications"}
        for answer in (alive, ready):
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"


LABELS = ("dialect", "question", "verdict", "reason", "le", "event", "path", "outcome")


def samples(text: str) -> dict[str, dict[Key, float]]:
    """Return the values of each series by the values of its labels. Raise ValueError for invalid text."""
    found: dict[str, dict[Key, float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type != "unknown"
        for sample in family.samples:
            values = tuple(sample.labels[name] for name in LABELS if name in sample.labels)
            assert len(values) == len(sample.labels)
            series = found.setdefault(sample.name, {})
            assert values not in series
            series[values] = sample.value
    return found


def questions(text: str) -> Counter[Key]:
    """Return the numbers of questions by dialect, question, verdict and reason."""
    counted = samples(text).get("devicehub_auth_questions_total", {})
    return Counter({key: int(number) for key, number in counted.items()})


def assert_consistent(text: str) -> None:
    """Check that each histogram counts the same questions as the counter, and never falls from bound to bound."""
    series, totals = samples(text), Counter[Key]()
    for key, number in questions(text).items():
        totals[key[:2]] += number
    assert series["devicehub_auth_seconds_count"] == totals
    for labels, total in totals.items():
        buckets = [n for key, n in series["devicehub_auth_seconds_bucket"].items() if key[:2] == labels]
        assert len(buckets) == len(metrics.BOUNDS) + 1
        assert buckets == sorted(buckets)
        assert buckets[-1] == total
        assert series["devicehub_auth_seconds_sum"][labels] > 0


HOSTILE = [
    ("POST", "/mqtt/go-auth/user", {"username": "mallory-1", "password": "s3cr3t-guess"}),
    ("POST", "/mqtt/go-auth/acl", {"username": "mallory-2", "topic": "mallory/topic", "acc": 2}),
    ("POST", "/mqtt/go-auth/acl", {"username": "mallory-3", "topic": "mallory/#", "acc": "mallory"}),
    ("POST", "/mqtt/go-auth/mallory", {}),
    ("POST", "/mqtt/mallory/user", {}),
    ("POST", "/mqtt/k/mallory/go-auth/user", {"username": "mallory-4"}),
    ("DELETE", "/mqtt/go-auth/user", {}),
    ("POST", '/mqtt/go-auth/user"%7D 1%0Amallory 1', {}),
    ("GET", "/metrics/mallory", {}),
    (
        "POST",
        "/mqtt/emqx/authz",
        {"username": "\x00\n\u2028mallory", "topic": "\U0001f600", "action": "mallory"},
    ),
]


class TestMetrics:
    @of_sqlite
    def test_every_worker_answers_with_the_exact_numbers_of_all(self, site):
        station, neighbour = site.fleet.station, site.fleet.neighbour
        first, second = site.workers()
        before = site.counted()
        authz = {"username": "stranger", "clientid": "x", "topic": "a", "action": "publish"}

        def repeat(times: int, ask: Callable[[], int], wanted: int) -> None:
            assert [ask() for _ in range(times)] == [wanted] * times

        for worker, times in ((first, 3), (second, 4)):
            with site.only(worker):
                repeat(times, lambda: site.login(station), OK)
                repeat(times + 1, lambda: site.login(station, "wrong"), DENIED)
                repeat(times + 2, lambda: site.publish(station), OK)
                repeat(times + 3, lambda: site.publish(station, neighbour["topics"]["data"]), DENIED)
                repeat(times + 4, lambda: site.ask("go-auth/user", token="no token"), DENIED)
                repeat(times + 5, lambda: site.ask("emqx/authz", token=site.fleet.emqx_token, **authz), OK)
        expected = Counter(
            {
                ("go-auth", "user", "allow", "credentials"): 7,
                ("go-auth", "user", "deny", "wrong_password"): 9,
                ("go-auth", "acl", "allow", "grant"): 11,
                ("go-auth", "acl", "deny", "no_grant"): 13,
                ("go-auth", "user", "deny", "unknown_caller"): 15,
                ("emqx", "authz", "deny", "unknown_username"): 17,
            }
        )

        for worker in (first, second):

            def seen(worker: int = worker) -> bool:
                with site.only(worker):
                    return questions(site.get("/metrics").text) - before == expected

            assert eventually(seen, 5)  # A worker shares its numbers once a second.
        assert_consistent(site.get("/metrics").text)

    @of_sqlite
    def test_the_numbers_of_a_killed_worker_outlive_it(self, fleeting):
        """It loses the last second of denials and no more."""
        assert [fleeting.login(fleeting.fleet.station) for _ in range(8)] == [OK] * 8
        refused = [fleeting.login(fleeting.fleet.station, "wrong") for _ in range(20)]
        key = ("go-auth", "user", "allow", "credentials")
        time.sleep(1.2)
        first, second = fleeting.workers()

        os.kill(first, signal.SIGKILL)

        assert eventually(lambda: len(fleeting.workers()) == 2 and first not in fleeting.workers())
        assert eventually(lambda: questions(fleeting.get("/metrics").text)[key] == 8)
        assert second in fleeting.workers()
        for worker in fleeting.workers():
            os.kill(worker, signal.SIGKILL)
        assert fleeting.denied() == len(refused)

    @of_sqlite
    def test_a_fault_is_counted_as_one(self, site):
        before = site.counted()
        with away(site.database):
            for worker in site.workers():
                with site.only(worker):
                    assert site.login(site.fleet.station) == FAULT

        fault = Counter({("go-auth", "user", "fault", "fault"): 2})
        assert eventually(lambda: questions(site.get("/metrics").text) - before == fault)

    @both_entrances
    def test_both_entrances_count_what_they_answer(self, send, ask, entrance, station):
        def counted() -> Counter[Key]:
            scraped = send(entrance, "GET", "/metrics")
            assert scraped.status_code == OK
            assert scraped.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            return questions(scraped.text)

        before = counted()
        for password in (station.password, station.password, "wrong"):
            ask("go-auth/user", username=station.username, clientid=station.username, password=password)

        expected = {
            ("go-auth", "user", "allow", "credentials"): 2,
            ("go-auth", "user", "deny", "wrong_password"): 1,
        }
        assert counted() - before == expected
        assert_consistent(send(entrance, "GET", "/metrics").text)

    @both_entrances
    def test_strangers_create_no_series_and_show_in_none(self, send, entrance, token, station):
        dialects = {dialect.name: set(dialect.questions) for dialect in DIALECTS}
        for method, path, fields in HOSTILE:
            for query in ("", f"?k={token}", "?k=mallory"):
                send(entrance, method, f"{path}{query}", json=fields)
        send(
            entrance,
            "POST",
            f"/mqtt/go-auth/user?k={token}",
            json={"username": station.username, "password": "x"},
        )

        text = send(entrance, "GET", "/metrics").text

        for dialect, question, verdict, reason in questions(text):
            assert question in dialects[dialect]
            assert verdict in {"allow", "deny", "fault"}
            assert reason in {*Reason, "fault"}
        for secret in (
            "mallory",
            "s3cr3t",
            token,
            station.username,
            station.password,
            station.device.device_id,
        ):
            assert secret not in text


def waiting(site: Site) -> float:
    """Return the slow verifications that run or wait in all workers."""
    name = "devicehub_auth_slow_verifications_waiting "
    lines = site.get("/metrics").text.splitlines()
    return float(next(line.removeprefix(name) for line in lines if line.startswith(name)))


class TestStop:
    """SIGTERM while brokers hold their connections open, the usual case."""

    @of_sqlite
    def test_it_is_short_writes_all_denials_until_then_and_leaves_nothing(self, fleeting):
        assert [path.name for path in fleeting.temporary.iterdir() if "devicehub-metrics" in path.name]
        with idle_connections(fleeting.url):
            refused = [fleeting.login(fleeting.fleet.station, "wrong") for _ in range(20)]
            assert fleeting.stop() < STOP_SECONDS

        assert fleeting.left() == []
        assert fleeting.denied() == len(refused)

    @of_sqlite
    def test_waiting_slow_hashes_do_not_delay_it(self, fleeting):
        """100 devices with imported hashes of half a second each log in at once.

        The server may finish the hashes that run, which takes longer on a busy machine: so the bound is six of them.
        It computes four at a time, so far fewer than 20 end while one is measured here.
        """
        names = [f"imported-{number}" for number in range(100)]
        with closing(sqlite3.connect(fleeting.database)) as database, database:
            database.executemany(
                "INSERT INTO authsvc_account (username, password_hash, previous_password_hash, is_active, "
                "is_superuser, client_ids, created_at) VALUES (?, ?, '', 1, 0, '[]', '2026-01-01')",
                [(name, f"$2b$13${number:021d}u{'a' * 31}") for number, name in enumerate(names)],
            )

        def log_in(name: str) -> None:
            with suppress(httpx.HTTPError):  # A server that stops does not answer.
                fleeting.login({"mqtt_username": name, "mqtt_password": "wrong"})

        clients = [threading.Thread(target=log_in, args=[name]) for name in names]
        for client in clients:
            client.start()
        assert eventually(lambda: waiting(fleeting) > 40)
        began = time.monotonic()
        bcrypt.hashpw(b"wrong", bcrypt.gensalt(13))
        one_hash = time.monotonic() - began
        assert waiting(fleeting) > 20

        assert fleeting.stop() < max(STOP_SECONDS, 6 * one_hash)
        for client in clients:
            client.join(10)

    @of_sqlite
    def test_a_starting_worker_does_not_delay_it(self, fleeting):
        """A worker that imports the project ends when it has, which takes longer on a busy machine."""
        began = time.monotonic()
        env = hub.environment(DATABASE_URL=fleeting.fleet.url)
        subprocess.run([sys.executable, "-c", "import config.asgi"], cwd=ROOT, env=env, check=True)
        one_start = time.monotonic() - began
        first, _ = fleeting.workers()
        os.kill(first, signal.SIGKILL)
        assert eventually(lambda: len(fleeting.workers()) == 2 and first not in fleeting.workers())

        assert fleeting.stop() < max(STOP_SECONDS, 2 * one_start)

        # The server kills a worker that has not ended, and exits at once.
        assert eventually(lambda: fleeting.left() == [])

    @of_sqlite
    def test_a_locked_database_does_not_delay_it(self, fleeting):
        old = [fleeting.login(fleeting.fleet.station, "wrong") for _ in range(10)]
        time.sleep(1.1)
        with closing(sqlite3.connect(fleeting.database, isolation_level=None)) as other, ExitStack() as stack:
            stack.enter_context(idle_connections(fleeting.url))
            other.execute("BEGIN IMMEDIATE")
            assert [fleeting.login(fleeting.fleet.station, "wrong") for _ in range(10)] == [DENIED] * 10

            assert fleeting.stop() < STOP_SECONDS

        assert fleeting.left() == []
        assert fleeting.denied() == len(old)

    @of_sqlite
    @pytest.mark.parametrize("how", ["paused", pytest.param("stopped", marks=pytest.mark.long)])
    def test_an_unreachable_database_does_not_delay_it(self, postgresql, tmp_path, how):
        cluster, fleet = postgresql
        with serving(fleet, tmp_path) as site, ExitStack() as stack:
            assert site.login(fleet.station, "wrong") == DENIED
            stack.enter_context(idle_connections(site.url))
            if how == "paused":
                stack.enter_context(cluster.paused())
            else:
                cluster.stop()
                stack.callback(cluster.start)
            assert eventually(lambda: site.ready()[0] == FAULT)

            assert site.stop() < STOP_SECONDS

            assert site.left() == []


@pytest.fixture(scope="module")
def postgresql(
    tmp_path_factory: pytest.TempPathFactory, needs_real: Callable[[servers.MissingServer], None]
) -> Iterator[tuple[servers.Cluster, Fleet]]:
    try:
        with servers.postgresql_cluster(tmp_path_factory.mktemp("postgresql")) as cluster:
            yield cluster, Fleet.made(cluster.url)
    except servers.MissingServer as missing:
        needs_real(missing)
