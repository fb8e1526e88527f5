"""RabbitMQ with the plugins rabbitmq_mqtt and rabbitmq_auth_backend_http."""

from __future__ import annotations

from authsvc.brokers.base import BrokerSoftware

# Only the client that a question is about waits for the answer. The time-out includes the wait for a free connection:
# 5 s allow a whole fleet to log in at once.
CONFIGURATION = """\
# rabbitmq.conf, with the plugins rabbitmq_mqtt and rabbitmq_auth_backend_http (docs/how-to/rabbitmq.md)
auth_backends.1 = http
auth_http.http_method = post
auth_http.user_path = $url/mqtt/rabbitmq/user?k=$token
auth_http.vhost_path = $url/mqtt/rabbitmq/vhost?k=$token
auth_http.resource_path = $url/mqtt/rabbitmq/resource?k=$token
auth_http.topic_path = $url/mqtt/rabbitmq/topic?k=$token
auth_http.request_timeout = 5000
auth_http.connection_timeout = 5000
mqtt.listeners.tcp.default = 1883
mqtt.allow_anonymous = false
mqtt.vhost = /
mqtt.exchange = amq.topic

% advanced.config, a second file in the folder of rabbitmq.conf
[{rabbitmq_mqtt, [{ignore_colons_in_username, true}]}].
"""

BROKER = BrokerSoftware("rabbitmq", "RabbitMQ", CONFIGURATION)
