"""The words of an authorization question and of its answer. Pure: no Django, no I/O, no setting."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from authsvc.core.grants import Rule
from authsvc.errors import AuthsvcError

# Identifiers that brokers send for "nobody", or that they log in with by themselves (RabbitMQ's guest).
# The first level of the keys of service accounts. No kind of device may be called so: grants name principals by key.
ACCOUNT = "account"
RESERVED_USERNAMES = frozenset({"undefined", "null", "None", "guest"})
_USERNAME = re.compile(r"[A-Za-z0-9_.@:=-]{1,128}")


class Action(StrEnum):
    """What a client wants to do with a topic (MQTT 5.0 words; *receive* is one delivery to it)."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


class Reason(StrEnum):
    """Why a question was answered as it was. Shown by `explain` and in the denials, never on the wire."""

    # allowed
    CREDENTIALS = "credentials"
    GRANT = "grant"
    SUPERUSER = "superuser"
    SHARED_RESOURCE = "shared_resource"
    # refused before anything was looked up
    UNKNOWN_CALLER = "unknown_caller"
    MALFORMED = "malformed"
    INVALID_USERNAME = "invalid_username"
    # who it is
    UNKNOWN_USERNAME = "unknown_username"
    AMBIGUOUS_IDENTITY = "ambiguous_identity"
    DISABLED = "disabled"
    REVOKED = "revoked"
    CLIENT_ID = "client_id"
    AMBIGUOUS_CLIENT_ID = "ambiguous_client_id"
    # the password
    PASSWORD_TOO_LONG = "password_too_long"  # noqa: S105 - a reason, not a secret
    NO_PASSWORD = "no_password"  # noqa: S105
    WRONG_PASSWORD = "wrong_password"  # noqa: S105
    EXPIRED_PASSWORD = "expired_password"  # noqa: S105
    UNUSABLE_HASH = "unusable_hash"
    # the token
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    REVOKED_TOKEN = "revoked_token"  # noqa: S105
    # what it may do
    NOT_SUPERUSER = "not_superuser"
    MALFORMED_TOPIC = "malformed_topic"
    WILDCARD_PUBLISH = "wildcard_publish"
    RESERVED_TOPIC = "reserved_topic"
    DENY_GRANT = "deny_grant"
    NO_GRANT = "no_grant"
    FOREIGN_RESOURCE = "foreign_resource"


class Refused(AuthsvcError):
    """The question is answered with a deny before anybody is looked up."""

    reason = Reason.FOREIGN_RESOURCE


class MalformedRequest(Refused):
    """What the broker sent is no question of its dialect: a field missing, repeated, or of another type."""

    reason = Reason.MALFORMED


class InvalidToken(Refused):
    """A token that we did not issue, or that says nothing we issue."""

    reason = Reason.INVALID_TOKEN


class ExpiredToken(Refused):
    """A token of ours whose time is over."""

    reason = Reason.EXPIRED_TOKEN


class AmbiguousIdentity(AuthsvcError):
    """One username names two principals. Neither may connect until an operator has told them apart."""


class Undecided(AuthsvcError):
    """Whether a password is right cannot be said now. A fault and no deny: it may be."""


Clock = Callable[[], float]
# Password, stored hash; raises passwords.UnusableHash, Undecided.
Verify = Callable[[str, str], Awaitable[bool]]


class Client(NamedTuple):
    """Who asks, as the broker knows it. *client_id* is None where that broker does not say it.

    *version* is set where a token stands for a password: the version of the credentials it was issued for.
    *valid_until* is the end of that token in Unix seconds.
    """

    username: str
    client_id: str | None
    version: int | None = None
    valid_until: float | None = None


class LoginQuestion(NamedTuple):
    """May this client connect with this password? *wants_rules*: the broker can hold the rules itself."""

    client: Client
    password: str
    wants_rules: bool = False

    def __repr__(self) -> str:
        return f"LoginQuestion({self.client!r})"


class SuperuserQuestion(NamedTuple):
    """Is this username one that no topic rule applies to?"""

    client: Client


