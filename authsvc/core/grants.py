"""Grants: which topics a principal may publish to, subscribe to and receive, and which are denied to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from authsvc.core import topics

PLACEHOLDERS = frozenset({"username", "client_id", "device_id", "type", "prefix"})
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UNSAFE = re.compile("[/+#\x00]")


class ActionSet(StrEnum):
    """The actions that one grant speaks of."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"
    ALL = "all"


class Rule(NamedTuple):
    """What a grant, or a principal's directory, says of one topic filter.

    An allow must cover what is asked, alone; a deny refuses whatever overlaps it, and wins.
    """

    filter: str
    actions: ActionSet = ActionSet.ALL
    allow: bool = True
    name: str = ""

    def speaks_of(self, action: str) -> bool:
        return self.actions == action or self.actions == ActionSet.ALL


# The name that directories of other projects may import. A grant is a row of authsvc.models.Grant.
Grant = Rule


def fill(template: str, values: Mapping[str, str]) -> str | None:
    """*template* with its `{placeholders}` filled; None when a value is missing or could change the levels.

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
    # A client that calls itself $SYS must not reach the broker's own topics by that.
    return None if filled.startswith("$") and not template.startswith("$") else filled


def problem(template: str) -> str:
    """Why *template* cannot be the filter of a grant, in a sentence; empty when it can.

    >>> problem("things/{device}/x")
    'There is no placeholder {device}; use {client_id}, {device_id}, {prefix}, {type}, {username}.'
    """
    names = ", ".join(f"{{{name}}}" for name in sorted(PLACEHOLDERS))
    for name in _PLACEHOLDER.findall(template):
        if name not in PLACEHOLDERS:
            return f"There is no placeholder {{{name}}}; use {names}."
    bare = _PLACEHOLDER.sub("x", template)
    if "{" in bare or "}" in bare:
        return f"A brace stands alone; placeholders are {names}."
    if topics.inner_filter(bare) is None:
        return "This is no topic filter: `+` fills one level, `#` the last one, and no level holds more."
    if bare.startswith(topics.SHARE):
        return "Grant the filter inside `$share/<group>/`: shared subscriptions are judged by it."
    if topics.is_control(bare):
        return "No grant opens $CONTROL: it is the broker's own."
    return ""


def decide(grants: Iterable[Rule], action: str, wanted: str) -> Rule | None:
    """The grant that decides about *wanted*: a deny that overlaps it, else an allow that covers it."""
    allowing: Rule | None = None
    for grant in grants:
        if not grant.speaks_of(action):
            continue
        if grant.allow:
            if allowing is None and topics.covers(grant.filter, wanted):
                allowing = grant
        elif topics.overlaps(grant.filter, wanted):
            return grant
    return allowing
