"""The worker's loop: hooks in a thread of their own, a database that hangs, and its database settings."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from devicehub import signals
from devicehub.backoff import Backoff
from devicehub.ingest import announcer, store
from devicehub.ingest.announcer import Announcer
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message, Outcome
from devicehub.models import QuarantinedMessage
from devicehub.mqtt import Delivery
from devicehub.worker import loop, metrics
from devicehub.worker.wal_checkpoints import MESSAGES, WalCheckpoints
from fleet.models import WeatherStationDevice
from rig.hub import ROOT, environment
from rig.messages import NOW

TOPIC = "things/weatherstation/STATION-001/data"


@pytest.fixture
def station(transactional_db):
    return WeatherStationDevice.objects.create(device_id="STATION-001")


@pytest.fixture
def receive():
    """Return the function that connects a receiver of readings for the time of a test."""
    connected = []

    def connect(receiver):
        def kept(sender, **received):
            receiver(received["readings"])

        signals.device_data_received.connect(kept, weak=False)
        connected.append(kept)

    yield connect
    for receiver in connected:
        signals.device_data_received.disconnect(receiver)


@pytest.fixture
def running():
    one = Announcer()
    yield one
    one.stop()


def store_and_notify(one, *temperatures):
    messages = [Message(TOPIC, json.dumps({"temperature": number}).encode(), NOW) for number in temperatures]
    return pipeline(messages, notify=one.notify)


# --- Hooks


def test_listeners_are_notified_of_batches_in_order(station, running, receive):
    received = []
    receive(received.append)

    for number in range(5):
        store_and_notify(running, number)
    running.stop()

    assert received == [{"temperature": float(number)} for number in range(5)]
    assert running.unannounced == 0


def test_the_thread_is_not_woken_without_a_listener(station, running, monkeypatch):
    put = []
    monkeypatch.setattr(running, "_put", put.append)

    store_and_notify(running, 1)

    assert put == []


def test_slow_hooks_slow_storing_down(station, running, receive, monkeypatch):
    """The number of waiting batches is bounded."""
    monkeypatch.setattr(announcer, "PATIENCE", 60)
    goes_on = threading.Event()
    receive(lambda _: goes_on.wait(30))
    for number in range(announcer.BATCHES + 1):
        store_and_notify(running, number)

    late = threading.Thread(target=lambda: running.notify(batch_to_announce()))
    late.start()
    late.join(0.7)
    waited = late.is_alive()
    goes_on.set()
    late.join(10)

    assert waited
    assert not late.is_alive()
    assert running.unannounced == 0


def batch_to_announce():
    """Return a batch as the pipeline passes it to *notify*; the database is not changed."""
    batches = []
    with transaction.atomic():
        pipeline([Message(TOPIC, b'{"temperature": 9}', NOW)], notify=batches.append)
        transaction.set_rollback(True)
    connection.close()
    return batches[0]


def test_a_hook_that_never_returns_does_not_stop_storing(station, running, receive, monkeypatch, caplog):
    monkeypatch.setattr(announcer, "PATIENCE", 0.1)
    monkeypatch.setattr(announcer, "FAREWELL", 0.1)
    returns = threading.Event()
    receive(lambda _: returns.wait(60))

    outcomes = [store_and_notify(running, number) for number in range(announcer.BATCHES + 3)]
    returns.set()

    assert outcomes == [[Outcome.STORED]] * (announcer.BATCHES + 3)
    assert station.readings.count() == announcer.BATCHES + 3
    assert running.unannounced == 2


def test_a_mistake_in_a_notification_does_not_end_the_thread(station, running, receive, monkeypatch):
    """Receivers of later batches are called."""
    received = []
    receive(received.append)
    of_batch, batches = announcer.of_batch, []

    def mistaken(batch):
        batches.append(batch)
        if len(batches) == 1:
            raise RuntimeError("a bug of ours")
        yield from of_batch(batch)

    monkeypatch.setattr(announcer, "of_batch", mistaken)
    store_and_notify(running, 1)
    store_and_notify(running, 2)
    running.stop()

    assert received == [{"temperature": 2.0}]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), BaseException("cancelled")])
def test_a_hook_that_would_end_the_thread_does_not(station, running, receive, error):
    received = []

    def leave(readings):
        received.append(readings)
        raise error

    receive(leave)
    for number in range(announcer.BATCHES + 3):
        store_and_notify(running, number)
    running.stop()

    assert len(received) == announcer.BATCHES + 3


def test_a_stop_does_not_wait_for_slow_hooks(station, running, receive):
    """Messages that are stored without a call of their hooks are counted."""
    began, goes_on = threading.Event(), threading.Event()
    receive(lambda _: (began.set(), goes_on.wait(30)))
    store_and_notify(running, 0)
    began.wait(10)
    for number in range(announcer.BATCHES):
        store_and_notify(running, number)

    running.stopping = True
    store_and_notify(running, 9)
    goes_on.set()

    assert running.unannounced == 1
    assert station.readings.count() == announcer.BATCHES + 2


# --- Messages that cannot be stored


class Twenty:
    """A listener that always has twenty messages."""

    failure = ""
    listening_since = None

    def __init__(self):
        self.requested = []

    def take(self, most, timeout):
        self.requested.append(most)
        if len(self.requested) == 8:
            self.worker.stop()
        return [Delivery(TOPIC, b"{}", 1, False, False, 0.0, "", b"", (), n, 1) for n in range(min(most, 20))]

    def redeliver(self):
        pass


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("canceling statement due to lock timeout"),
        OSError(24, "Too many open files"),
        MemoryError(),
    ],
)
def test_what_is_not_stored_at_once_is_tried_in_smaller_batches(monkeypatch, error):
    """One locked row, or a batch that takes longer than a statement may, must not delay the other messages."""

    def picky(messages, acknowledge, notify):
        if len(messages) > 3:
            raise error
        return [Outcome.STORED] * len(messages)

    monkeypatch.setattr(loop, "pipeline", picky)
    monkeypatch.setattr(loop, "RETRY", Backoff((0.0,)))
    listener = Twenty()
    with loop.Worker(listener) as listener.worker:
        listener.worker.run()

    assert listener.requested == [2000, 10, 5, 2, 4, 2, 4, 2]
    assert listener.worker.outcomes[Outcome.STORED] == 6


def test_an_error_after_the_commit_has_nothing_sent_again(monkeypatch):
    """Otherwise the messages would be stored twice."""

    def stored(messages, acknowledge, notify):
        acknowledge()
        raise MemoryError

    again = []
    monkeypatch.setattr(loop, "pipeline", stored)
    monkeypatch.setattr(Twenty, "acknowledge", lambda self, deliveries: None, raising=False)
    monkeypatch.setattr(Twenty, "redeliver", lambda self: again.append(self))
    listener = Twenty()
    with pytest.raises(MemoryError), loop.Worker(listener) as listener.worker:
        listener.worker.run()

    assert again == []


# --- The end


LISTENS = """
import sys, time
import django
django.setup()
from devicehub.worker import loop as worker
from devicehub.mqtt import Delivery

