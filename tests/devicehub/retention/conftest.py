"""Weather stations with stored data, and months of readings."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection
from django.utils import timezone

from devicehub.db.batches import Pace
from devicehub.retention import division, partitions
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.stations import keeps as keeps
from rig.stations import kind as kind
from rig.stations import neighbour as neighbour
from rig.stations import no_rest as no_rest
from rig.stations import station as station
from rig.telemetry import measure


@pytest.fixture
def table(transactional_db, django_db_setup):
    """Return the name of the table of readings; re-create the table after the test, as the migrations made it."""
    yield WeatherStationReading._meta.db_table
    with connection.schema_editor() as editor:
        editor.execute("DROP TABLE fleet_weatherstationreading CASCADE")
        editor.create_model(WeatherStationReading)
    django_db_setup.accept_schema()


@pytest.fixture
def months_of_readings(table):
    """Return a station with a reading on each of the last 100 days."""
    station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
    now = timezone.now()
    measure(station, *[(now - timedelta(days=n), float(n)) for n in range(100)])
    return station


@pytest.fixture
def divided_long_ago(table, kind, monkeypatch):
    """Return a station with a reading on each of the last 300 days; the table was divided by months 200 days ago."""
    station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
    now = timezone.now()
    measure(station, *[(now - timedelta(days=n), float(n)) for n in range(201, 300)])
    then = SimpleNamespace(now=lambda: now - timedelta(days=200))
    with monkeypatch.context() as past:
        past.setattr(division, "timezone", then)
        past.setattr(partitions, "timezone", then)
        division.convert(division.plan(kind, "month"), Pace())
    measure(station, *[(now - timedelta(days=n), float(n)) for n in range(201)])
    return station
