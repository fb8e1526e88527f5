"""The session of an ingest worker at its broker: made before the first message, and without former filters."""

import json
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from devicehub.backoff import Backoff
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from devicehub.messages.message import Outcome
from devicehub.models import IngestSession, QuarantinedMessage
from devicehub.mqtt import BrokerAddress, Connection, Outgoing
from devicehub.worker import process, sessions
from devicehub.worker.process import Identity, Process
from fleet.models import WeatherStationReading
from rig import servers, wire
from rig.hub import ROOT, environment, eventually
from rig.wire import ACCEPTED, UNSUBACK, kill, listening, pretender, suback

pytestmark = pytest.mark.servers

RESUMED = b"\x20\x03\x01\x00\x00"
OLD_TOPIC = "plant/weatherstation/STATION-001/data"
QUIET = 0.3


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the port of a mosquitto that keeps all messages for absent workers."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", "max_queued_messages 0\n"))
        except servers.MissingServer as missing:
            needs_real(missing)


@pytest.fixture
def publish(broker, station):
    """Return the function that publishes readings without a time, also on another topic, and waits for acks."""
    device = Connection(BrokerAddress("127.0.0.1", broker), "device")
    own = station.topic("data")

    def some(count, topic=own):
        for number in range(count):
            device.publish(Outgoing(topic, json.dumps({"rainfall": number}).encode()))

    yield some
    device.close()


@pytest.fixture
def work(broker, transactional_db, settings):
    """Return a context of a subscribed worker with settings: `with work(1, DEVICEHUB_MQTT_GROUP="") as worker`.

    `worker.run(quiet=QUIET)` stores all waiting messages.
    """

    @contextmanager
    def working(number=1, **changed):
        settings.MQTT_URL = f"mqtt://127.0.0.1:{broker}"
        for name, value in changed.items():
            setattr(settings, name, value)
        one = Process(Identity.of(number))
        one.listener.start(sessions.record(one.identity.client_id, one.identity.filters))
        try:
            with one.worker as worker:
                assert eventually(lambda: one.listener.is_settled)
                yield worker
        finally:
            one.listener.stop()

    return working


def stored():
    return WeatherStationReading.objects.count()


# --- Before the first subscription