class Endless:
    failure = ""
    listening_since = None
    def take(self, most, timeout):
        return [Delivery("things/x", b"{}", 1, False, False, time.time(), "", b"", (), 1, 1)]
    def acknowledge(self, deliveries):
        pass
    def redeliver(self):
        pass

def hang(*_, **__):
    print("hangs", flush=True)
    time.sleep(60)

worker.GRACE = 0.5
running = worker.Worker(Endless())
import signal
signal.signal(signal.SIGTERM, lambda *_: running.stop())
"""


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_a_worker_ends_while_its_database_hangs(tmp_path):
    """No message is lost: those that are not committed are not acknowledged."""
    script = LISTENS + "worker.pipeline = hang\nwith running:\n    running.run()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment(
            DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3", DJANGO_SETTINGS_MODULE="rig.settings"
        ),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "hangs\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 1
    assert "are sent again" in said
    assert time.monotonic() - began < 10


# --- Messages that the database refuses


def test_one_bad_message_among_many_costs_few_attempts(station, monkeypatch):
    attempts, write = [], store.write

    @transaction.atomic
    def picky(batch, *first):
        attempts.append(len(batch))
        stored = write(batch, *first)
        if any(b"13" in item.message.payload and item.outcome is not Outcome.FAILED for item in batch):
            raise IntegrityError("unlucky")
        return stored

    monkeypatch.setattr(store, "write", picky)
    messages = [Message(TOPIC, b'{"temperature": %d}' % number, NOW) for number in range(64)]

    outcomes = pipeline(messages)

    assert [number for number, outcome in enumerate(outcomes) if outcome is Outcome.FAILED] == [13]
    assert len(attempts) < 20
    assert station.readings.count() == 63


# --- Settings of its connection


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_a_worker_keeps_sqlite_durable_and_only_its_storing_thread_has_a_large_cache(tmp_path):
    """It uses more memory and copies the log less often; commits are flushed all the same.

    Each connection has its own cache, and a worker has a thread for every task.
    """
    requested = settled(
        {"DATABASE_URL": f"sqlite:///{tmp_path}/worker.sqlite3"},
        "PRAGMA journal_mode",
        "PRAGMA busy_timeout",
        "PRAGMA synchronous",
        "PRAGMA cache_size",
        "PRAGMA wal_autocheckpoint",
        in_a_thread=("PRAGMA synchronous", "PRAGMA cache_size", "PRAGMA wal_autocheckpoint"),
    )

    assert requested[:5] == ["wal", "5000", "2", "-98304", "50000"]  # 2 means FULL.
    assert requested[5:] == ["2", "-2000", "50000"]  # The cache in KiB; this is SQLite's default.


@pytest.mark.servers
@pytest.mark.sqlite_only
@pytest.mark.parametrize(("mode", "enough"), [("WAL", "2"), ("DELETE", "3")])
def test_a_worker_makes_sqlite_durable_where_the_project_does_not(tmp_path, mode, enough):
    """Any project may include the app, with Django's default settings."""
    requested = settled(
        {"DATABASE_URL": f"sqlite:///{tmp_path}/worker.sqlite3"},
        "PRAGMA synchronous",
        before=(
            'settings.DATABASES["default"]["OPTIONS"] = {'
            f'"init_command": "PRAGMA journal_mode={mode}; PRAGMA synchronous=NORMAL"}}'
        ),
    )

    assert requested == [enough]


