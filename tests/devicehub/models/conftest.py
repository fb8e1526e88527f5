"""A weather station, new and stored, and a message of it."""

import pytest

from fleet.models import WeatherStationDevice, WeatherStationMessage


@pytest.fixture
def station():
    return WeatherStationDevice(device_id="STATION-001", name="Roof")


@pytest.fixture
def stored(db):
    return WeatherStationDevice.objects.create(device_id="STATION-001", name="Roof")


@pytest.fixture
def message(stored):
    return WeatherStationMessage.objects.create(device=stored, topic="things/weatherstation/STATION-001/data")
