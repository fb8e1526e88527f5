"""A model of EMQX's `acl` in a connect answer: the first matching rule decides (EMQX 5.8, from its source)."""

from __future__ import annotations

from typing import Any


def allows(acl: list[dict[str, Any]], action: str, topic: str) -> bool:
    """Return whether a client with *acl* may *action* (publish, subscribe) *topic*; no match is a deny."""
    for rule in acl:
        if rule["action"] not in (action, "all"):
            continue
        topics = rule["topics"] if "topics" in rule else [rule["topic"]]
        if any(_matches(pattern, topic) for pattern in topics):
            return bool(rule["permission"] == "allow")
    return False


def _matches(pattern: str, topic: str) -> bool:
    """Return whether *pattern* matches *topic*; the levels of a subscription filter are compared as plain text."""
    if pattern.startswith("eq "):
        return pattern[3:] == topic
    words, wanted = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and words[0] in ("+", "#"):
        return False
    for position, word in enumerate(words):
        if word == "#":
            return True
        if position >= len(wanted) or (word != "+" and word != wanted[position]):
            return False
    return len(words) == len(wanted)
