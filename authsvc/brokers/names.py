"""The names of brokers for people, by dialect."""

from __future__ import annotations

from collections.abc import Mapping

NAMES: Mapping[str, str] = {
    "go-auth": "mosquitto, go-auth",
    "jwt": "mosquitto, go-auth with tokens",
    "emqx": "EMQX 5 and 6",
    "emqx4": "EMQX 4",
    "nanomq": "NanoMQ",
    "rabbitmq": "RabbitMQ",
    "vernemq": "VerneMQ",
    "amqtt": "aMQTT",
}
