"""One client of a Loop: paho's protocol on a socket that somebody else opened, reads and writes when told."""

from __future__ import annotations

import selectors
import socket
from typing import Any, NamedTuple, Protocol

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from devicehub.mqtt.address import KEEPALIVE, BrokerAddress, client
from devicehub.mqtt.publisher import Outgoing, properties_of

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Received(NamedTuple):
    """A message from the broker. The last two come on MQTT 5 only."""

    topic: str
    payload: bytes
    correlation_data: bytes
    response_topic: str


class Owner(Protocol):
    """Whose connection it is. Told in the loop's thread, so it must not wait for anything."""

    def ready(self) -> None:
        """Connected and subscribed, for the first time or again."""

    def lost(self, reason: str) -> None:
        """The connection broke or did not come about, for *reason*; it will be tried again."""

    def received(self, message: Received) -> None:
        """A message came."""


class Driver(Protocol):
    """What a link needs of its Loop."""

    address: BrokerAddress
    version: str
    selector: selectors.BaseSelector
    eager: list[Link]
    acknowledged: int
    refused: int
    published: int
    lost: int
    connected: int

    def succeeded(self, link: Link) -> None: ...

    def failed(self, link: Link, reason: str) -> None: ...


class _Driven(paho.Client):
    """paho's client on the socket it is given."""

    given: socket.socket

    def _create_socket(self) -> socket.socket:
        return self.given

    def hang_up(self) -> None:
        """Close without DISCONNECT, so that the broker publishes the will (MQTT 5.0, 3.1.2.5)."""
        self._sock_close()


class Link:
    """A client with a will and one subscription, connected by its Loop and connected again when that is lost.

    It starts clean each time: what was not acknowledged before a loss is given up and counted (`Loop.lost`).
    """

    def __init__(
        self,
        loop: Driver,
        owner: Owner,
        username: str,
        password: str,
        *,
        client_id: str,
        will: Outgoing,
        topic_filter: str,
    ) -> None:
        self.owner = owner
        self.ready = False
        self.failures = 0  # since it was last ready
        self.unacknowledged: set[int] = set()  # packet ids
        self._loop, self._will, self._filter = loop, will, topic_filter
        self._username, self._password, self._client_id = username, password, client_id
        self._client: _Driven | None = None
        self._refusal = ""
        self._watches_writing = False

    def begin(self, connection: socket.socket) -> None:
        """Speak MQTT on *connection*, which is open."""
        at = self._loop.address
        # The socket has its TLS already.
        address = BrokerAddress(at.host, at.port, self._username, self._password)
        made = client(address, self._client_id, self._loop.version, clean=True, made=_Driven)
        made.given = connection
        made.will_set(self._will.topic, self._will.payload, self._will.qos, self._will.retain)
        made.on_connect, made.on_disconnect = self._on_connect, self._on_disconnect
        made.on_subscribe, made.on_publish, made.on_message = (
            self._on_subscribe,
            self._on_publish,
            self._on_message,
        )
        made.on_socket_open = self._on_socket_open
        made.on_socket_close = self._on_socket_close
        made.on_socket_register_write = lambda *_: self._loop.eager.append(self)
        made.on_socket_unregister_write = self._on_written
        self._client, self._refusal = made, ""
        made.connect_async(address.host, address.port, KEEPALIVE)
        made.reconnect()

    def publish(self, message: Outgoing) -> bool:
        """Queue *message* and wait for nothing; False when there is no connection or no packet id left."""
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
            self._loop.published += 1
        return True

    @property
    def is_open(self) -> bool:
        return self._client is not None and self._client.socket() is not None

    def disconnect(self) -> None:
        """Say goodbye: no will is sent."""
        self._set_ready(False)
        if self._client is not None:
            self._client.disconnect()

    def hang_up(self) -> None:
        """Close without a word: the broker publishes the will."""
        self._end()
        if self._client is not None:
            self._client.hang_up()
            self._client = None

    def write(self) -> None:
        """Hand to the socket what is queued; the rest when it takes more."""
        if self._client is None or not self.is_open:
            return
        self._client.loop_write()
        connection = self._client.socket() if self._client is not None else None
        if connection is not None and self._client.want_write() and not self._watches_writing:
            self._watches_writing = True
            self._loop.selector.modify(connection, READ | WRITE, self._on_events)

    def look_after(self) -> None:
        """Send a ping when one is due (MQTT 5.0, 3.1.2.10)."""
        if self._client is not None:
            self._client.loop_misc()

    def _on_events(self, events: int) -> None:
        if events & READ:
            self._read()
        if events & WRITE:
            self.write()

    def _read(self) -> None:
        """One reading, and more while TLS holds what no selector can see."""
        while self._client is not None:
            self._client.loop_read()
            connection: Any = self._client.socket() if self._client is not None else None
            if connection is None or not hasattr(connection, "pending") or not connection.pending():
                return

    def _on_socket_open(self, _c: Any, _u: Any, connection: Any) -> None:
        self._watches_writing = False
        self._loop.selector.register(connection, READ, self._on_events)

    def _on_socket_close(self, _c: Any, _u: Any, connection: Any) -> None:
        self._loop.selector.unregister(connection)

    def _on_written(self, _c: Any, _u: Any, connection: Any) -> None:
        if self._watches_writing:
            self._watches_writing = False
            self._loop.selector.modify(connection, READ, self._on_events)

    def _on_connect(self, made: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        at = self._loop.address
        if reason.is_failure:
            self._refusal = f"{at.host}:{at.port} refused the connection: {reason}"
        else:
            made.subscribe(self._filter, 1)

    def _on_subscribe(self, _c: Any, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self.hang_up()
            self._loop.failed(self, f"the broker refused the subscription to {self._filter}")
            return
        self.failures = 0
        self._set_ready(True)
        self._loop.succeeded(self)
        self.owner.ready()

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        """Of a message at QoS 0 paho tells as well, when it is written."""
        if mid in self.unacknowledged:
            self.unacknowledged.discard(mid)
            if reason.is_failure:
                self._loop.refused += 1
            else:
                self._loop.acknowledged += 1

    def _on_message(self, _c: Any, _u: Any, message: paho.MQTTMessage) -> None:
        properties: Any = message.properties
        self.owner.received(
            Received(
                message.topic,
                bytes(message.payload),
                getattr(properties, "CorrelationData", b""),
                getattr(properties, "ResponseTopic", ""),
            )
        )

    def _on_disconnect(self, made: paho.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        if made is not self._client:
            return
        said_goodbye = not self.ready and not self._refusal and not reason.is_failure
        self._end()
        self._client = None
        if not said_goodbye:
            self._loop.failed(self, self._refusal or f"connection lost ({reason})")

    def _set_ready(self, ready: bool) -> None:
        self._loop.connected += ready - self.ready
        self.ready = ready

    def _end(self) -> None:
        self._set_ready(False)
        self._loop.lost += len(self.unacknowledged)
        self.unacknowledged.clear()
