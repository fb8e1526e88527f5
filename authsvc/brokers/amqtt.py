"""aMQTT, for development."""

from __future__ import annotations

from authsvc.brokers.base import BrokerSoftware

CONFIGURATION = """\
# aMQTT is for development: it does not check wills. It supports MQTT 3.1.1 without shared subscriptions,
# so listen_mqtt needs DEVICEHUB_MQTT_VERSION=3.1.1 DEVICEHUB_MQTT_GROUP= in its environment
# (in a Django project of your own: in its settings).
AUTHSVC_TOKEN=$token python manage.py run_dev_broker --auth-url $url
"""

BROKER = BrokerSoftware("amqtt", "aMQTT, for development", CONFIGURATION)