@pytest.mark.servers
@pytest.mark.postgresql_only
def test_a_worker_waits_for_nothing_for_ever_and_commits_to_the_disk(transactional_db):
    """This holds also if the database, or the role, allows commits before the data is on the disk."""
    statements = ("SHOW lock_timeout", "SHOW statement_timeout", "SHOW synchronous_commit")

    assert settled({"PGOPTIONS": "-c synchronous_commit=off"}, *statements) == ["5s", "30s", "on"]


@pytest.mark.sqlite_only
@pytest.mark.django_db(transaction=True)
def test_the_log_of_sqlite_is_copied_once_enough_was_stored(tmp_path):
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # The tables may be in the log alone.
    stored = iter([MESSAGES - 1, MESSAGES, 2 * MESSAGES - 1, 2 * MESSAGES])
    checkpoints = WalCheckpoints(lambda: next(stored))
    found = []
    for number in range(4):
        QuarantinedMessage.objects.create(reason=str(number), received_at=NOW)
        checkpoints.run()
        found.append(in_the_database_without_its_log(tmp_path / str(number)))

    assert found[1] == found[2] == found[0] | {"0", "1"}
    assert found[3] == found[0] | {"0", "1", "2", "3"}
    assert not found[0] & {"0", "1", "2", "3"}


@pytest.mark.sqlite_only
@pytest.mark.django_db(transaction=True)
def test_a_reader_of_the_log_of_sqlite_is_not_waited_for_long(tmp_path):
    """A reader keeps the log from beginning anew, but only until it ends."""
    stored = iter([MESSAGES, 2 * MESSAGES])
    checkpoints = WalCheckpoints(lambda: next(stored))
    QuarantinedMessage.objects.create(reason="before", received_at=NOW)
    with closing(sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM devicehub_quarantine").fetchone()
        QuarantinedMessage.objects.create(reason="after", received_at=NOW)
        began = time.monotonic()

        checkpoints.run()

        assert time.monotonic() - began < 2
        assert not in_the_database_without_its_log(tmp_path / "read") & {"after"}

    checkpoints.run()

    assert in_the_database_without_its_log(tmp_path / "free") >= {"before", "after"}


def in_the_database_without_its_log(copy):
    # In another process: closing the file in this one would release the locks of SQLite on it.
    subprocess.run(["cp", connection.settings_dict["NAME"], copy], check=True)
    with closing(sqlite3.connect(copy)) as database:
        return {reason for (reason,) in database.execute("SELECT reason FROM devicehub_quarantine")}


def settled(variables, *statements, before="", in_a_thread=()):
    """Return the results of *statements* in a process that stores, and of others in another thread of it."""
    script = f"""
import threading
import django
from django.conf import settings
{before}
django.setup()
from django.db import connection
from devicehub.ingest.durability import settle
settle()
connection.ensure_connection()
connection.close()
def ask(statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            print(cursor.fetchone()[0])
ask({statements!r})
if {in_a_thread!r}:
    one = threading.Thread(target=ask, args=[{in_a_thread!r}])
    one.start()
    one.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environment(), **variables},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    warnings = [line for line in done.stdout.splitlines() if "not_durable" in line]
    assert len(warnings) <= 1, "once, and not for each connection"
    return [line for line in done.stdout.splitlines() if line not in warnings]


# --- Numbers


def test_what_became_of_messages_is_counted(station, monkeypatch):
    before = numbers()
    batch = []
    pipeline([Message(TOPIC, b'{"temperature": 1}', NOW), Message(TOPIC, b"?", NOW)], notify=batch.extend)

    metrics.stored(batch, time.time() - 2, time.time())

    after = numbers()
    stored = ("devicehub_ingest_messages_total", ("stored", ""))
    failed = ("devicehub_ingest_messages_total", ("failed", "not_json"))
    assert after[stored] - before.get(stored, 0) == 1
    assert after[failed] - before.get(failed, 0) == 1
    assert (
        after["devicehub_ingest_batch_messages_sum", ()]
        - before.get(("devicehub_ingest_batch_messages_sum", ()), 0)
        == 2
    )


def numbers():
    text = generate_latest(metrics.REGISTRY).decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
