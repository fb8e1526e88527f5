"""The list of supported brokers. A new one needs a module in this package and a line in this list."""

from collections.abc import Mapping

from authsvc import dialects
from authsvc.brokers import amqtt, emqx, emqx4, go_auth, nanomq, rabbitmq, vernemq
from authsvc.brokers.base import BrokerSoftware
from authsvc.dialects.base import Dialect

BROKERS = (
    go_auth.BROKER,
    go_auth.BROKER_JWT,
    emqx.BROKER,
    emqx4.BROKER,
    nanomq.BROKER,
    rabbitmq.BROKER,
    vernemq.BROKER,
    amqtt.BROKER,
)
BY_DIALECT = {broker.dialect: broker for broker in BROKERS}
_of_other_apps: dict[str, BrokerSoftware] = {}


def register(software: BrokerSoftware) -> Dialect:
    """Add software that another app answers at an address of its own, and return its dialect."""
    _of_other_apps[software.dialect] = software
    return dialects.register(software.dialect)


def by_dialect() -> Mapping[str, BrokerSoftware]:
    """Return BROKERS and the software of other apps, by dialect."""
    return BY_DIALECT | _of_other_apps
