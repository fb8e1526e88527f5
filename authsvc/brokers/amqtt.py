"""aMQTT, for development."""

from __future__ import annotations

from authsvc.brokers.base import BrokerSoftware

CONFIGURATION = """\
# aMQTT is for development: it checks no wills. It speaks MQTT 3.1.1 and no shared subscriptions, so
# listen_mqtt needs DEVICEHUB_MQTT_VERSION=3.1.1 DEVICEHUB_MQTT_GROUP= beside it.
AUTHSVC_TOKEN=$token python manage.py run_dev_broker --auth-url $url
"""

BROKER = BrokerSoftware("amqtt", CONFIGURATION)
