"""Units and figures as people read them. Declarations and payloads use those of SenML (RFC 8428, 12.1).

Definitions of LwM2M objects have other texts too, such as `/100` for percent.
"""

from __future__ import annotations

from collections.abc import Mapping

# Units that are usually written with another sign. Other units are shown unchanged.
SIGNS: Mapping[str, str] = {
    "Cel": "°C", "%RH": "% RH", "/100": "%", "Ohm": "Ω", "deg": "°", "count": "", "m2": "m²", "m3": "m³",
    "ug/m3": "µg/m³",
}  # fmt: skip


def unit(name: str) -> str:
    """Return the usual sign of a unit."""
    return SIGNS.get(name, name)


def figure(found: float) -> str:
    """Return a measured number with as many digits as its size needs.

    >>> figure(21.375), figure(101325.0), figure(0.00042)
    ('21.38', '101,325', '0.00042')
    """
    size = abs(found)
    if size >= 1e15 or 0 < size < 0.1:
        return f"{found:.3g}"
    return f"{found:,.0f}" if size >= 10_000 else f"{found:,.1f}" if size >= 1_000 else f"{found:.2f}"
