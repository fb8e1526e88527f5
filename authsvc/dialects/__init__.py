"""The list of dialects. A new broker needs a module in this package and a line in this list."""

from authsvc.dialects import amqtt, emqx, emqx4, go_auth, jwt, nanomq, rabbitmq, vernemq

DIALECTS = (
    go_auth.DIALECT,
    jwt.DIALECT,
    emqx.DIALECT,
    emqx4.DIALECT,
    nanomq.DIALECT,
    rabbitmq.DIALECT,
    vernemq.DIALECT,
    amqtt.DIALECT,
)
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
