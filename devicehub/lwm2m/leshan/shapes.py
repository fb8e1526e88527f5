"""The registrations and events of a Leshan server as values, in the forms of its versions 2.0.0-M4 to M18. Pure.

Members that are not needed are ignored, so that later versions can be followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from devicehub.errors import DevicehubError
from devicehub.lwm2m import link_format
from devicehub.lwm2m.link_format import Link
from devicehub.messages import times
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.errors import CodecError

MAX_NAME = 255  # The most characters of an endpoint's name, as an endpoint name stands in the database.
MAX_ID = 100  # The most characters of a registration id.
MAX_PATHS = 1000  # The most paths of one event.
MOST_DIGITS = 4_300  # Of an integer that Python reads.
MAX_LIFETIME = 2**32 - 1  # Seconds, the most that LwM2M allows.
ID = re.compile(r"[0-9]{1,5}")
# The members of an update that an endpoint may have changed, as registrations name them.
CHANGEABLE = {
    "lifetime": ("lifetime", "lifeTimeInSec"),
    "version": ("lwM2mVersion", "lwM2MVersion"),
    "binding": ("bindingMode",),
    "links": ("objectLinks",),
}


class MalformedAnswer(DevicehubError):
    """A text of a Leshan server is not in a form that this version can read."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A registration. Times are milliseconds since 1970, by the clock of the Leshan server.

    *links* is the link format that the endpoint sent; *instances* are the ids of its instances by object id.
    """

    endpoint: str
    id: str
    at: int
    last_update: int
    lifetime: int
    version: str
    binding: str
    queue_mode: bool
    is_sleeping: bool
    links: str
    instances: Mapping[int, tuple[int, ...]]

    def members(self) -> dict[str, Any]:
        """Return the members by which a message describes this registration."""
        return {
            "id": self.id,
            "at": self.at,
            "lifetime": self.lifetime,
            "version": self.version,
            "binding": self.binding,
            "queue_mode": self.queue_mode,
            "links": self.links,
        }


@dataclass(frozen=True, slots=True)
class Registered:
    """An endpoint registered, again or for the first time."""

    registration: Registration


@dataclass(frozen=True, slots=True)
class Deregistered:
    """A registration ended: the endpoint ended it, its lifetime passed, or another replaced it."""

    registration: Registration


@dataclass(frozen=True, slots=True)
class Updated:
    """An endpoint updated its registration. *changed* names the members that the update carried."""

    registration: Registration
    changed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Presence:
    """An endpoint in queue mode woke up, or fell asleep."""

    endpoint: str
    is_awake: bool


@dataclass(frozen=True, slots=True)
class Values:
    """The nodes that an endpoint sent, by path. *kind* is `notification` or `send`."""

    endpoint: str
    kind: str
    nodes: Mapping[str, Any]


Event = Registered | Deregistered | Updated | Presence | Values


def integer(text: str) -> int | str:
    """Return an integer of JSON; one with more digits than Python converts stays a text, and costs its value alone."""
    return int(text) if len(text) <= MOST_DIGITS else text


def load(text: str | bytes) -> Any:
    """Return the content of a JSON text. Raise MalformedAnswer."""
    try:
        return json.loads(text, parse_int=integer)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer(f"is not JSON ({str(error)[:100]})") from error


def read_event(name: str, data: str) -> Event | None:
    """Return the event *name* with its *data*; None for a name that is not needed. Raise MalformedAnswer."""
    reader = READERS.get(name)
    return None if reader is None else reader(_object(load(data), name))


def registration(content: Any) -> Registration:
    """Return the registration in *content*. Raise MalformedAnswer."""
    found = _object(content, "a registration")
    at = _milliseconds(found, "registrationDate")
    links = _links(found.get("objectLinks"))
    return Registration(
        endpoint=_name(found, "endpoint"),
        id=_text(found, "registrationId", MAX_ID),
        at=at,
        last_update=_milliseconds(found, "lastUpdate") if "lastUpdate" in found else at,
        lifetime=_lifetime(found),
        version=_optional(found, "lwM2mVersion", "lwM2MVersion") or "1.0",
        binding=_binding(found.get("bindingMode")),
        queue_mode=_queue_mode(found),
        is_sleeping=found.get("sleeping") is True,
        links=link_format.write(links),
        instances=_instances(links, found.get("availableInstances")),
    )


def _updated(found: Mapping[str, Any]) -> Updated:
    update = found.get("update")
    if not isinstance(update, Mapping):
        update = {}
    changed = frozenset(
        member for member, names in CHANGEABLE.items() if any(update.get(name) is not None for name in names)
    )
    return Updated(registration(found.get("registration")), changed)


def _notification(found: Mapping[str, Any]) -> Values:
    if "res" in found:  # M4 has no composite observations, and no kind.
        return Values(_name(found, "ep"), "notification", nodes({_text(found, "res", 100): found.get("val")}))
    return Values(_name(found, "ep"), "notification", nodes(found.get("val")))


def _send(found: Mapping[str, Any]) -> Values:
    return Values(_name(found, "ep"), "send", nodes(found.get("val")))


READERS: dict[str, Callable[[Mapping[str, Any]], Event]] = {
    "REGISTRATION": lambda found: Registered(registration(found)),
    "DEREGISTRATION": lambda found: Deregistered(registration(found)),
    "UPDATED": _updated,
    "AWAKE": lambda found: Presence(_name(found, "ep"), is_awake=True),
    "SLEEPING": lambda found: Presence(_name(found, "ep"), is_awake=False),
    "NOTIFICATION": _notification,
    "SEND": _send,
}


def nodes(content: Any) -> dict[str, Any]:
    """Return the nodes of a map of path to node; a path without a value has none."""
    found = _object(content, "val")
    if len(found) > MAX_PATHS:
        raise MalformedAnswer(f"val has {len(found)} paths; at most {MAX_PATHS} are read")
    for name in found:
        try:
            paths.parse(name)
        except ValueError as error:
            raise MalformedAnswer(f"val names {name[:40]!r}, which is not a path") from error
    return {name: node for name, node in found.items() if node is not None}


def _object(content: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(content, Mapping):
        raise MalformedAnswer(f"{name} is not an object")
    return content


def _text(found: Mapping[str, Any], name: str, most: int) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise MalformedAnswer(f"{name} is not a text of 1 to {most} characters")
    return value


def _name(found: Mapping[str, Any], name: str) -> str:
    value = _text(found, name, MAX_NAME)
    if any(character < " " or "\ud800" <= character <= "\udfff" for character in value):
        raise MalformedAnswer(f"{name} holds a character that no endpoint name has")
    return value


def _optional(found: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = found.get(name)
        if isinstance(value, str):
            return value[:20]
    return ""


def _milliseconds(found: Mapping[str, Any], name: str) -> int:
    """Return a time: milliseconds, or the ISO 8601 text of M4."""
    value: Any = found.get(name)
    if isinstance(value, str):
        try:
            value = round(times.moment(value).timestamp() * 1000)
        except (ValueError, OverflowError) as error:
            raise MalformedAnswer(f"{name} is not a time ({str(value)[:40]!r})") from error
    if type(value) is not int or not 0 <= value < 2**53:
        raise MalformedAnswer(f"{name} is not a time")
    return value


def _lifetime(found: Mapping[str, Any]) -> int:
    for name in CHANGEABLE["lifetime"]:
        value = found.get(name)
        if type(value) is int and value >= 0:
            return min(value, MAX_LIFETIME)
    raise MalformedAnswer("lifetime is not a number of seconds")


def _binding(value: Any) -> str:
    if isinstance(value, list):
        value = "".join(letter for letter in value if isinstance(letter, str))
    return value[:20] if isinstance(value, str) else ""


def _queue_mode(found: Mapping[str, Any]) -> bool:
    said = found.get("queuemode")
    return said if isinstance(said, bool) else "Q" in _binding(found.get("bindingMode"))


def _links(content: Any) -> list[Link]:
    """Return the links. The value of an attribute is written as in the link format, so a text has quotes."""
    if content is None:
        return []
    if not isinstance(content, list):
        raise MalformedAnswer("objectLinks is not a list")
    links = []
    for one in content:
        found = _object(one, "a link")
        url, attributes = found.get("url"), found.get("attributes")
        if not isinstance(url, str) or "<" in url or ">" in url:
            raise MalformedAnswer("a link has no address")
        named = attributes if isinstance(attributes, Mapping) else {}
        links.append(Link(url, {name: _unquoted(raw) for name, raw in named.items() if _is_name(name)}))
    return links


def _is_name(name: str) -> bool:
    return link_format.NAME.fullmatch(name) is not None


def _unquoted(raw: Any) -> str | None:
    if raw is None or isinstance(raw, Mapping | list | bool):
        return None
    quoted = link_format.QUOTED.fullmatch(str(raw))
    return link_format.ESCAPED.sub(r"\1", quoted[1]) if quoted else str(raw)


def _instances(links: list[Link], named: Any) -> dict[int, tuple[int, ...]]:
    """Return the instances that the links name, and else those that the server lists."""
    try:
        found: Mapping[int, list[int]] = link_format.objects(links).instances
    except CodecError:
        found = {}
    if found or not isinstance(named, Mapping):
        return {number: tuple(ids) for number, ids in found.items()}
    return {
        int(number): tuple(one for one in ids if type(one) is int and 0 <= one <= paths.MAX_ID)
        for number, ids in named.items()
        if ID.fullmatch(number) and int(number) <= paths.MAX_ID and isinstance(ids, list)
    }
