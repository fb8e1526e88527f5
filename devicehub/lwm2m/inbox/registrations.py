"""Registrations: their messages on the `status` topic, and what they change at an endpoint.

    {"registration": {"lifetime": 86400, "version": "1.1", "binding": "UQ", "links": "</3/0>,</3303/0>;ver=1.1"}}
    {"update": {"lifetime": 300}}
    {"deregistration": true}
    {"awake": false}

A server that follows registrations adds `id`, the registration id, and `at`, its time in milliseconds since 1970. They
may arrive in any order: an end of a registration that another one has replaced changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from devicehub.db import clock
from devicehub.lwm2m import link_format
from devicehub.lwm2m.models import Endpoint
from devicehub.messages.lwm2m.errors import CodecError
from devicehub.messages.message import FailureReason, Notes, Unreadable

WORDS = ("registration", "update", "deregistration", "awake")
DEFAULT_LIFETIME = 86_400  # seconds (LwM2M 1.2, 6.2.1)
MOST_LIFETIME = 2**63 - 1
END = timedelta(
    microseconds=1
)  # The end of a registration follows all its messages, also those that arrive later.
MOST_LINKS = 1_000
VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")
ANYTHING = re.compile(r"[\s\S]*")
BINDING = re.compile(r"[A-Z]{1,10}")
FIELDS = (
    "registered", "registration_id", "registered_at", "last_registration", "lifetime", "lwm2m_version",
    "binding", "queue_mode", "sleeping", "object_versions", "object_links",
)  # fmt: skip


@dataclass
class Registration:
    """One message about a registration. *word* is one of WORDS, *columns* are those of the endpoint that it names."""

    word: str
    id: str = ""
    at: datetime | None = None
    is_awake: bool = True
    columns: dict[str, Any] = field(default_factory=dict)


def read(content: Any, notes: Notes) -> Registration | None:
    """Return the registration in a decoded status, or None if it is a status of another form. Raise Unreadable.

    A member that cannot be used is left out, with a note.
    """
    if not isinstance(content, dict):
        return None
    words = [word for word in WORDS if word in content]
    if not words:
        return None
    if len(words) > 1:
        raise Unreadable(FailureReason.NOT_A_READING, f"a status holds only one of {', '.join(words)}")
    word = words[0]
    members = content[word]
    for name in content.keys() - {word}:
        notes.append(f"{str(name)[:64]}: stands beside {word}")
    if word == "awake":
        if not isinstance(members, bool):
            raise Unreadable(FailureReason.NOT_A_READING, "awake is neither true nor false")
        return Registration(word, is_awake=members)
    if members is True:
        members = {}
    if not isinstance(members, dict):
        raise Unreadable(FailureReason.NOT_A_READING, f"{word} is neither an object nor true")
    found = Registration(word)
    for name, value in members.items():
        try:
            _take(found, name, value)
        except (ValueError, CodecError, OverflowError, OSError) as error:
            notes.append(f"{str(name)[:64]}: {error}")
    return found


def _take(found: Registration, name: str, value: Any) -> None:
    """Add the member *name* of a registration. Raise ValueError or CodecError."""
    read_member = _MEMBERS.get(name)
    if read_member is None:
        raise ValueError("is not a member of a registration")
    read_member(found, value)


def _id(found: Registration, value: Any) -> None:
    found.id = _text(value, re.compile(r"[\x20-\x7e]{1,128}"), "an id of 1-128 ASCII characters")


def _at(found: Registration, value: Any) -> None:
    if type(value) is not int:
        raise ValueError("is not a number of milliseconds")
    found.at = datetime.fromtimestamp(value / 1000, UTC)


def _lifetime(found: Registration, value: Any) -> None:
    if (
        value is None
    ):  # The server that keeps the registration does not tell its lifetime, and reports its end.
        found.columns["lifetime"] = None
        return
    if type(value) is not int or not 0 < value <= MOST_LIFETIME:
        raise ValueError("is not a number of seconds")
    found.columns["lifetime"] = value


def _version(found: Registration, value: Any) -> None:
    found.columns["lwm2m_version"] = _text(value, VERSION, "a version such as 1.1")


def _binding(found: Registration, value: Any) -> None:
    found.columns["binding"] = binding = _text(value, BINDING, "a binding such as UQ")
    found.columns.setdefault("queue_mode", "Q" in binding)


def _queue_mode(found: Registration, value: Any) -> None:
    if value is not True and value is not False:
        raise ValueError("is neither true nor false")
    found.columns["queue_mode"] = value


def _links(found: Registration, value: Any) -> None:
    links = link_format.parse(_text(value, ANYTHING, "a text"))
    if len(links) > MOST_LINKS:
        raise ValueError(f"has more than {MOST_LINKS} links")
    objects = link_format.objects(links)
    found.columns["object_versions"] = {str(number): version for number, version in objects.versions.items()}
    found.columns["object_links"] = [
        place
        for number, instances in objects.instances.items()
        for place in ([f"/{number}/{instance}" for instance in instances] or [f"/{number}"])
    ]


def _text(value: Any, form: re.Pattern[str], described: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"is not {described}")
    return value


_MEMBERS: Mapping[str, Callable[[Registration, Any], None]] = {
    "id": _id,
    "at": _at,
    "lifetime": _lifetime,
    "version": _version,
    "binding": _binding,
    "queue_mode": _queue_mode,
    "links": _links,
}


def apply(found: Registration, endpoint: Endpoint, received_at: datetime) -> str:
    """Change *endpoint* as *found* says, without saving it; return the detail of the event, `outdated` for no change.

    The time of the registration decides, then its id, and without both the order of receipt. A time ahead of the
    clock here does not count: no later registration could replace it.
    """
    at = clock.plausible(found.at, received_at)
    if found.word == "awake":
        endpoint.sleeping = not found.is_awake
        return "awake" if found.is_awake else "sleeping"
    if _is_outdated(found, at, endpoint):
        return "outdated"
    if found.word == "deregistration":
        endpoint.registered = endpoint.sleeping = False
        if at is not None:
            endpoint.registered_at = at + END
        return "deregistered"
    # A follower of a server lists present registrations again when it starts.
    is_listed = endpoint.registered and found.id != "" and found.id == endpoint.registration_id
    endpoint.registered, endpoint.sleeping = True, False
    endpoint.last_registration = max(endpoint.last_registration or received_at, received_at)
    endpoint.registration_id = found.id or ("" if found.word == "registration" else endpoint.registration_id)
    if found.word == "registration":
        endpoint.registered_at = at or received_at
        new = {"lifetime": DEFAULT_LIFETIME, "lwm2m_version": "", "binding": "", "queue_mode": False}
        columns = {**new, "object_versions": {}, "object_links": [], **found.columns}
    else:
        endpoint.registered_at = at or endpoint.registered_at
        columns = found.columns
    for name, value in columns.items():
        setattr(endpoint, name, value)
    return "registered" if found.word == "registration" and not is_listed else "updated"


def _is_outdated(found: Registration, at: datetime | None, endpoint: Endpoint) -> bool:
    """Return whether *found*, of a registration that began *at* a time, is about one that a later one replaced."""
    if at is not None and endpoint.registered_at is not None and at != endpoint.registered_at:
        return at < endpoint.registered_at
    if found.word == "registration" or not found.id or not endpoint.registration_id:
        return False
    return found.id != endpoint.registration_id
