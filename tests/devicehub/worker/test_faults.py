"""No message from the broker is lost through a fault of worker, database, broker or network.

The short version of every scenario of rig/faults.py on the database of this run, the rare ones in `script/test --long`;
`script/bench faults` is the long version. The assertion is the set check of rig/scenarios.py.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings

from bench import faults as faults_bench
from rig import databases as stores
from rig import faults, scenarios, servers
from rig.databases import Stored
from rig.ledger import Ledger
from rig.proxy import BOTH_WAYS, TO_CLIENT, TO_SERVER, Proxy
from rig.sender import Sender, Sent

VENDOR = settings.DATABASES["default"]["ENGINE"].rpartition(".")[2].removesuffix("3")
HERE = [scenario for scenario in faults.SCENARIOS if VENDOR in scenario.databases]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def databases(tmp_path_factory, needs_real):
    """Yield databases of the vendor of this run, not its test database: they are stopped and filled up."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(stores.STORES[VENDOR](tmp_path_factory.mktemp("databases")))
        except servers.MissingServer as missing:
            needs_real(missing)
        yield made


@pytest.fixture
def suffer(databases, needs_real, tmp_path):
    """Run a scenario, for *seconds* if given, and return its report."""

    def run(scenario, seconds=None):
        seed = random.randrange(10**6)
        try:
            return scenarios.run(scenario, databases, tmp_path / "run", seed, seconds=seconds)
        except servers.MissingServer as missing:
            return needs_real(missing)

    return run


SHORT_VERSIONS = [
    pytest.param(scenario, marks=() if VENDOR in scenario.often else pytest.mark.long, id=scenario.name)
    for scenario in HERE
]


@pytest.mark.servers
@pytest.mark.parametrize("scenario", SHORT_VERSIONS)
def test_nothing_is_lost(suffer, scenario):
    assert_nothing_is_lost(suffer(scenario))


@pytest.mark.servers
@pytest.mark.long
@pytest.mark.parametrize("scenario", HERE, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_in_long_outages(suffer, scenario):
    """The outages are as long as in `script/bench faults`, and come again and again: 50 kills in one scenario."""
    assert_nothing_is_lost(suffer(scenario, seconds=5))


def assert_nothing_is_lost(report):
    assert report.lost == [], report
    assert report.phantom == [], report
    assert report.duplicated == 0, report
    assert report.repeated <= report.allowed, report
    assert report.complaints == [], report
    assert report.acknowledged > 20
    assert report.stored > 20


@pytest.mark.servers
@pytest.mark.long
def test_a_worker_that_acknowledges_too_early_is_found_out(suffer, monkeypatch):
    """This tests the suite itself: it must find a loss if there is one."""
    monkeypatch.setattr(scenarios, "PATIENCE", 4)
    hasty = scenarios.Scenario(
        "hasty",
        "F1",
        faults.kill_at_a_stage,
        "acknowledges before it stores",
        rounds=3,
        environment=faults.NUISANCE | {"NUISANCE": "hasty"},
    )

    report = suffer(hasty)

    assert report.lost
    assert not report.held


@pytest.mark.sqlite_first
@pytest.mark.servers
def test_an_ack_before_the_flush_is_found_out(suffer):
    hasty = scenarios.Scenario(
        "hasty",
        "F9",
        faults.acknowledge_in_order,
        "acknowledges before it stores",
        environment=faults.NUISANCE | {"NUISANCE": "hasty"},
    )

    [complaint] = suffer(hasty).complaints

    assert "acks were sent before the flush of their message" in complaint


@pytest.mark.servers
@pytest.mark.long
def test_the_bench_reports_the_outcome_of_all_messages(needs_real, capsys):
    try:
        report = faults_bench.run(vendors=[VENDOR], seconds=1, only=["duplicates"], seed=7)
    except servers.MissingServer as missing:
        needs_real(missing)

    [row] = report["rows"]
    assert (row["scenario"], row["database"], row["seed"]) == ("duplicates", VENDOR, 7)
    assert (row["lost"], row["phantom"], row["duplicated"], row["repeated"]) == (0, 0, 0, 0)
    assert 0 < row["acknowledged"] <= row["stored"] + row["quarantined"] <= row["sent"]
    assert report["met"]
    assert report["left_out"] == []

    faults_bench.show(report)

    assert "Target, nothing lost: met" in capsys.readouterr().out


# --- The set check


def message(number, *, dated=True, usable=True):
    return Sent("a/b", b"", NOW + timedelta(seconds=number) if dated else None, usable)


def reading(number):
    return number, NOW + timedelta(seconds=number)


SENT = {0: message(0), 1: message(1, dated=False), 2: message(2, usable=False), 3: message(3)}


def test_what_is_stored_once_and_what_is_in_quarantine_is_not_lost():
    result = scenarios.judge(SENT, {0, 1, 2}, Stored([reading(0), reading(1)], [2], 2))

    assert (result["lost"], result["phantom"], result["complaints"]) == ([], [], [])
    assert (result["duplicated"], result["repeated"]) == (0, 0)


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("lost", [2], Stored([reading(0), reading(1)], [], 2)),
        ("phantom", [9], Stored([reading(0), reading(1), reading(9)], [2], 3)),
        ("phantom", [None], Stored([reading(0), reading(1)], [2, None], 2)),
        ("duplicated", 1, Stored([reading(0), reading(0), reading(1)], [2], 3)),
        ("repeated", 1, Stored([reading(0), reading(1), reading(1)], [2], 3)),
        ("repeated", 2, Stored([reading(0), reading(1)], [2, 2, 2], 2)),
    ],
)
def test_missing_and_surplus_rows_are_reported(field, value, found):
    assert scenarios.judge(SENT, {0, 1, 2}, found)[field] == value


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (Stored([reading(0), reading(1)], [2], 1), "which must be equal"),
        (Stored([reading(0), reading(1), reading(2)], [], 3), "unusable messages as readings"),
        (Stored([(0, NOW + timedelta(hours=1)), reading(1)], [2], 2), "without their device time"),
    ],
)
def test_wrong_rows_are_reported(found, complaint):
    [complaint_found] = scenarios.judge(SENT, {0, 1, 2}, found)["complaints"]

    assert complaint in complaint_found


