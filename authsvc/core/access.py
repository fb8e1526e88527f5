"""The types of an authorization question and of its answer. Pure: no Django, no I/O, no setting."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from authsvc.core.grants import Rule
from authsvc.errors import AuthsvcError

# The first level of the keys of service accounts. No kind of device may have this name: grants name principals by key.
ACCOUNT = "account"
# Texts that brokers send in place of a missing username, and RabbitMQ's own user guest.
RESERVED_USERNAMES = frozenset({"undefined", "null", "None", "guest"})
_USERNAME = re.compile(r"[A-Za-z0-9_.@:=-]{1,128}")


class Action(StrEnum):
    """An action of a client on a topic (MQTT 5.0 words; *receive* is one delivery to the client)."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


class Reason(StrEnum):
    """The reason of a decision. Shown by `explain` and in the denials, never on the wire."""

    # Allowed.
    CREDENTIALS = "credentials"
    GRANT = "grant"
    SUPERUSER = "superuser"
    SHARED_RESOURCE = "shared_resource"
    # Refused before any look-up.
    UNKNOWN_CALLER = "unknown_caller"
    MALFORMED = "malformed"
    INVALID_USERNAME = "invalid_username"
    # The identity.
    UNKNOWN_USERNAME = "unknown_username"
    AMBIGUOUS_IDENTITY = "ambiguous_identity"
    DISABLED = "disabled"
    REVOKED = "revoked"
    CLIENT_ID = "client_id"
    AMBIGUOUS_CLIENT_ID = "ambiguous_client_id"
    # The password.
    PASSWORD_TOO_LONG = "password_too_long"  # noqa: S105 - A reason, not a secret.
    NO_PASSWORD = "no_password"  # noqa: S105
    WRONG_PASSWORD = "wrong_password"  # noqa: S105
    EXPIRED_PASSWORD = "expired_password"  # noqa: S105
    UNUSABLE_HASH = "unusable_hash"
    # The token.
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    REVOKED_TOKEN = "revoked_token"  # noqa: S105
    # The permissions.
    NOT_SUPERUSER = "not_superuser"
    MALFORMED_TOPIC = "malformed_topic"
    WILDCARD_PUBLISH = "wildcard_publish"
    RESERVED_TOPIC = "reserved_topic"
    DENY_GRANT = "deny_grant"
    NO_GRANT = "no_grant"
    FOREIGN_RESOURCE = "foreign_resource"


class Refused(AuthsvcError):
    """The question is answered with a deny before any look-up."""

    reason = Reason.FOREIGN_RESOURCE


class MalformedRequest(Refused):
    """The request is not a question of its dialect: a field is missing, repeated, or of another type."""

    reason = Reason.MALFORMED


class InvalidToken(Refused):
    """A token that was not issued here, or whose claims are not valid."""

    reason = Reason.INVALID_TOKEN


class ExpiredToken(Refused):
    """A token that was issued here and has expired."""

    reason = Reason.EXPIRED_TOKEN


class AmbiguousIdentity(AuthsvcError):
    """One username names two principals. Neither may connect until an operator has given one another username."""


class Undecided(AuthsvcError):
    """The password cannot be checked now. This is a fault, not a deny: the password may be right."""


Clock = Callable[[], float]
# Takes a password and a stored hash. Raises passwords.UnusableHash, Undecided.
Verify = Callable[[str, str], Awaitable[bool]]


class Client(NamedTuple):
    """The client that a question is about. *client_id* is None if the broker does not send it.

    *version* is set for a token in place of a password: the version of the credentials it was issued for.
    *valid_until* is the expiry of that token in Unix seconds.
    """

    username: str
    client_id: str | None
    version: int | None = None
    valid_until: float | None = None


class LoginQuestion(NamedTuple):
    """May this client connect with this password? *wants_rules*: the broker can cache the rules itself."""

    client: Client
    password: str
    wants_rules: bool = False

    def __repr__(self) -> str:
        return f"LoginQuestion({self.client!r})"


class SuperuserQuestion(NamedTuple):
    """Is this username a superuser, to whom no topic rule applies?"""

    client: Client


class TopicQuestion(NamedTuple):
    """May this client do *action* with each of *topics* (topic filters when subscribing)?"""

    client: Client
    action: Action
    topics: list[str]


class ResourceQuestion(NamedTuple):
    """May this client use *resource*, which exists in this broker only (a virtual host, a queue)?

    *shared*: every client of an existing identity may use it; otherwise only a superuser.
    """

    client: Client
    resource: str
    shared: bool


