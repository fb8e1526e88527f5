"""The decision on a question: identity, password, permission. Pure; it reads from the directory alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from authsvc.core import grants, passwords, topics
from authsvc.core.access import (
    Action,
    AmbiguousIdentity,
    Client,
    Clock,
    Decision,
    Directory,
    LoginQuestion,
    Principal,
    Question,
    Reason,
    ResourceQuestion,
    Secret,
    SuperuserQuestion,
    TopicQuestion,
    Undecided,
    Verdict,
    Verify,
    deny,
    is_username,
)
from authsvc.core.grants import Period, Rule

# A principal has at most this many secrets: the current password and the previous one.
SECRETS = 2


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for all questions: operator grants by subject, and whether client ids are bound.

    Subjects are `everyone`, `type:<type>`, `group:<group>` and `key:<key>`. *periods* are the grants that are not
    always in force. *has_groups*: a grant has a group as its subject, so the groups of principals must be read.
    *is_plain*: neither groups nor the clock matter.
    """

    grants: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    bind_client_ids: bool = True
    periods: Mapping[str, tuple[Period, ...]] = field(default_factory=dict)
    has_groups: bool = field(init=False, repr=False, compare=False)
    is_plain: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        has_groups = any(subject.startswith("group:") for subject in (*self.grants, *self.periods))
        object.__setattr__(self, "has_groups", has_groups)
        object.__setattr__(self, "is_plain", not has_groups and not self.periods)

    def of(self, principal: Principal, groups: Collection[str] = (), now: float = 0.0) -> Iterator[Rule]:
        """Yield the grants that apply to *principal* at *now*, its own first, with placeholders not yet filled."""
        yield from principal.grants
        if self.grants:
            for subject in _subjects(principal, groups):
                yield from self.grants.get(subject, ())
        if self.periods:
            for subject in _subjects(principal, groups):
                yield from (period.rule for period in self.periods.get(subject, ()) if period.holds(now))

    def every(self, principal: Principal, groups: Collection[str]) -> Iterator[tuple[str, Period]]:
        """Yield the grants of *principal* with their subjects, in force or not, for an explanation."""
        for subject in _subjects(principal, groups):
            yield from ((subject, Period(rule)) for rule in self.grants.get(subject, ()))
            yield from ((subject, period) for period in self.periods.get(subject, ()))

    def turn(self, principal: Principal, groups: Collection[str], now: float) -> float | None:
        """Return the next time after *now* at which a grant of *principal* begins or ends; None if none does."""
        periods = (period for s in _subjects(principal, groups) for period in self.periods.get(s, ()))
        return min((turn for period in periods if (turn := period.turn(now)) is not None), default=None)


def _subjects(principal: Principal, groups: Collection[str]) -> list[str]:
    """Return the subjects of grants that apply to *principal*."""
    found = ["everyone", f"key:{principal.key}"]
    if kind := principal.attributes.get("type"):
        found.insert(1, f"type:{kind}")
    if groups:
        found[-1:-1] = [f"group:{group}" for group in sorted(groups)]
    return found


class Held(NamedTuple):
    """The rules of a principal at one time, as they stand in a verdict; see Verdict for *groups* and *until*."""

    rules: tuple[Rule, ...] = ()
    groups: frozenset[str] | None = None
    until: float | None = None


async def verify_here(password: str, stored: str) -> bool:
    """Verify without a thread, for tests and tools. A server computes slow hashes outside its event loop."""
    return passwords.verify(password, stored)