def test_a_ledger_knows_what_is_not_acknowledged():
    """There are two messages, one with a time; packets come in pieces of any size."""
    ledger = Ledger()
    handed = b"\x32\x0a\x00\x03a/b\x00\x01xyz" + b"\x32\x13\x00\x03a/b\x00\x02" + b'"timestamp":'
    for byte in handed:
        ledger.note(TO_CLIENT, bytes([byte]))
    assert ledger.undated == 1

    ledger.note(TO_SERVER, b"\x40\x02\x00\x02")
    assert ledger.undated == 1

    ledger.note(TO_SERVER, b"\x40\x02\x00\x01")
    assert ledger.undated == 0


def test_a_sender_that_never_started_can_be_ended():
    """A worker that fails at its start is reported, and not the end of its fleet."""
    Sender(1, [], random.Random()).end()


# --- The proxy


@pytest.fixture
def way():
    """Yield a proxy in front of an echo server; `way.connect()` returns a connection through it."""
    server = socket.create_server(("127.0.0.1", 0))
    threads = []

    def echo(client):
        with client, suppress(OSError):
            while piece := client.recv(65536):
                client.sendall(piece)

    def accept():
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=echo, args=(server.accept()[0],), daemon=True)
                threads.append(thread)
                thread.start()

    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    proxy = Proxy(server.getsockname()[1])
    clients = []

    def connect():
        clients.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=2))
        return clients[-1]

    proxy.connect = connect
    yield proxy
    for client in clients:
        client.close()
    proxy.close()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    for thread in threads:
        thread.join(2)


def said_back(client, text=b"hello"):
    client.sendall(text)
    return client.recv(100)


def test_a_proxy_carries_both_ways_until_it_is_cut(way):
    client = way.connect()
    assert said_back(client) == b"hello"

    with way.cut():
        assert client.recv(1) == b""
        assert way.connect().recv(1) == b""

    assert said_back(way.connect()) == b"hello"
    assert way.accepted == 3


def test_a_proxy_resets(way):
    client = way.connect()
    assert said_back(client) == b"hello"
    way.reset()

    with pytest.raises(ConnectionResetError):
        client.recv(1)

    way.doom = lambda: 8
    client = way.connect()
    with pytest.raises(ConnectionResetError):
        while said_back(client):
            pass


@pytest.mark.parametrize("directions", [BOTH_WAYS, (TO_SERVER,), (TO_CLIENT,)])
def test_a_silent_connection_stays_open_and_a_new_one_is_whole(way, directions):
    client = way.connect()
    assert said_back(client) == b"hello"
    way.silence(*directions)
    client.settimeout(0.3)

    with pytest.raises(TimeoutError):
        said_back(client)

    assert said_back(way.connect()) == b"hello"


def test_a_proxy_is_late_and_slow(way):
    client = way.connect()
    way.delay = 0.1
    began = time.monotonic()
    assert said_back(client) == b"hello"
    assert time.monotonic() - began >= 0.2

    way.delay, way.rate = 0, 50
    began = time.monotonic()
    assert said_back(client) == b"hello"
    assert time.monotonic() - began >= 0.2


def test_a_small_disk_fills_up_and_is_freed(tmp_path, needs_real):
    folder = tmp_path / "disk"
    try:
        with servers.small_disk(folder, 1):
            disk = stores.Disk(folder)
            disk.fill()
            with pytest.raises(OSError, match="No space"):
                (folder / "more").write_bytes(bytes(100_000))
            disk.free()
            assert (folder / "more").write_bytes(bytes(100_000)) == 100_000
    except servers.NotPermitted as missing:
        needs_real(missing)
