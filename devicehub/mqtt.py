"""MQTT transport: the only module that imports paho. It moves bytes and acks; it knows no device."""

from __future__ import annotations

import contextlib
import functools
import queue
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

CONNECT_TIMEOUT = 5.0  # seconds for a CONNACK; neither amqtt 0.12 nor RabbitMQ 3.10 answers an MQTT 5 CONNECT
SESSION_EXPIRY = 7 * 24 * 3600  # seconds that the broker keeps an absent listener's messages
RECEIVE_MAXIMUM = 2000  # messages that may be unacknowledged: while a batch is stored, the next one arrives
MOST_QUEUED = 16 << 20  # bytes of payloads that wait to be stored, beyond which the network must wait
FLUSH_TIMEOUT = 3.0  # seconds for the broker to have our last acks
PAUSE = 0.01  # seconds until the network looks again whether the queue has room
KEEPALIVE = 30
VERSIONS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


class MqttError(Exception):
    """The broker could not be reached, refused us, or did not acknowledge."""


class Unacknowledged(MqttError):
    """A message was sent and the broker did not say that it has it: it may arrive, or not."""


class InvalidAddress(ValueError):
    """A text that is no address of a broker."""


@dataclass(frozen=True)
class BrokerAddress:
    """Where a broker is and who we are there."""

    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> BrokerAddress:
        """From mqtt://[user:password@]host[:port] (mqtts:// for TLS), percent-decoded. Raises InvalidAddress."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidAddress("MQTT_URL cannot be read") from error
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise InvalidAddress("MQTT_URL is no mqtt:// or mqtts:// address")
        return cls(
            host=parts.hostname,
            port=port or (8883 if parts.scheme == "mqtts" else 1883),
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            tls=parts.scheme == "mqtts",
        )


class Outgoing(NamedTuple):
    """A message to publish. The last two are sent on MQTT 5 only."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    correlation_data: bytes = b""
    response_topic: str = ""


