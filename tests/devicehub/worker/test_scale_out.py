"""Several workers of `manage.py listen_mqtt` at one broker: nothing lost or stored twice if any of them ends."""

import json
import random
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from devicehub.mqtt import BrokerAddress, Connection, Outgoing
from fleet.models import WeatherStationMessage, WeatherStationReading
from rig import servers, wire
from rig.hub import eventually
from rig.wire import ACCEPTED, kill, pretender, stop, suback

pytestmark = pytest.mark.servers

BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
KEEPS_ALL = "max_queued_messages 0\n"


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the port of a mosquitto that keeps all messages for absent workers."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", KEEPS_ALL))
        except servers.MissingServer as missing:
            needs_real(missing)


@pytest.fixture
def listen(broker, transactional_db, tmp_path):
    """Return the function that starts a subscribed worker: `with listen("--worker", "2") as worker`."""
    return wire.workers(broker, tmp_path)


@pytest.fixture
def publish(broker, station):
    """Return the function that publishes readings *first* to *last*, with a time each, and waits for the acks."""
    device = Connection(BrokerAddress("127.0.0.1", broker), "device")

    def some(first, last, pause=0):
        for number in range(first, last):
            reading = {
                "rainfall": number,
                "timestamp": (BEGIN + timedelta(seconds=number)).isoformat(),
            }
            device.publish(Outgoing(station.topic("data"), json.dumps(reading).encode()))
            time.sleep(pause)

    yield some
    device.close()


def stored():
    return WeatherStationReading.objects.count()


def assert_each_once(total):
    assert eventually(lambda: stored() >= total, seconds=20), f"{stored()} of {total}"
    time.sleep(0.5)
    numbers = WeatherStationReading.objects.order_by("timestamp").values_list("rainfall", flat=True)
    assert list(numbers) == list(range(total))
    assert WeatherStationMessage.objects.count() == total


# --- Sharing


@pytest.mark.sqlite_first
@pytest.mark.parametrize(
    "end", [pytest.param(kill, id="killed"), pytest.param(stop, id="stopped", marks=pytest.mark.long)]
)
def test_nothing_is_lost_or_twice_while_workers_come_and_go(listen, publish, end):
    """One of two workers ends meanwhile, three times; it gets its messages when it is back."""
    total, chance = 600, random.Random(3)
    with listen("--worker", "1") as one:
        sender = threading.Thread(target=publish, args=(0, total, 0.01))
        sender.start()
        for _ in range(3):
            with listen("--worker", "2") as two:
                eventually(two.wire.published)
                time.sleep(chance.uniform(0.1, 0.5))
                end(two)
        sender.join()
        with listen("--worker", "2"):
            assert_each_once(total)
        assert len(one.wire.published()) > 100
        assert one.poll() is None


def test_both_end_and_nothing_is_lost_or_twice(listen, publish):
    with listen("--worker", "1") as one, listen("--worker", "2") as two:
        publish(0, 50)
        kill(one)
        assert stop(two)[0] == 0
    publish(50, 100)

    with listen("--worker", "2"), listen("--worker", "1"):
        publish(100, 150)
        assert_each_once(150)


# --- The same worker twice


@pytest.mark.sqlite_only
def test_a_worker_whose_session_was_taken_over_ends_and_says_why(transactional_db, tmp_path):
    """MQTT 5 brokers send the reason, mosquitto since 2.0.15: a new connection would evict the other worker."""
    with pretender(ACCEPTED, suback(1, 1, 1, 1, 1, 1) + b"\xe0\x01\x8e") as url:
        port = int(url.rpartition(":")[2])
        with wire.workers(port, tmp_path)("--worker", "2") as older:
            assert older.wait(10) == 1

            connected, said = older.log.read_text().splitlines()
            assert connected.startswith("connected to")
            for word in ("took over the session", "devicehub-2", "--worker"):
                assert word in said
            assert len(older.wire.made) == 1


@pytest.mark.long
@pytest.mark.sqlite_only
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_of_two_equal_workers_one_remains_and_goes_on(listen, publish, version):
    """A worker that is evicted without a reason waits ever longer: with mosquitto 2.0.11, and any broker of 3.1.1."""
    spoken = {"DEVICEHUB_MQTT_VERSION": version, "DEVICEHUB_MQTT_GROUP": ""}
    with listen(**spoken) as older:
        with listen(**spoken) as newer:
            pair = (older, newer)
            explained = eventually(
                lambda: all("a second worker" in each.log.read_text() for each in pair), seconds=20
            )
            assert explained or older.poll() == 1  # A newer mosquitto sends the reason to a client of MQTT 5.
            assert "devicehub-1" in older.log.read_text()
            assert sum(len(each.wire.made) for each in pair) < 14
            if older.poll() is None:
                kill(newer)
            publish(0, 20)
            assert_each_once(20)
        assert (older.poll() is None) == bool(explained)
