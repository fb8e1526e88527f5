"""Messages that wait for their outcome: those that wait at once share a transaction, and no fault."""

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from devicehub.ingest import posted
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from devicehub.messages.message import FailureReason, Message, Outcome
from fleet.models import WeatherStationDevice, WeatherStationReading

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def storing():
    """Return a new thread that stores, and end it."""
    made = posted.Storing()
    yield made
    made.stop()


@pytest.fixture
def batches(monkeypatch):
    """Return the numbers of messages that the pipeline got at each call. Each call takes 50 ms."""
    sizes, pipeline = [], posted.pipeline

    def counted(messages, **options):
        sizes.append(len(messages))
        time.sleep(0.05)
        return pipeline(messages, **options)

    monkeypatch.setattr(posted, "pipeline", counted)
    return sizes


def message(number, payload=None):
    """Return a message of our station, or of the station with *number*."""
    topic = topics.build(registry.get("weatherstation"), f"STATION-{number:03}", topics.MessageType.DATA)
    return Message(topic, payload or b'{"temperature": %d}' % number, timezone.now())


def at_once(storing, messages):
    """Return how *messages* ended, of which each is stored by a thread of its own."""
    with ThreadPoolExecutor(len(messages)) as threads:
        return list(threads.map(storing.store, messages))


@pytest.fixture
def stations():
    """Create ten stations."""
    for number in range(10):
        WeatherStationDevice.objects.create(device_id=f"STATION-{number:03}", mqtt_username=f"s{number}")


def test_messages_that_wait_at_once_share_a_transaction(storing, batches, stations):
    """Each gets its own outcome."""
    messages = [message(number) for number in range(12)] + [message(1, b"?")]
    ends = at_once(storing, messages)
    assert [end.outcome for end in ends[:10]] == [Outcome.STORED] * 10
    assert [end.reason for end in ends[10:]] == [FailureReason.UNKNOWN_DEVICE] * 2 + [FailureReason.NOT_JSON]
    assert all(end.is_kept for end in ends[10:])
    assert sum(batches) == len(messages)
    assert len(batches) < 5
    assert WeatherStationReading.objects.count() == 10


def test_a_fault_of_one_message_is_not_that_of_another(storing, stations, monkeypatch):
    """If the database cannot store all at once, each is stored alone."""
    pipeline = posted.pipeline

    def stumble(messages, **options):
        time.sleep(0.05)
        if any(one.payload == b"bad" for one in messages):
            raise DatabaseError("of one of them")
        return pipeline(messages, **options)

    monkeypatch.setattr(posted, "pipeline", stumble)
    ends = at_once(storing, [*map(message, range(9)), message(9, b"bad")])
    assert [end.outcome for end in ends[:9]] == [Outcome.STORED] * 9
    assert ends[9] is None
    assert WeatherStationReading.objects.count() == 9


