"""Deletion by the ORM: the rows that are deleted with a device, and the effect on others."""

import pytest
from django.db import connection, transaction
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from devicehub import provisioning, removal
from devicehub.db.batches import Pace
from devicehub.kinds.registry import registry
from devicehub.models import BaseDevice, DeviceQuerySet, RetainedTopic
from devicehub.removal import disabled
from fleet.models import WeatherStationDevice
from rig.telemetry import TOPICS, fill, remains, sql, topics_to_clear


class TestDeviceThatEnds:
    def test_a_deleted_device_leaves_nothing_to_inherit(self, station, neighbour):
        fill(station)
        fill(neighbour)
        kept = remains(neighbour)

        station_as_it_was = WeatherStationDevice(
            pk=station.pk, device_id="STATION-001", mqtt_username="station"
        )
        station.delete()

        left = {name: n for name, n in remains(station_as_it_was).items() if n}
        assert left == {"quarantine": 1, "commands": 1, "denials": 2}  # This is its history.
        assert remains(neighbour) == kept
        assert topics_to_clear() == TOPICS

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        "remove",
        [
            lambda device: (removal.request(device), removal.work_off(Pace(rows=10))),
            lambda device: removal.erase(registry.of(device), device.device_id, Pace(rows=10)),
        ],
        ids=["request", "erase"],
    )
    def test_many_rows_go_in_batches_and_the_device_last(self, remove):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station)
        with CaptureQueriesContext(connection) as captured:
            remove(station)

        statements = [q["sql"] for q in captured if q["sql"].startswith(("DELETE", "UPDATE"))]
        rows = [sql for sql in statements if '"timestamp" >= ' in sql]
        assert len(rows) == 3
        assert "is_active" in statements[0]
        assert not WeatherStationDevice.objects.exists()
        assert not [q["sql"] for q in captured if 'temperature"' in q["sql"]]  # No row was loaded.

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        "delete",
        [lambda device: device.delete(), lambda device: WeatherStationDevice.objects.all().delete()],
        ids=["model", "query set"],
    )
    def test_django_deletes_in_one_transaction_and_loads_no_row(self, delete):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station)
        with CaptureQueriesContext(connection) as captured:
            count, by_model = delete(station)

        assert count == sum(by_model.values())
        assert by_model["fleet.WeatherStationReading"] == by_model["fleet.WeatherStationMessage"] == 30
        assert len([q["sql"] for q in captured if q["sql"].startswith("BEGIN")]) == 1
        assert (
            len([q["sql"] for q in captured if q["sql"].startswith("DELETE") and "reading" in q["sql"]]) == 1
        )
        assert not [q["sql"] for q in captured if 'temperature"' in q["sql"]]

    def test_deleting_and_updating_are_django_s_own(self):
        assert "delete" not in vars(DeviceQuerySet) | vars(BaseDevice)
        assert WeatherStationDevice.delete is Model.delete

    @pytest.mark.parametrize(
        "end",
        [
            lambda device: setattr(device, "is_active", False) or device.save(),
            lambda device: setattr(device, "is_active", False) or device.save(update_fields=["is_active"]),
            lambda device: provisioning.disable(device),
            lambda device: sql(
                f"UPDATE fleet_weatherstationdevice SET is_active = false WHERE id = {device.pk}"
            ),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).update(is_active=False),
            lambda device: (
                setattr(device, "is_active", False)
                or WeatherStationDevice.objects.bulk_update([device], ["is_active"])
            ),
            lambda device: device.delete(),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).delete(),
        ],
        ids=["save", "save a field", "action", "SQL", "update", "bulk update", "delete", "delete query set"],
    )
    def test_every_way_to_end_one_clears_its_retained_messages(self, station, neighbour, end):
        end(station)
        disabled.notice()

        assert topics_to_clear() == TOPICS

    @pytest.mark.parametrize(
        "change",
        [
            lambda device: device.save(),
            lambda device: setattr(device, "is_active", False) or device.save(update_fields=["name"]),
            lambda device: WeatherStationDevice.objects.update(name="x", is_active=True),
            lambda device: WeatherStationDevice.objects.filter(pk=0).update(is_active=False),
        ],
        ids=["save", "save another field", "update", "update nobody"],
    )
    def test_what_ends_no_device_clears_nothing(self, station, change):
        change(station)
        disabled.notice()

        assert topics_to_clear() == []

    def test_a_disabled_device_is_noticed_once(self, station):
        provisioning.disable(station)
        assert disabled.notice() == 1
        RetainedTopic.objects.all().delete()

        station.save()

        assert disabled.notice() == 0
        assert topics_to_clear() == []

    def test_what_is_rolled_back_clears_nothing(self, station):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            provisioning.disable(station)
            assert disabled.notice() == 1
            assert topics_to_clear() == TOPICS
            1 / 0  # noqa: B018

        assert disabled.notice() == 0
        assert topics_to_clear() == []
