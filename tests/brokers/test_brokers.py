"""Real brokers that ask the running hub: allowed actions happen, others leave a denial and nothing else."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import commands
from devicehub.kinds import topics
from devicehub.models import DeviceCommand, QuarantinedMessage
from devicehub.mqtt import BrokerAddress, Connection, Listener, MqttError, Outgoing
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig.cast import Cast, provision
from rig.hub import BROKERS, VERSION, Hub, eventually, running
from rig.servers import MissingServer

pytestmark = pytest.mark.servers

_numbers = itertools.count(1)


# A broker does not see which database answers: a commit's run has one login with one broker on PostgreSQL.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name == "amqtt" else pytest.mark.sqlite_first)
        for name in sorted(BROKERS)
    ],
)
def hub(
    request: pytest.FixtureRequest,
    module_database: Any,
    tmp_path_factory: pytest.TempPathFactory,
    needs_real: Callable[[MissingServer], None],
) -> Iterator[Hub]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    with module_database.unblock():
        try:
            with running(request.param, folder) as hub:
                yield hub
        except MissingServer as missing:
            needs_real(missing)
        finally:
            call_command("flush", interactive=False, verbosity=0)


@pytest.fixture
def station(hub: Hub) -> Cast:
    """Return a new device for each test, because the hub and its database serve the whole module."""
    return provision(f"STATION-{next(_numbers):03d}")


@pytest.fixture
def neighbour(hub: Hub) -> Cast:
    return provision(f"NEIGHBOUR-{next(_numbers):03d}")


@pytest.fixture
def connect(hub: Hub) -> Iterator[Callable[..., Connection]]:
    opened: list[Connection] = []

    def one(who: Cast, **options: Any) -> Connection:
        opened.append(hub.connect(who, **options))
        return opened[-1]

    yield one
    for connection in opened:
        connection.close()


def denial(username: str, reason: Reason, topic: str = "") -> Denial | None:
    """Return the denial that the hub has stored, after waiting for its writer."""
    rows = Denial.objects.filter(username=username, reason=reason, topic=topic)
    return eventually(rows.first)


def readings(who: Cast) -> list[float]:
    rows = WeatherStationReading.objects.filter(device__device_id=who.device.device_id)
    return list(rows.values_list("temperature", flat=True))


def publish(connection: Connection, topic: str, **values: Any) -> None:
    connection.publish(Outgoing(topic, json.dumps(values).encode()))


def test_a_station_connects_publishes_and_its_reading_is_stored(station, connect):
    publish(connect(station), station.topic("data"), temperature=21.5, humidity=40)

    assert eventually(lambda: readings(station)) == [21.5]
    message = WeatherStationMessage.objects.get(device__device_id=station.device.device_id)
    assert message.payload_json == {"temperature": 21.5, "humidity": 40}
    device = WeatherStationDevice.objects.get(device_id=station.device.device_id)
    assert device.status == "online"
    assert device.last_seen is not None


@pytest.mark.sqlite_first
# aMQTT 0.12 may lose a session, and then stops reading.
@pytest.mark.parametrize("hub", ["rabbitmq"], indirect=True)
def test_a_killed_worker_continues_where_it_stopped(hub, station, connect):
    """It is killed while messages come. Unacknowledged messages come again, and later ones are queued."""
    connection, sent = connect(station), []

    def send(count: int) -> None:
        for _ in range(count):
            sent.append(len(sent) / 4)
            measured = datetime.now(UTC).isoformat()
            publish(connection, station.topic("data"), temperature=sent[-1], timestamp=measured)

    send(100)
    hub.worker.kill()
    send(20)
    hub.worker.start()
    send(1)

    assert eventually(lambda: sorted(readings(station)) == sent, 30)


@pytest.mark.sqlite_first
def test_a_worker_may_unsubscribe_without_a_subscription(hub, station, connect):
    """It does so after each start, because earlier settings may have left subscriptions."""
    address, client_id = BrokerAddress.parse(hub.mqtt_url), f"ingest-{hub.broker}-7"
    wanted = topics.subscriptions()
    former = [text for text in topics.former_subscriptions() if text not in wanted]
    former.append("plant/weatherstation/+/data")
    assert any(text.startswith("$share/") for text in former)
    connection, resumed = connect(station), []
    for _ in range(2):
        listener = Listener(address, client_id, wanted, version="3.1.1")
        listener.start(former)
        try:
            assert eventually(lambda listener=listener: listener.is_settled)
            resumed.append(listener.is_resumed)
            publish(connection, station.topic("data"), temperature=1)
            [delivery] = eventually(lambda listener=listener: listener.take(10, timeout=1))
            listener.acknowledge([delivery])
            assert listener.take(10, timeout=0.2) == []
        finally:
            listener.stop()
    assert resumed == [False, True]


@pytest.mark.sqlite_first
@pytest.mark.parametrize("client_id", ["device_id", "mqtt_client_id"])
def test_a_station_may_connect_under_each_of_its_client_ids(station, connect, client_id):
    WeatherStationDevice.objects.filter(pk=station.device.pk).update(
        mqtt_client_id=f"radio-{station.device.pk}"
    )
    station.device.refresh_from_db()

    connection = connect(station, client_id=getattr(station.device, client_id))

    publish(connection, station.topic("data"), temperature=3.5)
    assert eventually(lambda: readings(station)) == [3.5]


@pytest.mark.sqlite_first
def test_a_wrong_password_is_refused(station, connect):
    with pytest.raises(MqttError, match="refused"):
        connect(station, password="wrong")

    assert denial(station.username, Reason.WRONG_PASSWORD)


@pytest.mark.sqlite_first
def test_an_unknown_name_is_refused(station, connect):
    station.username = "stranger"

    with pytest.raises(MqttError, match="refused"):
        connect(station)

    assert denial("stranger", Reason.UNKNOWN_USERNAME)


@pytest.mark.sqlite_first
@pytest.mark.parametrize("hub", ["rabbitmq"], indirect=True)
def test_a_username_with_a_colon_is_not_split(hub, station, connect):
    """Without the printed advanced.config RabbitMQ reads the part before the colon as a virtual host."""
    station.username = "line:stranger"

    with pytest.raises(MqttError, match="refused"):
        connect(station)

    assert denial("line:stranger", Reason.UNKNOWN_USERNAME)


@pytest.mark.sqlite_first
def test_a_disabled_device_is_refused(station, connect):
    WeatherStationDevice.objects.filter(pk=station.device.pk).update(is_active=False)

    with pytest.raises(MqttError, match="refused"):
        connect(station)

    assert denial(station.username, Reason.DISABLED)


@pytest.mark.sqlite_first
def test_a_foreign_client_id_is_refused(station, neighbour, connect):
    """A client that connects under a foreign client id takes over its session."""
    with pytest.raises(MqttError, match="refused"):
        connect(station, client_id=neighbour.username)

    assert denial(station.username, Reason.CLIENT_ID)


@pytest.mark.sqlite_first
def test_a_publish_to_the_neighbours_topic_is_refused(hub, station, neighbour, connect):
    """aMQTT acknowledges and drops it, RabbitMQ disconnects; nothing is stored with both."""
    witness = []
    connect(neighbour, on_message=lambda *message: witness.append(message)).subscribe(neighbour.topic("cmd"))

    for about in ("data", "cmd"):
        connection = connect(station)
        try:
            publish(connection, neighbour.topic(about), temperature=79.9)
        except MqttError:
            assert hub.broker == "rabbitmq"
        assert denial(station.username, Reason.NO_GRANT, neighbour.topic(about))

    publish(connect(station), station.topic("data"), temperature=1.0)  # Earlier messages have arrived then.
    assert eventually(lambda: readings(station)) == [1.0]
    assert readings(neighbour) == []
    assert not QuarantinedMessage.objects.filter(device_key__endswith=neighbour.device.device_id).exists()
    assert witness == []


@pytest.mark.sqlite_first
@pytest.mark.parametrize("topic_filter", ["things/weatherstation/+/cmd", "#", "things/weatherstation/+/data"])
def test_a_subscription_that_reaches_others_is_refused(hub, station, connect, topic_filter):
    """aMQTT answers with a failure, RabbitMQ 3.10 closes the connection without an answer."""
    seen = []
    connection = connect(station, on_message=lambda *message: seen.append(message))

    with pytest.raises(MqttError):
        connection.subscribe(topic_filter)

    assert denial(station.username, Reason.NO_GRANT, topic_filter)
    assert seen == []


@pytest.mark.sqlite_first
def test_a_command_reaches_its_device_and_no_other(hub, station, neighbour, connect, settings):
    settings.MQTT_URL, settings.DEVICEHUB_MQTT_VERSION = hub.mqtt_url, VERSION
    received: list[tuple[str, bytes]] = []
    overheard: list[tuple[str, bytes]] = []
    device = connect(station, on_message=lambda *message: received.append(message))
    device.subscribe(station.topic("cmd"))
    connect(neighbour, on_message=lambda *m: overheard.append(m)).subscribe(neighbour.topic("cmd"))

    command_id = station.device.send_command("set_interval", {"interval": 60})

    assert eventually(lambda: received)
    topic, payload = received[0]
    assert topic == station.topic("cmd")
    assert json.loads(payload) == {
        "id": command_id,
        "command": "set_interval",
        "payload": {"interval": 60},
    }
    assert overheard == []

    publish(device, station.topic("reply"), id=command_id, ok=True, result="every 60 s")
    command = DeviceCommand.objects.get(id=command_id)
    assert command.acknowledged_at is not None
    assert eventually(lambda: command.refresh_from_db() or command.succeeded)
    assert (command.state, command.result, command.attempts) == ("answered", "every 60 s", 1)


@pytest.mark.sqlite_first
def test_a_command_waits_for_the_right_password(hub, station, connect, settings):
    settings.DEVICEHUB_MQTT_VERSION = VERSION
    settings.MQTT_URL = f"mqtt://ingest-{hub.broker}:wrong@127.0.0.1:{hub.port}"
    received: list[tuple[str, bytes]] = []
    connect(station, on_message=lambda *m: received.append(m)).subscribe(station.topic("cmd"))

    command = DeviceCommand.objects.get(id=station.device.send_command("reboot"))
    assert (command.state, command.sent_at) == ("queued", None)
    assert "refused the connection" in command.error
    settings.MQTT_URL = hub.mqtt_url

    def arrived() -> bool:
        """Return whether the command has arrived. The worker of the hub may have sent it first."""
        commands.send_due()
        command.refresh_from_db()
        return command.state == "acknowledged"

    assert eventually(arrived)
    commands.close()
    assert (command.attempts, command.error) == (2, "")
    assert eventually(lambda: received)
    assert [json.loads(payload)["id"] for _, payload in received] == [str(command.id)]


@pytest.mark.sqlite_first
def test_a_disabled_device_is_refused_with_its_next_question(hub, station, connect):
    """aMQTT asks for each message; RabbitMQ caches its grants for the life of a connection."""
    connection = connect(station)
    publish(connection, station.topic("data"), temperature=5.0)
    assert eventually(lambda: readings(station)) == [5.0]

    WeatherStationDevice.objects.filter(pk=station.device.pk).update(is_active=False)
    try:
        publish(connection, station.topic("data"), temperature=6.0)
    except MqttError:
        assert hub.broker == "rabbitmq"

    if hub.broker == "amqtt":
        assert denial(station.username, Reason.DISABLED, station.topic("data"))
    else:
        # Messages that still arrive are not stored, and an operator sees the reason.
        key = f"weatherstation/{station.device.device_id}"
        assert eventually(lambda: QuarantinedMessage.objects.filter(device_key=key).first())
    time.sleep(0.3)
    assert readings(station) == [5.0]


@pytest.mark.sqlite_first
def test_no_secret_is_in_the_log_of_any_process(hub, station, connect):
    with pytest.raises(MqttError):
        connect(station, password="a-wrong-password-to-look-for")
    publish(connect(station), station.topic("data"), temperature=1.0)

    ours = [log for log in hub.folder.glob("*.log") if not log.name.startswith(("rabbitmq", "epmd"))]
    assert {"gunicorn.log", "listen_mqtt-1.log"} <= {log.name for log in ours}
    text = "".join(log.read_text() for log in ours)
    ingest_password = hub.mqtt_url.split(":")[2].split("@")[0]
    for value in (station.password, "a-wrong-password-to-look-for", ingest_password):
        assert value not in text
