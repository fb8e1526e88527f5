"""One client of a Swarm: paho's protocol on an asyncio connection."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from devicehub.mqtt.address import KEEPALIVE, BrokerAddress, MqttError, client
from devicehub.mqtt.publisher import Outgoing, properties_of
from devicehub.mqtt.swarm.stream import Stream


class Received(NamedTuple):
    """A message from the broker. The last two fields come on MQTT 5 only."""

    topic: str
    payload: bytes
    correlation_data: bytes
    response_topic: str


class Owner(Protocol):
    """The device that a client belongs to. It is called in the event loop, so it must not wait for anything."""

    def ready(self) -> None:
        """Handle that the client is connected and subscribed, for the first time or again."""

    def lost(self, reason: str) -> None:
        """Handle that the connection broke or was not made, for *reason*; the client tries again."""

    def received(self, message: Received) -> None:
        """Handle a message."""


class Counts:
    """The totals of all clients of a swarm."""

    def __init__(self) -> None:
        self.acknowledged = 0  # Messages that the broker accepted.
        self.refused = 0  # Messages that it acknowledged with a failure.
        self.lost = 0  # Messages whose connection broke before they were acknowledged.
        self.connected = 0  # Clients that are ready now.
        self.most_connected = 0  # The most clients that were ready at the same time.


class _Driven(paho.Client):
    """paho's client on the connection that it is given."""

    given: Stream

    def _create_socket(self) -> Any:
        return self.given


class SwarmClient:
    """A client with a will and one subscription. Its Swarm connects it, and again after a loss.

    It starts clean each time: messages without an ack before a loss are only counted (`Counts.lost`).
    """

    def __init__(
        self,
        address: BrokerAddress,
        version: str,
        counts: Counts,
        owner: Owner,
        *,
        client_id: str,
        will: Outgoing,
        topic_filter: str,
    ) -> None:
        self.owner = owner
        self.ready = False
        self.unacknowledged: set[int] = set()  # Packet ids.
        self._address, self._version, self._counts = address, version, counts
        self._client_id, self._will, self._filter = client_id, will, topic_filter
        self._client: _Driven | None = None
        self._stream: Stream | None = None
        self._answer: asyncio.Future[None]  # It is done when subscribed, and fails if that fails.
        self._loss: asyncio.Future[str]  # The reason why the connection broke.

    async def begin(self, stream: Stream) -> None:
        """Log in and subscribe over *stream*, which is open. Raise MqttError if the broker refuses that."""
        # The stream has its TLS already.
        address = BrokerAddress(
            self._address.host, self._address.port, self._address.username, self._address.password
        )
        made = client(address, self._client_id, self._version, clean=True, made=_Driven)
        made.given = stream
        made.will_set(self._will.topic, self._will.payload, self._will.qos, self._will.retain)
        made.on_connect, made.on_disconnect = self._on_connect, self._on_disconnect
        made.on_subscribe, made.on_publish, made.on_message = (
            self._on_subscribe,
            self._on_publish,
            self._on_message,
        )
        loop = asyncio.get_running_loop()
        self._answer, self._loss = loop.create_future(), loop.create_future()
        self._client, self._stream = made, stream
        stream.on_news = self._advance
        made.connect_async(address.host, address.port, KEEPALIVE)
        made.reconnect()
        await self._answer

    async def loss(self) -> str:
        """Wait until the connection breaks, and return why."""
        return await self._loss

    def publish(self, message: Outgoing) -> bool:
        """Queue *message* without waiting, and return True; False without a connection or without a free packet id."""
        if self._client is None or not self.ready:
            return False
        info = self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            properties=properties_of(message, self._client.protocol),
        )
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return False
        if message.qos:
            self.unacknowledged.add(info.mid)
        return True

    @property
    def is_open(self) -> bool:
        """True if there is a connection, also one that is sending its last bytes."""
        return self._stream is not None and self._stream.is_open

    def disconnect(self) -> None:
        """Send DISCONNECT, so that the broker publishes no will."""
        self._set_ready(False)
        if self._client is not None:
            self._client.disconnect()

    def hang_up(self) -> None:
        """Close without DISCONNECT, so that the broker publishes the will (MQTT 5.0, 3.1.2.5)."""
        self._end()
        self._client = None
        if self._stream is not None:
            self._stream.abort()

    def look_after(self) -> None:
        """Send a ping if one is due (MQTT 5.0, 3.1.2.10)."""
        if self._client is not None:
            self._client.loop_misc()

    def _advance(self) -> None:
        """Read all packets that are here, then write queued packets, also those that could not be written before."""
        made, stream = self._client, self._stream
        if made is None or stream is None:
            return
        while stream.has_news and made is self._client:
            made.loop_read()
        if made is self._client and made.want_write():
            made.loop_write()

    def _on_connect(self, made: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:
            self._refused(f"{self._address.host}:{self._address.port} refused the connection: {reason}")
        else:
            made.subscribe(self._filter, 1)

    def _on_subscribe(self, _c: Any, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refused(f"the broker refused the subscription to {self._filter}")
        elif not self._answer.done():
            self._set_ready(True)
            self._answer.set_result(None)

    def _refused(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(MqttError(why))

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        """Count the answer to a message. At QoS 0 paho also calls this, once the message is written."""
        if mid in self.unacknowledged:
            self.unacknowledged.discard(mid)
            if reason.is_failure:
                self._counts.refused += 1
            else:
                self._counts.acknowledged += 1

    def _on_message(self, made: paho.Client, _u: Any, message: paho.MQTTMessage) -> None:
        if made is not self._client or self._stream is None:
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:  # Such a connection must be closed (MQTT 5.0, 1.5.4).
            self._stream.abort()
            self._break("connection lost (a topic that is not UTF-8)")
            return
        properties: Any = message.properties
        self.owner.received(
            Received(
                topic,
                bytes(message.payload),
                getattr(properties, "CorrelationData", b""),
                getattr(properties, "ResponseTopic", ""),
            )
        )

    def _on_disconnect(self, made: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        if made is self._client:
            self._break(f"connection lost ({reason})")

    def _break(self, why: str) -> None:
        """Note that the connection is lost for the reason *why*."""
        self._end()
        self._client = None
        self._refused(why)
        if not self._loss.done():
            self._loss.set_result(why)

    def _set_ready(self, ready: bool) -> None:
        self._counts.connected += ready - self.ready
        self._counts.most_connected = max(self._counts.most_connected, self._counts.connected)
        self.ready = ready

    def _end(self) -> None:
        self._set_ready(False)
        self._counts.lost += len(self.unacknowledged)
        self.unacknowledged.clear()