@pytest.mark.sqlite_only
def test_a_session_keeps_messages_before_the_worker_ever_ran(broker, publish, transactional_db, tmp_path):
    publish(1)  # The broker does not keep this message.
    done = subprocess.run(
        [sys.executable, "manage.py", "listen_mqtt", "--worker", "2", "--subscribe-only"],
        env=environment(MQTT_URL=f"mqtt://127.0.0.1:{broker}"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "Subscribed as devicehub-2" in done.stdout
    assert "a new session" in done.stdout
    publish(3)

    with wire.workers(broker, tmp_path)("--worker", "2") as worker:
        assert eventually(lambda: stored() == 3)
        assert "new session" not in worker.log.read_text()


# --- Filters of earlier settings


@pytest.mark.parametrize(
    ("before", "after", "workers"),
    [
        ("devicehub", "", [1]),
        ("", "devicehub", [1, 2]),
        ("red", "blue", [1]),
    ],
    ids=["shared, then plain", "plain, then two workers", "another group"],
)
def test_each_reading_is_stored_once_after_a_change_of_the_group(work, publish, before, after, workers):
    with work(DEVICEHUB_MQTT_GROUP=before):
        pass
    publish(3)
    with ExitStack() as stack:
        running = [stack.enter_context(work(number, DEVICEHUB_MQTT_GROUP=after)) for number in workers]
        publish(20)
        for worker in running:
            worker.run(quiet=QUIET)

    assert stored() == 23


def test_a_session_that_is_older_than_its_row_is_cleaned(work, publish):
    with work(DEVICEHUB_MQTT_GROUP="devicehub"):
        pass
    IngestSession.objects.all().delete()
    with work(DEVICEHUB_MQTT_GROUP="") as worker:
        publish(5)
        worker.run(quiet=QUIET)

    assert stored() == 5


def test_a_former_prefix_fills_no_quarantine(work, publish):
    """Messages for it in the session are acknowledged and counted; the broker sends no more of them."""
    with work(DEVICEHUB_TOPIC_PREFIX="plant"):
        pass
    publish(3, OLD_TOPIC)
    for unwanted in (3, 0):
        with work(DEVICEHUB_TOPIC_PREFIX="things") as worker:
            publish(3, OLD_TOPIC)
            publish(1)
            worker.run(quiet=QUIET)
            assert worker.unwanted == unwanted
            assert worker._listener.redelivered == 0

    assert stored() == 2
    assert not QuarantinedMessage.objects.exists()


@pytest.mark.django_db
def test_filters_are_written_down_before_and_never_lost(settings):
    """This includes filters that the broker may or may not have removed."""
    settings.DEVICEHUB_TOPIC_PREFIX = "plant"
    old = [topics.shared(text, "red") for text in topics.subscriptions()]
    assert not set(old) & set(sessions.record("ingest-1", old))
    settings.DEVICEHUB_TOPIC_PREFIX = "farm"
    settings.DEVICEHUB_MQTT_GROUP = "blue"
    new = [topics.shared(text, "blue") for text in topics.subscriptions()]

    for _ in range(2):
        former = sessions.record("ingest-1", new)
        assert set(old) < set(former)
        assert not set(new) & set(former)
        for group in ("", "$share/devicehub/", "$share/blue/"):
            for prefix in ("things", "farm"):
                text = f"{group}{prefix}/weatherstation/+/data"
                assert (text in former) != (text in new)
    assert IngestSession.objects.get().filters == [*new, *old]


@pytest.mark.sqlite_only
def test_topics_of_other_settings_are_recognised(settings):
    kind = registry.get("weatherstation")
    for about in topics.FROM_DEVICE:
        assert topics.is_subscribed(topics.build(kind, "STATION 1", about))
    for topic in ("plant/weatherstation/A/data", "things/gone/A/data", "things/weatherstation/A/B/data"):
        assert not topics.is_subscribed(topic)
    settings.DEVICEHUB_TOPIC_PREFIX = "pl.nt"
    assert topics.is_subscribed("pl.nt/weatherstation/A/data")
    assert not topics.is_subscribed("plant/weatherstation/A/data")


@pytest.mark.sqlite_only
def test_a_refused_unsubscription_is_named():
    refused = b"\xb0\x05ID\x00\x11\x87"
    with (
        pretender(RESUMED, suback(1), refused, UNSUBACK) as url,
        listening(url, ["gone/#", "old/#"]) as listener,
    ):
        assert eventually(lambda: listener.is_settled)
        [said] = [text for text in listener.said if "refused to end the subscription" in text]
        assert "old/#" in said
        assert "gone/#" not in said


@pytest.mark.sqlite_only
def test_nothing_is_unsubscribed_before_the_new_filter_is_granted_nor_in_a_new_session():
    with pretender(ACCEPTED, suback(1), UNSUBACK) as url, listening(url, ["old/#"]) as listener:
        assert eventually(lambda: listener.is_settled)
        assert listener._subscription._requests == {}
    with pretender(RESUMED, b"", UNSUBACK) as url, listening(url, ["old/#"]) as listener:
        assert eventually(lambda: listener._subscription._requests)
        assert list(listener._subscription._requests.values()) == ["filters"]
        assert not listener.is_settled


@pytest.mark.sqlite_only
def test_a_broker_that_hangs_up_on_an_unsubscription_is_listened_to():
    with pretender(RESUMED, suback(1), None, then=[RESUMED, suback(1), None]) as url:
        with listening(url, ["old/#"]) as listener:
            assert eventually(lambda: any("hung up on the end" in text for text in listener.said))
        assert listener.failure == ""


# --- Beginning anew, and giving up


@pytest.mark.sqlite_only
def test_a_session_begins_anew_only_where_that_is_said(broker, work, publish, tmp_path):
    with work():
        pass
    publish(3)
    with wire.workers(broker, tmp_path)("--begin-anew") as worker:
        publish(2)
        assert eventually(lambda: len(worker.wire.acknowledged()) == 2)
        assert "the messages that waited in it are lost" in worker.log.read_text()
        kill(worker)

    assert stored() == 2


def test_a_number_that_is_given_up_loses_nothing(broker, work, publish, monkeypatch):
    monkeypatch.setattr(process, "QUIET", QUIET)
    with work(1) as one:
        with work(2):
            pass
        publish(20)
        retiring = Process(Identity.of(2, retires=True))
        retiring.listener.start(sessions.record(retiring.identity.client_id, []))
        retiring.retire()
        publish(10)
        one.run(quiet=QUIET)

    assert retiring.identity.filters == []
    assert retiring.worker.outcomes[Outcome.STORED] == 10
    assert stored() == 30
    assert list(IngestSession.objects.values_list("client_id", flat=True)) == ["devicehub-1"]


@pytest.mark.sqlite_only
def test_what_would_be_lost_and_stored_at_once_is_refused():
    with pytest.raises(CommandError, match="use only one of them"):
        call_command("listen_mqtt", "--retire", "--begin-anew")


# --- While the database is away


@pytest.mark.sqlite_only
def test_a_worker_waits_for_its_database(monkeypatch):
    said = []
    monkeypatch.setattr(process, "Listener", lambda *_, **__: None)
    waiting = Process(Identity.of(1), report=said.append)
    monkeypatch.setattr(process, "RETRY", Backoff((0.0,)))
    answers = [OperationalError("unable to open database file")] * 3 + [["former"]]

    def record(client_id, wanted):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(sessions, "record", record)
    with waiting.worker:
        assert waiting._record_filters() == ["former"]
    assert said == ["the database does not answer (unable to open database file), trying again"]
