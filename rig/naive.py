"""A second, naive implementation of MQTT 5.0, 4.7 and 4.8.2, as a reference for authsvc.core.topics.

Matching is recursion over levels, well-formedness is checked character by character, and two filters are compared
over all topics of a small alphabet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import product

UNUSED = "z"  # in no filter; a filter that matches it also matches any other word in its place
LITERALS = ("a", "b", "", "$SYS")
ALPHABET = (*LITERALS, UNUSED)


def matches(topic_filter: str, topic: str) -> bool:
    """Return whether *topic_filter* matches *topic*; both are legal, and neither starts with `$share/`."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    return _match(topic_filter.split("/"), topic.split("/"))


def _match(wanted: list[str], found: list[str]) -> bool:
    if wanted == ["#"]:
        return True  # also with no level left: `#` includes the level above it
    if not wanted or not found:
        return not wanted and not found
    return wanted[0] in ("+", found[0]) and _match(wanted[1:], found[1:])


@cache
def topics(alphabet: tuple[str, ...], depth: int) -> tuple[str, ...]:
    """Return all topics of up to *depth* levels over *alphabet*; the empty level alone is not a topic."""
    every = ("/".join(levels) for size in range(1, depth + 1) for levels in product(alphabet, repeat=size))
    return tuple(topic for topic in every if topic)


@cache
def filters(literals: tuple[str, ...], depth: int) -> tuple[str, ...]:
    """Return all topic filters of up to *depth* levels over *literals*, `+` and a closing `#`."""
    levels = (*literals, "+")
    plain = topics(levels, depth)
    return (*plain, "#", *(f"{stem}/#" for stem in ("", *topics(levels, depth - 1))))


@cache
def matched(topic_filter: str, depth: int) -> frozenset[str]:
    """Return all topics of up to *depth* levels over ALPHABET that *topic_filter* matches."""
    return frozenset(topic for topic in topics(ALPHABET, depth) if matches(topic_filter, topic))


def enough(topic_filters: Iterable[str]) -> int:
    """Return the depth at which enumeration decides about *topic_filters*: one level below the longest."""
    return max(topic_filter.count("/") for topic_filter in topic_filters) + 2


def covers(granted: str, requested: str) -> bool:
    """Return whether *granted* matches every topic that *requested* matches."""
    depth = enough((granted, requested))
    return matched(requested, depth) <= matched(granted, depth)


def overlaps(one: str, other: str) -> bool:
    """Return whether a topic exists that both filters match."""
    depth = enough((one, other))
    return not matched(one, depth).isdisjoint(matched(other, depth))


def is_text(text: str) -> bool:
    """Return whether *text* may stand in an MQTT packet, also by the "should not" of MQTT 5.0, 1.5.4."""
    for character in set(text):
        code = ord(character)
        if unicodedata.category(character) in ("Cc", "Cs"):  # control characters, halves of a character
            return False
        if code in range(0xFDD0, 0xFDF0) or code % 0x10000 in (0xFFFE, 0xFFFF):
            return False  # the 66 non-characters of Unicode
    return 1 <= len(text.encode()) <= 65_535


def is_topic(text: str) -> bool:
    return is_text(text) and all(character not in "+#" for character in text)


def is_filter(text: str) -> bool:
    for position, character in enumerate(text):
        if character in "+#":
            before, after = text[max(0, position - 1) : position], text[position + 1 : position + 2]
            if before not in ("", "/") or after not in ("", "/"):
                return False
            if character == "#" and after:
                return False
    return is_text(text)


def inner(text: str) -> str | None:
    """Return the filter inside `$share/<group>/<filter>`, or *text* itself; None if it must not be subscribed to."""
    if not is_filter(text):
        return None
    first, *rest = text.split("/")
    if first != "$share":
        return text
    if len(rest) < 2 or rest[0] in ("", "+", "#") or rest[1] == "$share":
        return None
    return "/".join(rest[1:]) or None
