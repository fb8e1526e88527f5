"""A session of ours at the broker, with manual acks: what an ingest worker listens with."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicehub.mqtt.address import CONNECT_TIMEOUT, KEEPALIVE, BrokerAddress, MqttError, client
from devicehub.mqtt.intake import Delivery, Intake, described_by

SESSION_EXPIRY = 7 * 24 * 3600  # seconds that the broker keeps an absent listener's messages
RECEIVE_MAXIMUM = 2000  # messages that may be unacknowledged: while a batch is stored, the next one arrives
MOST_QUEUED = 16 << 20  # bytes of payloads that wait to be stored, beyond which the network must wait
FLUSH_TIMEOUT = 3.0  # seconds for the broker to have our last acks
PUBACK = 0x40  # the first byte of a packet
_PUBACK = bytes((PUBACK, 2))  # then the packet id; without a reason code it is a success (MQTT 5.0, 3.4.2.1)


class _Session(paho.Client):
    """paho's client with an Intake on every connection, and with acks for many messages in one piece."""

    generation = 0  # of the connection
    deliver: Callable[[Delivery], None]
    full: Callable[[], bool]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._changing = threading.Lock()
        super().__init__(*arguments, **options)

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

    def _create_socket(self) -> Any:
        connection = super()._create_socket()
        with self._changing:
            self.generation += 1
            self._out_packet.clear()  # an ack of the last connection would be one of another message on this
            return Intake(connection, int(self.protocol), self.generation, self.deliver, self.full)


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
        self._bytes_put = 0  # counted by the network thread
        self._bytes_taken = 0  # counted by who takes
        self._welcome = False  # whether the broker ever let us in
        self._ready = threading.Event()
        self._flushed = threading.Event()
        self._failure = ""
        self._listening_since: float | None = None
        self._client = client(address, client_id, version, clean=False, made=_Session)
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
        self._listening_since = None
        self._drain()
        with contextlib.suppress(OSError):
            self._client.reconnect()

    @property
    def listening_since(self) -> float | None:
        """Since when, by time.monotonic(), this listener gets what is published; None while it does not."""
        return self._listening_since

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
        self._listening_since = None
        if reason.is_failure and self._ready.is_set() and not self._failure:
            self._report(f"connection lost ({reason}), trying again")

    def _on_subscribe(self, _c: Any, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        refused = [text for text, r in zip(self._filters, reasons, strict=False) if r.is_failure]
        if refused:
            self._failure = (
                f"the broker refused the subscription to {', '.join(refused)}; after a new device type "
                "the account needs `manage.py create_account NAME --ingest --grant-only`"
            )
        else:
            self._listening_since = time.monotonic()
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
                *described_by(message.properties),
                message.mid,
                self._client.generation,
            )
        )
