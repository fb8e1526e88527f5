"""The usual signs of units. Declarations and payloads use those of SenML (RFC 8428, 12.1)."""

from __future__ import annotations

from collections.abc import Mapping

# Units that are usually written with another sign. Other units are shown unchanged.
SIGNS: Mapping[str, str] = {"Cel": "°C", "%RH": "% RH", "Ohm": "Ω", "deg": "°", "count": ""}


def unit(senml: str) -> str:
    """Return the usual sign of a SenML unit."""
    return SIGNS.get(senml, senml)
