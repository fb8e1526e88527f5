"""Deletion by the ORM: what goes with a device, and what others say about it."""

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from devicehub.db.batches import Pace
from devicehub.models import RetainedTopic
from fleet.models import WeatherStationDevice
from rig.telemetry import TOPICS, fill, remains, topics_to_clear


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
        assert left == {"quarantine": 1, "commands": 1, "denials": 2}  # history
        assert remains(neighbour) == kept
        assert topics_to_clear() == TOPICS

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("way", ["model", "query set"])
    def test_many_rows_go_in_batches_and_the_device_last(self, way, monkeypatch):
        station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
        fill(station)
        monkeypatch.setattr(Pace, "rows", 10)
        monkeypatch.setattr("devicehub.removal.Pace", lambda: Pace(rows=10))
        with CaptureQueriesContext(connection) as captured:
            station.delete() if way == "model" else WeatherStationDevice.objects.all().delete()

        statements = [q["sql"] for q in captured if q["sql"].startswith(("DELETE", "UPDATE"))]
        rows = [sql for sql in statements if '"timestamp" >= ' in sql]
        assert len(rows) == 3
        assert "is_active" in statements[0]
        assert not WeatherStationDevice.objects.exists()
        assert not [q["sql"] for q in captured if 'temperature"' in q["sql"]]  # no row was loaded

    @pytest.mark.parametrize(
        "end",
        [
            lambda device: setattr(device, "is_active", False) or device.save(),
            lambda device: setattr(device, "is_active", False) or device.save(update_fields=["is_active"]),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).update(is_active=False),
            lambda device: (
                setattr(device, "is_active", False)
                or WeatherStationDevice.objects.bulk_update([device], ["is_active"])
            ),
            lambda device: device.delete(),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).delete(),
        ],
        ids=["save", "save a field", "update", "bulk update", "delete", "delete query set"],
    )
    def test_every_way_to_end_one_has_the_broker_forget_it(self, station, neighbour, end):
        end(station)

        assert topics_to_clear() == TOPICS

    @pytest.mark.parametrize(
        "change",
        [
            lambda device: device.save(),
            lambda device: setattr(device, "is_active", False) or device.save(update_fields=["name"]),
            lambda device: WeatherStationDevice.objects.update(name="x", is_active=True),
            lambda device: WeatherStationDevice.objects.filter(pk=0).update(is_active=False),
            lambda device: WeatherStationDevice.objects.create(device_id="STATION-009", is_active=False),
        ],
        ids=["save", "save another field", "update", "update nobody", "create"],
    )
    def test_what_ends_no_device_clears_nothing(self, station, change):
        change(station)

        assert topics_to_clear() == []

    def test_a_disabled_device_is_told_once(self, station):
        station.is_active = False
        station.save()
        RetainedTopic.objects.all().delete()

        station.save()

        assert topics_to_clear() == []

    def test_it_is_written_in_the_same_transaction(self, station):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            station.is_active = False
            station.save()
            assert topics_to_clear() == TOPICS
            1 / 0  # noqa: B018

        assert topics_to_clear() == []
