"""Messages of endpoints over a real broker and through real workers, which are killed meanwhile."""

from __future__ import annotations

import itertools
import json
import random
import signal
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from devicehub.kinds import topics
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, EndpointMessage, Event, Resource, ResourceValue
from devicehub.models import QuarantinedMessage
from devicehub.mqtt import BrokerAddress, Connection, Outgoing
from rig import servers, wire
from rig.hub import eventually
from rig.messages import fresh
from rig.wire import kill, stop

pytestmark = [pytest.mark.servers, pytest.mark.sqlite_first, pytest.mark.django_db(transaction=True)]

BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
KEEPS_ALL = "max_queued_messages 0\n"
DIES = ("received", "judged", "written", "committed", "acknowledged")
TEMPERATURE, HUMIDITY = "3303/0/5700", "3304/0/5700"


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the port of a mosquitto that keeps all messages for absent workers."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", KEEPS_ALL))
        except servers.MissingServer as missing:
            needs_real(missing)


@pytest.fixture
def listen(broker, tmp_path):
    """Return the function that starts a subscribed worker."""
    return wire.workers(broker, tmp_path)


@pytest.fixture
def endpoint(transactional_db):
    return Endpoint.objects.create(device_id="urn:dev:a")


@pytest.fixture
def publish(broker, endpoint):
    """Return the function that publishes a message of our endpoint, or of another one, and waits for the ack."""
    device = Connection(BrokerAddress("127.0.0.1", broker), "device")

    def one(content, about="data", *, of=endpoint, **options):
        topic = topics.build(KIND, of.device_id, about)
        device.publish(Outgoing(topic, json.dumps(content).encode(), **options))

    yield one
    device.close()


def notification(number):
    """Return a notification of two values, which were measured *number* seconds after BEGIN."""
    at = int(BEGIN.timestamp()) + number
    return [{"bt": at, "n": f"/{TEMPERATURE}", "v": number}, {"n": f"/{HUMIDITY}", "v": number + 0.5}]


def assert_each_once(total):
    """Check that *total* notifications are stored once each, with one event and the last as latest values."""
    assert eventually(lambda: Event.objects.count() >= total, seconds=30), (
        f"{Event.objects.count()} of {total}"
    )
    time.sleep(0.5)
    for path, more in ((TEMPERATURE, 0), (HUMIDITY, 0.5)):
        rows = ResourceValue.objects.filter(path=path).order_by("timestamp")
        assert [row.number - more for row in rows] == list(range(total))
        assert Resource.objects.get(path=path).value == total - 1 + more
    assert ResourceValue.objects.values("event").distinct().count() == Event.objects.count() == total
    assert EndpointMessage.objects.count() == total
    assert not QuarantinedMessage.objects.exists()


def test_notifications_survive_the_death_of_a_worker_at_each_stage(listen, publish):
    """A worker that dies after the commit and before the ack gets its messages again."""
    numbers = itertools.count()
    for stage in DIES:
        with listen(DEVICEHUB_FAILPOINT=f"{stage}:2") as worker:
            end = time.monotonic() + 30
            while worker.poll() is None and time.monotonic() < end:
                publish(notification(next(numbers)))
                time.sleep(0.01)
            assert worker.poll() == -signal.SIGKILL, stage
    for _ in range(20):
        publish(notification(next(numbers)))

    with listen():
        assert_each_once(next(numbers))


@pytest.mark.long
def test_notifications_survive_workers_that_are_killed_at_any_moment(listen, publish):
    total, chance = 600, random.Random(7)
    sender = threading.Thread(
        target=lambda: [(publish(notification(number)), time.sleep(0.01)) for number in range(total)]
    )
    with listen():
        sender.start()  # The broker keeps messages for a worker that has subscribed once.
    while sender.is_alive():
        with listen() as worker:
            eventually(worker.wire.published)
            time.sleep(chance.uniform(0.05, 0.6))
            kill(worker)
    sender.join()
    with listen():
        assert_each_once(total)


def test_a_registration_that_the_broker_retained_is_handled_once(listen, publish, endpoint):
    """The copy, which each new subscription gets, may be older than the end of the registration."""
    details = Event.objects.order_by("pk").values_list("detail", flat=True)
    alone = {"DEVICEHUB_MQTT_GROUP": ""}  # A shared subscription gets no copies.
    with listen(**alone) as worker:
        publish({"registration": {"lifetime": 300, "links": "</3/0>"}}, "status", retain=True)
        assert eventually(lambda: fresh(endpoint).registered)
        publish({"deregistration": True}, "status")
        assert eventually(lambda: not fresh(endpoint).registered)
        stop(worker)

    with listen(**alone) as other:
        assert eventually(other.wire.acknowledged), "the broker sends the copy"
        publish({"update": {"lifetime": 60}}, "status")
        assert eventually(lambda: Event.objects.count() == 3 and fresh(endpoint).registered)

    assert list(details) == ["registered", "deregistered", "updated"]
    assert (fresh(endpoint).lifetime, fresh(endpoint).status) == (60, "online")
    assert not QuarantinedMessage.objects.exists()


def test_the_rate_limit_holds_for_each_endpoint(listen, publish, endpoint):
    other = Endpoint.objects.create(device_id="urn:dev:b")
    with listen(DEVICEHUB_RATE_LIMIT="5/m"):
        for number in range(8):
            publish(notification(number))
        publish({"registration": {"lifetime": 300}}, "status")
        publish(notification(0), of=other)
        assert eventually(lambda: other.events.exists())
        assert eventually(lambda: QuarantinedMessage.objects.count() == 4)

    assert endpoint.events.count() == 5
    assert not fresh(endpoint).registered, "registrations are limited too"
    kept = QuarantinedMessage.objects.values_list("reason", "device_key")
    assert set(kept) == {("rate_limited", "lwm2m/urn:dev:a")}