class TopicQuestion(NamedTuple):
    """May this client do *action* with each of *topics* (topic filters when subscribing)?"""

    client: Client
    action: Action
    topics: list[str]


class ResourceQuestion(NamedTuple):
    """May this client use *resource*, something only this broker has (a virtual host, a queue)?

    *shared*: every known client may; otherwise only a superuser.
    """

    client: Client
    resource: str
    shared: bool


Question = LoginQuestion | SuperuserQuestion | TopicQuestion | ResourceQuestion


class Secret(NamedTuple):
    """One stored password hash and until when it counts (Unix seconds; None is for ever)."""

    hash: str
    valid_until: float | None = None

    def __repr__(self) -> str:
        return f"Secret(valid_until={self.valid_until})"


class Keeper(Protocol):
    """A directory that lets its principals be looked after. Both run off the path, in a thread."""

    def retire_previous(self, key: str) -> None:
        """The new password of *key* was used: the one before, kept until then, ends."""

    def renew_hash(self, key: str, stored: str, renewed: str) -> None:
        """Replace the hash *stored* of *key* by *renewed*, of the same password, unless it changed since."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a username is. *key* names it across tables: `weatherstation/STATION-001`, `account/ingest`.

    *client_ids* are those it may connect as, None lifts the binding; *client_id_prefixes* are how more may begin.
    *attributes* fill the placeholders of grants. *version* changes with every change of the credentials.
    *revoked*: it had credentials and has none, so what is connected as it should not be any more.
    *retires_previous*: a previous password is among the secrets only until the current one is used.
    *keeps_client_ids*: it connects under a client id that it claims though a principal of another kind has it too.
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
        if self.client_ids is None:
            return True
        return client_id in self.client_ids or client_id.startswith(self.client_id_prefixes)


class Decision(NamedTuple):
    """The answer for one topic, or for the one thing that was asked. *rule* names the grant that decided."""

    allowed: bool
    reason: Reason
    topic: str = ""
    rule: str = ""


class Verdict(NamedTuple):
    """One Decision per asked topic, and who it was about (None: nobody known).

    After a login *secret* is the one that was right, and *rules* what LoginQuestion.wants_rules asked for.
    """

    decisions: tuple[Decision, ...]
    principal: Principal | None = None
    question: Question | None = None
    rules: tuple[Rule, ...] | None = None
    secret: Secret | None = None

    @property
    def allowed(self) -> bool:
        """Whether everything that was asked is allowed; nothing asked is nothing allowed."""
        for decision in self.decisions:
            if not decision.allowed:
                return False
        return bool(self.decisions)


def deny(reason: Reason, principal: Principal | None = None, question: Question | None = None) -> Verdict:
    """A verdict that refuses everything *question* asked, for *reason*."""
    match question:
        case TopicQuestion(topics=topics) if topics:
            decisions = tuple(Decision(False, reason, topic) for topic in topics)
        case ResourceQuestion(resource=resource):
            decisions = (Decision(False, reason, resource),)
        case _:
            decisions = (Decision(False, reason),)
    return Verdict(decisions, principal, question)


class Directory(Protocol):
    """Where principals come from."""

    async def lookup(self, username: str) -> Principal | None:
        """Who *username* is, or None. Raises AmbiguousIdentity for two; any other exception is a fault."""

    async def claimants(self, client_id: str) -> set[str]:
        """Return the keys of all principals that claim *client_id*; asked once for each login."""


def account_key(username: str) -> str:
    """Return the key of the service account *username*.

    >>> account_key("ingest")
    'account/ingest'
    """
    return f"{ACCOUNT}/{username}"


def is_username(name: str) -> bool:
    """Whether *name* can be a username here: 1-128 of `[A-Za-z0-9_.@:=-]`, and no word for nobody.

    >>> is_username("fleet-weatherstationdevice-STATION-001"), is_username("a/b"), is_username("guest")
    (True, False, False)
    """
    return _USERNAME.fullmatch(name) is not None and name not in RESERVED_USERNAMES
