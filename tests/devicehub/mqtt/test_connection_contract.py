"""The contract of a connection that publishes, to a real broker and to the one in memory that tests use."""

from __future__ import annotations

import inspect
from contextlib import ExitStack

import pytest

from devicehub.mqtt import Ack, BrokerAddress, Connection, MqttError, Outgoing
from rig import servers
from rig.hub import eventually
from rig.memory_broker import MemoryBroker, MemoryConnection

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]

TOPIC = "things/weatherstation/STATION-001/cmd"
NEIGHBOUR = "things/weatherstation/STATION-002/cmd"
SHORT = 0.2  # A message that must not come would have come within so many seconds.


@pytest.fixture(params=["mosquitto", "memory"])
def connect(request, tmp_path, needs_real):
    """Return the function that connects to a broker under a client id; close all connections afterwards."""
    with ExitStack() as stack:
        if request.param == "memory":
            make, port = MemoryBroker().connect, 1883
        else:
            try:
                port = stack.enter_context(servers.mosquitto(tmp_path / "mosquitto"))
            except servers.MissingServer as missing:
                needs_real(missing)
            make = Connection

        def one(client_id, **options):
            made = make(BrokerAddress("127.0.0.1", port), client_id, **options)
            stack.callback(made.close)
            return made

        yield one


@pytest.fixture
def ear(connect):
    """Yield the list of messages that a subscriber receives on the topic."""
    heard = []
    listener = connect("ear", on_message=lambda *message: heard.append(message))
    listener.subscribe(TOPIC)
    return heard


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_what_is_published_is_acknowledged_and_delivered(connect, ear, qos, version):
    connection = connect("hub", version=version)
    message = Outgoing(TOPIC, b"hello", qos, correlation_data=b"1", response_topic="answers", expiry=60)

    ack = connection.publish(message, timeout=5)

    assert not ack.is_failure
    assert ack.code == 0
    assert eventually(lambda: ear == [(TOPIC, b"hello")])


def test_only_what_is_subscribed_to_is_delivered(connect, ear):
    connection = connect("hub")

    connection.publish(Outgoing(NEIGHBOUR, b"not for us"))
    connection.publish(Outgoing(TOPIC, b"for us"))

    assert eventually(lambda: ear)
    assert ear == [(TOPIC, b"for us")]


def test_a_filter_may_have_wildcards(connect):
    heard = []
    listener = connect("ear", on_message=lambda *message: heard.append(message))
    listener.subscribe("things/+/STATION-001/#")

    connect("hub").publish(Outgoing(TOPIC, b"hello"))

    assert eventually(lambda: heard == [(TOPIC, b"hello")])


def test_a_connection_is_connected_until_it_is_closed(connect):
    connection = connect("hub")
    assert connection.connected

    connection.close()
    connection.close()

    assert not connection.connected
    with pytest.raises(MqttError, match=f"not published to {TOPIC}"):
        connection.publish(Outgoing(TOPIC, b"too late"))
    with pytest.raises(MqttError, match=f"no subscription to {TOPIC}"):
        connection.subscribe(TOPIC)


def test_a_client_that_disconnects_has_no_will(connect, ear):
    connection = connect("hub", will=Outgoing(TOPIC, b"gone"))

    connection.close()

    assert not eventually(lambda: ear, SHORT)


def test_of_two_under_one_client_id_the_older_one_is_lost(connect, ear):
    first = connect("hub", will=Outgoing(TOPIC, b"thrown out"))

    second = connect("hub")

    assert eventually(lambda: not first.connected)
    assert second.connected
    assert eventually(lambda: ear == [(TOPIC, b"thrown out")])


def test_both_have_the_same_methods_with_the_same_parameters():
    """Default timeouts are not compared: a broker in memory answers at once."""

    def form(function):
        return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]

    assert form(MemoryBroker().connect) == form(Connection)
    public = [name for name in vars(Connection) if not name.startswith("_")]
    for name in public:
        real, ours = getattr(Connection, name), getattr(MemoryConnection, name)
        if callable(real):
            assert form(ours) == form(real), name


def test_the_broker_in_memory_says_what_a_test_wants():
    broker = MemoryBroker()
    connection = broker.connect(BrokerAddress("127.0.0.1", 1883), "hub")
    message = Outgoing(TOPIC, b"hello")

    broker.reply = Ack(0x87, "Not authorized")
    assert connection.publish(message).is_failure
    broker.reply = lambda message: Ack(0x10, message.topic)
    assert connection.publish(message) == (0x10, TOPIC)
    broker.reply = MqttError("away")
    with pytest.raises(MqttError, match="away"):
        connection.publish(message)

    assert broker.messages == [message, message]
