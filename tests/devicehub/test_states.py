"""The state of a device in one word, for a device and for queries."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devicehub import states
from devicehub.kinds.registry import registry
from devicehub.models import DeviceStatus
from fleet.models import WeatherStationDevice

NOW = timezone.now()
LATELY, LONG_AGO = NOW - timedelta(seconds=5), NOW - timedelta(days=2)
ONLINE = {"status": DeviceStatus.ONLINE, "last_seen": LATELY}

CASES = {
    "connected": ONLINE,
    "silent": {**ONLINE, "last_seen": LONG_AGO},
    "silent, as it said good-bye": {**ONLINE, "status": DeviceStatus.OFFLINE},
    "never": {"status": DeviceStatus.OFFLINE},
    "never, although provisioning": {"status": DeviceStatus.PROVISIONING},
    "maintenance": {**ONLINE, "status": DeviceStatus.MAINTENANCE},
    "provisioning": {**ONLINE, "status": DeviceStatus.PROVISIONING},
    "battery": {**ONLINE, "status": DeviceStatus.LOW_BATTERY},
    "error": {"status": DeviceStatus.ERROR, "last_seen": LONG_AGO},
    "revoked": {**ONLINE, "mqtt_password_hash": ""},
    "disabled": {"status": DeviceStatus.ERROR, "is_active": False},
}


def device(name: str, number: int = 1) -> WeatherStationDevice:
    fields = {"mqtt_password_hash": "some", "credentials_changed_at": LONG_AGO, **CASES[name]}
    return WeatherStationDevice(device_id=f"S-{number}", **fields)


@pytest.mark.parametrize("name", CASES)
def test_a_device_shows_the_state_that_needs_a_look_first(name):
    kind = registry.get("weatherstation")

    assert states.of(kind, device(name), NOW).name == name.partition(",")[0]


def test_the_other_states_follow():
    kind = registry.get("weatherstation")

    assert [state.word for state in states.holding(kind, device("error"), NOW)] == ["Error", "Silent"]


@pytest.mark.django_db
def test_a_query_finds_the_same_states():
    kind = registry.get("weatherstation")
    for number, name in enumerate(CASES):
        device(name, number).save()
    devices = WeatherStationDevice.objects.all()

    for name in states.STATES:
        found = {found.pk for found in states.only(kind, devices, name, NOW)}
        assert found == {each.pk for each in devices if states.of(kind, each, NOW).name == name}, name
        assert found, name
    ranks = [found.state_rank for found in states.ranked(kind, devices, NOW).order_by("state_rank")]
    assert ranks == sorted(ranks)
