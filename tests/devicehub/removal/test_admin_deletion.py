"""Deletion of a device in the admin, at once or in the background."""

import pytest
from django.contrib.auth.models import User

from authsvc.models import AuditEntry
from devicehub import provisioning, removal
from devicehub.models import RemovalRequest
from devicehub.removal import requests
from fleet.models import WeatherStationDevice
from rig.telemetry import fill, remains


class TestAdmin:
    @pytest.fixture
    def operator(self, client, db):
        client.force_login(User.objects.create_superuser("operator"))
        return client

    @pytest.fixture
    def confirm(self, operator):
        """Return a function that deletes a device in the admin, in one of two ways; it returns the two pages seen."""

        def delete(way, device):
            base = "/admin/fleet/weatherstationdevice/"
            if way == "page":
                url, data = f"{base}{device.pk}/delete/", {}
                question = operator.get(url)
            else:
                url, data = base, {"action": "delete_selected", "_selected_action": [device.pk]}
                question = operator.post(url, data)
            assert question.status_code == 200
            done = operator.post(url, {**data, "post": "yes", "reason": "broken"}, follow=True)
            assert done.status_code == 200
            return question.content.decode(), done.content.decode()

        return delete

    @pytest.mark.parametrize("way", ["page", "action"])
    def test_a_device_with_few_rows_is_gone_at_once(self, station, neighbour, confirm, way):
        fill(station)

        question, _ = confirm(way, station)

        assert "30 readings" in question
        assert 'name="reason"' in question
        assert AuditEntry.objects.get(action="device_removed").reason == "broken"
        assert remains(station)["device"] == remains(station)["readings"] == 0
        assert remains(neighbour)["device"] == 1

    @pytest.mark.parametrize("way", ["page", "action"])
    def test_one_with_many_is_disabled_and_goes_in_the_background(self, station, confirm, way, monkeypatch):
        monkeypatch.setattr(requests, "FEW", 5)
        fill(station)

        question, done = confirm(way, station)

        assert "disabled at once, then removed in the background" in question
        assert "is disabled and being removed" in done
        assert AuditEntry.objects.get(action="removal_requested").reason == "broken"
        assert remains(station)["readings"] == 30
        assert WeatherStationDevice.objects.get().is_active is False
        assert removal.work_off() == 1
        assert remains(station)["device"] == remains(station)["readings"] == 0
        assert removal.work_off() == 0

    def test_many_devices_with_few_rows_each_go_in_the_background(
        self, station, neighbour, operator, monkeypatch
    ):
        """Together they have many rows."""
        monkeypatch.setattr(requests, "FEW", 100)
        fill(station)
        fill(neighbour)
        url, pks = "/admin/fleet/weatherstationdevice/", [station.pk, neighbour.pk]
        data = {"action": "delete_selected", "_selected_action": pks, "post": "yes"}

        page = operator.post(url, data, follow=True).content.decode()

        assert "2 devices are disabled and being removed" in page
        assert remains(station)["readings"] == remains(neighbour)["readings"] == 30
        assert removal.work_off() == 2

    def test_many_devices_without_rows_go_in_the_background_too(
        self, station, neighbour, operator, monkeypatch
    ):
        """Each takes many statements, and a transaction with all of them would keep other writers waiting."""
        monkeypatch.setattr(requests, "FEW_DEVICES", 1)
        url, pks = "/admin/fleet/weatherstationdevice/", [station.pk, neighbour.pk]
        chosen = {"action": "delete_selected", "_selected_action": pks}

        asked = operator.post(url, chosen).content.decode()
        page = operator.post(url, {**chosen, "post": "yes"}, follow=True).content.decode()

        assert asked.count("disabled at once, then removed in the background") == 2
        assert "2 devices are disabled and being removed" in page
        assert removal.work_off() == 2

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("way", ["page", "action"])
    def test_the_confirmation_page_names_rows_that_keep_a_device(self, station, repair, operator, way):
        fill(station)
        repair.objects.create(device=station)
        base = "/admin/fleet/weatherstationdevice/"
        action = {"action": "delete_selected", "_selected_action": [station.pk]}
        url, data = (f"{base}{station.pk}/delete/", {}) if way == "page" else (base, action)

        page = operator.post(url, {**data, "post": "yes"}, follow=True).content.decode()

        assert "Repair object" in page
        assert remains(station)["readings"] == 30

    def test_a_device_that_was_enabled_again_is_not_removed(self, station):
        removal.request(station)
        station.is_active = True
        station.save()

        assert removal.work_off() == 0
        assert not RemovalRequest.objects.exists()
        assert remains(station)["device"] == 1

    def test_one_that_is_enabled_again_stays_also_when_it_is_disabled_once_more(self, station):
        """A worker that checks only then finds it disabled, but without a request."""
        removal.request(station)

        provisioning.enable(station)
        provisioning.disable(station)

        assert removal.work_off() == 0
        assert WeatherStationDevice.objects.filter(pk=station.pk).exists()
