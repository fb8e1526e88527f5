"""A connection that publishes, waits for acks, and may listen to a few topics: commands, simulated devices."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from devicehub.mqtt.address import (
    CONNECT_TIMEOUT,
    KEEPALIVE,
    BrokerAddress,
    MqttError,
    Unacknowledged,
    client,
)


class Outgoing(NamedTuple):
    """A message to publish. The last two are sent on MQTT 5 only."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    correlation_data: bytes = b""
    response_topic: str = ""


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
        self._client = client(address, client_id, version, clean=True, made=paho.Client)
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
        self._refused: dict[int, str] = {}
        self._client.on_publish = self._on_publish
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

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        if reason.is_failure:  # a PUBACK of MQTT 5 says it (3.4.2.1); one of 3.1.1 cannot
            self._refused[mid] = str(reason)

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
        if refusal := self._refused.pop(info.mid, ""):
            raise MqttError(f"the broker refused a message to {message.topic}: {refusal}")

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
