"""The steps of a decision in their order, told from its reason: those before it passed, those behind it did not run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from authsvc.core.access import Principal, Reason
from authsvc.operation.reasons import SENTENCES
from authsvc.operation.tried import Tried


class Passage(StrEnum):
    """The result of one step."""

    PASSES = "passes"
    ALLOWS = "allows"
    REFUSES = "refuses"
    NOT_REACHED = "not_reached"


@dataclass(frozen=True)
class Check:
    """One step of a decision."""

    name: str
    sentence: str
    passage: Passage


class _Step(NamedTuple):
    """A step, the sentence after it has passed, and the reasons of decisions that end with it."""

    name: str
    passed: str
    ends: frozenset[Reason]


def of_login(reason: Reason, principal: Principal | None, client_id: str | None) -> tuple[Check, ...]:
    """Return the steps of the decision about a login that ended for *reason*."""
    steps = [
        _identity(principal),
        _Step("Enabled", "It is enabled.", frozenset({Reason.DISABLED})),
        _Step(
            "Password",
            "It has one that is valid.",
            frozenset(
                {
                    Reason.PASSWORD_TOO_LONG,
                    Reason.NO_PASSWORD,
                    Reason.WRONG_PASSWORD,
                    Reason.EXPIRED_PASSWORD,
                    Reason.UNUSABLE_HASH,
                }
            ),
        ),
        _client_id(client_id),
        _Step(
            "Owner of the client id",
            "No other identity has this client id." if client_id is not None else "No client id was given.",
            frozenset({Reason.AMBIGUOUS_CLIENT_ID, Reason.CREDENTIALS}),
        ),
    ]
    return _told(steps, reason)


def of_topic(
    reason: Reason, principal: Principal | None, client_id: str | None, tried: Tried
) -> tuple[Check, ...]:
    """Return the steps of the decision about a topic that ended for *reason*."""
    denies = sum(not rule.allow for rule in tried.rules)
    steps = [
        _identity(principal),
        _Step(
            "Credentials",
            "It is enabled and not revoked.",
            frozenset({Reason.DISABLED, Reason.REVOKED, Reason.REVOKED_TOKEN}),
        ),
        _client_id(client_id),
        _Step(
            "Topic",
            "MQTT allows it for this action.",
            frozenset({Reason.MALFORMED, Reason.MALFORMED_TOPIC, Reason.WILDCARD_PUBLISH}),
        ),
        _Step("Reserved", "It does not control the broker.", frozenset({Reason.RESERVED_TOPIC})),
        _Step("Superuser", "It is not a superuser, so rules decide.", frozenset({Reason.SUPERUSER})),
        _Step(
            "Deny rules",
            f"{denies} tried, none overlaps it." if denies else "There are none.",
            frozenset({Reason.DENY_GRANT}),
        ),
        _Step("Allow rules", "", frozenset({Reason.GRANT, Reason.NO_GRANT})),
    ]
    return _told(steps, reason)


def _identity(principal: Principal | None) -> _Step:
    return _Step(
        "Identity",
        f"The username is that of {principal.key}." if principal else "",
        frozenset({Reason.INVALID_USERNAME, Reason.UNKNOWN_USERNAME, Reason.AMBIGUOUS_IDENTITY}),
    )


def _client_id(client_id: str | None) -> _Step:
    passed = (
        "It may use this client id." if client_id is not None else "None was given, so it is not checked."
    )
    return _Step("Client id", passed, frozenset({Reason.CLIENT_ID}))


ALLOWS = frozenset({Reason.CREDENTIALS, Reason.GRANT, Reason.SUPERUSER})


def _told(steps: Sequence[_Step], reason: Reason) -> tuple[Check, ...]:
    ends = (number for number, step in enumerate(steps) if reason in step.ends)
    end = next(ends, len(steps) - 1)
    found = [Check(step.name, step.passed, Passage.PASSES) for step in steps[:end]]
    found.append(_last(steps[end], reason))
    found += [Check(step.name, "Not reached.", Passage.NOT_REACHED) for step in steps[end + 1 :]]
    return tuple(found)


def _last(step: _Step, reason: Reason) -> Check:
    if reason is Reason.CREDENTIALS:
        return Check(step.name, step.passed, Passage.PASSES)
    return Check(step.name, SENTENCES[reason], Passage.ALLOWS if reason in ALLOWS else Passage.REFUSES)