async def decide(
    question: Question,
    rules: Rules,
    directory: Directory,
    clock: Clock = time.time,
    verify: Verify = verify_here,
) -> Verdict:
    """Return the verdict on *question*. Exceptions of *directory* pass through as faults, except AmbiguousIdentity."""
    client = question.client
    principal, refusal = await _identify(client.username, directory)
    if isinstance(question, LoginQuestion):
        verdict = await _login(question, principal, refusal, rules, clock(), verify)
        return await _completed(verdict, rules, directory, clock) if verdict.allowed else verdict
    if principal is None:
        return deny(refusal, None, question)
    if not principal.active:
        return deny(Reason.DISABLED, principal, question)
    if principal.revoked:
        return deny(Reason.REVOKED, principal, question)
    if client.version is not None and client.version != principal.version:
        return deny(Reason.REVOKED_TOKEN, principal, question)
    if not _may_use_client_id(principal, client, rules):
        return deny(Reason.CLIENT_ID, principal, question)
    if isinstance(question, TopicQuestion):
        groups = until = None
        if principal.superuser:
            own: tuple[Rule, ...] = ()
        elif rules.is_plain:
            own = filled(principal, client, rules)
        else:
            own, groups, until = await _held(principal, client, rules, directory, clock)
        decisions = tuple(_topic(principal, own, question.action, topic) for topic in question.topics)
        return Verdict(decisions, principal, question, None, None, groups, until)
    if isinstance(question, SuperuserQuestion):
        return Verdict((_superuser(principal),), principal, question)
    return Verdict((_resource(question, principal),), principal, question)


async def _identify(username: str, directory: Directory) -> tuple[Principal | None, Reason]:
    """Return the principal and the reason for a deny if it is None."""
    if not is_username(username):
        return None, Reason.INVALID_USERNAME
    try:
        return await directory.lookup(username), Reason.UNKNOWN_USERNAME
    except AmbiguousIdentity:
        return None, Reason.AMBIGUOUS_IDENTITY


def _may_use_client_id(principal: Principal, client: Client, rules: Rules) -> bool:
    if client.client_id is None or not rules.bind_client_ids:
        return True
    return principal.may_connect_as(client.client_id)


async def _completed(verdict: Verdict, rules: Rules, directory: Directory, clock: Clock) -> Verdict:
    """Return *verdict*, which allows a login, with the rules if the broker wants them; or a deny for its client id."""
    principal, question = verdict.principal, verdict.question
    if principal is None or not isinstance(question, LoginQuestion):
        return verdict
    if question.wants_rules and not principal.superuser:
        held = await _held(principal, question.client, rules, directory, clock)
        verdict = verdict._replace(rules=held.rules, groups=held.groups, until=held.until)
    is_bound = rules.bind_client_ids and principal.client_ids is not None
    return await _only_claimant(verdict, directory) if is_bound else verdict


async def _only_claimant(verdict: Verdict, directory: Directory) -> Verdict:
    """Return *verdict* on a login, or a deny if another principal claims the client id, whose session it would take.

    Models and forms already refuse such client ids. This check is for rows written past them or at the same time.
    """
    principal, question = verdict.principal, verdict.question
    if principal is None or question is None or question.client.client_id is None:
        return verdict
    claimants = await directory.claimants(question.client.client_id)
    if claimants <= {principal.key} or not _rivals(principal, question.client.client_id, claimants):
        return verdict
    return deny(Reason.AMBIGUOUS_CLIENT_ID, principal, question)


def _rivals(principal: Principal, client_id: str, claimants: set[str]) -> set[str]:
    """Return the claimants because of which *principal* may not connect as *client_id*.

    Accounts keep their client ids: a device with the same one is refused, never the account. Accounts may share
    a client id that an operator listed for both, but not the username of one of them.
    """
    rivals = claimants - {principal.key}
    if principal.keeps_client_ids and principal.key in claimants:
        rivals &= {f"{principal.key.partition('/')[0]}/{client_id}"}
    return rivals


async def _login(
    question: LoginQuestion,
    principal: Principal | None,
    refusal: Reason,
    rules: Rules,
    now: float,
    verify: Verify,
) -> Verdict:
    if passwords.too_long(question.password):
        return deny(Reason.PASSWORD_TOO_LONG, principal, question)
    if principal is None:
        # One more if no row was found: a row takes about that time to be read and compared.
        least = SECRETS if refusal is Reason.AMBIGUOUS_IDENTITY else SECRETS + 1
        await _check_password(question.password, (), now, verify, least)
        return deny(refusal, None, question)
    found = await _check_password(
        question.password, principal.secrets if principal.active else (), now, verify
    )
    if not principal.active:
        return deny(Reason.DISABLED, principal, question)
    if isinstance(found, Reason):
        return deny(found, principal, question)
    if not _may_use_client_id(principal, question.client, rules):
        return deny(Reason.CLIENT_ID, principal, question)
    return Verdict((Decision(True, Reason.CREDENTIALS),), principal, question, None, found)


