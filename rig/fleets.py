"""A small fleet at two sites."""

from __future__ import annotations

from devicehub.models import BaseDevice
from fleet.models import WeatherStationDevice


def two_sites(count: int = 12) -> list[BaseDevice]:
    """Return *count* stations F-00, F-01, ..., of which every third is at the southern site."""
    return [
        WeatherStationDevice.objects.create(device_id=f"F-{n:02d}", site="south" if n % 3 == 0 else "north")
        for n in range(count)
    ]
