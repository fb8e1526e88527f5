"""Decisions with their reasons, for operators. They are made as for a broker."""

from __future__ import annotations

import time
from collections.abc import Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from authsvc import chain, policy
from authsvc.core import authority, passwords, topics
from authsvc.core.access import (
    Action,
    AmbiguousIdentity,
    Client,
    LoginQuestion,
    Principal,
    Reason,
    TopicQuestion,
    Verify,
    is_username,
)
from authsvc.core.authority import Rules
from authsvc.core.grants import Rule
from authsvc.errors import AuthsvcError
from authsvc.operation.reasons import SENTENCES

CONNECT = "connect"
WITHOUT_PASSWORD = "With the right password it may connect."  # noqa: S105 - A sentence.


@dataclass(frozen=True)
class Explanation:
    """A decision for people and programs.

    *nearest* is the most similar rule if none allowed it. *client_ids* are those that it may connect as; an entry with
    `*` at its end is a beginning of more; None is any.
    """

    username: str
    action: str
    topic: str
    client_id: str | None
    allowed: bool
    reason: str
    sentence: str
    rule: str
    principal: str
    nearest: str
    client_ids: tuple[str, ...] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


class NotOneIdentity(AuthsvcError):
    """A name is not that of one identity with a username: it has none, or there are several."""


async def username_of(name: str) -> str:
    """Return the username of *name*, which may be a username, a key (`weatherstation/STATION-001`) or a client id.

    An unknown name is returned as it is. Raise NotOneIdentity for an identity without a username, or for several.
    """
    directories = chain.configured()
    try:
        if is_username(name) and await directories.lookup(name) is not None:
            return name
    except AmbiguousIdentity:
        return name
    found = await directories.identities(name)
    if not found:
        return name
    if len(found) > 1:
        raise NotOneIdentity(f"{name} names {', '.join(sorted(found))}: write one of these")
    [(key, username)] = found.items()
    if not username:
        raise NotOneIdentity(f"{key} has no username and no password: rotate its credentials first")
    return username


async def explain_login(
    username: str, client_id: str | None = None, password: str | None = None
) -> Explanation:
    """Decide whether *username* may connect, with the reason. Without *password* the right one is assumed.

    Without *client_id* its binding is not checked. Raise errors of the database.
    """
    rules = (await policy.current()).rules
    directories = chain.configured()
    verify = authority.verify_here if password is not None else await _right_password(username, directories)
    question = LoginQuestion(Client(username, client_id), password or "")
    verdict = await authority.decide(question, rules, directories, verify=verify)
    decision, principal = verdict.decisions[0], verdict.principal
    assumed = decision.allowed and password is None
    return Explanation(
        username=username,
        action=CONNECT,
        topic="",
        client_id=client_id,
        allowed=decision.allowed,
        reason=decision.reason.value,
        sentence=WITHOUT_PASSWORD if assumed else SENTENCES[decision.reason],
        rule="",
        principal=principal.key if principal else "",
        nearest="",
        client_ids=_allowed_client_ids(principal),
    )


async def _right_password(username: str, directories: chain.Chain) -> Verify:
    """Return a verification that accepts each valid hash of *username*, in place of the right password.

    If none is valid it accepts all hashes: the reason is then that the password has expired.
    """
    now = time.time()
    principal = None
    with suppress(AmbiguousIdentity):
        principal = await directories.lookup(username) if is_username(username) else None
    secrets = principal.secrets if principal else ()
    valid: Set[str] = {s.hash for s in secrets if s.valid_until is None or now < s.valid_until}

    async def verify(_: str, stored: str) -> bool:
        passwords.scheme_of(stored)
        return not valid or stored in valid

    return verify


def _allowed_client_ids(principal: Principal | None) -> tuple[str, ...] | None:
    if principal is None:
        return ()
    if principal.client_ids is None:
        return None
    return (*dict.fromkeys(principal.client_ids), *(f"{prefix}*" for prefix in principal.client_id_prefixes))


async def explain(username: str, action: Action, topic: str, client_id: str | None = None) -> Explanation:
    """Return the decision on *topic*. Without *client_id* its binding is not checked. Raise errors of the database."""
    rules = (await policy.current()).rules
    client = Client(username, client_id)
    question = TopicQuestion(client, action, [topic])
    verdict = await authority.decide(question, rules, chain.configured())
    decision, principal = verdict.decisions[0], verdict.principal
    nearest = ""
    if principal is not None and decision.reason is Reason.NO_GRANT:
        nearest = _nearest(principal, client, rules, action, topic)
    return Explanation(
        username=username,
        action=action.value,
        topic=topic,
        client_id=client_id,
        allowed=decision.allowed,
        reason=decision.reason.value,
        sentence=SENTENCES[decision.reason],
        rule=decision.rule,
        principal=principal.key if principal else "",
        nearest=nearest,
        client_ids=_allowed_client_ids(principal),
    )


def _nearest(principal: Principal, client: Client, rules: Rules, action: Action, topic: str) -> str:
    """Return the allow rule that is most similar to the request, first by filter, then by action."""
    wanted = topics.inner_filter(topic) or topic
    candidates = [grant for grant in authority.filled(principal, client, rules) if grant.allow]
    if not candidates:
        return ""
    best = max(candidates, key=lambda grant: _closeness(grant, action, wanted))
    return f"{best.name}: {best.actions.sentence} {best.filter}"


def _closeness(grant: Rule, action: Action, wanted: str) -> tuple[int, int, int]:
    levels, requested = grant.filter.split("/"), wanted.split("/")
    same = sum(one in ("+", other) for one, other in zip(levels, requested, strict=False))
    covered = topics.covers(grant.filter, wanted) or topics.overlaps(grant.filter, wanted)
    return (int(covered), same - abs(len(levels) - len(requested)), int(grant.applies_to(action)))