Question = LoginQuestion | SuperuserQuestion | TopicQuestion | ResourceQuestion


class Secret(NamedTuple):
    """One stored password hash and its expiry (Unix seconds; None is never)."""

    hash: str
    valid_until: float | None = None

    def __repr__(self) -> str:
        return f"Secret(valid_until={self.valid_until})"


class Keeper(Protocol):
    """A directory that can update the credentials of its principals. Both methods run in a background thread."""

    def retire_previous(self, key: str, used: str, previous: str) -> None:
        """Note that the new password of *key*, with the hash *used*, was used during an overlap.

        Delete the hash *previous* if it was kept until then. Other changes may have come since the login.
        """

    def renew_hash(self, key: str, stored: str, renewed: str) -> None:
        """Replace the hash *stored* of *key* by *renewed*, of the same password, unless it changed since."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The identity behind a username. *key* names it across tables: `weatherstation/STATION-001`, `account/ingest`.

    *client_ids* are those it may connect as (None: any); *client_id_prefixes* are beginnings of more.
    *attributes* fill the placeholders of grants. *version* changes with every change of the credentials.
    *revoked*: its credentials were deleted, so its open connections may not do anything any more.
    *retires_previous*: a previous password is among the secrets only until the current one is used.
    *keeps_client_ids*: it may use a client id that it claims even if a principal of another kind has it too.
    """

    key: str
    username: str
    secrets: tuple[Secret, ...] = field(default=(), repr=False)
    active: bool = True
    superuser: bool = False
    client_ids: tuple[str, ...] | None = ()
    client_id_prefixes: tuple[str, ...] = ()
    grants: tuple[Rule, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    version: int = 0
    revoked: bool = False
    retires_previous: bool = False
    keeps_client_ids: bool = False
    keeper: Keeper | None = field(default=None, repr=False, compare=False)

    def may_connect_as(self, client_id: str) -> bool:
        """Return whether this principal may use *client_id*."""
        if self.client_ids is None:
            return True
        return client_id in self.client_ids or client_id.startswith(self.client_id_prefixes)


class Decision(NamedTuple):
    """The answer for one topic, or for a question without topics. *rule* names the grant that decided."""

    allowed: bool
    reason: Reason
    topic: str = ""
    rule: str = ""


class Verdict(NamedTuple):
    """One Decision per requested topic, and the principal (None: unknown).

    After a login *secret* is the one that matched, and *rules* are set if LoginQuestion.wants_rules is. *groups* are
    those of the principal if a rule depends on groups. *until* is the Unix time at which a period of a rule begins or
    ends, after which the verdict may be another.
    """

    decisions: tuple[Decision, ...]
    principal: Principal | None = None
    question: Question | None = None
    rules: tuple[Rule, ...] | None = None
    secret: Secret | None = None
    groups: frozenset[str] | None = None
    until: float | None = None

    @property
    def allowed(self) -> bool:
        """Whether every decision is an allow. False without any decision."""
        for decision in self.decisions:
            if not decision.allowed:
                return False
        return bool(self.decisions)


def deny(reason: Reason, principal: Principal | None = None, question: Question | None = None) -> Verdict:
    """Return a verdict that denies all of *question* for *reason*."""
    match question:
        case TopicQuestion(topics=topics) if topics:
            decisions = tuple(Decision(False, reason, topic) for topic in topics)
        case ResourceQuestion(resource=resource):
            decisions = (Decision(False, reason, resource),)
        case _:
            decisions = (Decision(False, reason),)
    return Verdict(decisions, principal, question)


class Directory(Protocol):
    """A source of principals.

    It may also have `async def groups(self, key: str) -> frozenset[str]`, the names of the groups of the principal
    *key*. Without it, its principals are in no group.
    """

    async def lookup(self, username: str) -> Principal | None:
        """Return the principal of *username*, or None. Raise AmbiguousIdentity for two; other exceptions are faults."""

    async def claimants(self, client_id: str) -> set[str]:
        """Return the keys of all principals that claim *client_id*. Called once for each login."""


def account_key(username: str) -> str:
    """Return the key of the service account *username*.

    >>> account_key("ingest")
    'account/ingest'
    """
    return f"{ACCOUNT}/{username}"


def is_username(name: str) -> bool:
    """Return whether *name* can be a username: 1-128 of `[A-Za-z0-9_.@:=-]`, and not in RESERVED_USERNAMES.

    >>> is_username("fleet-weatherstationdevice-STATION-001"), is_username("a/b"), is_username("guest")
    (True, False, False)
    """
    return _USERNAME.fullmatch(name) is not None and name not in RESERVED_USERNAMES
