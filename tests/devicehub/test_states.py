"""The state of a device in one word, for a device and for queries."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devicehub import states
from devicehub.kinds.registry import registry
from devicehub.models import DeviceOptions, DeviceStatus
from fleet.models import WeatherStationDevice

NOW = timezone.now()
LATELY, LONG_AGO = NOW - timedelta(seconds=5), NOW - timedelta(days=2)
ONLINE = {"status": DeviceStatus.ONLINE, "last_seen": LATELY}

CASES = {
    "connected": ONLINE,
    "silent": {**ONLINE, "last_seen": LONG_AGO},
    "silent, as its time lies ahead": {**ONLINE, "last_seen": NOW + timedelta(days=2)},
    "silent, as it said good-bye": {**ONLINE, "status": DeviceStatus.OFFLINE},
    "never": {"status": DeviceStatus.OFFLINE},
    "never, although provisioning": {"status": DeviceStatus.PROVISIONING},
    "maintenance": {**ONLINE, "status": DeviceStatus.MAINTENANCE},
    "provisioning": {**ONLINE, "status": DeviceStatus.PROVISIONING},
    "battery": {**ONLINE, "status": DeviceStatus.LOW_BATTERY},
    "error": {"status": DeviceStatus.ERROR, "last_seen": LONG_AGO},
    "revoked": {**ONLINE, "mqtt_password_hash": ""},
    "other": {**ONLINE, "status": "of old"},
    "other, and away": {**ONLINE, "status": "of old", "connected": False},
    "disabled": {"status": DeviceStatus.ERROR, "is_active": False},
}


def device(name: str, number: int = 1) -> WeatherStationDevice:
    fields = {"mqtt_password_hash": "some", "credentials_changed_at": LONG_AGO, **CASES[name]}
    return WeatherStationDevice(device_id=f"S-{number}", **fields)


@pytest.mark.parametrize("name", CASES)
def test_a_device_shows_the_state_that_needs_a_look_first(name):
    kind = registry.get("weatherstation")

    assert states.of(kind, device(name), NOW).name == name.partition(",")[0]


@pytest.mark.django_db
def test_a_heartbeat_of_its_own_decides_when_a_device_is_silent():
    kind = registry.get("weatherstation")
    for number, (seconds, ago) in enumerate([(1, 5), (86_400, 7_200), (None, 7_200), (None, 5)]):
        WeatherStationDevice.objects.create(
            device_id=f"S-{number}", status=DeviceStatus.ONLINE, last_seen=NOW - timedelta(seconds=ago)
        )
        if seconds:
            DeviceOptions.objects.create(device_key=f"weatherstation/S-{number}", expected_heartbeat=seconds)
    devices = WeatherStationDevice.objects.order_by("device_id")

    expected = ["silent", "connected", "silent", "connected"]
    assert [states.of(kind, device, NOW).name for device in devices] == expected
    assert [states.of(kind, device, NOW).name for device in states.ranked(kind, devices, NOW)] == expected
    found = states.only(kind, devices, "silent", NOW)
    assert [device.device_id for device in found] == ["S-0", "S-2"]


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
