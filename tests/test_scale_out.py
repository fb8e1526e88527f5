"""Several workers of `manage.py listen_mqtt` at one broker: nothing lost, nothing twice, whoever of them ends."""

import json
import random
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from devicehub.mqtt import BrokerAddress, Connection, Outgoing
from fleet.models import WeatherStationMessage, WeatherStationReading
from tests import servers, wire
from tests.hub import eventually
from tests.wire import CONNECT, kill, stop

BEGIN = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
KEEPS_ALL = "max_queued_messages 0\n"


@pytest.fixture
def broker(tmp_path, needs_real):
    """The port of a mosquitto that keeps all that absent workers shall get."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", KEEPS_ALL))
        except servers.MissingServer as missing:
            needs_real(missing)


@pytest.fixture
def listen(broker, transactional_db, tmp_path):
    """Start a worker, subscribed: `with listen("--worker", "2") as worker`."""
    return wire.workers(broker, tmp_path)


@pytest.fixture
def publish(broker, station):
    """Publish readings number *first* to *last*, each with its own time; until the broker has them."""
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


@pytest.mark.parametrize("end", [kill, stop], ids=["killed", "stopped"])
def test_nothing_is_lost_or_twice_while_workers_come_and_go(listen, publish, end):
    """One of two ends in the middle of it, three times over; what it held reaches it when it is back."""
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


def test_the_older_of_two_equal_workers_ends_and_says_why(listen, publish):
    """MQTT 5: the broker tells it, so they do not evict each other."""
    with listen("--worker", "2") as older, listen("--worker", "2") as newer:
        assert older.wait(10) == 1

        log = older.log.read_text()
        said = [line for line in log.splitlines() if "connected to" not in line.split("as")[0][:12]]
        assert len(said) == 1, log
        assert "took over the session" in said[0]
        assert "devicehub-2" in said[0]
        assert "--worker" in said[0]
        publish(0, 20)
        assert_each_once(20)
        assert len(newer.wire.bodies(CONNECT, of_worker=True)) == 1


@pytest.mark.sqlite_only
def test_two_equal_workers_of_mqtt_3_evict_each_other_ever_more_seldom(listen, publish):
    """There a client is not told why it is thrown out; the one that remains goes on by itself."""
    spoken = {"DEVICEHUB_MQTT_VERSION": "3.1.1", "DEVICEHUB_MQTT_GROUP": ""}
    with listen(**spoken) as older:
        with listen(**spoken) as newer:
            pair = (older, newer)
            assert eventually(
                lambda: all("another client probably connects as" in each.log.read_text() for each in pair),
                seconds=20,
            )
            made = sorted(at for each in pair for at in each.wire.made)
            assert len(made) < 14
            assert made[-1] - made[-2] > 0.4
            assert [each.poll() for each in pair] == [None, None]
            kill(newer)
        publish(0, 20)
        assert_each_once(20)
        assert "devicehub-1" in older.log.read_text()
        assert stop(older)[0] == 0
