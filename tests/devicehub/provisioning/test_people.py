"""Devices added and changed by people: their permissions, their sites, and what the audit then holds."""

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError

from authsvc.models import AuditEntry
from devicehub import provisioning, roles
from devicehub.kinds.registry import registry
from devicehub.models import DeviceOptions, QuarantinedMessage
from devicehub.provisioning import people
from fleet.models import WeatherStationDevice
from rig.programs import person

pytestmark = pytest.mark.django_db

KIND = registry.get("weatherstation")


@pytest.fixture
def operator():
    return person("olga", roles.OPERATOR)


@pytest.fixture
def device(operator):
    return provisioning.add_device(KIND, "STATION-1", operator, name="Gate", site="north")[0]


def entries(action):
    return [(entry.before, entry.after) for entry in AuditEntry.objects.filter(action=action)]


def test_a_device_is_added_with_everything_that_belongs_to_it(operator):
    device, credentials = provisioning.add_device(
        KIND, "S-1", operator, site="north", tags=["roof"], metadata={"a": 1}, rate_limit="60/m"
    )

    assert device.check_mqtt_password(credentials["mqtt_password"])
    assert (device.site, device.metadata) == ("north", {"a": 1})
    assert provisioning.tags_of("weatherstation/S-1") == ["roof"]
    assert DeviceOptions.objects.get().rate_limit == "60/m"


def test_an_id_that_another_process_takes_meanwhile_is_not_used(operator, monkeypatch):
    """Without an id the next free one is tried; with one, the caller learns that it is taken."""
    provisioning.create(KIND, "TAKEN-1")
    ids = iter(["TAKEN-1", "FREE-1"])
    monkeypatch.setattr(people, "next_free_id", lambda *_: next(ids))

    assert provisioning.add_device(KIND, "", operator)[0].device_id == "FREE-1"
    with pytest.raises(provisioning.IdentityTaken, match="weatherstation/TAKEN-1 has the name"):
        provisioning.add_device(KIND, "TAKEN-1", operator)


def test_a_person_with_a_limit_does_not_learn_of_other_sites():
    limited = person("lena", roles.OPERATOR, ["north"])
    provisioning.create(KIND, "TAKEN-1", site="south")
    QuarantinedMessage.objects.create(
        device_key="weatherstation/GONE-1",
        reason="x",
        topic="t",
        payload=b"",
        received_at="2026-01-01T00:00Z",
    )

    with pytest.raises(provisioning.IdentityTaken, match=r"^This id is taken"):
        provisioning.add_device(KIND, "TAKEN-1", limited, site="north")
    with pytest.raises(provisioning.IdentityTaken):
        provisioning.add_device(KIND, "GONE-1", limited, site="north")
    for site in ("south", ""):
        with pytest.raises(PermissionDenied):
            provisioning.add_device(KIND, "FREE-1", limited, site=site)
    with pytest.raises(PermissionDenied, match="tags"):
        provisioning.add_device(KIND, "FREE-1", limited, site="north", tags=["roof"])
    assert WeatherStationDevice.objects.count() == 1


def test_a_viewer_adds_and_changes_nothing(device):
    viewer = person("vera", roles.VIEWER)
    with pytest.raises(PermissionDenied):
        provisioning.add_device(KIND, "S-2", viewer)
    with pytest.raises(PermissionDenied):
        provisioning.change_device(device, viewer, {"name": "mine"})


def test_a_change_records_what_differs(device, operator):
    changes = {"name": "Roof", "site": "north", "metadata": {}, "status": "maintenance", "is_active": True}
    provisioning.change_device(device, operator, changes)

    device.refresh_from_db()
    assert (device.name, device.status) == ("Roof", "maintenance")
    assert entries("device_changed") == [
        ({"name": "Gate", "status": "offline"}, {"name": "Roof", "status": "maintenance"})
    ]
    assert entries("device_moved") == entries("device_enabled") == []
    provisioning.change_device(device, operator, changes)
    assert len(entries("device_changed")) == 1


def test_the_state_of_an_operator_ends_with_that_of_the_device(device, operator):
    """People set two states; None gives the status back to the device."""
    WeatherStationDevice.objects.update(status="maintenance", connected=True, reported_status="low_battery")
    provisioning.change_device(device, operator, {"status": None})
    device.refresh_from_db()
    assert device.status == "low_battery"
    with pytest.raises(ValidationError, match="maintenance, provisioning"):
        provisioning.change_device(device, operator, {"status": "online"})


def test_a_value_that_the_columns_do_not_hold_is_named(device, operator):
    for name, value in {"name": "x" * 256, "site": "x" * 101, "tags": ["a b"], "rate_limit": "fast"}.items():
        with pytest.raises(ValidationError) as refused:
            provisioning.change_device(device, operator, {name: value})
        assert list(refused.value.message_dict) == [name]


def test_options_need_their_own_permission(device, operator):
    operator.groups.get().permissions.filter(codename="change_deviceoptions").delete()
    operator = User.objects.get(pk=operator.pk)  # Without the permissions that it remembers.
    with pytest.raises(PermissionDenied):
        provisioning.change_device(device, operator, {"expected_heartbeat": 60})
    provisioning.change_device(device, operator, {"expected_heartbeat": None})


def test_a_device_is_disabled_and_enabled(device, operator):
    provisioning.change_device(device, operator, {"is_active": False})
    assert not WeatherStationDevice.objects.get().is_active
    provisioning.change_device(device, operator, {"is_active": True})
    assert len(entries("device_disabled")) == len(entries("device_enabled")) == 1
