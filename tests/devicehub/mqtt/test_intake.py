"""Bytes from a broker, in pieces of any size: an Intake reads messages, and paho all other packets."""

from types import SimpleNamespace

import pytest
from paho.mqtt import client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicehub.mqtt import BrokerAddress, Delivery, Intake, Listener
from devicehub.mqtt.listening import queue
from rig.packets import PINGRESP, SUBACK, TOPIC, Broker, block, publish, text


def received(pieces, version=paho.MQTTv5, **options):
    """Return the messages in *pieces*, and the other bytes, which paho reads one by one."""
    messages, others = [], b""
    intake = Intake(Broker(pieces, **options), version, 3, messages.append)
    while True:
        try:
            byte = intake.recv(1)
        except BlockingIOError:
            if not intake._connection._pieces:
                return messages, others
            continue
        if not byte:
            return messages, others
        others += byte


def described(**properties):
    found = Properties(PacketTypes.PUBLISH)
    for name, value in properties.items():
        setattr(found, name, value)
    return found.pack()


def test_a_message_is_read_whole():
    described_so = described(
        ContentType="application/json", CorrelationData=b"c\xff", UserProperty=("k", "v")
    )

    [[message], others] = received([publish(b"{}", flags=0b1011, properties=described_so)])

    assert others == b""
    assert message == Delivery(
        TOPIC,
        b"{}",
        1,
        True,
        True,
        message.received_at,
        "application/json",
        b"c\xff",
        (("k", "v"),),
        7,
        3,
    )


def test_a_message_of_mqtt_3_has_no_properties():
    [[message], _] = received([publish(b"\x00{}", properties=b"")], paho.MQTTv311)

    assert (message.payload, message.packet_id) == (b"\x00{}", 7)


def test_a_message_of_qos_0_has_no_packet_id():
    [[message], _] = received([publish(b"{}", flags=0)])

    assert (message.payload, message.qos, message.packet_id) == (b"{}", 0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000])
def test_pieces_end_anywhere(size):
    payloads = [b"", b"x", b"y" * 126, b"z" * 300, b"w" * 20_000]
    stream = PINGRESP + b"".join(publish(payload) + SUBACK for payload in payloads) + PINGRESP

    messages, others = received(stream[at : at + size] for at in range(0, len(stream), size))

    assert [message.payload for message in messages] == payloads
    assert others == PINGRESP + SUBACK * len(payloads) + PINGRESP


@pytest.mark.parametrize(
    "packet",
    [
        publish(b"{}", flags=0b0100),  # QoS 2
        publish(b"{}", flags=0b0110),  # QoS 3
        publish(b"{}", topic=""),  # It needs a topic alias, which we never offered.
        publish(b"", properties=b"\x05\x03\x00"),  # It is shorter than its length field.
        b"\x32\x01\x00",
        b"\x32\x04\x00\x09ab",
    ],
)
def test_what_is_unusual_is_left_to_paho(packet):
    messages, others = received([packet + publish(b"next")])

    assert others == packet
    assert [message.payload for message in messages] == [b"next"]


def test_a_topic_that_is_not_utf_8_has_no_device_and_ends_no_connection():
    [[message], others] = received([publish(b"{}", topic=b"\xff\xfe")])

    assert (message.topic, others) == ("\ufffd\ufffd", b"")


def test_a_length_without_end_is_left_to_paho():
    messages, others = received([b"\x32\xff\xff\xff\xff\xff" + publish(b"{}")])

    assert messages == []
    assert others.startswith(b"\x32\xff\xff\xff\xff\xff")


def test_the_end_of_the_connection_comes_after_the_bytes_before_it():
    messages, others = received([publish(b"{}"), PINGRESP], hangs_up=True)

    assert (len(messages), others) == (1, PINGRESP)


def test_endless_messages_let_paho_send_and_look_at_its_clock():
    """Acks and pings go out between them."""
    intake = Intake(Broker([publish(b"{}")] * 100), paho.MQTTv5, 1, lambda _: None)

    with pytest.raises(BlockingIOError):
        intake.recv(1)

    assert len(intake._connection._pieces) == 100 - Intake.PIECES


