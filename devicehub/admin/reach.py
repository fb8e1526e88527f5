"""The devices that a grant reaches, and the topics that its filter opens for them, before it is saved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from authsvc.core import grants, topics
from authsvc.core.access import ACCOUNT
from authsvc.models import Account
from devicehub.conf import settings
from devicehub.denials.allowing import Opened, opened
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.models import GroupMember

EXAMPLES = 3  # Devices whose topics are listed.
LISTED = 20  # Topics of a filter without placeholders.


@dataclass(frozen=True)
class Example:
    """The filter as one device or account gets it; None if a placeholder has no value for it."""

    key: str
    filter: str | None


@dataclass(frozen=True)
class Reach:
    """The numbers of devices and accounts of a subject, examples of them, and the topics that the filter opens."""

    devices: int
    accounts: int
    examples: tuple[Example, ...]
    opens: tuple[Opened, ...]


def of(subject: str, text: str) -> Reach:
    """Return the reach of a grant of *subject* for the filter *text*; both are valid."""
    found = [Example(key, grants.fill(text, values)) for key, values in islice(_members(subject), EXAMPLES)]
    concrete = next((example.filter for example in found if example.filter), "")
    opens = tuple(islice(opened(concrete), LISTED)) if topics.has_wildcard(concrete) else ()
    return Reach(*_count(subject), tuple(found), opens)


def _count(subject: str) -> tuple[int, int]:
    """Return the numbers of devices and accounts of *subject*."""
    form, _, name = subject.partition(":")
    if form == "everyone":
        return sum(kind.device_model.objects.count() for kind in registry), Account.objects.count()
    if form == "type":
        kind = registry.get(name)
        return (kind.device_model.objects.count() if kind else 0), 0
    if form == "group":
        return GroupMember.objects.filter(group__slug=name).count(), 0
    return (0, 1) if name.startswith(f"{ACCOUNT}/") else (1, 0)


def _members(subject: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield identities of *subject*: the key of each, and the values of its placeholders."""
    form, _, name = subject.partition(":")
    if name.startswith(f"{ACCOUNT}/"):
        username = name.partition("/")[2]
        yield name, {"username": username, "client_id": username}
    elif form == "group":
        keys = GroupMember.objects.filter(group__slug=name).order_by("device_key")
        for key in keys.values_list("device_key", flat=True)[:EXAMPLES]:
            yield from _of_key(key)
    elif form == "key":
        yield from _of_key(name)
    else:
        for kind in registry if form == "everyone" else filter(None, [registry.get(name)]):
            rows = kind.device_model.objects.order_by("device_id")
            for device in rows.only("device_id", "mqtt_username")[:EXAMPLES]:
                yield kind.key(device.device_id), values(kind, device)


def _of_key(key: str) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        kind, device_id = registry.resolve(key)
    except UnknownKey:
        return
    device = kind.device_model.objects.filter(device_id=device_id).only("device_id", "mqtt_username").first()
    if device is not None:
        yield key, values(kind, device)


def values(kind: Kind, device: Any) -> dict[str, str]:
    """Return the values of the placeholders of a grant for *device*."""
    username = device.mqtt_username or ""
    return {
        "type": kind.slug,
        "device_id": device.device_id,
        "prefix": settings.topic_prefix,
        "username": username,
        "client_id": username,
    }