def test_a_mistake_is_raised_where_the_message_came_from(storing, stations, monkeypatch):
    """The thread goes on with the next message."""
    with monkeypatch.context() as patch:
        patch.setattr(posted, "pipeline", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            storing.store(message(1))
    assert storing.store(message(1)).outcome is Outcome.STORED


def test_a_message_that_waited_too_long_is_not_stored(storing, batches, stations, monkeypatch):
    """Its client sends it again."""
    monkeypatch.setattr(posted, "PATIENCE", -1)
    assert storing.store(message(1)) is None
    assert batches == []


def test_a_full_queue_refuses(stations, monkeypatch):
    """Nothing waits without a bound."""
    monkeypatch.setattr(posted, "MOST", 1)
    storing, go_on, begun = posted.Storing(), threading.Event(), threading.Event()
    pipeline = posted.pipeline

    def slow(messages, **options):
        begun.set()
        go_on.wait(10)
        return pipeline(messages, **options)

    monkeypatch.setattr(posted, "pipeline", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(storing.store, message(1))
        begun.wait(10)
        second = threads.submit(storing.store, message(2))
        while not storing._queue.full():
            time.sleep(0.01)
        assert storing.store(message(3)) is None
        go_on.set()
        assert [one.result().outcome for one in (first, second)] == [Outcome.STORED] * 2
    storing.stop()


def test_no_request_waits_for_ever_for_a_thread_that_hangs(stations, monkeypatch):
    """A message that it has not taken is never stored; of one that it has, the outcome is unknown."""
    monkeypatch.setattr(posted, "LONGEST", 0.01)
    storing, go_on, begun = posted.Storing(), threading.Event(), threading.Event()
    pipeline = posted.pipeline

    def hang(messages, **options):
        begun.set()
        go_on.wait(10)
        return pipeline(messages, **options)

    monkeypatch.setattr(posted, "pipeline", hang)
    with pytest.raises(posted.UnknownOutcome):
        storing.store(message(1))
    assert begun.wait(10)
    assert storing.store(message(2)) is None
    go_on.set()
    storing.stop()
    assert list(WeatherStationReading.objects.values_list("temperature", flat=True)) == [1]


def test_the_end_answers_all_that_wait(storing, batches, stations):
    """Later ones are refused."""
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(storing.store, message(number)) for number in range(8)]
        while not batches:
            time.sleep(0.001)
        storing.stop()
        ends = [one.result(10) for one in waiting]
    assert WeatherStationReading.objects.count() == sum(end is not None for end in ends) >= 1
    assert storing.store(message(9)) is None


def test_an_idle_thread_keeps_no_connection(storing, stations, monkeypatch):
    """It closes its connection after a while, and opens another one for the next message."""
    monkeypatch.setattr(posted, "IDLE", 0.01)
    closed, close_all = threading.Event(), connections.close_all

    def note():
        close_all()
        if threading.current_thread().name == "storing":
            closed.set()

    monkeypatch.setattr(connections, "close_all", note)
    assert storing.store(message(1)).outcome is Outcome.STORED
    assert closed.wait(10)
    assert storing.store(message(2)).outcome is Outcome.STORED


def test_a_request_in_a_transaction_stores_in_it(stations):
    """A rollback undoes what it stored."""
    with transaction.atomic():
        assert posted.store(message(1)).outcome is Outcome.STORED
        transaction.set_rollback(True)
    assert WeatherStationReading.objects.count() == 0


def test_a_post_that_is_answered_is_on_the_disk(storing, stations, monkeypatch):
    """The connection of the thread flushes each commit, whatever the project sets."""
    demanded, demand = [], posted.durability.demand
    monkeypatch.setattr(posted.durability, "demand", lambda one: demanded.append(demand(one)))
    assert storing.store(message(1)).outcome is Outcome.STORED
    assert storing.store(message(2)).outcome is Outcome.STORED
    assert len(demanded) == 1


@pytest.mark.postgresql_only
def test_the_connection_keeps_no_setting_of_a_post(storing, stations, monkeypatch):
    """They hold in the transaction that stores, and a pool lends the connection to others afterwards."""
    found, write = [], posted.durability.demand_now

    def settings():
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
            found.append(cursor.fetchone())

    def note(one):
        settings()
        write(one)
        settings()

    monkeypatch.setattr(posted.durability, "demand_now", note)
    for number in (1, 2):
        assert storing.store(message(number)).outcome is Outcome.STORED
    assert found == [("0", "0"), ("5s", "30s")] * 2


def test_a_database_without_connections_is_one_that_cannot_store(storing, stations, monkeypatch):
    """The thread goes on once there are some."""

    def refuse(_):
        raise DatabaseError("too many clients")

    with monkeypatch.context() as patch:
        patch.setattr(posted.durability, "demand", refuse)
        assert storing.store(message(1)) is None
    assert storing.store(message(1)).outcome is Outcome.STORED


def test_the_end_of_the_process_stores_before_it_ends_the_hooks(monkeypatch):
    """So a message that still waited has its hooks called."""
    ended = []

    class Announcing:
        def stop(self):
            ended.append("hooks")

    class Waiting:
        def stop(self):
            ended.append("storing")

    monkeypatch.setattr(posted, "announcer", functools.cache(Announcing))
    monkeypatch.setattr(posted, "_storing", Waiting())
    posted.stop()
    posted.announcer()
    posted.stop()
    assert ended == ["storing", "storing", "hooks"]
