"""A small fleet at two sites."""

from __future__ import annotations

import pytest

from devicehub.kinds.registry import Kind, registry
from fleet.models import WeatherStationDevice
from rig import fleets


@pytest.fixture
def kind() -> Kind:
    """Return the kind of weather stations."""
    found = registry.get("weatherstation")
    assert found is not None
    return found


@pytest.fixture
def fleet(db: None) -> list[WeatherStationDevice]:
    """Return twelve stations, of which every third is at the southern site."""
    return fleets.two_sites()
