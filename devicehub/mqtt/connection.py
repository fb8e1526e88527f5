"""A connection that publishes, waits for acks, and may listen to a few topics: commands."""

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
    """A message to publish. The last three are sent on MQTT 5 only.

    *expiry* is in seconds: for so long a broker may keep it for an absent subscriber.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    correlation_data: bytes = b""
    response_topic: str = ""
    expiry: int | None = None


class Ack(NamedTuple):
    """What a broker said of a message it has: the reason code of MQTT 5.0 (2.4) and its name; 0 is success.

    A broker that speaks 3.1.1 always says 0, and QoS 0 has no ack. Of QoS 2 this is the PUBCOMP's: paho 2.2 hides
    the PUBREC's.
    """

    code: int = 0
    reason: str = "Success"

    @property
    def is_failure(self) -> bool:
        return self.code >= 0x80


def properties_of(message: Outgoing, protocol: int) -> Properties | None:
    """What is sent with *message* besides its payload; None where there is nothing to say, or no MQTT 5."""
    said = message.correlation_data or message.response_topic or message.expiry is not None
    if protocol != paho.MQTTv5 or not said:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if message.correlation_data:
        properties.CorrelationData = message.correlation_data
    if message.response_topic:
        properties.ResponseTopic = message.response_topic
    if message.expiry is not None:
        properties.MessageExpiryInterval = message.expiry
    return properties


class Connection:
    """A client that is connected by the time the constructor returns, with a network thread of its own.

    Once lost, it stays lost: nothing that was told to be unacknowledged is sent later, behind the caller's back, and
    no connection that was opened instead is thrown out for its client id. *will* is published by the broker if the
    connection breaks. Raises MqttError.
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
        self._news = threading.Condition()  # of the next three
        self._acks: dict[int, Ack] = {}
        self._losses, self._loss = 0, ""  # how often the connection was lost, and why the last time
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
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
        with self._news:
            self._acks[mid] = Ack(int(reason.value), str(reason))
            self._news.notify_all()

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        with self._news:
            self._losses, self._loss = self._losses + 1, str(reason)
            self._news.notify_all()

    def subscribe(self, topic_filter: str, qos: int = 1, timeout: float = CONNECT_TIMEOUT) -> None:
        """Subscribe and wait for the broker's answer. Raises MqttError when it refuses."""
        result, mid = self._client.subscribe(topic_filter, qos)
        if result != paho.MQTT_ERR_SUCCESS or mid is None:
            raise MqttError(f"no subscription to {topic_filter}: {paho.error_string(result)}")
        if not self._subscribed.setdefault(mid, threading.Event()).wait(timeout):
            raise MqttError(f"no answer to the subscription to {topic_filter}")
        if any(reason.is_failure for reason in self._granted[mid]):
            raise MqttError(f"the broker refused the subscription to {topic_filter}")

    def publish(self, message: Outgoing, timeout: float = CONNECT_TIMEOUT) -> Ack:
        """Publish and, at QoS 1 and 2, wait for the ack. Raises MqttError without one.

        An ack may be a refusal; see Ack.is_failure. A connection that is lost meanwhile is waited for no longer: some
        brokers hang up on a message that they do not take.
        """
        losses = self._losses
        info = self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            properties=properties_of(message, self._client.protocol),
        )
        if info.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_AGAIN):
            raise MqttError(f"not published to {message.topic}: {paho.error_string(info.rc)}")
        with self._news:
            self._news.wait_for(lambda: info.mid in self._acks or self._losses > losses, timeout)
            ack = self._acks.pop(info.mid, None)
            lost = self._losses > losses
        if ack is None:
            why = f": the connection was lost ({self._loss})" if lost else ""
            raise Unacknowledged(f"the broker did not acknowledge a message to {message.topic}{why}")
        return ack

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def close(self) -> None:
        """Say goodbye (no will is sent) and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()
