"""The decision on a question: identity, password, permission. Pure; it reads from the directory alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

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
from authsvc.core.grants import Rule

# A principal has at most this many secrets: the current password and the previous one.
SECRETS = 2


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for all questions: operator grants by subject, and whether client ids are bound.

    Subjects are `everyone`, `type:<type>` and `key:<key>`.
    """

    grants: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    bind_client_ids: bool = True

    def of(self, principal: Principal) -> Iterator[Rule]:
        """Yield the grants that apply to *principal*, its own first, with placeholders not yet filled."""
        yield from principal.grants
        if self.grants:
            yield from self.grants.get("everyone", ())
            if kind := principal.attributes.get("type"):
                yield from self.grants.get(f"type:{kind}", ())
            yield from self.grants.get(f"key:{principal.key}", ())


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
        bound = rules.bind_client_ids and principal is not None and principal.client_ids is not None
        return await _only_claimant(verdict, directory) if verdict.allowed and bound else verdict
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
        return Verdict(_topics(question, principal, rules), principal, question)
    if isinstance(question, SuperuserQuestion):
        decision = Decision(
            principal.superuser, Reason.SUPERUSER if principal.superuser else Reason.NOT_SUPERUSER
        )
        return Verdict((decision,), principal, question)
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
    held = None
    if question.wants_rules and not principal.superuser:
        held = filled(principal, question.client, rules)
    return Verdict((Decision(True, Reason.CREDENTIALS),), principal, question, held, found)


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


def _topics(question: TopicQuestion, principal: Principal, rules: Rules) -> tuple[Decision, ...]:
    held = () if principal.superuser else filled(principal, question.client, rules)
    return tuple(_topic(principal, held, question.action, topic) for topic in question.topics)


def filled(principal: Principal, client: Client, rules: Rules) -> tuple[Rule, ...]:
    """Return the grants of *principal* with placeholders filled; grants that cannot be filled are left out."""
    values: dict[str, str] | None = None
    filled: list[Rule] = []
    for grant in rules.of(principal):
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


def _resource(question: ResourceQuestion, principal: Principal) -> Decision:
    if question.shared:
        return Decision(True, Reason.SHARED_RESOURCE, question.resource)
    if principal.superuser:
        return Decision(True, Reason.SUPERUSER, question.resource)
    return Decision(False, Reason.FOREIGN_RESOURCE, question.resource)