async def _check_password(
    password: str, secrets: tuple[Secret, ...], now: float, verify: Verify, least: int = SECRETS
) -> Secret | Reason:
    """Return the secret that *password* matches, or the reason for a deny, after at least *least* verifications.

    A disabled identity, one without a hash, and a wrong password so take as long as an identity in a rotation, which
    has two secrets. With generated passwords the time does not show whether a username exists. A slow hash, which a
    person's password needs, still shows. Exceptions of *verify* pass through, unless another secret matches.
    """
    refusal = Reason.NO_PASSWORD
    undecided: Undecided | None = None
    for secret in secrets:
        try:
            right = await verify(password, secret.hash)
        except passwords.UnusableHash:
            refusal = Reason.UNUSABLE_HASH
            continue
        except Undecided as error:
            undecided = error
            continue
        if right and (secret.valid_until is None or now < secret.valid_until):
            return secret
        least -= 1
        refusal = Reason.EXPIRED_PASSWORD if right else Reason.WRONG_PASSWORD
        if right:
            break
    if undecided is not None:
        raise undecided
    for _ in range(least):
        await verify(password, passwords.DUMMY_HASH)
    return refusal


async def _held(
    principal: Principal, client: Client, rules: Rules, directory: Directory, clock: Clock
) -> Held:
    """Return the rules of *principal* now. Groups and clock are read only if a grant depends on them."""
    groups = await groups_of(principal, directory) if rules.has_groups else None
    if not rules.periods:
        return Held(filled(principal, client, rules, groups or ()), groups)
    now = clock()
    return Held(
        filled(principal, client, rules, groups or (), now), groups, rules.turn(principal, groups or (), now)
    )


async def groups_of(principal: Principal, directory: Directory) -> frozenset[str]:
    """Return the groups of *principal*; none if *directory* has no groups."""
    find = getattr(directory, "groups", None)
    return frozenset() if find is None else await find(principal.key)


def filled(
    principal: Principal, client: Client, rules: Rules, groups: Collection[str] = (), now: float = 0.0
) -> tuple[Rule, ...]:
    """Return the grants of *principal* at *now* with placeholders filled, without those that cannot be filled."""
    values: dict[str, str] | None = None
    filled: list[Rule] = []
    for grant in rules.of(principal, groups, now):
        if "{" not in grant.filter:
            filled.append(grant)
            continue
        if values is None:
            values = {
                **principal.attributes,
                "username": principal.username,
                "client_id": client.client_id or "",
            }
        concrete = grants.fill(grant.filter, values)
        if concrete is not None:
            filled.append(grant._replace(filter=concrete))
    return tuple(filled)


def _topic(principal: Principal, held: tuple[Rule, ...], action: Action, topic: str) -> Decision:
    if type(action) is not Action:
        return Decision(False, Reason.MALFORMED, topic)  # Dialects should not let other values through.
    wanted: str | None = topic
    if action is Action.SUBSCRIBE:
        wanted = topics.inner_filter(topic)
    elif not topics.is_topic(topic):
        wanted = None
        if action is Action.PUBLISH and topics.is_filter(topic):
            return Decision(False, Reason.WILDCARD_PUBLISH, topic)
    if wanted is None:
        return Decision(False, Reason.MALFORMED_TOPIC, topic)
    if topics.is_control(wanted):
        return Decision(False, Reason.RESERVED_TOPIC, topic)
    if principal.superuser:
        return Decision(True, Reason.SUPERUSER, topic)
    grant = grants.decide(held, action, wanted)
    if grant is None:
        return Decision(False, Reason.NO_GRANT, topic)
    return Decision(grant.allow, Reason.GRANT if grant.allow else Reason.DENY_GRANT, topic, grant.name)


def _superuser(principal: Principal) -> Decision:
    reason = Reason.SUPERUSER if principal.superuser else Reason.NOT_SUPERUSER
    return Decision(principal.superuser, reason)


def _resource(question: ResourceQuestion, principal: Principal) -> Decision:
    if question.shared:
        return Decision(True, Reason.SHARED_RESOURCE, question.resource)
    if principal.superuser:
        return Decision(True, Reason.SUPERUSER, question.resource)
    return Decision(False, Reason.FOREIGN_RESOURCE, question.resource)
