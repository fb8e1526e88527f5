"""Grants that would allow what was denied: for the device alone or for its type, with what each of them opens."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from authsvc import audit, granting
from authsvc.core import grants
from authsvc.core import topics as mqtt
from authsvc.core.access import ACCOUNT, Action, Reason
from authsvc.models import Denial, Grant
from devicehub import visibility
from devicehub.denials.explained import owner_of
from devicehub.errors import DevicehubError
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind, UnknownKey, registry

THIS, TYPE = "this", "type"
STORED = 256  # Characters of a topic that a denial keeps.
LISTED = 12  # Opened topics that are listed.
EXAMPLES = 5


class NotAllowed(DevicehubError):
    """A denial that no grant can or should allow from its page."""


@dataclass(frozen=True)
class Opened:
    """Topics that a filter opens: one topic, or the same one of *devices* devices."""

    topic: str
    devices: int


@dataclass(frozen=True)
class Choice:
    """A grant that would allow it: *others* is the number of other devices that would get it too."""

    name: str
    subject: str
    label: str
    filter: str
    others: int
    opens: tuple[Opened, ...]
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """The grants to choose from, the actions that are needed, and a warning."""

    choices: tuple[Choice, ...]
    actions: tuple[str, ...]
    warning: str = ""

    def choice(self, name: str) -> Choice | None:
        """Return the choice *name*, or None."""
        return next((choice for choice in self.choices if choice.name == name), None)


def may_allow(user: Any) -> bool:
    """Return whether *user* may be offered a grant: it reaches further than the sites of a limited user."""
    return visibility.may(user, visibility.ADD, Grant) and not visibility.is_limited(user)


def problem(denial: Denial) -> str:
    """Return a sentence that says why no grant is offered for *denial*; empty if one is."""
    if denial.reason != Reason.NO_GRANT or denial.action not in set(Action) or not denial.principal:
        return "A grant would not change this."
    if len(denial.topic) >= STORED:
        return "The topic is too long: only its beginning is kept."
    # The client chose this text: in a grant its braces would be filled for every device.
    if "{" in denial.topic or "}" in denial.topic:
        return "The topic has braces, which a grant would read as a placeholder."
    return grants.problem(_filter(denial))


def propose(denial: Denial) -> Proposal:
    """Return the grants that would allow *denial*. Raise NotAllowed."""
    if sentence := problem(denial):
        raise NotAllowed(sentence)
    wanted = _filter(denial)
    receives = denial.action == Action.SUBSCRIBE
    actions = (denial.action, Action.RECEIVE.value) if receives else (denial.action,)
    return Proposal(tuple(_choices(denial, wanted)), actions, _warning(denial, wanted))


def allow(denial: Denial, choice: str, actions: Collection[str], note: str = "") -> Grant:
    """Create the grant *choice* of the proposal for *denial*. Raise NotAllowed, ValidationError."""
    chosen = propose(denial).choice(choice)
    if chosen is None:
        raise NotAllowed("Choose for whom it is allowed.")
    with audit.because(note):
        return granting.create_grant(chosen.subject, actions, chosen.filter, note=note[:255])


def _filter(denial: Denial) -> str:
    """Return the filter to grant: of a shared subscription the one inside."""
    if denial.action == Action.SUBSCRIBE:
        return mqtt.inner_filter(denial.topic) or denial.topic
    return denial.topic


def _choices(denial: Denial, wanted: str) -> Iterator[Choice]:
    yield Choice(
        THIS, f"key:{denial.principal}", _own_label(denial.principal), wanted, 0, tuple(opened(wanted))
    )
    found = _device(denial.principal)
    if found is None:
        return
    kind, device_id = found
    others = max(0, kind.device_model.objects.exclude(device_id=device_id).count())
    levels = wanted.split("/")
    is_own = device_id in levels
    text = "/".join("{device_id}" if level == device_id else level for level in levels)
    yield Choice(
        TYPE,
        f"type:{kind.slug}",
        f"Every {kind.name}",
        text,
        others,
        () if is_own else tuple(opened(wanted)),
        tuple(_examples(kind, device_id, text)) if is_own else (),
    )


def _own_label(principal: str) -> str:
    slug, _, name = principal.partition("/")
    return f"The account {name}" if slug == ACCOUNT else f"{name} only"


def _device(key: str) -> tuple[Kind, str] | None:
    try:
        return registry.resolve(key)
    except UnknownKey:
        return None


def _examples(kind: Kind, device_id: str, text: str) -> Iterator[str]:
    """Yield the topic of this device and of a few others."""
    rows = kind.device_model.objects.exclude(device_id=device_id).order_by("device_id")
    for one in (device_id, *rows.values_list("device_id", flat=True)[: EXAMPLES - 1]):
        yield text.replace("{device_id}", one)


def opened(wanted: str) -> Iterator[Opened]:
    """Yield the topics that the filter *wanted* opens: itself without a wildcard, or those of devices that it meets."""
    if not mqtt.has_wildcard(wanted):
        yield Opened(wanted, 0)
        return
    listed = 0
    for kind in registry:
        total = kind.device_model.objects.count()
        for message_type in topics.MessageType:
            pattern = topics.build(kind, "+", message_type)
            if total and mqtt.overlaps(wanted, pattern) and listed < LISTED:
                listed += 1
                yield _met(kind, message_type, wanted, total)


def _met(kind: Kind, message_type: str, wanted: str, total: int) -> Opened:
    """Return the topics of one type of message that the filter *wanted* meets."""
    levels = wanted.split("/")
    at = topics.build(kind, "+", message_type).split("/").index("+")
    level = levels[at] if at < len(levels) else "#"
    named = "#" not in levels[: at + 1] and level != "+"
    return Opened(topics.build(kind, level if named else "+", message_type), 1 if named else total)


def _warning(denial: Denial, wanted: str) -> str:
    if owner := owner_of(wanted, denial.principal):
        other, own = owner.partition("/")[2], denial.principal.partition("/")[2]
        does = "publish as" if denial.action == Action.PUBLISH else "read the messages of"
        return f"This topic belongs to {other}: {own} could then {does} {other}."
    return ""
