"""A message beyond the size limit ends as `too_large` and takes no more memory than one at the limit."""

from contextlib import suppress

import pytest
from paho.mqtt import client as paho

from devicehub.messages.json_limits import MAX_KEPT
from devicehub.mqtt import Intake
from devicehub.mqtt.listening.intake import LONG, MOST_PAIRS, MOST_PROPERTIES, held
from rig.packets import PINGRESP, TOPIC, Broker, block, publish, text

MIB = 1 << 20


def received(stream, version=paho.MQTTv5, size=Intake.PIECE):
    """Return the messages in *stream*, the bytes that paho reads, and the most bytes held in memory meanwhile."""
    messages, others, most = [], b"", 0
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    intake = Intake(Broker(pieces), version, 1, messages.append)
    while intake._connection._pieces or intake._others:
        with suppress(BlockingIOError):
            others += intake.recv(1 << 16)
        long = intake._long
        most = max(most, len(intake._rest) + (len(long._head) + len(long._payload) if long else 0))
    return messages, others, most


def long_block(content):
    """Return properties of up to 256 MiB with their length before them."""
    length, left = b"", len(content)
    while not length or left:
        left, digit = left >> 7, left & 127
        length += bytes([digit | (128 if left else 0)])
    return length + content


@pytest.mark.parametrize("size", [1000, 65_536, Intake.PIECE])
@pytest.mark.parametrize("flags", [0, 0b0010, 0b1011])
@pytest.mark.parametrize(("version", "properties"), [(paho.MQTTv5, b"\x00"), (paho.MQTTv311, b"")])
def test_of_a_long_message_its_topic_and_its_beginning_are_kept(size, flags, version, properties):
    body = bytes(range(256)) * 16 * 1024
    stream = PINGRESP + publish(body, flags=flags, properties=properties) + PINGRESP
    stream += publish(b"next", properties=properties)

    [message, following], others, most = received(stream, version, size)

    assert (message.topic, message.payload) == (TOPIC, body[: MAX_KEPT + 1])
    assert (message.qos, message.retain, message.duplicate) == (
        flags >> 1 & 3,
        bool(flags & 1),
        bool(flags & 8),
    )
    assert message.packet_id == (7 if flags & 6 else 0)
    assert following.payload == b"next"
    assert others == PINGRESP * 2
    assert most <= LONG + size


def test_of_a_long_message_of_qos_2_paho_gets_a_short_one():
    """paho acknowledges it in two steps, and delivers a message that is too large."""
    [], others, most = received(publish(b"x" * (3 * MIB), flags=0b0100) + PINGRESP)

    assert others == publish(b"x" * (MAX_KEPT + 1), flags=0b0100) + PINGRESP
    assert most <= LONG + Intake.PIECE


@pytest.mark.parametrize("payload", [b"{}", b"x" * MAX_KEPT, b"x" * (MAX_KEPT + 5)], ids=len)
def test_properties_without_end_are_dropped_and_the_payload_is_read(payload):
    pair = b"\x26" + text(b"k") + text(b"v" * 60_000)
    properties = long_block(b"\x03" + text(b"application/json") + pair * 40)

    [message], others, most = received(publish(payload, properties=properties))

    assert (message.payload, message.content_type) == (payload[: MAX_KEPT + 1], "")
    assert message.user_properties == ()
    assert others == b""
    assert most <= LONG + Intake.PIECE


def test_a_long_message_that_is_framed_wrong_is_left_to_paho():
    """paho ends the connection, as for any wrong framing."""
    body = len(TOPIC).to_bytes(2) + TOPIC.encode() + b"\x00\x07" + b"\xff\xff\xff\x7f" + b"x" * (2 * MIB)
    stream = b"\x32" + long_block(body) + publish(b"next")

    [message], others, most = received(stream)

    assert others.startswith(b"\x32")
    assert len(others) < 1000
    assert message.payload == b"next"
    assert most <= LONG + Intake.PIECE


def test_what_describes_a_message_is_bounded_and_counts_as_what_is_held():
    pairs = b"".join(b"\x26" + text(b"k%d" % number) + text(b"v" * 100) for number in range(500))
    described = b"\x03" + text(b"application/json") + b"\x09" + text(b"c" * 1000) + pairs
    assert len(described) < MOST_PROPERTIES

    [message], _, _ = received(publish(b"{}", properties=long_block(described)))

    assert (message.content_type, len(message.user_properties)) == ("application/json", MOST_PAIRS)
    assert held(message) > 2 + 1000 + MOST_PAIRS * 100


def test_properties_beyond_what_is_read_describe_nothing():
    described = b"\x03" + text(b"application/json") + (b"\x26" + text(b"k") + text(b"v" * 1000)) * 70
    assert len(described) > MOST_PROPERTIES

    [message], _, _ = received(publish(b"{}", properties=long_block(described)))

    assert (message.payload, message.content_type, message.user_properties) == (b"{}", "", ())


def test_a_short_block_of_properties_is_read_as_before():
    [message], _, _ = received(publish(b"{}", properties=block(b"\x03" + text(b"a/b"))))

    assert message.content_type == "a/b"
