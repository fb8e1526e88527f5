"""A listener while its broker, the network, or the reader is away: what it gets back, how soon, how often it tries.

A real mosquitto, reached through a `Wire`; the listener runs in this process and nothing is stored.
"""

import random
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, contextmanager

import paho.mqtt.client as paho
import pytest

from devicehub import mqtt
from devicehub.backoff import Backoff
from devicehub.mqtt import BrokerAddress, Connection, Listener, MqttError, Outgoing, Unacknowledged
from devicehub.mqtt.listening import queue, reconnection
from devicehub.mqtt.listening.reconnection import SOON, Reconnection
from rig import servers
from rig.hub import eventually
from rig.proxy import Proxy
from rig.wire import ACCEPTED, CONNECT, PINGREQ, UNSUBACK, Wire, pretender, suback

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]

TOPIC = "things/weatherstation/STATION-001/data"


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the port of a mosquitto that keeps all messages for an absent listener."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(servers.mosquitto(tmp_path / "mosquitto", "max_queued_messages 0\n"))
        except servers.MissingServer as missing:
            needs_real(missing)


@contextmanager
def listening(port, **options):
    """Yield a subscribed listener; its reports are in its `said`."""
    said = []
    listener = Listener(
        BrokerAddress("127.0.0.1", port), "ingest-1", ["things/#"], report=said.append, **options
    )
    listener.said = said
    try:
        listener.start()
        yield listener
    finally:
        listener.stop()


@contextmanager
def wired(broker, **options):
    """Yield a subscribed listener that connects through a Wire, which is its `wire`."""
    wire = Wire(broker)
    try:
        with listening(wire.port, **options) as listener:
            listener.wire = wire
            yield listener
    finally:
        wire.close()


@contextmanager
def device(broker):
    connection = Connection(BrokerAddress("127.0.0.1", broker), "device")
    try:
        yield lambda payload, **options: connection.publish(Outgoing(TOPIC, payload, **options))
    finally:
        connection.close()


def taken_of(listener, number, seconds=10):
    """Return the next *number* messages, each acknowledged."""
    taken = []
    end = time.monotonic() + seconds
    while len(taken) < number and time.monotonic() < end:
        batch = listener.take(2000, timeout=0.1)
        listener.acknowledge(batch)
        taken += [delivery.payload for delivery in batch]
    return taken


# --- A connection that was lost


def test_a_lost_connection_comes_back_neither_to_send_again_nor_to_throw_out_the_next(broker):
    wire = Wire(broker)
    address = BrokerAddress("127.0.0.1", wire.port)
    try:
        with listening(broker) as listener:
            with closing(Connection(address, "device")) as lost:
                wire.die()
                with pytest.raises(Unacknowledged):
                    lost.publish(Outgoing(TOPIC, b"lost"), timeout=0.2)
                wire.heal()
                wire.hang_up()
                assert eventually(lambda: not lost.connected)
                with closing(Connection(address, "device")) as following:
                    time.sleep(1.5)  # paho itself would connect again after 1 s.
                    following.publish(Outgoing(TOPIC, b"next"))

            assert taken_of(listener, 1) == [b"next"]
            assert len(wire.made) == 2
    finally:
        wire.close()


def test_a_message_on_its_way_when_the_connection_is_lost_is_unacknowledged(broker, monkeypatch):
    """The broker hung up on it before paho returned, which then says that it has no connection."""
    wire = Wire(broker)
    try:
        with closing(Connection(BrokerAddress("127.0.0.1", wire.port), "device")) as connection:
            publish = connection._client.publish

            def published_and_lost(*given, **options):
                info = publish(*given, **options)
                wire.hang_up()
                assert eventually(lambda: connection._loss)
                info.rc = paho.MQTT_ERR_NO_CONN
                return info

            monkeypatch.setattr(connection._client, "publish", published_and_lost)

            with pytest.raises(Unacknowledged, match="the connection was lost"):
                connection.publish(Outgoing(TOPIC, b"on its way"))
            with pytest.raises(MqttError, match="not published"):  # Now it was lost before.
                connection.publish(Outgoing(TOPIC, b"too late"))
    finally:
        wire.close()


