"""MQTT transport: the only package that imports paho. It moves bytes and acks, and has no concept of devices."""

from devicehub.mqtt.address import BrokerAddress, InvalidAddress, MqttError, Unacknowledged
from devicehub.mqtt.listening.client import RECEIVE_MAXIMUM, SESSION_EXPIRY
from devicehub.mqtt.listening.intake import Delivery, Intake
from devicehub.mqtt.listening.listener import Listener
from devicehub.mqtt.publisher import Ack, Connection, Outgoing
from devicehub.mqtt.swarm.client import Received, SwarmClient
from devicehub.mqtt.swarm.swarm import Swarm, allow_files, run

__all__ = [
    "RECEIVE_MAXIMUM",
    "SESSION_EXPIRY",
    "Ack",
    "BrokerAddress",
    "Connection",
    "Delivery",
    "Intake",
    "InvalidAddress",
    "Listener",
    "MqttError",
    "Outgoing",
    "Received",
    "Swarm",
    "SwarmClient",
    "Unacknowledged",
    "allow_files",
    "run",
]
