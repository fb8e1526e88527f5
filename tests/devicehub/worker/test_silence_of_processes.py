"""Silence with real workers: devices whose power fails, workers that are killed or cannot store."""

import socket
import sys
import time
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest

from devicehub.mqtt import BrokerAddress, Delivery, Listener
from devicehub.worker.loop import Worker
from rig import servers
from rig.hub import ROOT, environment, eventually
from rig.messages import fresh
from rig.presence import make

# A commit's run has the query for overdue devices on both databases in test_silence.
pytestmark = [pytest.mark.servers, pytest.mark.sqlite_first]

# --- Real processes

WORKER = """
import dataclasses, sys, threading
import django
django.setup()
from django.core.management import call_command
from devicehub import signals
from devicehub.kinds.registry import registry

kind = registry.get("weatherstation")
registry.unregister("weatherstation")
registry.register(dataclasses.replace(kind, heartbeat_interval=1))

def report(name, device, **more):
    print(name, device.device_id, flush=True)

receivers = []
for name in ("connected", "disconnected", "status_changed"):
    receivers.append(lambda name=name, **more: report(name, more["device"]))
    getattr(signals, "device_" + name).connect(receivers[-1])
print(call_command("listen_mqtt", "--worker", sys.argv[1]))
"""


@pytest.fixture
def broker(tmp_path, needs_real):
    """Yield the context of a mosquitto, which can be left early, and its port."""
    with ExitStack() as stack:
        try:
            yield stack, stack.enter_context(servers.mosquitto(tmp_path / "mosquitto"))
        except servers.MissingServer as missing:
            needs_real(missing)


class Workers:
    """Workers that expect a weather station every second; a call returns the signals of a device."""

    def __init__(self, tmp_path, port, stack):
        self._folder, self._port, self._stack = tmp_path, port, stack
        self._logs, self._running = [], {}

    def __call__(self, device_id):
        lines = [line.split() for log in self._logs for line in log.read_text().splitlines()]
        return Counter(line[0] for line in lines if line[1:] == [device_id])

    def start(self, number):
        self._logs.append(log := self._folder / f"worker-{number}-{len(self._logs)}.log")
        self._running[number] = self._stack.enter_context(
            servers.process(
                [sys.executable, "-c", WORKER, str(number)],
                env=environment(MQTT_URL=f"mqtt://127.0.0.1:{self._port}"),
                cwd=ROOT,
                log=log,
                ready=lambda: "connected to" in log.read_text(),
            )
        )

    def kill(self, number):
        self._running[number].kill()
        self._running[number].wait(10)


@contextmanager
def workers(tmp_path, port):
    """Yield two workers."""
    with ExitStack() as stack:
        pair = Workers(tmp_path, port, stack)
        pair.start(1)
        pair.start(2)
        yield pair


def text(body):
    raw = body.encode()
    return len(raw).to_bytes(2) + raw


class Plug:
    """A device on a plain socket (MQTT 3.1.1), whose power can fail."""

    def __init__(self, port, device_id, will=""):
        self._status = f"things/weatherstation/{device_id}/status"
        self._data = f"things/weatherstation/{device_id}/data"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        flags = b"\x0e" if will else b"\x02"  # A clean session, and a will with QoS 1.
        last = text(self._status) + text(will) if will else b""
        self._ask(0x10, text("MQTT") + b"\x04" + flags + b"\x00\x3c" + text(device_id) + last)

    def measure(self):
        self._ask(0x32, text(self._data) + b"\x00\x01" + b'{"temperature": 1}')

    def _ask(self, kind, body):
        self._socket.sendall(bytes([kind, len(body)]) + body)
        assert len(self._socket.recv(64)) == 4  # CONNACK or PUBACK

    def tear_out(self):
        self._socket.close()


def test_a_device_that_vanishes_without_a_word_and_one_with_a_will(transactional_db, broker, tmp_path):
    _, port = broker
    quiet, station = make("QUIET"), make("STATION-001")
    with workers(tmp_path, port) as pair:
        vanishing, willing = Plug(port, "QUIET"), Plug(port, "STATION-001", will='{"status": "offline"}')
        vanishing.measure()
        willing.measure()
        assert eventually(lambda: pair("QUIET")["connected"] and pair("STATION-001")["connected"])
        willing.tear_out()
        assert eventually(lambda: vanishing.measure() or pair("STATION-001")["disconnected"])
        assert fresh(station).reported_status == "offline"  # The will caused the change, and not the silence.
        assert not pair("QUIET")["disconnected"]
        vanishing.tear_out()
        assert not fresh(station).connected
        assert eventually(lambda: pair("QUIET")["disconnected"], 30)
        assert (fresh(quiet).connected, fresh(quiet).status) == (False, "offline")

        back = Plug(port, "QUIET")
        back.measure()
        assert eventually(lambda: pair("QUIET")["connected"] == 2)
        assert eventually(lambda: pair("QUIET")["disconnected"] == 2, 30)
        back.tear_out()

        assert pair("QUIET") == {"connected": 2, "disconnected": 2, "status_changed": 4}
        assert pair("STATION-001") == {"connected": 1, "disconnected": 1, "status_changed": 2}


@pytest.mark.long
def test_a_device_whose_messages_wait_for_a_killed_worker_is_not_silent(transactional_db, broker, tmp_path):
    """Mosquitto keeps its share for it, so devices were heard only until then."""
    _, port = broker
    ids = [make(f"STATION-00{number}").device_id for number in range(1, 5)]
    with workers(tmp_path, port) as pair:
        plugs = [Plug(port, device_id) for device_id in ids]

        def measure(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for plug in plugs:
                    plug.measure()
                time.sleep(0.3)

        measure(3)
        pair.kill(2)
        measure(7)
        pair.start(2)
        measure(7)

        assert [pair(device_id)["disconnected"] for device_id in ids] == [0, 0, 0, 0]
        for plug in plugs:
            plug.tear_out()
        assert eventually(lambda: all(pair(device_id)["disconnected"] == 1 for device_id in ids), 30)


class Deaf:
    """A listener whose broker has one message for a worker that cannot store it for a while."""

    failure = ""
    listening_since = 1000.0

    def take(self, most, timeout):
        self.worker.stop()
        return [Delivery("nowhere", b"", 1, False, False, 0.0, "", b"", (), 1, 1)]


def test_what_waits_for_a_slow_database_was_not_heard(monkeypatch):
    """Every device would look overdue as soon as the database is back, before its messages are stored."""
    now, heard, listener = [2000.0], [], Deaf()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    listener.worker = one = Worker(listener)

    def stall(messages, acknowledge, notify):
        for seconds in (0, 5, 6, 1000):
            now[0] += seconds
            heard.append(one.heard_since)
        return []

    monkeypatch.setattr("devicehub.worker.loop.pipeline", stall)
    assert one.heard_since == 1000
    one.run()

    assert heard == [1000, 1000, None, None]
    assert one.heard_since == now[0] == 3011
    listener.listening_since = None
    assert one.heard_since is None


def test_a_listener_knows_since_when_it_listens(broker):
    stack, port = broker
    before = time.monotonic()
    listener = Listener(BrokerAddress("127.0.0.1", port), "listener-1", ["things/#"])
    assert listener.listening_since is None
    listener.start()
    try:
        first = listener.listening_since
        assert before < first < time.monotonic()
        listener.redeliver()
        assert eventually(lambda: (listener.listening_since or 0) > first)
        stack.close()
        assert eventually(lambda: listener.listening_since is None)
    finally:
        listener.stop()
