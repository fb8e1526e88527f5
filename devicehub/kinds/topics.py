"""The topic scheme, defined here alone: to build and parse topics, the subscriptions, and the rights of a device.

A topic is `{prefix}/{type_name}/{device_id}/{message_type}`, unless a type's `Meta.topic_template` says otherwise.
Each placeholder fills a whole level, so topics are compared level by level.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple

from authsvc.core.grants import ActionSet, Rule
from devicehub.conf import MQTT_GROUP, TOPIC_PREFIX, settings
from devicehub.kinds.declare import DEFAULT_TEMPLATE
from devicehub.kinds.identifiers import is_device_id
from devicehub.kinds.registry import Kind, registry

PLACEHOLDERS = frozenset({"{prefix}", "{type_name}", "{device_id}", "{message_type}"})
NEEDED = ("{device_id}", "{message_type}")


class MessageType(StrEnum):
    """The last word of a device topic. It gives the content of a message and its sender."""

    DATA = "data"
    STATUS = "status"
    CMD = "cmd"
    REPLY = "reply"


FROM_DEVICE = (MessageType.DATA, MessageType.STATUS, MessageType.REPLY)


class Address(NamedTuple):
    """The parts of a topic: the kind, the device id and the message type."""

    kind: Kind
    device_id: str
    message_type: MessageType


def build(kind: Kind, device_id: str, message_type: str) -> str:
    """Return the topic of one device and one type of message."""
    return "/".join(_fill(level, kind, device_id, message_type) for level in kind.topic_template.split("/"))


def prefix(kind: Kind, device_id: str) -> str:
    """Return the common beginning of one device's topics, up to a `/`; empty if the message type precedes the id."""
    levels = kind.topic_template.split("/")
    at = levels.index("{device_id}")
    if "{message_type}" in levels[:at]:
        return ""
    return "".join(f"{_fill(level, kind, device_id, '')}/" for level in levels[: at + 1])


def parse(topic: str) -> Address | None:
    """Return the parts of *topic*, or None if it is not a topic of a device. Exact: no case folding, no trimming."""
    levels = topic.split("/")
    for kind, fixed, id_at, type_at in _templates(settings.topic_prefix, registry.version):
        if len(levels) != len(fixed):
            continue
        device_id, message_type = levels[id_at], levels[type_at]
        levels[id_at] = levels[type_at] = ""
        if levels == fixed and message_type in _MESSAGE_TYPES and is_device_id(device_id):
            return Address(kind, device_id, _MESSAGE_TYPES[message_type])
        levels[id_at], levels[type_at] = device_id, message_type
    return None


@functools.lru_cache(maxsize=8)
def _templates(_prefix: str, _kinds: int) -> tuple[tuple[Kind, list[str], int, int], ...]:
    """Return for each kind its levels, with device id and message type empty, and the places of these two."""
    found = []
    for kind in registry:
        template = kind.topic_template.split("/")
        levels = [_fill(level, kind, "", "") for level in template]
        found.append((kind, levels, template.index("{device_id}"), template.index("{message_type}")))
    return tuple(found)


def subscriptions() -> list[str]:
    """Return the topic filters that ingest subscribes to: all topics on which devices of all kinds may publish."""
    return [build(kind, "+", message_type) for kind in registry for message_type in FROM_DEVICE]


def shared(topic_filter: str, group: str) -> str:
    """Return *topic_filter* as the shared subscription of *group*, or unchanged if *group* is empty."""
    return f"$share/{group}/{topic_filter}" if group else topic_filter


def is_subscribed(topic: str) -> bool:
    """Return whether ingest subscribes to *topic* with the present settings and kinds. Called for each message."""
    return _subscribed(settings.topic_prefix, registry.version)(topic) is not None


@functools.lru_cache(maxsize=8)
def _subscribed(_prefix: str, _kinds: int) -> Callable[[str], object]:
    filters = (re.escape(topic_filter).replace(r"\+", "[^/]*") for topic_filter in subscriptions())
    return re.compile("|".join(filters)).fullmatch


def former_subscriptions() -> list[str]:
    """Return the filters that the default and the present group, prefix and templates can have made.

    The present filters are among them.
    """
    inner = [
        "/".join(_fill(level, kind, "+", message_type, prefix) for level in template.split("/"))
        for prefix in (settings.topic_prefix, TOPIC_PREFIX)
        for kind in registry
        for template in (kind.topic_template, DEFAULT_TEMPLATE)
        for message_type in FROM_DEVICE
    ]
    groups = (settings.mqtt_group, MQTT_GROUP, "")
    return list(dict.fromkeys(shared(topic_filter, group) for group in groups for topic_filter in inner))


def command_filters() -> list[str]:
    """Return the topic filters of all commands to all devices."""
    return [build(kind, "+", MessageType.CMD) for kind in registry]


def owned(kind: Kind, device_id: str) -> tuple[Rule, ...]:
    """Return the rights of a device on its own topics: publish its messages, subscribe to and receive its commands."""
    parts = _owned_parts(kind, settings.topic_prefix)
    return tuple(
        Rule(f"{before}{device_id}{after}", actions, True, name) for before, after, actions, name in parts
    )


@functools.lru_cache(maxsize=64)
def _owned_parts(kind: Kind, _prefix: str) -> tuple[tuple[str, str, ActionSet, str], ...]:
    """Return the text before and after the device id of each topic that a device owns. Each broker request needs it."""
    rights = [(message_type, ActionSet.PUBLISH) for message_type in FROM_DEVICE]
    rights += [(MessageType.CMD, ActionSet.SUBSCRIBE), (MessageType.CMD, ActionSet.RECEIVE)]
    return tuple(
        (*build(kind, "\x00", message_type).split("\x00"), actions, f"own {message_type}")  # type: ignore[misc]
        for message_type, actions in rights
    )


def template_problem(template: str) -> str:
    """Return a sentence about why *template* cannot be a topic template; empty if it can.

    >>> template_problem("plant/{device_id}")
    'A topic template needs a level {message_type}.'
    """
    levels = template.split("/")
    for needed in NEEDED:
        if levels.count(needed) != 1:
            return f"A topic template needs a level {needed}."
    for level in levels:
        if level in PLACEHOLDERS:
            continue
        if not level or any(character in level for character in "{}+#$\x00"):
            return f"The level {level!r} is neither a placeholder nor plain text."
    return ""


def _fill(level: str, kind: Kind, device_id: str, message_type: str, prefix: str = "") -> str:
    if level == "{prefix}":
        return prefix or settings.topic_prefix
    if level == "{type_name}":
        return kind.slug
    if level == "{device_id}":
        return device_id
    if level == "{message_type}":
        return message_type
    return level


_MESSAGE_TYPES = {str(message_type): message_type for message_type in MessageType}


def all_filters() -> Iterator[tuple[Kind, str]]:
    """Yield each kind with the filter that all of its topics match, for the check that no two kinds share a topic."""
    for kind in registry:
        yield kind, build(kind, "+", "+")
