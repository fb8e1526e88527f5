"""Grants: the topics that a principal may publish to, subscribe to and receive, and those denied to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple

from authsvc.core import topics

PLACEHOLDERS = frozenset({"username", "client_id", "device_id", "type", "prefix"})
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile("[/+#\x00]")


WORDS = ("publish", "subscribe", "receive")


class ActionSet(StrEnum):
    """The actions that one grant applies to: one, two, or all three of WORDS."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"
    ALL = "all"
    PUBLISH_SUBSCRIBE = "publish,subscribe"
    PUBLISH_RECEIVE = "publish,receive"
    SUBSCRIBE_RECEIVE = "subscribe,receive"

    @classmethod
    def of(cls, actions: Iterable[str]) -> ActionSet:
        """Return the set of *actions*, each one of WORDS. Raise ValueError for another text, or for none.

        >>> ActionSet.of(["subscribe", "publish"]), ActionSet.of(WORDS)
        (<ActionSet.PUBLISH_SUBSCRIBE: 'publish,subscribe'>, <ActionSet.ALL: 'all'>)
        """
        chosen = set(actions)
        if unknown := chosen.difference(WORDS):
            raise ValueError(f"{min(unknown)!r} is not one of {', '.join(WORDS)}")
        return _SETS[tuple(word for word in WORDS if word in chosen)] if chosen else cls("")

    @property
    def words(self) -> tuple[str, ...]:
        """The single actions, in the order of WORDS."""
        return _ACTIONS[self]

    @property
    def sentence(self) -> str:
        """The single actions for people: `publish, subscribe`, or `all`."""
        return self.value.replace(",", ", ")


class Rule(NamedTuple):
    """A rule for one topic filter, from a grant or from the directory of a principal.

    A single allow must cover the requested topic or filter. A deny refuses all that overlaps it, and wins.
    """

    filter: str
    actions: ActionSet = ActionSet.ALL
    allow: bool = True
    name: str = ""

    def applies_to(self, action: str) -> bool:
        """Return whether this rule applies to *action*."""
        # A search in the text takes half the time of a look-up; no word is a part of another one.
        return self.actions == action or self.actions == ActionSet.ALL or action in self.actions


_SETS = {
    words: ActionSet.ALL if len(words) == len(WORDS) else ActionSet(",".join(words))
    for size in range(1, len(WORDS) + 1)
    for words in combinations(WORDS, size)
}
_ACTIONS = {actions: words for words, actions in _SETS.items()}


class Period(NamedTuple):
    """A rule that is in force from *begins* until before *ends* (Unix seconds; None is without that limit)."""

    rule: Rule
    begins: float | None = None
    ends: float | None = None

    def holds(self, now: float) -> bool:
        """Return whether the rule is in force at *now*."""
        return (self.begins is None or self.begins <= now) and (self.ends is None or now < self.ends)

    def turn(self, now: float) -> float | None:
        """Return the next time after *now* at which the rule comes into force or ends; None if there is none.

        >>> period = Period(Rule("a"), begins=10, ends=20)
        >>> period.turn(5), period.turn(10), period.turn(20)
        (10, 20, None)
        """
        return min((moment for moment in self[1:] if moment is not None and moment > now), default=None)


# Directories of other projects may import this name. A stored grant is a row of authsvc.models.Grant.
Grant = Rule


def fill(template: str, values: Mapping[str, str]) -> str | None:
    """Return *template* with its `{placeholders}` filled, or None if a value is missing or could change the levels.

    >>> fill("things/{device_id}/x", {"device_id": "A1"}), fill("things/{device_id}", {"device_id": "+"})
    ('things/A1/x', None)
    """
    if "{" not in template:
        return template
    parts: list[str] = []
    end = 0
    for match in _PLACEHOLDER.finditer(template):
        value = values.get(match[1], "")
        if not value or _UNSAFE.search(value):
            return None
        parts += (template[end : match.start()], value)
        end = match.end()
    parts.append(template[end:])
    filled = "".join(parts)
    # A client named $SYS must not reach the topics of the broker through a placeholder.
    return None if filled.startswith("$") and not template.startswith("$") else filled


def problem(template: str) -> str:
    """Return a sentence that says why *template* cannot be the filter of a grant; empty if it can.

    >>> problem("things/{device}/x")
    'There is no placeholder {device}; use {client_id}, {device_id}, {prefix}, {type}, {username}.'
    """
    names = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
    for name in _PLACEHOLDER.findall(template):
        if name not in PLACEHOLDERS:
            return f"There is no placeholder {{{name}}}; use {names}."
    bare = _PLACEHOLDER.sub("x", template)
    if "{" in bare or "}" in bare:
        return f"A brace has no counterpart; placeholders are {names}."
    if topics.inner_filter(bare) is None:
        return "This is not a topic filter: `+` and `#` must be a whole level, and `#` the last one."
    if bare.startswith(topics.SHARE):
        return "Grant the filter without `$share/<group>/`: it also applies to shared subscriptions."
    if topics.is_control(bare):
        return "$CONTROL cannot be granted: it controls the broker."
    return ""


def decide(grants: Iterable[Rule], action: str, wanted: str) -> Rule | None:
    """Return the grant that decides on *wanted*: a deny that overlaps it, else an allow that covers it."""
    allowing: Rule | None = None
    for grant in grants:
        if not grant.applies_to(action):
            continue
        if grant.allow:
            if allowing is None and topics.covers(grant.filter, wanted):
                allowing = grant
        elif topics.overlaps(grant.filter, wanted):
            return grant
    return allowing