def test_a_broker_that_hangs_up_instead_of_an_answer_is_not_waited_for():
    """A RabbitMQ that stops does this, or a proxy whose broker is away."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        hangs_up = threading.Thread(target=lambda: server.accept()[0].close())
        hangs_up.start()
        began = time.monotonic()
        with pytest.raises(MqttError, match=r"hung up instead of an answer: .* DEVICEHUB_MQTT_VERSION=5"):
            Connection(BrokerAddress("127.0.0.1", server.getsockname()[1]), "device", timeout=60)
        hangs_up.join()

    assert time.monotonic() - began < 30


# --- How long to wait


def longest(_shortest, longest):
    return longest


def test_the_first_attempt_is_made_at_once_and_the_next_ever_later():
    waiting = Reconnection(longest)
    waiting.connected()
    waiting.lost(3600)
    assert waiting.delay() == 0

    waits = []
    for _ in range(6):
        waiting.failed()
        waits.append(waiting.delay())

    assert waits == [1, 2, 4, 8, 8, 8]  # It is connected within 10 s of the broker's return.


def test_the_waits_of_a_client_that_is_evicted_repeatedly_grow():
    """This holds also if each connection lasts as long as the other client waits."""
    waiting = Reconnection(longest)
    waits = []
    for _ in range(9):
        waiting.connected()
        waiting.lost(SOON / 2)
        waits.append(waiting.delay())

    assert waits == [2, 4, 8, 8, 8, 16, 30, 30, 30]
    waiting.connected()
    waiting.lost(SOON)
    assert waiting.delay() == 0


def test_a_broker_that_was_away_did_not_evict():
    waiting = Reconnection(longest)
    for _ in range(5):
        waiting.connected()
        waiting.lost(1)
        waiting.failed()

    waiting.connected()
    waiting.lost(1)

    assert (waiting.evictions, waiting.delay()) == (1, 2)


def test_waits_differ():
    waiting = Reconnection(random.Random(1).uniform)
    for _ in range(10):
        waiting.failed()

    waits = [waiting.delay() for _ in range(100)]

    assert 4 <= min(waits) < 5
    assert 7 < max(waits) <= 8


# --- The way to the broker


def test_a_dead_connection_is_found_after_one_and_a_half_intervals(broker):
    with wired(broker, keepalive=2) as listener, device(broker) as publish:
        publish(b"0")
        assert taken_of(listener, 1) == [b"0"]
        assert eventually(listener.wire.acknowledged)
        began = time.monotonic()
        listener.wire.die()
        publish(b"1")

        assert eventually(lambda: not listener.is_connected)
        assert time.monotonic() - began < 3 + 0.7  # paho checks its clock at least once a second.
        listener.wire.heal()
        assert taken_of(listener, 1) == [b"1"]
        assert "connection lost (Keep alive timeout), trying again" in listener.said
        assert listener.reconnects == 1


def test_a_way_on_which_nothing_comes_back_is_tried_now_and_then(broker):
    """TCP connects, and the broker's CONNACK never comes."""
    with wired(broker, keepalive=1) as listener:
        listener.wire.die()
        assert eventually(lambda: not listener.is_connected)
        began = time.monotonic()
        before = len(listener.wire.made)
        time.sleep(4)
        assert 1 <= len(listener.wire.made) - before <= 3
        assert listener.said.count(f"127.0.0.1:{listener.wire.port} does not answer, trying again") == 1

        listener.wire.heal()
        assert eventually(lambda: listener.is_connected)
        assert time.monotonic() - began < 16


def test_a_listener_that_is_refused_later_tries_now_and_then(broker):
    """Its broker's authorization service may be away."""
    refused = b"\x20\x03\x00\x87\x00"
    with (
        pretender(ACCEPTED, suback(1), None, then=[refused]) as url,
        wired(BrokerAddress.parse(url).port, keepalive=1) as listener,
    ):
        assert eventually(lambda: any("refused the connection" in line for line in listener.said))
        time.sleep(3.5)

        assert 3 <= len(listener.wire.made) <= 6
        assert len([line for line in listener.said if "refused the connection" in line]) == 1
        assert listener.failure == ""


def test_a_broker_that_comes_back_without_the_session_is_reported(tmp_path, needs_real):
    """The broker keeps nothing over a restart here; the worker subscribes again by itself."""
    port = servers.free_port()
    try:
        with (
            servers.mosquitto(tmp_path / "one", port=port),
            ExitStack() as stack,
        ):
            listener = stack.enter_context(listening(port))
            kept = stack.pop_all()
    except servers.MissingServer as missing:
        needs_real(missing)
    with kept:
        assert eventually(lambda: not listener.is_connected)
        time.sleep(3)
        with servers.mosquitto(tmp_path / "two", port=port), device(port) as publish:
            began = time.monotonic()
            assert eventually(lambda: listener.is_connected)
            assert time.monotonic() - began < 10
            assert eventually(lambda: "lost the session" in listener.said[-1])
            time.sleep(0.2)
            publish(b"1")
            assert taken_of(listener, 1) == [b"1"]
            assert listener.said == [
                f"connected to 127.0.0.1:{port} in a new session, without the messages that were published before",
                "connection lost (it was closed), trying again",
                f"no connection to 127.0.0.1:{port} ([Errno 111] Connection refused), trying again",
                f"connected to 127.0.0.1:{port}, which lost the session of this worker and the messages in it",
            ]