def test_what_is_here_is_pending():
    """paho waits for the network only if no bytes are pending."""
    intake = Intake(Broker([PINGRESP]), paho.MQTTv5, 1, lambda _: None)
    assert intake.pending() == 0

    assert intake.recv(1) == PINGRESP[:1]

    assert intake.pending() == 1


def test_nothing_is_read_while_the_queue_is_full():
    """A slow database then makes the broker wait, and the messages take no memory here."""
    room = [False, True]
    messages = []
    intake = Intake(Broker([publish(b"{}")]), paho.MQTTv5, 1, messages.append, lambda: not room[0])

    with pytest.raises(BlockingIOError):
        intake.recv(1)
    assert messages == []

    room.pop(0)
    with pytest.raises(BlockingIOError):
        intake.recv(1)
    assert len(messages) == 1


BOM = "\ufeff".encode()


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        (b"\x26" + text(b"a") + text(BOM), ("", b"", (("a", "\ufeff"),))),
        (b"\x03" + text(BOM + b"json"), ("\ufeffjson", b"", ())),
        (b"\x03" + text(b"\xff"), ("\ufffd", b"", ())),
        (b"\x09" + text(b"\x00\xff"), ("", b"\x00\xff", ())),
        (
            b"\x01\x01\x02\0\0\0\x09\x0b\x81\x01\x23\0\x07\x08" + text(b"r") + b"\x03" + text(b"c"),
            ("c", b"", ()),
        ),
        (b"\x77rest", ("", b"", ())),
        (b"\x03\xff\xffshort", ("", b"", ())),
        (b"\x26" + text(b"k" * 200) + text(b"v"), ("", b"", (("k" * 200, "v"),))),
    ],
    ids=["BOM", "BOM in a content type", "no UTF-8", "bytes", "all others", "unknown", "cut off", "long"],
)
def test_a_message_is_never_lost_for_what_describes_it(properties, expected):
    """paho ends the connection at some of these properties, and would at every redelivery."""
    [[delivery], others] = received([publish(b"payload", properties=block(properties))])

    assert (delivery.payload, others) == (b"payload", b"")
    assert (delivery.content_type, delivery.correlation_data, delivery.user_properties) == expected


@pytest.fixture
def listener(monkeypatch):
    monkeypatch.setattr(queue, "MOST_QUEUED", 1000)
    return Listener(BrokerAddress("127.0.0.1", 1), "nobody", ["things/#"])


@pytest.fixture
def message(listener):
    [[message], _] = received([publish(b"x" * 700)])
    return message._replace(generation=listener._client.generation)


def lose_the_connection(listener):
    listener._on_disconnect(None, None, LOST, ReasonCode(14, "Unspecified error"), None)


LOST = SimpleNamespace(is_disconnect_packet_from_server=False)


def test_what_was_taken_makes_room(listener, message):
    """This holds if a message is stored afterwards, and if it is sent again."""
    for _ in range(3):
        listener._queue.put(message)
        assert listener._client.full()
        assert listener.take(10, timeout=0) == [message]
        assert not listener._client.full()


def test_what_was_handed_over_before_a_connection_broke_is_taken(listener, message):
    """A broker that was killed may not send an unacknowledged message again."""
    listener._queue.put(message)
    lose_the_connection(listener)
    listener._queue.put(message._replace(generation=1, packet_id=8))

    assert [one.packet_id for one in listener.take(10, timeout=0)] == [message.packet_id, 8]


def test_what_waits_since_an_earlier_connection_does_not_keep_the_next_one_silent(listener, message):
    """Otherwise the broker's answers on the new connection would not be read."""
    listener._queue.put(message)
    assert listener._client.full()
    lose_the_connection(listener)

    assert not listener._client.full()
    listener._queue.put(message)
    assert listener._client.full()


def test_what_comes_again_is_not_taken_twice(listener, message):
    listener._queue.put(message)
    listener._client.generation += 1  # Its socket was closed.
    listener.redeliver()
    listener._queue.put(message._replace(generation=listener._client.generation))

    assert len(listener.take(10, timeout=0)) == 1


def test_connections_that_break_one_after_the_other_do_not_fill_the_memory(listener, message):
    for _ in range(20):
        listener._queue.put(message)
        lose_the_connection(listener)

    assert listener.waiting_bytes <= 3 * 1000 + len(message.payload) + queue.EACH
