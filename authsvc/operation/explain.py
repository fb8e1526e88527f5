"""Decisions with their reasons, for operators. They are made as for a broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from authsvc import chain, policy
from authsvc.brokers.base import NAMES
from authsvc.core import authority, passwords
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
from authsvc.errors import AuthsvcError
from authsvc.freshness import reader
from authsvc.operation import checks, wire
from authsvc.operation.checks import Check
from authsvc.operation.reasons import SENTENCES
from authsvc.operation.tried import Tried, TriedRule, try_rules
from authsvc.operation.wire import CONNECT, Asked, WireAnswer

T = TypeVar("T")
DECIDED_BY_RULES = frozenset({Reason.GRANT, Reason.DENY_GRANT, Reason.NO_GRANT})
WITHOUT_PASSWORD = "With the right password it may connect."  # noqa: S105 - A sentence.


@dataclass(frozen=True)
class Explanation:
    """A decision for people and programs.

    *nearest* is the most similar rule if none allowed it. *client_ids* are those that it may connect as; an entry with
    `*` at its end is a beginning of more; None is any. *checks* are the steps of the decision in their order, *rules*
    those that apply to the identity, and *closest* is the rule that decided, or else the most similar allow.
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
    checks: tuple[Check, ...] = ()
    rules: tuple[TriedRule, ...] = ()
    rules_left_out: int = 0
    closest: TriedRule | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


class NotOneIdentity(AuthsvcError):
    """A name is not that of one identity with a username: it has none, or there are several."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of *work*, which runs in an event loop and with connections of its own."""

    async def finished() -> T:
        try:
            return await work
        finally:
            await reader.close()

    return asyncio.run(finished())


async def identities(name: str) -> dict[str, str]:
    """Return the usernames, by key, of all identities that *name* may mean: a username, a key or a client id."""
    return await chain.configured().identities(name)


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


async def current_rules() -> Rules:
    """Return the rules in the database, past all caches."""
    return (await policy.read_now()).rules


async def explain_login(
    username: str, client_id: str | None = None, password: str | None = None, *, rules: Rules | None = None
) -> Explanation:
    """Decide whether *username* may connect, with the reason. Without *password* the right one is assumed.

    Without *client_id* its binding is not checked. Raise errors of the database.
    """
    rules = rules or await current_rules()
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
        checks=checks.of_login(decision.reason, principal, client_id),
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


async def wire_answers(found: Explanation, dialects: tuple[str, ...] = tuple(NAMES)) -> list[WireAnswer]:
    """Return the answers to the brokers *dialects* to the question of *found*, with the right password.

    Brokers always send a client id. Without one in *found* it is the first that the identity may have.
    """
    own = (name for name in found.client_ids or () if not name.endswith("*"))
    client_id = found.client_id or next(own, found.username)
    verify = await _right_password(found.username, chain.configured())
    return await wire.answers(Asked(found.username, client_id, found.action, found.topic), verify, dialects)


def _allowed_client_ids(principal: Principal | None) -> tuple[str, ...] | None:
    if principal is None:
        return ()
    if principal.client_ids is None:
        return None
    return (*dict.fromkeys(principal.client_ids), *(f"{prefix}*" for prefix in principal.client_id_prefixes))


async def explain(
    username: str, action: Action, topic: str, client_id: str | None = None, *, rules: Rules | None = None
) -> Explanation:
    """Return the decision on *topic*. Without *client_id* its binding is not checked. Raise errors of the database.

    *rules* are those of `current_rules()`, for several explanations at once.
    """
    rules = rules or await current_rules()
    client = Client(username, client_id)
    question = TopicQuestion(client, action, [topic])
    verdict = await authority.decide(question, rules, chain.configured())
    decision, principal = verdict.decisions[0], verdict.principal
    tried = Tried()
    if principal is not None and decision.reason in DECIDED_BY_RULES:
        now, groups = time.time(), verdict.groups or frozenset()
        tried = try_rules(principal, client, rules, action, topic, decision, groups, now)
    is_near = decision.reason is Reason.NO_GRANT and tried.closest is not None
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
        nearest=tried.closest.summary if is_near and tried.closest else "",
        client_ids=_allowed_client_ids(principal),
        checks=checks.of_topic(decision.reason, principal, client_id, tried),
        rules=tried.rules,
        rules_left_out=tried.left_out,
        closest=tried.closest,
    )
