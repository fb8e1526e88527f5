"""Weather stations with stored data, and months of readings."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.stations import keeps as keeps
from rig.stations import kind as kind
from rig.stations import neighbour as neighbour
from rig.stations import no_rest as no_rest
from rig.stations import station as station
from rig.telemetry import measure


@pytest.fixture
def months_of_readings(transactional_db):
    """A station with a reading each day of the last 100, one of long ago, and one of the future."""
    station = WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")
    now = timezone.now()
    days = [(now - timedelta(days=n), float(n)) for n in range(100)]
    measure(station, *days, (now + timedelta(days=400), -1.0))
    yield station
    with connection.schema_editor() as editor:  # as the migrations of the tests that follow made it
        editor.execute("DROP TABLE fleet_weatherstationreading CASCADE")
        editor.create_model(WeatherStationReading)
