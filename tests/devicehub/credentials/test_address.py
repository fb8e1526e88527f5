"""The address that devices use: of its setting, or else that of the service without its login."""

from __future__ import annotations

import pytest
from django.core.checks import run_checks

from devicehub.credentials import address

pytestmark = [pytest.mark.sqlite_only, pytest.mark.pages]


@pytest.mark.parametrize(
    ("device_url", "mqtt_url", "url", "has_hint"),
    [
        ("mqtts://mqtt.example.org", "mqtt://a:b@10.0.0.1", "mqtts://mqtt.example.org:8883", False),
        ("", "mqtt://a:b@10.0.0.1:1999", "mqtt://10.0.0.1:1999", False),
        ("mqtt://[2001:db8::1]", "mqtt://10.0.0.1", "mqtt://[2001:db8::1]:1883", False),
        ("", "mqtt://localhost", "mqtt://localhost:1883", True),
        ("nonsense", "mqtt://10.0.0.1", "mqtt://127.0.0.1:1883", True),
    ],
)
def test_the_address_for_devices(settings, device_url, mqtt_url, url, has_hint):
    settings.DEVICEHUB_DEVICE_URL, settings.MQTT_URL = device_url, mqtt_url

    found = address.for_devices()

    assert found.url == url
    assert bool(found.hint) is has_hint


@pytest.mark.parametrize("text", ["nonsense", "http://a.example", "mqtts://user:pass-of-user@a.example"])
def test_a_wrong_address_is_a_system_check_without_its_password(settings, text):
    settings.DEVICEHUB_DEVICE_URL = text

    [found] = [check for check in run_checks() if check.id == "devicehub.E022"]

    assert "DEVICEHUB_DEVICE_URL" in found.msg
    assert "pass-of-user" not in found.msg
