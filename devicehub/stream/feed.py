"""All sources as one sequence of events, each with the place after it, from which any process can go on."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable

from devicehub.db.writers import open_writers
from devicehub.stream.cursors import Place, State
from devicehub.stream.events import Event
from devicehub.stream.sources import HEAVIEST, MOST, Flood, Row, Source, sources

OLDEST = 3600  # Seconds after which a place is too old to go on from.


class Feed:
    """The sources, read by one thread."""

    def __init__(self) -> None:
        self._sources = sources()
        names = "\n".join(source.name for source in self._sources)
        self._mark = zlib.crc32(names.encode())

    @property
    def place(self) -> Place:
        """The present place."""
        return Place(self._mark, int(time.time()), tuple(source.state for source in self._sources))

    def begin(self) -> None:
        """Read from now on."""
        bounds = [source.bound() for source in self._sources]
        writers = self._writers()
        for source, bound in zip(self._sources, bounds, strict=True):
            source.begin(writers.get(source.table, ()), bound)

    def look(self) -> list[Event]:
        """Return the events since the last look. Raise Flood if there are too many; then begin() has to follow."""
        found: list[Event] = []
        states, at = [source.state for source in self._sources], int(time.time())
        writers, weight = self._writers(), 0
        for number, source in enumerate(self._sources):
            rows = source.look(writers.get(source.table, ()))
            weight += source.weight(rows)
            if len(found) + len(rows) > MOST or weight > HEAVIEST:
                raise Flood
            made = source.events(rows) if rows else {}
            for row in rows:
                source.note(row)
                states[number] = source.state
                self._add(found, made.get(row[0]), at, states)
            states[number] = source.state
        return found

    def since(self, place: Place) -> list[Event]:
        """Return the events from *place* to the present one. Raise Flood if it is too old, or they are too many."""
        now = int(time.time())
        if place.mark != self._mark or len(place.states) != len(self._sources) or place.at < now - OLDEST:
            raise Flood
        found: list[Event] = []
        states, total, weight = list(place.states), 0, 0
        for number, source in enumerate(self._sources):
            rows = source.history(place.states[number])
            total += len(rows)
            weight += source.weight(rows) if total <= MOST else 0
            if total > MOST or weight > HEAVIEST:
                raise Flood
            made = source.events(rows) if rows else {}
            for row, state in _with_states(source, rows):
                states[number] = state
                self._add(found, made.get(row[0]), min(place.at, now), states)
            states[number] = source.state
        return found

    def _writers(self) -> dict[str, set[str]]:
        return open_writers({source.table: source.key for source in self._sources})

    def _add(self, found: list[Event], event: Event | None, at: int, states: list[State]) -> None:
        if event is not None:
            event.place = Place(self._mark, at, tuple(states))
            found.append(event)


def _with_states(source: Source, rows: list[Row]) -> Iterable[tuple[Row, State]]:
    return zip(rows, source.states(rows), strict=True)
