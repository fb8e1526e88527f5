"""A broker in this process, and a connection to it: the sibling of `mqtt.Connection` for tests without a network.

tests/devicehub/mqtt/test_connection_contract.py holds both to the same contract.
"""

from __future__ import annotations

from collections.abc import Callable

from authsvc.core.topics import covers
from devicehub.mqtt import Ack, BrokerAddress, MqttError, Outgoing

Answer = Ack | Exception | Callable[[Outgoing], Ack]


class MemoryBroker:
    """A broker that admits every client and allows every action. `connect` stands in for `mqtt.Connection`.

    *reply* is the result of each publish(): an Ack to return, an exception to raise, or a function to call.
    """

    def __init__(self, reply: Answer = Ack()) -> None:  # noqa: B008 - a constant
        self.messages: list[Outgoing] = []  # all published messages, in their order
        self.reply = reply
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
        """Return a connection; an older one with the same client id is lost."""
        for other in list(self.connections):
            if other.client_id == client_id:
                self.lose(other)
        made = MemoryConnection(self, client_id, will, on_message)
        self.connections.append(made)
        return made

    def lose(self, connection: MemoryConnection) -> None:
        """Break *connection* like a network does: its will is published."""
        self.connections.remove(connection)
        if connection.will is not None:
            self.deliver(connection.will)

    def deliver(self, message: Outgoing) -> None:
        """Pass *message* to all connections that subscribe to its topic."""
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
        """Subscribe. Raise MqttError without a connection."""
        if not self.connected:
            raise MqttError(f"no subscription to {topic_filter}: the client is not connected")
        self.filters.append(topic_filter)

    def publish(self, message: Outgoing, timeout: float = 5.0) -> Ack:
        """Publish, and return the ack of the broker. Raise MqttError without a connection."""
        if not self.connected:
            raise MqttError(f"not published to {message.topic}: the client is not connected")
        reply = self._broker.reply
        if isinstance(reply, Exception):
            raise reply
        ack = reply if isinstance(reply, Ack) else reply(message)
        self._broker.messages.append(message)
        if not ack.is_failure:
            self._broker.deliver(message)
        return ack

    def close(self) -> None:
        """Disconnect in order: no will is published."""
        if self.connected:
            self._broker.connections.remove(self)
