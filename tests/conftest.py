"""Fixtures of all tests: the cast, a broker that is allowed to ask, and both entrances."""

from __future__ import annotations

import asyncio
import gc
import os
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from _pytest.doctest import DoctestModule
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase
from django.test.utils import setup_databases, teardown_databases
from whitenoise.middleware import WhiteNoiseMiddleware

from authsvc import background
from authsvc.caches import clear_caches
from authsvc.freshness import reader
from authsvc.logins import renewals
from authsvc.models import Broker
from authsvc.operation import denials, notes
from devicehub import mqtt
from devicehub.dashboard import overview
from devicehub.db import costly
from rig import processes, servers
from rig.cast import Cast, provision
from rig.empty_tables import EmptyTables
from rig.entrances import ENTRANCES, send_request
from rig.lanes import NOT_RUN
from rig.left_rows import LeftRows, watching
from rig.leshan.jars import NO_REAL_LESHAN
from rig.memory_broker import MemoryBroker
from rig.servers import MissingServer

# The mark that the expression of -m demands, such as that of `servers and not long`.
DEMANDED = re.compile(r"(?P<mark>servers|pages|long) and (?!.*\bor\b)")
DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup"}
BEFORE = pytest.StashKey[float]()
LEFT_ROWS = pytest.StashKey[LeftRows | None]()  # It holds None on PostgreSQL.


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over modules without a test of the mark that -m demands: to import them takes longer than many tests."""
    demanded = DEMANDED.match(config.option.markexpr or "")
    if (
        demanded
        and collection_path.suffix == ".py"
        and demanded["mark"].encode() not in collection_path.read_bytes()
    ):
        return True
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(
    file_path: Path,
) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for doctests only in test modules that have one. To find none takes as long as to collect the tests."""
    found = yield
    if b">>>" in file_path.read_bytes():
        return found
    return [collector for collector in found if not isinstance(collector, DoctestModule)]


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark property tests, of which `script/test --long` tries more examples."""
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        item.add_marker("fuzzed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests of the other database, and on PostgreSQL those that use no database and no server.

    A mark by which modules are passed over must stand in the module of its tests.
    """
    for item in items:
        for mark in ("servers", "pages", "long"):
            if item.get_closest_marker(mark) and mark not in _text(item.path):
                raise pytest.UsageError(f"{item.nodeid} has the mark {mark}, which its module does not name")
    if connection.vendor == "postgresql":
        deselected = [item for item in items if not _depends_on_the_database(item)]
    else:
        deselected = [item for item in items if item.get_closest_marker("postgresql_only")]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        left = set(deselected)
        items[:] = [item for item in items if item not in left]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without garbage collection: nearly all objects of that time stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each test that did not run because a peer is missing that REQUIRE_REAL does not demand."""
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if reason.startswith(NO_REAL_LESHAN):
            terminalreporter.write_line(f"{NOT_RUN}{report.nodeid} ({reason})")


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection, which would visit them all again and again.

    The garbage of a test is small, so it is collected more rarely than that of a program that runs for days.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@cache
def _text(path: Path) -> str:
    return path.read_text()


def _depends_on_the_database(item: pytest.Item) -> bool:
    marks = ("django_db", "servers", "postgresql_only")
    fixtures: list[str] = getattr(item, "fixturenames", [])
    return any(item.get_closest_marker(mark) for mark in marks) or not DATABASE_FIXTURES.isdisjoint(fixtures)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let only tests with the mark `servers` start servers, or other processes that take long."""
    servers.unmarked_test = None if item.get_closest_marker("servers") else item.nodeid
    item.stash[BEFORE] = processes.of_ended()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test without the mark `servers` if the processes that it started took long."""
    result = yield
    reason = processes.too_long(item.stash[BEFORE])
    if servers.unmarked_test is not None and reason:
        pytest.fail(reason)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that leaves rows in the test database, when all its fixtures are torn down."""
    result = yield
    _fail_if_rows_are_left(item.config.stash.get(LEFT_ROWS, None))
    return result


def _fail_if_rows_are_left(left_rows: LeftRows | None) -> None:
    found = left_rows.find() if left_rows else {}
    if found:
        text = f"left in the test database, as table: (rows before, rows now): {found}"
        pytest.fail(f"{text}; what a module shares needs the fixture module_database", pytrace=False)


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_blocker: Any, pytestconfig: pytest.Config
) -> Iterator[EmptyTables]:
    """Make the test database, which only tests and fixtures that ask for it may use; yield what empties it.

    Each process of pytest-xdist has one of its own.
    """
    process = os.environ.get("PYTEST_XDIST_WORKER")
    if process and connection.vendor == "postgresql":
        connection.settings_dict["TEST"]["NAME"] = f"test_{connection.settings_dict['NAME']}_{process}"
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False, aliases={"default"}, serialized_aliases=())
        empty_tables = EmptyTables()
    watch = watching(connection.settings_dict["NAME"]) if connection.vendor == "sqlite" else nullcontext()
    try:
        with watch as left_rows, pytest.MonkeyPatch.context() as patch:
            pytestconfig.stash[LEFT_ROWS] = left_rows
            patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _test: empty_tables())
            patch.setattr(TransactionTestCase, "_should_reload_connections", lambda _test: False)
            yield empty_tables
            del pytestconfig.stash[LEFT_ROWS]
            _fail_if_rows_are_left(left_rows)
    finally:
        with django_db_blocker.unblock():
            teardown_databases(made, verbosity=0)


