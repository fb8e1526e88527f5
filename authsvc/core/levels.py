"""The levels of a requested topic beside those of a rule, with the ones marked at which they differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from authsvc.core import topics

SHOWN = 24  # Levels of a longer topic are cut off behind this many.
LONGEST = 120  # Characters of one level.


@dataclass(frozen=True)
class Level:
    """One level. *differs*: it is a cause that the rule does not fit. Without *is_there* the other one is longer."""

    text: str
    differs: bool = False
    is_there: bool = True


@dataclass(frozen=True)
class Comparison:
    """The levels of a request and of a rule, one below the other. *is_cut*: there are more than shown."""

    asked: tuple[Level, ...]
    rule: tuple[Level, ...]
    is_cut: bool = False


def differing(granted: str, requested: str, allow: bool = True) -> list[int]:
    """Return the positions, from 0, at which *granted* does not fit *requested*; none if it does.

    An allow must contain all of *requested*; a deny needs one common topic.

    >>> differing("plant/7/state", "plant/8/state"), differing("plant/+/state", "plant/8/state")
    ([1], [])
    >>> differing("plant/7", "plant/+"), differing("plant/7", "plant/+", allow=False), differing("a/b", "a/b/c")
    ([1], [], [2])
    """
    if (topics.covers if allow else topics.overlaps)(granted, requested):
        return []
    if requested[:1] == "$" != granted[:1] or granted[:1] == "$" != requested[:1]:
        return [0]  # A leading wildcard never reaches such a topic.
    found = []
    pairs = zip_longest(granted.split("/"), requested.split("/"))
    for position, (ours, theirs) in enumerate(pairs):
        if ours == "#" or (not allow and theirs == "#"):
            break
        if not _fits(ours, theirs, allow):
            found.append(position)
    return found


def _fits(ours: str | None, theirs: str | None, allow: bool) -> bool:
    if ours is None or theirs is None or theirs == "#":
        return False
    return ours in ("+", theirs) or (not allow and theirs == "+")


def compare(granted: str, requested: str, allow: bool = True) -> Comparison:
    """Return *requested* and *granted* level by level.

    >>> [level.text for level in compare("plant/7/state", "plant/8/state").asked if level.differs]
    ['8']
    """
    marked = frozenset(differing(granted, requested, allow))
    ours, theirs = granted.split("/"), requested.split("/")
    count = max(len(ours), len(theirs))
    shown = min(count, SHOWN)
    return Comparison(_levels(theirs, shown, marked), _levels(ours, shown, marked), count > shown)


def _levels(levels: list[str], count: int, marked: frozenset[int]) -> tuple[Level, ...]:
    return tuple(
        Level(cut(levels[position]), position in marked)
        if position < len(levels)
        else Level("", position in marked, is_there=False)
        for position in range(count)
    )


def cut(text: str) -> str:
    """Return *text*, cut to LONGEST characters."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
