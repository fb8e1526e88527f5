"""Topics and topic filters (MQTT 5.0, 4.7): well-formedness, coverage, overlap. Linear in their length."""

from __future__ import annotations

import re
from typing import Final

SHARE: Final = "$share/"
MAX_BYTES: Final = 65_535  # The longest UTF-8 string of the protocol (MQTT 5.0, 1.5.4).
# NUL must not occur (MQTT 5.0, 1.5.4). Control characters, surrogates and non-characters should not,
# and no topic of devices needs them.
_FORBIDDEN_ASCII = re.compile("[\x00-\x1f\x7f]")
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
    + "]"
)


def is_topic(text: str) -> bool:
    """Return whether *text* is a topic: not empty, no wildcard, no character that MQTT strings must not have.

    >>> is_topic("plant/7/state"), is_topic("plant/+/state"), is_topic("")
    (True, False, False)
    """
    return "+" not in text and "#" not in text and _is_text(text)


def is_filter(text: str) -> bool:
    """Return whether *text* is a topic filter: `+` fills a level, `#` fills the last one (MQTT 5.0, 4.7.1).

    >>> is_filter("plant/+/#"), is_filter("plant/#/state"), is_filter("plant/7+")
    (True, False, False)
    """
    if not _is_text(text):
        return False
    if "+" not in text and "#" not in text:
        return True
    levels = text.split("/")
    last = len(levels) - 1
    for position, level in enumerate(levels):
        if "#" in level and (level != "#" or position != last):
            return False
        if "+" in level and level != "+":
            return False
    return True


def has_wildcard(text: str) -> bool:
    """Return whether *text* contains `+` or `#`."""
    return "+" in text or "#" in text


def inner_filter(text: str) -> str | None:
    """Return the filter to check for a subscription to *text*, or None if *text* is not a legal filter.

    For `$share/<group>/<filter>` it is the filter inside (MQTT 5.0, 4.8.2); a share of a share is not legal.

    >>> inner_filter("$share/g/plant/+"), inner_filter("plant/7"), inner_filter("$share/g/$share/h/a")
    ('plant/+', 'plant/7', None)
    >>> inner_filter("$share//plant"), inner_filter("$share/g"), inner_filter("$share/+/a")
    (None, None, None)
    """
    if not is_filter(text):
        return None
    if text == "$share":
        return None
    if not text.startswith(SHARE):
        return text
    group, _, shared = text[len(SHARE) :].partition("/")
    if not group or not shared or has_wildcard(group):
        return None
    if shared == "$share" or shared.startswith(SHARE):
        return None
    return shared


def is_control(text: str) -> bool:
    """Return whether *text* is in `$CONTROL`, the topics that control mosquitto and EMQX. No client may use them."""
    return text == "$CONTROL" or text.startswith("$CONTROL/")


def covers(granted: str, requested: str) -> bool:
    """Return whether filter *granted* contains every topic that filter *requested* can match.

    A leading wildcard never reaches topics that start with `$` (MQTT 5.0, 4.7.2).

    >>> covers("plant/+/state", "plant/7/state"), covers("plant/7/#", "plant/+/state")
    (True, False)
    >>> covers("plant/#", "plant"), covers("#", "$SYS/#"), covers("+/#", "#")
    (True, False, True)
    """
    if granted == requested:
        return True
    if requested.startswith("$") and granted[:1] in ("+", "#"):
        return False
    if granted == "+/#":
        return True  # A topic has at least one level, so this equals `#`.
    wanted, levels = _levels(requested), _levels(granted)
    for position, level in enumerate(levels):
        if level == "#":
            return True
        if position == len(wanted) or wanted[position] == "#":
            return False
        if level not in ("+", wanted[position]):
            return False
    return len(wanted) == len(levels)


def overlaps(one: str, other: str) -> bool:
    """Return whether a topic exists that both filters match.

    >>> overlaps("plant/+/state", "plant/7/#"), overlaps("plant/7/#", "plant/8/#"), overlaps("#", "$SYS/a")
    (True, False, False)
    """
    if (one.startswith("$") and other[:1] in ("+", "#")) or (other.startswith("$") and one[:1] in ("+", "#")):
        return False
    ours, theirs = _levels(one), _levels(other)
    for position in range(max(len(ours), len(theirs))):
        our = ours[position] if position < len(ours) else None
        their = theirs[position] if position < len(theirs) else None
        if our == "#" or their == "#":
            return True  # `#` also matches the level above it, so it may also match after the last level.
        if our is None or their is None:
            return False
        if our != their and our != "+" and their != "+":
            return False
    return True


def _is_text(text: str) -> bool:
    if not text or len(text) > MAX_BYTES:
        return False
    if text.isascii():
        return _FORBIDDEN_ASCII.search(text) is None
    return _FORBIDDEN.search(text) is None and len(text.encode()) <= MAX_BYTES


def _levels(topic_filter: str) -> list[str]:
    """Return the levels of a filter. `/#` becomes `/+/#`: the level above it would be an empty topic."""
    return ["", "+", "#"] if topic_filter == "/#" else topic_filter.split("/")