@pytest.fixture(scope="module")
def module_database(
    django_db_setup: EmptyTables, django_db_blocker: Any, pytestconfig: pytest.Config
) -> Iterator[Any]:
    """Let a module's fixtures write rows and tables for all its tests; the tables are emptied at its end.

    It yields pytest-django's blocker, whose `unblock()` a fixture needs to use the database.
    """
    empty_tables, left_rows = django_db_setup, pytestconfig.stash[LEFT_ROWS]
    with left_rows.expected() if left_rows else nullcontext():
        yield django_db_blocker
        with django_db_blocker.unblock():
            empty_tables()


@pytest.fixture(scope="session", autouse=True)
def static_files() -> Iterator[None]:
    """Let whitenoise list the static files of the apps once. It lists them for each test client, which takes 10 ms."""
    find = WhiteNoiseMiddleware.add_files_from_finders
    lists: dict[tuple[Any, ...], dict[str, Any]] = {}

    def add(middleware: WhiteNoiseMiddleware) -> None:
        others, middleware.files = middleware.files, {}
        key = (
            middleware.static_prefix,
            middleware.max_age,
            *settings.INSTALLED_APPS,
            *settings.STATICFILES_DIRS,
        )
        if key not in lists:
            find(middleware)
            lists[key] = middleware.files
        middleware.files = others | lists[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add)
        yield


@pytest.fixture(scope="session")
def needs_real() -> Callable[[MissingServer], None]:
    """Return the function to call if a server is not installed: it skips the test, or fails it with REQUIRE_REAL=1."""

    def decide(missing: MissingServer) -> None:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))

    return decide


@pytest.fixture(scope="session")
def loop(django_db_setup: None) -> Iterator[asyncio.Runner]:
    """Yield one event loop for all requests: connections to PostgreSQL belong to a loop.

    It ends before the test database does, which cannot be dropped while one is open.
    """
    with asyncio.Runner() as runner:
        yield runner
        runner.run(reader.close())


@pytest.fixture
def token(transactional_db: None) -> str:
    """Return the token of a broker that may ask in every dialect."""
    broker = Broker(name="mosquitto-1")
    token = broker.issue_token()
    broker.save()
    return token


@pytest.fixture(autouse=True)
def no_background(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have background work done when a test calls background.stop(); test_brokers has the thread."""
    monkeypatch.setattr(background, "wake", lambda: None)
    yield
    denials.clear()
    notes.clear()
    renewals.clear()
    clear_caches()


@pytest.fixture(autouse=True)
def fresh_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count anew for each page, also on a busy machine that takes so long that counts would be cached."""
    monkeypatch.setattr(overview, "_counters", type(overview._counters)())
    monkeypatch.setattr(costly, "EXPENSIVE", float("inf"))


@pytest.fixture
def entrance() -> str:
    """Return the name of the entrance; the mark `both_entrances` of rig.entrances runs a test with each."""
    return "asgi"


@pytest.fixture
def send(loop: asyncio.Runner) -> Callable[..., httpx.Response]:
    """Return a function that sends one HTTP request to an entrance."""

    def one(entrance: str, method: str, url: str, **options: Any) -> httpx.Response:
        return loop.run(send_request(ENTRANCES[entrance], method, url, **options))

    return one


@pytest.fixture
def ask(send: Callable[..., httpx.Response], entrance: str, token: str) -> Callable[..., httpx.Response]:
    """Return the function that asks in JSON as an allowed broker: `ask("go-auth/acl", username=..., acc=2, ...)`."""

    def question(path: str, *, proof: str | None = token, **fields: Any) -> httpx.Response:
        query = "" if proof is None else f"?k={proof}"
        return send(entrance, "POST", f"/mqtt/{path}{query}", json=fields)

    return question


@pytest.fixture
def station(transactional_db: None) -> Cast:
    """Return our own device."""
    return provision("STATION-001")


@pytest.fixture
def neighbour(transactional_db: None) -> Cast:
    """Return a device that must stay out of our device's reach."""
    return provision("STATION-002")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[mqtt.Outgoing]:
    """Return the list of messages published to a broker in memory, which acknowledges all of them."""
    broker = MemoryBroker()
    monkeypatch.setattr(mqtt, "Connection", broker.connect)
    return broker.messages
