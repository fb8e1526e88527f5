"""Many clients in one event loop: slow networks, bugs of an owner, and the end of a swarm."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from devicehub.mqtt import BrokerAddress, Outgoing, Swarm, run
from devicehub.mqtt.swarm.stream import Stream
from devicehub.mqtt.swarm.swarm import FEW
from rig import servers

pytestmark = pytest.mark.sqlite_only

WILL = Outgoing("things/weatherstation/SIM-001/status", b'{"status":"offline"}')
SOON = 10.0  # Seconds that a test waits.


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the port of a mosquitto that admits all clients."""
    try:
        with servers.mosquitto(tmp_path / "mosquitto") as port:
            yield port
    except servers.MissingServer as missing:
        needs_real(missing)


class Owner:
    """An owner that records the calls of its client."""

    def __init__(self):
        self.is_ready = asyncio.Event()
        self.is_lost = asyncio.Event()
        self.reasons = []
        self.messages = []

    def ready(self):
        self.is_ready.set()

    def lost(self, reason):
        self.reasons.append(reason)
        self.is_lost.set()

    def received(self, message):
        self.messages.append(message)


def join(swarm, owner, name="SIM-001"):
    topic_filter = f"things/weatherstation/{name}/cmd"
    return swarm.add(owner, name, "", client_id=name, will=WILL, topic_filter=topic_filter)


@pytest.mark.servers
def test_a_client_publishes_and_says_goodbye(broker):
    async def simulate():
        async with asyncio.timeout(SOON), Swarm(BrokerAddress("127.0.0.1", broker), "5") as swarm:
            owner = Owner()
            client = join(swarm, owner)
            assert not client.publish(Outgoing("a", b"too early"))
            await owner.is_ready.wait()
            assert client.publish(Outgoing("things/weatherstation/SIM-001/cmd", b"hello"))
            await swarm.acknowledged(time.monotonic() + SOON)
            while not owner.messages:
                await asyncio.sleep(0.01)
            await swarm.close(1.0)
            return owner, swarm.counts

    owner, counts = run(simulate())

    assert [message.payload for message in owner.messages] == [b"hello"]
    assert (counts.acknowledged, counts.refused, counts.lost) == (1, 0, 0)
    assert (counts.connected, counts.most_connected) == (0, 1)
    assert owner.reasons == []


@pytest.mark.servers
def test_a_client_that_is_evicted_reconnects(broker):
    """Another one with its client id connects, so the broker closes its connection."""

    async def simulate():
        async with asyncio.timeout(SOON), Swarm(BrokerAddress("127.0.0.1", broker), "5") as swarm:
            first, second = Owner(), Owner()
            join(swarm, first)
            await first.is_ready.wait()
            first.is_ready.clear()
            join(swarm, second)
            await first.is_lost.wait()
            await first.is_ready.wait()
            return first

    assert run(simulate()).reasons[0].startswith("connection lost (")


def test_a_topic_that_is_not_utf_8_ends_the_connection(caplog):
    """MQTT 5.0, 1.5.4 requires it; the owner gets one line, and the event loop logs no traceback."""

    async def send_nonsense(reader, writer):
        await reader.read(1000)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK
        await reader.read(1000)
        writer.write(b"\x90\x04\x00\x01\x00\x01" + b"\x30\x05\x00\x02\xff\xfe\x00" * 3)  # SUBACK, PUBLISH
        assert await reader.read() == b""
        writer.close()

    async def simulate():
        async with asyncio.timeout(SOON), await asyncio.start_server(send_nonsense, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with Swarm(BrokerAddress("127.0.0.1", port), "5") as swarm:
                owner = Owner()
                client = join(swarm, owner)
                await owner.is_lost.wait()
                return owner, client.is_open, swarm.counts.connected

    owner, is_open, connected = run(simulate())

    assert owner.reasons == ["connection lost (a topic that is not UTF-8)"]
    assert (owner.messages, is_open, connected) == ([], False, 0)
    assert caplog.records == []


@pytest.mark.servers
def test_an_error_of_an_owner_ends_the_swarm(broker):
    """It is not lost in a task without a waiter."""

    class Broken(Owner):
        def ready(self):
            raise LookupError("a bug")

    async def simulate():
        async with asyncio.timeout(SOON), Swarm(BrokerAddress("127.0.0.1", broker), "5") as swarm:
            join(swarm, Broken())
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        run(simulate())
    assert raised.group_contains(LookupError, match="a bug")


def test_nothing_is_left_of_a_swarm_that_ends_while_it_connects():
    async def simulate(address):
        async with asyncio.timeout(SOON), Swarm(address, "5") as swarm:
            clients = [join(swarm, Owner(), f"SIM-{number:03d}") for number in range(10)]
            while sum(client.is_open for client in clients) < FEW:
                await asyncio.sleep(0.01)
        assert not any(client.is_open for client in clients)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with socket.create_server(("127.0.0.1", 0)) as silent:
        run(simulate(BrokerAddress(*silent.getsockname())))


class Transport(asyncio.Transport):
    """A transport that records written bytes."""

    def __init__(self):
        super().__init__()
        self.written = []

    def is_closing(self):
        return False

    def write(self, data):
        self.written.append(data)


def test_a_stream_takes_nothing_while_the_network_does_not_keep_up():
    stream, transport, news = Stream(), Transport(), []
    stream.on_news = lambda: news.append(1)
    stream.connection_made(transport)

    stream.pause_writing()
    with pytest.raises(BlockingIOError):
        stream.send(b"later")
    stream.resume_writing()

    assert news == [1]
    assert stream.send(b"later") == 5
    assert transport.written == [b"later"]


def test_a_stream_is_read_to_its_end():
    stream = Stream()
    stream.connection_made(Transport())
    with pytest.raises(BlockingIOError):
        stream.recv(1)

    stream.data_received(b"abc")
    stream.connection_lost(None)

    assert [stream.recv(2), stream.recv(2), stream.recv(2)] == [b"ab", b"c", b""]
    with pytest.raises(OSError, match="closed"):
        stream.send(b"too late")


def test_a_refused_connection_is_one_sentence():
    port = servers.free_port()

    async def simulate():
        async with asyncio.timeout(SOON), Swarm(BrokerAddress("127.0.0.1", port), "5") as swarm:
            owner = Owner()
            join(swarm, owner)
            await owner.is_lost.wait()
            return owner.reasons

    (reason,) = run(simulate())
    assert reason.startswith(f"no connection to 127.0.0.1:{port} (")
    assert "refused" in reason or "Connect call failed" in reason
