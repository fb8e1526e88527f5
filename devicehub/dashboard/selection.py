"""The selection in the address of the page: filters, place in each table, chart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from urllib.parse import urlencode

from authsvc.text import make_storable
from devicehub.kinds.declare import NUMBERS, Reading
from devicehub.kinds.registry import Kind, registry
from devicehub.models import DeviceStatus

RANGES: Mapping[str, int] = {
    "15m": 900,
    "1h": 3_600,
    "24h": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
    "1y": 31_536_000,
}
RANGE_NAMES: Mapping[str, str] = {
    "15m": "15 min",
    "1h": "1 h",
    "24h": "24 h",
    "7d": "7 d",
    "30d": "30 d",
    "1y": "1 year",
}
LONGEST = 128
LONGEST_NAME = 100  # of a value in a narrow table
CONNECTED = "connected"  # Devices that are counted as connected, whatever status they report.
STATUSES: Mapping[str, str] = {CONNECTED: "Connected", **dict(DeviceStatus.choices)}


class Place(NamedTuple):
    """The place of a page of a table: it begins after a device (*forward*), or ends before it."""

    forward: bool
    device_id: str


class Plotted(NamedTuple):
    """A choice of the chart: one numeric reading of one kind, or one name in its narrow table."""

    kind: Kind
    reading: Reading

    @property
    def name(self) -> str:
        return f"{self.kind.slug}.{self.reading.name}"


def plottable() -> list[Plotted]:
    """Return all choices of the chart, in the order in which they are declared."""
    return [
        Plotted(kind, reading)
        for kind in registry
        if kind.history_model is not None
        for reading in (kind.readings if kind.narrow is None else kind.columns).values()
        if reading.type in NUMBERS
    ]


def _plotted(name: str) -> Plotted | None:
    """Return the choice *name*, or else the first one. Of a narrow table any name may be chosen, as in `kind.name`."""
    choices = plottable()
    chosen = next((choice for choice in choices if choice.name == name), None)
    slug, _, own = name.partition(".")
    kind = registry.get(slug)
    if chosen is None and kind is not None and kind.narrow is not None and 0 < len(own) <= LONGEST_NAME:
        reading = Reading(verbose_name=own)
        reading.name = own
        return Plotted(kind, reading)
    return chosen or (choices[0] if choices else None)


@dataclass(frozen=True)
class Selection:
    """The selection of a page. Invalid parameters are ignored, so that an old link is not an error."""

    search: str = ""
    status: str = ""
    plotted: Plotted | None = None
    range: str = "15m"
    places: Mapping[str, Place] = field(default_factory=dict)

    @property
    def seconds(self) -> int:
        return RANGES[self.range]

    @property
    def is_filtered(self) -> bool:
        return bool(self.search or self.status)

    def parameters(self) -> dict[str, str]:
        """Return the fewest parameters that give this selection again."""
        found = {"q": self.search, "status": self.status}
        if self.plotted is not None:
            found["reading"] = self.plotted.name
        found["range"] = self.range if self.range != "15m" else ""
        for slug, place in self.places.items():
            found[f"{'after' if place.forward else 'before'}-{slug}"] = place.device_id
        return {name: text for name, text in found.items() if text}

    @property
    def query(self) -> str:
        return "?" + urlencode(self.parameters())

    def at(self, slug: str, place: Place) -> Selection:
        """Return this selection with another place in the table of the kind *slug*."""
        return replace(self, places={**self.places, slug: place})

    def over(self, range_name: str) -> Selection:
        """Return this selection with another range of the chart."""
        return replace(self, range=range_name)


def parse(parameters: Mapping[str, str]) -> Selection:
    """Return the selection that the *parameters* of a GET request describe."""
    status, range_name = parameters.get("status", ""), parameters.get("range", "")
    places = {}
    for kind in registry:
        for word in ("before", "after"):
            if device_id := make_storable(parameters.get(f"{word}-{kind.slug}", "").strip(), LONGEST):
                places[kind.slug] = Place(word == "after", device_id)
    return Selection(
        search=make_storable(parameters.get("q", "").strip(), LONGEST),
        status=status if status in STATUSES else "",
        plotted=_plotted(make_storable(parameters.get("reading", ""), 2 * LONGEST)),
        range=range_name if range_name in RANGES else "15m",
        places=places,
    )