# --- Messages that wait for an absent listener, which the broker delivers before it answers the subscription


MEBIBYTE = bytes(1 << 20)


def test_a_listener_starts_with_more_than_fits(broker):
    with listening(broker), device(broker) as publish:
        publish(b"1")
    with device(broker) as publish:
        for _ in range(20):
            publish(MEBIBYTE)

    with listening(broker) as listener:
        taken = taken_of(listener, 21)
        assert eventually(lambda: listener.listening_since)

    assert taken == [b"1", *[MEBIBYTE] * 20]


@pytest.mark.parametrize(("count", "size"), [(40, 50_000), (1, 1_000_000)], ids=["many", "one large"])
def test_a_listener_starts_while_what_waits_comes_slowly(broker, count, size):
    with listening(broker):
        pass
    with device(broker) as publish:
        for _ in range(count):
            publish(MEBIBYTE[:size])
    proxy = Proxy(broker)
    proxy.rate = 500_000
    listener = Listener(BrokerAddress("127.0.0.1", proxy.port), "ingest-1", ["things/#"])
    try:
        listener.start(timeout=0.7)
        assert len(taken_of(listener, count)) == count
    finally:
        listener.stop()
        proxy.close()


# --- Having it sent again


def test_what_is_sent_again_comes_over_one_connection_at_a_time(broker, monkeypatch):
    """The reader has messages sent again and again, while acks are on their way and connections break."""
    monkeypatch.setattr(
        reconnection, "EVICTED", Backoff((0.2,))
    )  # Otherwise four cuts would wait for 30 s together.
    total, turn = 2000, 0
    with wired(broker) as listener, device(broker) as publish:
        sender = threading.Thread(target=lambda: [publish(b"%d" % n) for n in range(total)])
        sender.start()
        seen = Counter()
        end = time.monotonic() + 30
        while len(seen) < total and time.monotonic() < end:
            batch = listener.take(10, timeout=0.05)
            turn += bool(batch)
            if batch and turn % 25 == 0:
                listener.redeliver()
            elif batch and turn % 110 == 0:
                listener.wire.hang_up()
            else:
                listener.acknowledge(batch)
                seen.update(delivery.payload for delivery in batch)
        sender.join()

        assert len(seen) == total
        assert listener.failure == ""
        assert listener.reconnects > 3
        assert listener.wire.most_open <= 2  # The wire sees an end a moment later than the listener.
        assert listener.redelivered > 0


def test_redelivery_while_the_broker_is_away_does_not_shorten_the_wait(broker):
    with wired(broker) as listener:
        listener.wire._broker_port = servers.free_port()  # No server listens there.
        listener.wire.hang_up()
        assert eventually(lambda: not listener.is_connected)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            listener.redeliver()
            time.sleep(0.01)

        assert len(listener.wire.made) < 12


# --- The reader is away


def test_a_full_queue_is_no_dead_broker(broker, monkeypatch):
    """No bytes are read for three intervals and more; pings go on, so neither side hangs up."""
    monkeypatch.setattr(queue, "MOST_QUEUED", 20_000)
    with wired(broker, keepalive=1) as listener, device(broker) as publish:
        for number in range(100):
            publish(b"%d " % number + b"x" * 10_000)
        assert eventually(lambda: listener.waiting_bytes > 20_000)
        time.sleep(5)

        assert len(listener.wire.bodies(PINGREQ, of_worker=True)) >= 3
        payloads = taken_of(listener, 100)
        assert [int(payload.split()[0]) for payload in payloads] == list(range(100))
        assert len(listener.wire.made) == 1
        assert len(listener.said) == 1, listener.said


def test_a_listener_with_a_full_queue_connects_anew(broker, monkeypatch):
    """The answer to its CONNECT is read although no reader takes the earlier messages.

    The first message alone is more than twice the bound. So the queue drops it with the connection, however many
    others came with it, and each message is delivered once.
    """
    monkeypatch.setattr(queue, "MOST_QUEUED", 4_000)
    with wired(broker, keepalive=1) as listener, device(broker) as publish:
        for number in range(50):
            publish(b"%d " % number + b"x" * 10_000)
        assert eventually(lambda: listener.waiting_bytes > 2 * queue.MOST_QUEUED)
        listener.wire.hang_up()

        assert eventually(lambda: listener.reconnects == 1)
        time.sleep(3)
        assert len(listener.wire.bodies(CONNECT, of_worker=True)) == 2
        payloads = taken_of(listener, 50)
        assert [int(payload.split()[0]) for payload in payloads] == list(range(50))


