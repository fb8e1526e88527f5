"""Tables of other apps that hold keys or ids of devices: their rows are erased with the device, in small portions."""

import json
from io import StringIO

import pytest
from django.core.management import call_command
from django.db import connection, models
from django.test.utils import isolate_apps

from devicehub import removal
from devicehub.db.batches import Pace


@pytest.fixture
def visits(transactional_db):
    """Create a model of another app: visits to devices, with key and id. Its primary key is not `id`."""
    with isolate_apps("fleet"):

        class Visit(models.Model):
            number = models.AutoField(primary_key=True)
            device_key = models.CharField(max_length=260, db_index=True)
            station = models.CharField(max_length=128, db_index=True, db_column="place")

            class Meta:
                app_label = "fleet"

        with connection.schema_editor() as editor:
            editor.create_model(Visit)
        yield Visit
        removal.unregister(Visit)
        with connection.schema_editor() as editor:
            editor.delete_model(Visit)


def counts(*options):
    """Return the numbers that `erase_device --json` prints."""
    out = StringIO()
    call_command("erase_device", "weatherstation", "STATION-001", "--json", *options, stdout=out)
    return json.loads(out.getvalue())


def test_rows_go_by_the_key_of_the_device(visits, station, neighbour):
    removal.register("visits", visits, "device_key")
    for device_id in ("STATION-001", "STATION-001", "STATION-002"):
        visits.objects.create(device_key=f"weatherstation/{device_id}")

    assert counts("--dry-run")["visits"] == 2
    assert counts("--yes", "--batch", "1")["visits"] == 2

    assert visits.objects.get().device_key == "weatherstation/STATION-002"


def test_rows_go_by_the_id_of_devices_of_one_kind(visits, station, kind):
    removal.register("visits", visits, "station", kind="irrigationvalve")
    visits.objects.create(station="STATION-001")
    assert removal.preview(kind, "STATION-001").others == {}

    removal.unregister(visits)
    removal.register("visits", visits, "station", kind="weatherstation")
    done = removal.erase(kind, "STATION-001", Pace())

    assert done.others == {"visits": 1}
    assert not visits.objects.exists()


def test_rows_that_a_deleted_device_left_are_enough_to_erase(visits, kind, db):
    removal.register("visits", visits, "device_key")
    visits.objects.create(device_key="weatherstation/STATION-001")

    assert removal.erase(kind, "STATION-001", Pace()).others == {"visits": 1}
    with pytest.raises(removal.NothingThere):
        removal.erase(kind, "STATION-001", Pace())


def test_a_table_that_is_registered_twice_counts_once(visits, station, kind):
    for _ in range(2):
        removal.register("visits", visits, "device_key")
    visits.objects.create(device_key="weatherstation/STATION-001")

    assert removal.preview(kind, "STATION-001").others == {"visits": 1}


@pytest.mark.parametrize("name", ["device", "retained", "others"])
def test_a_name_that_means_something_else_is_refused(visits, name):
    with pytest.raises(ValueError, match="is not a name for rows of a table"):
        removal.register(name, visits, "device_key")


def test_one_row_is_named_in_the_singular(visits, station):
    removal.register("deliveries", visits, "device_key")
    visits.objects.create(device_key="weatherstation/STATION-001")
    out = StringIO()

    call_command("erase_device", "weatherstation", "STATION-001", "--yes", stdout=out)

    assert ", 1 delivery" in out.getvalue()
