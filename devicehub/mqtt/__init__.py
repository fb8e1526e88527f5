"""MQTT transport: the only package that imports paho. It moves bytes and acks; it knows no device."""

from devicehub.mqtt.address import BrokerAddress, InvalidAddress, MqttError, Unacknowledged
from devicehub.mqtt.listening.intake import Delivery, Intake
from devicehub.mqtt.listening.listener import RECEIVE_MAXIMUM, SESSION_EXPIRY, Listener
from devicehub.mqtt.publisher import Ack, Connection, Outgoing
from devicehub.mqtt.swarm.client import Link, Received
from devicehub.mqtt.swarm.loop import Loop, allow_files

__all__ = [
    "RECEIVE_MAXIMUM",
    "SESSION_EXPIRY",
    "Ack",
    "BrokerAddress",
    "Connection",
    "Delivery",
    "Intake",
    "InvalidAddress",
    "Link",
    "Listener",
    "Loop",
    "MqttError",
    "Outgoing",
    "Received",
    "Unacknowledged",
    "allow_files",
]
