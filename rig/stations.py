"""Fixtures of the tests of stored data: two weather stations, and for how long their kind keeps things."""

import pytest

from devicehub.kinds.registry import registry
from fleet.models import WeatherStationDevice


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    """Nobody else writes, so nobody must be let in."""
    monkeypatch.setattr("devicehub.db.batches.REST", {"sqlite": 0, "postgresql": 0})


@pytest.fixture
def kind():
    return registry.get("weatherstation")


@pytest.fixture
def station(db):
    """Ours."""
    return WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="station")


@pytest.fixture
def neighbour(db):
    """Whose data must stay as they are."""
    return WeatherStationDevice.objects.create(device_id="STATION-002", mqtt_username="neighbour")


@pytest.fixture
def keeps(monkeypatch):
    """Let weather stations keep things for so long: `keeps(readings="30d")`."""

    def keep(**wanted):
        options = registry.get("weatherstation").keep
        for name in list(options):
            monkeypatch.setitem(options, name, wanted.get(name.removeprefix("keep_")))

    return keep
