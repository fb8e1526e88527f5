"""A proxy between a listener and its broker that records every packet and can be cut; workers that use it."""

import itertools
import signal
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress

from devicehub.mqtt import BrokerAddress, Listener, MqttError
from rig import servers
from rig.hub import ROOT, environment

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 1, 2, 3, 4, 8, 9, 12, 14
ACCEPTED = b"\x20\x03\x00\x00\x00"  # a CONNACK of a pretender
UNSUBACK = b"\xb0\x04ID\x00\x11"


class Wire:
    """A proxy that records every packet as (whether the listener sent it, its type, its body)."""

    def __init__(self, broker_port):
        self._broker_port = broker_port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.packets = []
        self.made = []  # the time of each new connection, in seconds of the monotonic clock
        self.open_now = self.most_open = 0  # connections that the listener holds
        self._dead = threading.Event()
        self._open = []
        self._threads = []
        self._start(self._accept)

    def bodies(self, kind, *, of_worker):
        """Return the bodies of all packets of type *kind* in one direction."""
        return [body for sent, what, body in list(self.packets) if what == kind and sent is of_worker]

    def published(self):
        """Return the packet ids of the messages of the broker, in their order."""
        found = []
        for body in self.bodies(PUBLISH, of_worker=False):
            start = 2 + int.from_bytes(body[:2])
            found.append(int.from_bytes(body[start : start + 2]))
        return found

    def acknowledged(self):
        """Return the packet ids that the worker acknowledged, in their order."""
        return [int.from_bytes(body[:2]) for body in self.bodies(PUBACK, of_worker=True)]

    def subscribed(self):
        """Return the number of SUBACKs."""
        return len(self.bodies(SUBACK, of_worker=False))

    def chatter(self, quiet):
        """Send the worker messages that need no ack, faster than it reads, until *quiet*; at most 40,000."""
        with suppress(OSError):
            for _ in range(400):
                if quiet.wait(0.001):
                    return
                self._open[0].sendall(b"\x30\x08\x00\x05noise\x00" * 100)

    def die(self):
        """Carry nothing from now on: connections stay open and new ones are accepted, like half-open ones."""
        self._dead.set()

    def heal(self):
        """Carry new connections again; those that are open stay dead."""
        self._dead = threading.Event()

    def hang_up(self):
        """Close all connections, like a broker that stops."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self):
        """Close all connections and stop listening."""
        for one in [self._server, *self._open]:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(5)

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with suppress(OSError):
            while True:
                worker, _ = self._server.accept()
                self.made.append(time.monotonic())
                self.open_now += 1
                self.most_open = max(self.most_open, self.open_now)
                self._open.append(worker)
                try:
                    broker = socket.create_connection(("127.0.0.1", self._broker_port))
                except ConnectionRefusedError:
                    worker.close()
                    self.open_now -= 1
                    continue
                self._open.append(broker)
                self._start(self._carry, worker, broker, True, self._dead)
                self._start(self._carry, broker, worker, False, self._dead)

    def _carry(self, source, target, of_worker, dead):
        """Carry bytes until *source* closes; either side may close first, and no sent byte is lost."""
        buffer = b""
        with suppress(OSError):
            while chunk := source.recv(65536):
                if dead.is_set():
                    continue
                buffer += chunk
                while packet := cut(buffer):
                    kind, body, buffer = packet
                    self.packets.append((of_worker, kind, body))
                with suppress(OSError):
                    target.sendall(chunk)
        if of_worker:
            self.open_now -= 1
        if not dead.is_set():
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)


def cut(buffer):
    """Return the first packet in *buffer* as (type, body, rest), or None if it is incomplete."""
    length = shift = 0
    for position, byte in enumerate(buffer[1:5], start=2):
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            end = position + length
            return (buffer[0] >> 4, buffer[position:end], buffer[end:]) if len(buffer) >= end else None
    return None


def workers(broker_port, folder):
    """Return a function that starts a worker: `with start(*arguments, **settings) as worker`, which is subscribed."""
    numbers = itertools.count(1)

    @contextmanager
    def start(*arguments, **settings):
        log = folder / f"listen_mqtt-{next(numbers)}.log"
        wire = Wire(broker_port)
        try:
            with servers.process(
                [sys.executable, "manage.py", "listen_mqtt", *arguments],
                env=environment(**{"MQTT_URL": f"mqtt://127.0.0.1:{wire.port}"} | settings),
                cwd=ROOT,
                log=log,
                ready=lambda: (
                    wire.subscribed() or ("connected to" in log.read_text() and "MQTT_URL" in settings)
                ),
            ) as process:
                process.wire, process.log = wire, log
                yield process
        finally:
            wire.close()

    return start


def kill(process):
    """Kill *process* and wait for its end."""
    process.kill()
    process.wait(5)


def stop(process, number=signal.SIGTERM):
    """Stop *process*, and return its exit code and the seconds until its end."""
    began = time.monotonic()
    process.send_signal(number)
    return process.wait(30), time.monotonic() - began


@contextmanager
def pretender(*answers, then=None):
    """Run a server that sends one answer per packet, with the packet id in place of `ID`; None closes.

    *then* are the answers from the second connection on, if they differ.
    """
    server = socket.create_server(("127.0.0.1", 0))
    connections = []

    def serve():
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                connections.append(client)
                with suppress(OSError):
                    converse(client, answers if then is None or len(connections) == 1 else then)

    def converse(client, answers):
        for answer in answers:
            buffer = b""
            while not (packet := cut(buffer)):
                chunk = client.recv(4096)
                if not chunk:
                    return
                buffer += chunk
            if answer is None:
                client.shutdown(socket.SHUT_RDWR)
                return
            client.sendall(answer.replace(b"ID", packet[1][:2]))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"mqtt://ingest:s3cret@127.0.0.1:{server.getsockname()[1]}"
    for one in [server, *connections]:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
    thread.join(5)


def suback(*reasons):
    """Return the SUBACK with *reasons*, as an answer of pretender()."""
    return bytes([0x90, 3 + len(reasons)]) + b"ID\x00" + bytes(reasons)


@contextmanager
def listening(url, former=(), judge=lambda: ""):
    """Yield a listener that begins to connect; its reports are in `said`, its error in `trouble`."""
    said = []

    def start():
        with suppress(MqttError):
            listener.start(former)

    listener = Listener(BrokerAddress.parse(url), "ingest-1", ["things/#"], report=said.append, judge=judge)
    listener.said = said
    starting = threading.Thread(target=start)
    starting.start()
    try:
        yield listener
    finally:
        listener.interrupt()
        starting.join(10)
        listener.stop()
