"""The list of supported brokers. A new one needs a module in this package and a line in this list."""

from authsvc.brokers import amqtt, emqx, emqx4, go_auth, nanomq, rabbitmq, vernemq

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
