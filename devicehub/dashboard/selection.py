"""What the address of the page asks for: filters, place in each table, the chart."""

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


class Place(NamedTuple):
    """Where a page of a table begins: behind one device, or ends: before it."""

    forward: bool
    device_id: str


class Plotted(NamedTuple):
    """What the chart can show: one numeric reading of one kind."""

    kind: Kind
    reading: Reading

    @property
    def name(self) -> str:
        return f"{self.kind.slug}.{self.reading.name}"


def plottable() -> list[Plotted]:
    """Everything that a chart can show, in the order in which it is declared."""
    return [
        Plotted(kind, reading)
        for kind in registry
        if kind.reading_model is not None
        for reading in kind.readings.values()
        if reading.type in NUMBERS
    ]


@dataclass(frozen=True)
class Selection:
    """What is asked for. What cannot be understood was not asked for: nobody gets an error for an old link."""

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
        """The shortest query that asks for this again."""
        asked = {"q": self.search, "status": self.status}
        if self.plotted is not None:
            asked["reading"] = self.plotted.name
        asked["range"] = self.range if self.range != "15m" else ""
        for slug, place in self.places.items():
            asked[f"{'after' if place.forward else 'before'}-{slug}"] = place.device_id
        return {name: text for name, text in asked.items() if text}

    @property
    def query(self) -> str:
        return "?" + urlencode(self.parameters())

    def at(self, slug: str, place: Place) -> Selection:
        return replace(self, places={**self.places, slug: place})

    def over(self, range_name: str) -> Selection:
        return replace(self, range=range_name)


def parse(asked: Mapping[str, str]) -> Selection:
    """What *asked*, the parameters of a GET request, means."""
    choices = plottable()
    status, range_name = asked.get("status", ""), asked.get("range", "")
    places = {}
    for kind in registry:
        for word in ("before", "after"):
            if device_id := make_storable(asked.get(f"{word}-{kind.slug}", "").strip(), LONGEST):
                places[kind.slug] = Place(word == "after", device_id)
    return Selection(
        search=make_storable(asked.get("q", "").strip(), LONGEST),
        status=status if status in DeviceStatus.values else "",
        plotted=next((p for p in choices if p.name == asked.get("reading")), choices[0] if choices else None),
        range=range_name if range_name in RANGES else "15m",
        places=places,
    )