def test_a_burst_waits_at_the_broker(broker):
    """Without a reader, only as many messages are here as may be unacknowledged; all others arrive afterwards."""
    total = 20_000
    with listening(broker) as listener:
        send_all(broker, total)
        assert eventually(lambda: listener.waiting == mqtt.RECEIVE_MAXIMUM)
        time.sleep(0.5)
        assert listener.waiting == mqtt.RECEIVE_MAXIMUM

        payloads = taken_of(listener, total, seconds=20)

        assert [int(payload) for payload in payloads] == list(range(total))
        assert listener.waiting == 0


def send_all(broker, total):
    """Publish *total* numbers with a window of acks, which is faster than waiting for each ack."""
    connection = Connection(BrokerAddress("127.0.0.1", broker), "burst")
    infos = [connection._client.publish(TOPIC, b"%d" % number, 1) for number in range(total)]
    for info in infos:
        info.wait_for_publish(60)
    connection.close()


def test_a_message_without_payload_takes_room_too(broker, monkeypatch):
    """QoS 0 has no window, so only the queue bounds the number of messages."""
    monkeypatch.setattr(queue, "MOST_QUEUED", 100 * (len(TOPIC) + queue.EACH))
    with listening(broker) as listener, device(broker) as publish:
        for _ in range(120):
            publish(b"", qos=0)
        publish(b"last")
        assert eventually(lambda: listener.waiting >= 100)
        assert listener._client.full()


# --- Numbers


def test_what_waits_is_counted_until_it_is_acknowledged(broker):
    with listening(broker) as listener, device(broker) as publish:
        assert (listener.waiting, listener.waiting_bytes, listener.oldest_waiting) == (0, 0, 0)
        publish(b"12345")
        publish(b"1")
        assert eventually(lambda: listener.waiting == 2)
        assert listener.waiting_bytes == 6 + 2 * (len(TOPIC) + queue.EACH)
        [delivery, _] = batch = listener.take(10, timeout=1)
        assert listener.waiting == 2
        time.sleep(0.1)
        assert 0.1 <= listener.oldest_waiting <= time.time() - delivery.received_at + 0.1

        listener.acknowledge(batch)

        assert (listener.waiting, listener.waiting_bytes, listener.oldest_waiting) == (0, 0, 0)


def test_what_comes_again_is_counted(broker):
    with listening(broker) as listener, device(broker) as publish:
        publish(b"1")
        assert eventually(lambda: listener.take(10, timeout=1))
        assert (listener.redelivered, listener.reconnects) == (0, 0)

        listener.redeliver()

        assert taken_of(listener, 1) == [b"1"]
        assert eventually(lambda: (listener.redelivered, listener.reconnects) == (1, 1))


DROPPED = "$SYS/broker/publish/messages/dropped"


def test_dropped_messages_of_the_broker_are_counted(tmp_path, needs_real):
    """A subscriber is away, and the broker keeps one message for it."""
    with ExitStack() as stack:
        try:
            port = stack.enter_context(
                servers.mosquitto(tmp_path / "mosquitto", "max_queued_messages 1\nsys_interval 1\n")
            )
        except servers.MissingServer as missing:
            needs_real(missing)
        with listening(port, drops=[DROPPED]) as listener, device(port) as publish:
            assert eventually(lambda: listener.broker_drops == {DROPPED: 0})
            backend = Listener(BrokerAddress("127.0.0.1", port), "backend", ["things/#"])
            backend.start()
            backend.stop()
            for number in range(10):
                publish(b"%d" % number)

            assert eventually(lambda: listener.broker_drops == {DROPPED: 9})
            assert len(taken_of(listener, 10)) == 10
            assert listener.take(10, timeout=0.1) == []


def test_counters_that_may_not_be_read_are_one_line_and_no_end():
    message = b"\x30\x0b\x00\x05count\x00" + b"x9 "
    with (
        pretender(ACCEPTED, suback(1), suback(0x87), UNSUBACK) as url,
        pretender(ACCEPTED, suback(1), suback(0) + message, UNSUBACK) as odd,
    ):
        with listening(BrokerAddress.parse(url).port, drops=[DROPPED]) as listener:
            assert eventually(lambda: "refused the subscription" in listener.said[-1])
            assert DROPPED in listener.said[-1]
            assert listener.failure == ""
        with listening(BrokerAddress.parse(odd).port, drops=["count"]) as listener:
            assert eventually(lambda: listener.said[-1] == "the message on count is not a number")
            assert listener.broker_drops == {}
            assert listener.take(10, timeout=0.1) == []
