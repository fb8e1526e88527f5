"""Fixtures of the tests of stored data: two weather stations, and the retention of their kind."""

import pytest

from devicehub.kinds.registry import registry
from fleet.models import WeatherStationDevice


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Delete without rests, because no other connection writes."""
    monkeypatch.setattr("devicehub.db.batches.REST", {"sqlite": 0, "postgresql": 0})


@pytest.fixture
def kind():
    """Return the kind of the weather stations."""
    return registry.get("weatherstation")


@pytest.fixture
def station(db):
    """Create our station."""
    return WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")


@pytest.fixture
def neighbour(db):
    """Create the station whose data must not change."""
    return WeatherStationDevice.objects.create(device_id="STATION-002", mqtt_username="neighbour")


@pytest.fixture
def keeps(monkeypatch):
    """Return a function that sets the retention of weather stations: `keeps(readings="30d")`."""

    def keep(**wanted):
        options = registry.get("weatherstation").keep
        for name in list(options):
            monkeypatch.setitem(options, name, wanted.get(name.removeprefix("keep_")))

    return keep
