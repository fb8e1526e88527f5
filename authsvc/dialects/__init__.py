"""The dialects that are spoken here. A new broker is a module beside these and a line in this list."""

from authsvc.dialects import amqtt, emqx, go_auth, rabbitmq

DIALECTS = (go_auth.DIALECT, emqx.DIALECT, amqtt.DIALECT, rabbitmq.DIALECT)
BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
