"""The private names of paho that devicehub.mqtt uses, and the meaning on which it relies.

paho may change them in any release, so pyproject.toml allows only the releases that were checked.
"""

from __future__ import annotations

import ast
import socket
import threading
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from packaging.requirements import Requirement
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

import devicehub.mqtt
from rig.hub import ROOT

pytestmark = pytest.mark.sqlite_only

USED = {
    "_create_socket",  # The result is the object that paho reads and writes.
    "_host",
    "_keepalive",  # The unit is seconds.
    "_last_bytes_received",  # This is the time of the last bytes from the broker.
    "_loop_rc_handle",  # The method ends the connection with a reason.
    "_out_packet",  # This is a deque of packets to write.
    "_packet_queue",  # The method writes a packet unchanged.
    "_ping_t",  # This is the time of a ping without an answer; 0 without one.
    "_reconnect_wait",  # The method pauses before the network thread connects again.
    "_sock",  # This is the result of _create_socket(); None without a connection.
    "_sock_close",  # The method closes and removes _sock.
    "_sockpairW",  # A byte on this socket wakes the network thread.
    "_thread",  # This is the network thread.
    "_thread_terminate",  # If it is True, the network thread does not connect again.
}

FOLDER = Path(devicehub.mqtt.__file__).parent
CONNACK = b"\x20\x03\x00\x00\x00"
PUBACK = b"\x40\x02\x00\x01"
PINGREQ = b"\xc0\x00"


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def names_in(source):
    """Return the private names of paho's client that *source* defines again or uses of any object."""
    own = set(vars(paho.Client(CallbackAPIVersion.VERSION2))) | set(vars(paho.Client))
    found = set()
    for part in ast.walk(ast.parse(source)):
        if not isinstance(part, ast.ClassDef):
            continue
        is_client = any(ast.unparse(base) == "paho.Client" for base in part.bases)
        for node in ast.walk(part):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_client:
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and (is_client or ast.unparse(node.value) != "self"):
                found.add(node.attr)
    return {name for name in found & own if is_private(name)}


def test_all_private_names_that_are_used_are_listed():
    used = set().union(*(names_in(path.read_text()) for path in FOLDER.rglob("*.py")))

    assert used == USED


def test_the_search_finds_what_is_overridden_and_what_is_used():
    source = """
class Mine(paho.Client):
    def _create_socket(self):
        return self._sock
    def _of_our_own(self):
        pass
class Other:
    def poke(self):
        self._keepalive = self._client._out_packet
"""

    assert names_in(source) == {"_create_socket", "_sock", "_out_packet"}


def test_only_the_releases_are_allowed_whose_names_these_are():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    [requirement] = [one for one in map(Requirement, declared) if one.name == "paho-mqtt"]
    installed = version("paho-mqtt")

    assert requirement.specifier.contains(installed)
    major, minor = installed.split(".")[:2]
    assert not requirement.specifier.contains(f"{major}.{int(minor) + 1}.0")


class Wire:
    """An object that paho uses as a socket."""

    def __init__(self):
        self.sent, self.incoming = [], b""
        self.is_closed = self.is_full = False

    def send(self, data):
        if self.is_full:
            raise BlockingIOError
        self.sent.append(bytes(data))
        return len(data)

    def recv(self, size):
        if not self.incoming:
            raise BlockingIOError
        taken, self.incoming = self.incoming[:size], self.incoming[size:]
        return taken

    def setblocking(self, flag):
        pass

    def close(self):
        self.is_closed = True


class Client(paho.Client):
    wire: Wire

    def _create_socket(self):
        return self.wire


@pytest.fixture
def client():
    """Return a client that is connected to a wire, with the broker's CONNACK."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="one", protocol=paho.MQTTv5)
    client.wire = Wire()
    client.connect_async("broker.example", 1883, 10)
    client.reconnect()
    client.wire.incoming = CONNACK
    client.loop_read()
    assert client.is_connected()
    return client


def test_a_client_speaks_over_the_socket_that_it_creates(client):
    assert client._sock is client.wire
    assert client.wire.sent[0].startswith(b"\x10")
    assert (client._host, client._keepalive) == ("broker.example", 10)


def test_a_queued_packet_is_written_as_it_is(client):
    """This holds also for several acks in one piece."""
    client._packet_queue(0x40, PUBACK * 3, 0, 1)

    assert client.wire.sent[-1] == PUBACK * 3


def test_what_waits_to_be_written_can_be_cleared(client):
    client.wire.is_full = True
    client._packet_queue(0x40, PUBACK, 0, 1)
    assert len(client._out_packet) == 1

    client._out_packet.clear()
    client.wire.is_full = False

    client.loop_write()
    assert PUBACK not in client.wire.sent


def test_a_silence_of_one_interval_is_followed_by_a_ping(client):
    client.loop_misc()
    assert client.wire.sent[-1] != PINGREQ
    assert client._ping_t == 0.0

    client._last_bytes_received -= client._keepalive
    client.loop_misc()

    assert client.wire.sent[-1] == PINGREQ
    assert 0 < client._ping_t <= time.monotonic()


def test_a_ping_that_is_not_answered_ends_the_connection(client):
    reasons = []
    client.on_disconnect = lambda *arguments: reasons.append(str(arguments[3]))
    client._ping_t = time.monotonic() - client._keepalive

    client.loop_misc()

    assert reasons == ["Keep alive timeout"]
    assert client.wire.is_closed


def test_a_connection_is_ended_for_a_reason(client):
    reasons = []
    client.on_disconnect = lambda *arguments: reasons.append(str(arguments[3]))

    client._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)

    assert reasons == ["Unspecified error"]
    assert client._sock is None
    assert client.wire.is_closed


def test_closing_goes_through_one_method(client):
    client._sock_close()

    assert client._sock is None
    assert client.wire.is_closed


def test_the_network_thread_waits_between_attempts_until_it_shall_end():
    waits, let_go = [], threading.Event()

    class Away(paho.Client):
        def _create_socket(self):
            raise ConnectionRefusedError

        def _reconnect_wait(self):
            waits.append(self._thread is threading.current_thread())
            let_go.wait(10)

    client = Away(CallbackAPIVersion.VERSION2, client_id="one")
    assert client._thread is None
    assert client._sockpairW is None
    client.connect_async("broker.example", 1883)
    client.loop_start()
    thread = client._thread
    end = time.monotonic() + 10
    while not waits and time.monotonic() < end:
        time.sleep(0.01)
    assert isinstance(client._sockpairW, socket.socket)
    client._thread_terminate = True
    let_go.set()
    thread.join(10)

    assert waits == [True]
    assert not thread.is_alive()
