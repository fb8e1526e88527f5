"""What EMQX makes of the `acl` of a connect answer: the first matching rule decides (5.8, by its source)."""

from __future__ import annotations

from typing import Any


def allows(acl: list[dict[str, Any]], action: str, topic: str) -> bool:
    """Whether a client that holds *acl* may *action* (publish, subscribe); no match is a deny here."""
    for rule in acl:
        if rule["action"] not in (action, "all"):
            continue
        topics = rule["topics"] if "topics" in rule else [rule["topic"]]
        if any(_matches(pattern, topic) for pattern in topics):
            return bool(rule["permission"] == "allow")
    return False


def _matches(pattern: str, topic: str) -> bool:
    """The words of a subscription filter are compared as if they were plain text."""
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
