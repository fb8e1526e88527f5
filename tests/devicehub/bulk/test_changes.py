"""Changes of many devices: in batches, with one audit row for each device that changed."""

from __future__ import annotations

from collections import Counter

import pytest
from django.utils import timezone

from authsvc.models import AuditEntry
from devicehub import provisioning
from devicehub.bulk import changes
from devicehub.models import DeviceCommand, RemovalRequest
from fleet.models import WeatherStationDevice

pytestmark = pytest.mark.django_db
Stations = WeatherStationDevice.objects


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(changes, "BATCH", 5)


def recorded() -> Counter[str]:
    return Counter(AuditEntry.objects.values_list("action", flat=True))


def test_devices_are_disabled_and_enabled_once(kind, fleet):
    RemovalRequest.objects.create(device_key="weatherstation/F-03", requested_at=timezone.now())

    assert changes.disable(kind, Stations.filter(site="north")) == 8
    assert changes.disable(kind, Stations.all()) == 4
    assert Stations.filter(is_active=False).count() == 12
    assert changes.enable(kind, Stations.all()) == 12
    assert changes.enable(kind, Stations.all()) == 0

    assert not RemovalRequest.objects.exists()
    assert recorded() == {"device_disabled": 12, "device_enabled": 12}


def test_a_filter_on_the_changed_column_does_not_skip_devices(kind, fleet):
    assert changes.disable(kind, Stations.filter(is_active=True)) == 12


def test_revoked_devices_have_no_credentials(kind, fleet):
    for device in fleet[:7]:
        provisioning.rotate_password(device, valid_until=None)

    assert changes.revoke(kind, Stations.all()) == 7

    assert recorded()["credentials_revoked"] == 7
    assert not Stations.exclude(mqtt_password_hash="").exists()
    assert Stations.filter(credentials_changed_at=None).count() == 5


def test_devices_move_to_a_site(kind, fleet):
    assert changes.move(kind, Stations.all(), "south") == 8

    assert set(Stations.values_list("site", flat=True)) == {"south"}
    row = AuditEntry.objects.filter(action="device_moved").first()
    assert (row.before, row.after) == ({"site": "north"}, {"site": "south"})


def test_groups_by_site_follow_a_move(kind, fleet):
    group = provisioning.create_group("south", "South", sites=["south"])
    assert provisioning.count_members(group) == 4

    changes.move(kind, Stations.all(), "south")

    assert provisioning.count_members(group) == 12


def test_enabled_devices_get_a_command(kind, fleet):
    changes.disable(kind, Stations.filter(site="south"))

    assert changes.send(kind, Stations.all(), "reboot", {}) == 8

    assert DeviceCommand.objects.filter(name="reboot", state="queued").count() == 8
    assert recorded()["command_sent"] == 8


def test_a_command_that_is_not_declared_is_refused(kind, fleet):
    with pytest.raises(ValueError, match="no command"):
        changes.send(kind, Stations.all(), "explode", {})

    assert not DeviceCommand.objects.exists()


def test_a_device_that_no_longer_fits_when_it_is_locked_is_left_out(kind, fleet, monkeypatch):
    """It was moved out of a limited user's site after its page was read."""
    pages = changes.pages

    def moved_meanwhile(devices):
        for pks in pages(devices):
            Stations.filter(device_id="F-01").update(site="south")
            yield pks

    monkeypatch.setattr(changes, "pages", moved_meanwhile)

    assert changes.disable(kind, Stations.filter(site="north")) == 7
    assert Stations.get(device_id="F-01").is_active


def test_a_run_that_broke_off_is_finished_by_the_same_call(kind, fleet, monkeypatch):
    pages = changes.pages

    def broken(devices):
        yield next(pages(devices))
        raise ConnectionError

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(changes, "pages", broken)
        changes.disable(kind, Stations.all())

    assert Stations.filter(is_active=False).count() == recorded()["device_disabled"] == 5
    assert changes.disable(kind, Stations.all()) == 7