class Delivery(NamedTuple):
    """A message that the broker handed over and waits to have acknowledged."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    duplicate: bool
    received_at: float  # Unix seconds
    content_type: str
    correlation_data: bytes
    user_properties: tuple[tuple[str, str], ...]
    packet_id: int
    generation: int  # of the connection: packet ids start again on the next one


class Connection:
    """A client that is connected by the time the constructor returns, with a network thread of its own.

    *will* is published by the broker if the connection breaks. Raises MqttError.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        version: str = "5",
        will: Outgoing | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
        timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._client = _client(address, client_id, version, clean=True, made=paho.Client)
        self._answered = threading.Event()
        self._refusal = ""
        self._client.on_connect = self._on_connect
        if on_message is not None:
            self._client.on_message = lambda _c, _u, m: on_message(m.topic, bytes(m.payload))
        if will is not None:
            self._client.will_set(will.topic, will.payload, will.qos, will.retain)
        self._subscribed: dict[int, threading.Event] = {}
        self._granted: dict[int, list[ReasonCode]] = {}
        self._client.on_subscribe = self._on_subscribe
        try:
            self._client.connect(address.host, address.port, KEEPALIVE)
        except OSError as error:
            raise MqttError(f"no connection to {address.host}:{address.port} ({error})") from error
        self._client.loop_start()
        if not self._answered.wait(timeout):
            self.close()
            raise MqttError(
                f"{address.host}:{address.port} did not answer within {timeout:g} s; "
                f"is DEVICEHUB_MQTT_VERSION={version} what it speaks?"
            )
        if self._refusal:
            self.close()
            raise MqttError(f"{address.host}:{address.port} refused the connection: {self._refusal}")

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        self._answered.set()

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        self._granted[mid] = reasons
        self._subscribed.setdefault(mid, threading.Event()).set()

    def subscribe(self, topic_filter: str, qos: int = 1, timeout: float = CONNECT_TIMEOUT) -> None:
        """Subscribe and wait for the broker's answer. Raises MqttError when it refuses."""
        result, mid = self._client.subscribe(topic_filter, qos)
        if result != paho.MQTT_ERR_SUCCESS or mid is None:
            raise MqttError(f"no subscription to {topic_filter}: {paho.error_string(result)}")
        if not self._subscribed.setdefault(mid, threading.Event()).wait(timeout):
            raise MqttError(f"no answer to the subscription to {topic_filter}")
        if any(reason.is_failure for reason in self._granted[mid]):
            raise MqttError(f"the broker refused the subscription to {topic_filter}")

    def publish(self, message: Outgoing, timeout: float = CONNECT_TIMEOUT) -> None:
        """Publish and, at QoS 1 and 2, wait for the ack. Raises MqttError without one."""
        properties = None
        if message.correlation_data and self._client.protocol == paho.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = message.correlation_data
            properties.ResponseTopic = message.response_topic
        info = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, properties=properties
        )
        try:
            info.wait_for_publish(timeout)
        except (RuntimeError, ValueError) as error:
            raise MqttError(f"not published to {message.topic}: {error}") from error
        if not info.is_published():
            raise Unacknowledged(f"the broker did not acknowledge a message to {message.topic}")

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def close(self) -> None:
        """Say goodbye (no will is sent) and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()


def publish(
    address: BrokerAddress, client_id: str, message: Outgoing, *, version: str = "5", timeout: float = 10
) -> None:
    """Connect, publish one message, wait for its ack, disconnect. Raises MqttError."""
    connection = Connection(address, client_id, version=version, timeout=timeout)
    try:
        connection.publish(message, timeout)
    finally:
        connection.close()


class Intake:
    """A connection as paho sees it, read in large pieces: messages go to *deliver*, all other packets to paho.

    paho reads a packet by three system calls and more, which costs as much as to store the message.
    What is unusual in a message is paho's to read: QoS 2, and whatever is malformed. Nothing is read while
    *full* says so; paho goes on sending acks and pings.
    """

    PIECE = 1 << 18  # bytes that are read at once
    PIECES = 16  # that are read before paho may send and look at its clock again

    def __init__(
        self,
        connection: Any,
        version: int,
        generation: int,
        deliver: Callable[[Delivery], None],
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        self._connection, self._generation, self._deliver, self._full = connection, generation, deliver, full
        self._has_properties = version == paho.MQTTv5
        self._rest = bytearray()  # of a packet that is not whole yet
        self._missing = 0  # bytes, at least, until it is
        self._others = bytearray()  # packets for paho

    def recv(self, size: int) -> bytes:
        """Bytes for paho. Raises BlockingIOError when there are none yet; none at all is the end."""
        for _ in range(self.PIECES):
            if self._others:
                break
            if self._full():
                time.sleep(PAUSE)
                break
            piece = self._connection.recv(self.PIECE)
            if not piece:
                return b""
            self._take(piece)
        if not self._others:
            raise BlockingIOError
        taken = bytes(self._others[:size])
        del self._others[:size]
        return taken

    def pending(self) -> int:
        """Bytes that are here already, for which paho must not wait."""
        decrypted = self._connection.pending() if hasattr(self._connection, "pending") else 0
        return len(self._others) + int(decrypted)

    def fileno(self) -> int:
        return int(self._connection.fileno())

    def send(self, data: bytes) -> int:
        return int(self._connection.send(data))

    def setblocking(self, flag: bool) -> None:
        self._connection.setblocking(flag)

    def close(self) -> None:
        self._connection.close()

    def _take(self, piece: bytes) -> None:
        if self._rest:
            self._rest += piece
            self._missing -= len(piece)
            if self._missing > 0:
                return
            piece = bytes(self._rest)
        now = time.time()
        position, end = 0, len(piece)
        self._missing = 1
        while end - position >= 2:
            start, length = position + 2, piece[position + 1]
            if length > 127:
                found = _long_length(piece, position + 1)
                if found is None:
                    break
                start, length = found
            stop = start + length
            if stop > end:
                self._missing = stop - end
                break
            delivery = None
            if piece[position] >> 4 == PUBLISH and start > position + 1:
                delivery = self._delivery(piece[position], piece[start:stop], now)
            if delivery is None:
                self._others += piece[position:stop]
            else:
                self._deliver(delivery)
            position = stop
        self._rest = bytearray(piece[position:])

    def _delivery(self, flags: int, body: bytes, now: float) -> Delivery | None:
        """The message in a PUBLISH packet (MQTT 5.0, 3.3); None when paho shall read it."""
        qos = flags >> 1 & 3
        at = 2 + int.from_bytes(body[:2])
        packet_id = 0
        described = _NOTHING
        try:
            topic = body[2:at].decode()
            if qos:
                packet_id = int.from_bytes(body[at : at + 2])
                at += 2
            if self._has_properties:
                length = body[at]
                if length > 127:
                    return None
                described = _described(body[at : at + length + 1]) if length else _NOTHING
                at += length + 1
        except (ValueError, LookupError, struct.error, MQTTException):
            return None
        if qos > 1 or at > len(body) or not topic:
            return None
        return Delivery(
            topic,
            body[at:],
            qos,
            bool(flags & 1),
            bool(flags & 8),
            now,
            *described,
            packet_id,
            self._generation,
        )


_NOTHING: tuple[str, bytes, tuple[tuple[str, str], ...]] = ("", b"", ())


@functools.lru_cache(maxsize=256)  # what describes the messages of a fleet is mostly the same
def _described(encoded: bytes) -> tuple[str, bytes, tuple[tuple[str, str], ...]]:
    """Content type, correlation data and user properties in the properties of a PUBLISH."""
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.unpack(encoded)
    return _properties(properties)


def _properties(properties: Any) -> tuple[str, bytes, tuple[tuple[str, str], ...]]:
    return (
        getattr(properties, "ContentType", ""),
        getattr(properties, "CorrelationData", b""),
        tuple(getattr(properties, "UserProperty", ())),
    )


def _long_length(piece: bytes, at: int) -> tuple[int, int] | None:
    """Where a packet's body begins and how long it is (MQTT 5.0, 1.5.5); None when that is not here yet.

    A length that never ends is told as all that is here, itself included, for paho to refuse.
    """
    length = 0
    for place, byte in enumerate(piece[at : at + 4]):
        length |= (byte & 127) << 7 * place
        if byte < 128:
            return at + place + 1, length
    return (at, len(piece) - at) if len(piece) >= at + 4 else None


class _Session(paho.Client):
    """paho's client with an Intake on every connection, and with acks for many messages in one piece."""

    generation = 0  # of the connection
    deliver: Callable[[Delivery], None]
    full: Callable[[], bool]

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge in this order those that came over the connection that is open now."""
        with self._changing:
            current = [delivery for delivery in deliveries if delivery.generation == self.generation]
            acks = b"".join([_PUBACK + d.packet_id.to_bytes(2) for d in current if d.qos == 1])
            if acks:
                self._packet_queue(PUBACK, acks, 0, 1)
            for delivery in current:
                if delivery.qos == 2:
                    self.ack(delivery.packet_id, 2)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._changing = threading.Lock()
        super().__init__(*arguments, **options)

    def _create_socket(self) -> Any:
        connection = super()._create_socket()
        with self._changing:
            self.generation += 1
            self._out_packet.clear()  # an ack of the last connection would be one of another message on this
            return Intake(connection, int(self.protocol), self.generation, self.deliver, self.full)


PUBLISH, PUBACK = 3, 0x40  # a type, and the first byte of a packet
_PUBACK = bytes((PUBACK, 2))  # then the packet id; without a reason code it is a success (MQTT 5.0, 3.4.2.1)


class Listener:
    """A session of ours at the broker, with manual acks: what is not acknowledged comes again.

    The network thread only queues. A reader takes what is queued, stores it, and then acknowledges it.
    """

    def __init__(
        self,
        address: BrokerAddress,
        client_id: str,
        filters: Sequence[str],
        *,
        version: str = "5",
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._address, self._filters, self._version = address, list(filters), version
        self._report = report
        self._queue: queue.SimpleQueue[Delivery] = queue.SimpleQueue()
        self._bytes_put = self._bytes_taken = (
            0  # the first is the network thread's to count, the other the reader's
        )
        self._welcome = False  # whether the broker ever let us in
        self._ready = threading.Event()
        self._flushed = threading.Event()
        self._failure = ""
        self._client = _client(address, client_id, version, clean=False, made=_Session)
        self._client.deliver = self._put
        self._client.full = lambda: self._bytes_put - self._bytes_taken > MOST_QUEUED
        self._client.manual_ack_set(True)
        self._client.reconnect_delay_set(1, 30)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.on_unsubscribe = lambda *_: self._flushed.set()

    def start(self, timeout: float = CONNECT_TIMEOUT) -> None:
        """Connect and subscribe. Raises MqttError when the broker does not answer or refuses a filter."""
        try:
            self._connect()
        except OSError as error:
            raise MqttError(
                f"no connection to {self._address.host}:{self._address.port} ({error})"
            ) from error
        self._client.loop_start()
        if not self._ready.wait(timeout) and not self._failure:
            self._failure = self._silence(timeout)
        if self._failure:
            self.stop()
            raise MqttError(self._failure)

    def take(self, most: int, timeout: float) -> list[Delivery]:
        """What is queued, at most *most*; waits *timeout* seconds for the first and never for a full batch.

        What came over an earlier connection is left out: it was not acknowledged, so it comes again.
        """
        taken: list[Delivery] = []
        with contextlib.suppress(queue.Empty):
            taken.append(self._queue.get(timeout=timeout))
            while len(taken) < most:
                taken.append(self._queue.get_nowait())
        self._bytes_taken += sum([len(delivery.payload) for delivery in taken])
        current = self._client.generation
        return [delivery for delivery in taken if delivery.generation == current]

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge in the order received. Those of an earlier connection come again by themselves."""
        self._client.acknowledge(deliveries)

    def redeliver(self) -> None:
        """Have everything that is not acknowledged sent again: a broker does that on a new connection only."""
        self._drain()
        with contextlib.suppress(OSError):
            self._client.reconnect()

    @property
    def failure(self) -> str:
        """Why this listener gets nothing any more, in a sentence; empty while it works or reconnects."""
        return self._failure

    def stop(self) -> None:
        """Disconnect, once the broker has what was acknowledged.

        Acks that are still on their way when a socket with unread input is closed are lost with it. The answer
        to a request that was sent after them says that they arrived.
        """
        if self._client.is_connected():
            result, _ = self._client.unsubscribe("devicehub/none")
            if result == paho.MQTT_ERR_SUCCESS:
                self._flushed.wait(FLUSH_TIMEOUT)
        self._client.disconnect()
        self._client.loop_stop()

    def _silence(self, timeout: float) -> str:
        where = f"{self._address.host}:{self._address.port}"
        if self._welcome:
            return f"{where} hung up on the subscription; may this account subscribe to {self._filters[0]}?"
        return (
            f"{where} did not answer within {timeout:g} s; "
            f"is DEVICEHUB_MQTT_VERSION={self._version} what it speaks?"
        )

    def _connect(self) -> None:
        if self._client.protocol == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            self._client.connect(
                self._address.host, self._address.port, KEEPALIVE, clean_start=False, properties=properties
            )
        else:
            self._client.connect(self._address.host, self._address.port, KEEPALIVE)

    def _put(self, delivery: Delivery) -> None:
        self._bytes_put += len(delivery.payload)
        self._queue.put(delivery)

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._bytes_taken += len(self._queue.get_nowait().payload)

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._welcome = True
        if reason.is_failure:
            refusal = f"{self._address.host}:{self._address.port} refused the connection: {reason}"
            if self._ready.is_set():  # it let us in before: its service may be away, so go on trying
                self._report(refusal)
            else:
                self._failure = refusal
                self._ready.set()
            return
        self._report(f"connected to {self._address.host}:{self._address.port}")
        self._client.subscribe([(text, 1) for text in self._filters])

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure and self._ready.is_set() and not self._failure:
            self._report(f"connection lost ({reason}), trying again")

    def _on_subscribe(self, _c: Any, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        refused = [text for text, r in zip(self._filters, reasons, strict=False) if r.is_failure]
        if refused:
            self._failure = (
                f"the broker refused the subscription to {', '.join(refused)}; after a new device type "
                "the account needs `manage.py create_account NAME --ingest --grant-only`"
            )
        self._ready.set()

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        """What an Intake left to paho."""
        self._put(
            Delivery(
                message.topic,
                bytes(message.payload),
                message.qos,
                message.retain,
                message.dup,
                time.time(),
                *_properties(message.properties),
                message.mid,
                self._client.generation,
            )
        )


Made = TypeVar("Made", bound=paho.Client)


def _client(address: BrokerAddress, client_id: str, version: str, *, clean: bool, made: type[Made]) -> Made:
    protocol = VERSIONS[version]
    client = made(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=protocol,
        clean_session=None if protocol == paho.MQTTv5 else clean,
    )
    if address.username:
        client.username_pw_set(address.username, address.password)
    if address.tls:
        client.tls_set()
    return client
