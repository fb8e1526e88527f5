"""A connection that publishes commands, waits for acks, and may listen to a few topics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

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
    """A message to publish. The last three fields are sent on MQTT 5 only.

    *expiry* is in seconds: the broker may keep the message for an absent subscriber for so long.
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    correlation_data: bytes = b""
    response_topic: str = ""
    expiry: int | None = None


class Ack(NamedTuple):
    """A broker's ack of a message: the reason code of MQTT 5.0 (2.4) and its name; 0 is success.

    The code is always 0 on MQTT 3.1.1, and QoS 0 has no ack. For QoS 2 it is the code of the PUBCOMP: paho 2.2 hides
    that of the PUBREC.
    """

    code: int = 0
    reason: str = "Success"

    @property
    def is_failure(self) -> bool:
        return self.code >= 0x80


Answer = TypeVar("Answer")


def properties_of(message: Outgoing, protocol: int) -> Properties | None:
    """Return the properties that are sent with *message*; None if it has none, or on MQTT 3.1.1."""
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

    Once lost, it stays lost: a message that was reported as unacknowledged is not sent later without the caller's
    knowledge, and a connection that replaces this one is not closed for its client id. The broker publishes *will* if
    the connection breaks. Raise MqttError.
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
        self._refusal: str | None = None  # None until the broker answers; empty if it accepts the login.
        self._client.on_connect = self._on_connect
        if on_message is not None:
            self._client.on_message = lambda _c, _u, m: on_message(m.topic, bytes(m.payload))
        if will is not None:
            self._client.will_set(will.topic, will.payload, will.qos, will.retain)
        self._news = threading.Condition()  # It guards the next three.
        self._granted: dict[int, list[ReasonCode]] = {}
        self._acks: dict[int, Ack] = {}
        self._loss = ""  # The reason why the connection was lost; empty until it is.
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_disconnect = self._on_disconnect
        try:
            self._client.connect(address.host, address.port, KEEPALIVE)
        except UnicodeError as error:
            raise MqttError(f"{address.host} is not the name of a host") from error
        except OSError as error:
            raise MqttError(f"no connection to {address.host}:{address.port} ({error})") from error
        self._client.loop_start()
        is_over = self._answered.wait(timeout)
        refusal, where = self._refusal, f"{address.host}:{address.port}"
        if refusal == "":
            return
        self.close()
        if refusal is not None:
            raise MqttError(f"{where} refused the connection: {refusal}")
        how = "hung up instead of an answer" if is_over else f"did not answer within {timeout:g} s"
        raise MqttError(
            f"{where} {how}: the service that it asks about logins may be slow or away, "
            f"or it does not speak DEVICEHUB_MQTT_VERSION={version}"
        )

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self._refusal = str(reason) if reason.is_failure else ""
        self._answered.set()

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: list[ReasonCode], _p: Any) -> None:
        with self._news:
            self._granted[mid] = reasons
            self._news.notify_all()

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:
        with self._news:
            self._acks[mid] = Ack(int(reason.value), str(reason))
            self._news.notify_all()

    def _on_disconnect(self, _c: Any, _u: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        with self._news:
            self._loss = str(reason)
            self._news.notify_all()
        self._answered.set()  # No answer can come any more.

    def subscribe(self, topic_filter: str, qos: int = 1, timeout: float = CONNECT_TIMEOUT) -> None:
        """Subscribe and wait for the broker's answer. Raise MqttError without one, and for a refusal."""
        result, mid = self._client.subscribe(topic_filter, qos)
        if result != paho.MQTT_ERR_SUCCESS or mid is None:
            raise MqttError(f"no subscription to {topic_filter}: {paho.error_string(result)}")
        granted = self._answer(self._granted, mid, timeout)
        if granted is None:
            raise MqttError(f"no answer to the subscription to {topic_filter}{self._why}")
        if any(reason.is_failure for reason in granted):
            raise MqttError(f"the broker refused the subscription to {topic_filter}")

    def publish(self, message: Outgoing, timeout: float = CONNECT_TIMEOUT) -> Ack:
        """Publish and, at QoS 1 and 2, wait for the ack and return it. Raise MqttError without one.

        An ack may be a refusal; see Ack.is_failure. The wait ends when the connection is lost: some brokers hang up on
        a message that they refuse. Unacknowledged means that the broker may have it.
        """
        was_lost = bool(self._loss)
        info = self._client.publish(
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            properties=properties_of(message, self._client.protocol),
        )
        # paho has no connection either when the broker hung up on this message before publish() returned.
        may_be_sent = info.rc == paho.MQTT_ERR_NO_CONN and not was_lost
        if info.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_AGAIN) and not may_be_sent:
            raise MqttError(f"not published to {message.topic}: {paho.error_string(info.rc)}")
        ack = self._answer(self._acks, info.mid, timeout)
        if ack is None:
            raise Unacknowledged(f"the broker did not acknowledge a message to {message.topic}{self._why}")
        return ack

    def _answer(self, answers: dict[int, Answer], packet_id: int, timeout: float) -> Answer | None:
        """Return the broker's answer to our packet; None if it did not come in time, or the connection was lost."""
        with self._news:
            self._news.wait_for(lambda: packet_id in answers or self._loss, timeout)
            return answers.pop(packet_id, None)

    @property
    def _why(self) -> str:
        return f": the connection was lost ({self._loss})" if self._loss else ""

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def close(self) -> None:
        """Send DISCONNECT, so that the broker publishes no will, and end the network thread."""
        self._client.disconnect()
        self._client.loop_stop()
