"""A broker in this process: the sibling of `mqtt.Connection` for tests, which send and hear without a network.

tests/devicehub/mqtt/test_connection_contract.py holds both to the same contract.
"""

from __future__ import annotations

from collections.abc import Callable

from authsvc.core.topics import covers
from devicehub.mqtt import Ack, BrokerAddress, MqttError, Outgoing

Answer = Ack | Exception | Callable[[Outgoing], Ack]


class MemoryBroker:
    """It lets everybody do everything. `connect` stands in for `mqtt.Connection`.

    *says* is what publish() makes of a message: an Ack to return, an exception to raise, or a function to call.
    """

    def __init__(self, says: Answer = Ack()) -> None:  # noqa: B008 - a constant
        self.messages: list[Outgoing] = []  # that were published, in this order
        self.says = says
        self.connections: list[MemoryConnection] = []

    def connect(
        self,
        address: BrokerAddress,
        client_id: str,
        *,
        version: str = "5",
        will: Outgoing | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
        timeout: float = 5.0,
    ) -> MemoryConnection:
        """Return a connection; of two under one client id the older one is lost."""
        for other in list(self.connections):
            if other.client_id == client_id:
                self.lose(other)
        made = MemoryConnection(self, client_id, will, on_message)
        self.connections.append(made)
        return made

    def lose(self, connection: MemoryConnection) -> None:
        """Break *connection*, as a network would: its will is published."""
        self.connections.remove(connection)
        if connection.will is not None:
            self.deliver(connection.will)

    def deliver(self, message: Outgoing) -> None:
        """Hand *message* to all connections that subscribe to its topic."""
        for connection in list(self.connections):
            if connection.on_message is not None and any(
                covers(topic_filter, message.topic) for topic_filter in connection.filters
            ):
                connection.on_message(message.topic, message.payload)


class MemoryConnection:
    """A connection to a MemoryBroker, with the methods of `mqtt.Connection`."""

    def __init__(
        self,
        broker: MemoryBroker,
        client_id: str,
        will: Outgoing | None,
        on_message: Callable[[str, bytes], None] | None,
    ) -> None:
        self.client_id, self.will, self.on_message = client_id, will, on_message
        self.filters: list[str] = []
        self._broker = broker

    @property
    def connected(self) -> bool:
        return self in self._broker.connections

    def subscribe(self, topic_filter: str, qos: int = 1, timeout: float = 5.0) -> None:
        """Subscribe. Raises MqttError without a connection."""
        if not self.connected:
            raise MqttError(f"no subscription to {topic_filter}: the client is not connected")
        self.filters.append(topic_filter)

    def publish(self, message: Outgoing, timeout: float = 5.0) -> Ack:
        """Publish, and return what the broker says. Raises MqttError without a connection."""
        if not self.connected:
            raise MqttError(f"not published to {message.topic}: the client is not connected")
        said = self._broker.says
        if isinstance(said, Exception):
            raise said
        ack = said if isinstance(said, Ack) else said(message)
        self._broker.messages.append(message)
        if not ack.is_failure:
            self._broker.deliver(message)
        return ack

    def close(self) -> None:
        """Say goodbye: no will is published."""
        if self.connected:
            self._broker.connections.remove(self)
