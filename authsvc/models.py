"""Brokers, service accounts, grants of operators, denials, and the audit of changes."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets as random
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone

from authsvc.core import access, grants, passwords
from authsvc.core.grants import ActionSet
from authsvc.credentials import UNTIL_USED, Credentials
from authsvc.dialects import BY_NAME, ELSEWHERE
from authsvc.errors import AuthsvcError
from authsvc.secret_columns import SecretField


class InvalidUsername(AuthsvcError, ValidationError, ValueError):
    """A text that cannot be an MQTT username here."""


def validate_username(value: str) -> None:
    """Raise InvalidUsername unless *value* can be an MQTT username."""
    if not access.is_username(value):
        raise InvalidUsername(
            "%(value)r cannot be a username: use 1-128 letters, digits and _ . @ : = -, and not guest or null.",
            params={"value": value[:140]},
            code="invalid_username",
        )


class UsernameField(models.CharField):  # type: ignore[type-arg]
    """An MQTT username. Invalid values are refused on every write, including bulk writes and update()."""

    default_validators = [validate_username]

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if isinstance(value, str):
            validate_username(value)
        return super().get_db_prep_save(value, connection)


def validate_client_ids(value: Any) -> None:
    """Raise ValidationError unless *value* is a list of client ids and prefixes."""
    validate_texts(value)
    if "*" in value:
        raise ValidationError("A single * would be every client id; write a beginning, such as ingest-*.")


def digest(token: str) -> str:
    """Return the digest of a broker's *token*, which is stored in its place."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def validate_texts(value: Any) -> None:
    """Raise ValidationError unless *value* is a list of texts that are not empty."""
    if not isinstance(value, list) or not all(isinstance(entry, str) and entry for entry in value):
        raise ValidationError('Write a list of texts, such as ["one", "two"].')


def validate_dialects(value: Any) -> None:
    """Raise ValidationError unless *value* is a list of names of dialects."""
    validate_texts(value)
    known = {*BY_NAME, *ELSEWHERE}
    unknown = [name for name in value if name not in known]
    if unknown:
        raise ValidationError(f"Unknown dialect {unknown[0]}; use {', '.join(sorted(known))}.")


def validate_networks(value: Any) -> None:
    """Raise ValidationError unless *value* is a list of IP networks."""
    validate_texts(value)
    for network in value:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ValidationError(
                f"{network} is not a network: write 10.0.0.0/8 or 2001:db8::/32."
            ) from error


REVOKED = "revoked:"
TOKEN_FIELDS = ("token_digest", "previous_token_digest", "previous_token_until", "token_changed_at")


class Broker(models.Model):
    """A broker that may ask questions. Its token is shown once; only its digest is stored."""

    name = models.CharField(max_length=100, unique=True)
    token_digest = SecretField(max_length=64, unique=True, editable=False)
    is_active = models.BooleanField(default=True)
    dialects = models.JSONField(default=list, blank=True, validators=[validate_dialects])
    networks = models.JSONField(default=list, blank=True, validators=[validate_networks])
    created_at = models.DateTimeField(auto_now_add=True)
    # During an overlap two tokens are accepted; authsvc.credentials.UNTIL_USED as in Credentials.
    previous_token_digest = SecretField(max_length=64, unique=True, null=True, editable=False)
    previous_token_until = models.DateTimeField(null=True, blank=True, editable=False)
    token_changed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def key(self) -> str:
        """The name of this broker in the audit."""
        return f"broker/{self.name}"

    def clean(self) -> None:
        """Raise ValidationError for a null, which Django's validators skip as an empty value."""
        for field in ("dialects", "networks"):
            if getattr(self, field) is None:
                raise ValidationError({field: "Write a list of texts, or [] for all."})

    @property
    def is_revoked(self) -> bool:
        """Whether its token was revoked, and it has got no other one since."""
        return str(self.token_digest).startswith(REVOKED)

    def has_overlap(self) -> bool:
        """Return whether the previous token is accepted now beside the current one."""
        until = self.previous_token_until
        return self.previous_token_digest is not None and until is not None and until > timezone.now()

    def awaits_first_use(self) -> bool:
        """Return whether the previous token is accepted until the current one is first used."""
        return self.previous_token_digest is not None and self.previous_token_until == UNTIL_USED

    def issue_token(self, *, keep_previous_until: datetime | None = None) -> str:
        """Return a new token of 256 random bits, which replaces the old one; the caller saves, and shows it once.

        The replaced token is accepted until *keep_previous_until*. None ends it now, UNTIL_USED when the new one is
        first used. A token before that ends now; but if the current token waits for its first use, it ends instead, and
        the one before it, which the broker has, is accepted.
        """
        until, replaced = keep_previous_until, self.token_digest
        if self.awaits_first_use():
            replaced = self.previous_token_digest
        keeps = bool(replaced) and not self.is_revoked and until is not None and until > timezone.now()
        self.end_previous_token()
        if keeps:
            self.previous_token_digest, self.previous_token_until = replaced, until
        token = random.token_urlsafe(32)
        self.token_digest = digest(token)
        self.token_changed_at = timezone.now()
        return token

    def revoke_tokens(self) -> None:
        """Accept no token any more until a new one is issued; the caller saves."""
        self.token_digest = f"{REVOKED}{random.token_hex(16)}"  # No digest of a token begins like this.
        self.token_changed_at = timezone.now()
        self.end_previous_token()

    def end_previous_token(self) -> None:
        """Accept the current token alone; the caller saves."""
        self.previous_token_digest = self.previous_token_until = None


class ClientIdTaken(AuthsvcError, ValidationError, ValueError):
    """A client id of an account that is also that of a device, which could not log in any more."""


ClaimCheck = Callable[[Collection[str]], None]
_claim_checks: list[ClaimCheck] = []


def register_claim_check(check: ClaimCheck) -> None:
    """Register *check*, which gets the client ids to be added to accounts, and raises ClientIdTaken."""
    _claim_checks.append(check)


def check_claims(added: Collection[str]) -> None:
    """Raise ValidationError if *added* may not become client ids of accounts."""
    if added:
        validate_client_ids(sorted(added))
    for check in _claim_checks if added else ():
        check(added)


def _entries(client_ids: Any) -> set[str]:
    found = client_ids if isinstance(client_ids, list) else []
    return {entry for entry in found if isinstance(entry, str) and entry}


class AccountQuerySet(models.QuerySet["Account"]):
    """Accounts whose new client ids are checked on bulk writes and update()."""

    def bulk_create(self, objs: Iterable[Account], *args: Any, **options: Any) -> list[Account]:
        """Create *objs*. Raise ValidationError if a client id of them is refused."""
        accounts = list(objs)
        self._for_write = True
        check_claims(_added(self.model, accounts, self.db))
        return super().bulk_create(accounts, *args, **options)

    bulk_create.alters_data = True  # type: ignore[attr-defined]

    def update(self, **changes: Any) -> int:
        """Update the rows and return their number. Raise ValidationError if a new client id is refused."""
        if "client_ids" not in changes:
            return super().update(**changes)
        self._for_write = True
        with transaction.atomic(using=self.db):
            before = dict(self.order_by().values_list("pk", "client_ids"))
            changed = super().update(**changes)
            rows = self.model._base_manager.using(self.db).filter(pk__in=list(before))
            now = rows.values_list("pk", "client_ids")
            check_claims({e for pk, ids in now for e in _entries(ids) - _entries(before[pk])})
        return changed

    update.alters_data = True  # type: ignore[attr-defined]


def _added(model: type[Account], accounts: Collection[Account], using: str | None) -> set[str]:
    """Return the client ids of *accounts* that their rows do not have yet."""
    rows = model._base_manager.using(using).filter(username__in=[account.username for account in accounts])
    before: dict[str, set[str]] = {
        name: _entries(ids) for name, ids in rows.values_list("username", "client_ids")
    }
    return {
        e for account in accounts for e in _entries(account.client_ids) - before.get(account.username, set())
    }


def before_account_save(
    instance: Account, raw: bool, using: str, update_fields: Collection[str] | None, **_: Any
) -> None:
    """Check the client ids that a save adds, except in a fixture (*raw*), which restores earlier rows."""
    if not raw and (update_fields is None or "client_ids" in update_fields):
        check_claims(_added(type(instance), [instance], using))


class Account(Credentials):
    """A service account, which is not a device: ingest, a backend, a dashboard."""

    HASH_COLUMN = "password_hash"

    username = UsernameField(max_length=128, unique=True)
    password_hash = SecretField(max_length=256, blank=True, editable=False)
    is_active = models.BooleanField(default=True)
    is_superuser = models.BooleanField(
        "superuser", default=False, help_text="No topic rule applies to a superuser."
    )
    client_ids = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_client_ids],
        help_text="Client ids it may connect as besides its username; an entry may end in *.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AccountQuerySet.as_manager()

    class Meta:
        verbose_name = "service account"
        ordering = ["username"]
        indexes = [
            # A login reads the accounts with further client ids, which are few.
            models.Index(
                fields=["username"], name="authsvc_account_client_ids", condition=~models.Q(client_ids=[])
            )
        ]

    def __str__(self) -> str:
        return str(self.username)

    def clean(self) -> None:
        """Raise ValidationError, for forms, if a new client id is refused."""
        try:
            check_claims(_added(type(self), [self], self._state.db))
        except ValidationError as error:
            raise ValidationError({"client_ids": error}) from error

    @property
    def key(self) -> str:
        """The name of this account across tables, as `weatherstation/STATION-001` is that of a device."""
        return access.account_key(self.username)

    def generate_password(self, *, keep_previous_until: datetime | None = None) -> str:
        """Set a new password and return it, to be shown once; the caller saves."""
        password = passwords.generate()
        self.set_hash(passwords.hash_generated(password), keep_previous_until=keep_previous_until)
        return password


# Types and kinds are in lower case, so another subject could never match.
_SUBJECT = re.compile(r"everyone|type:[a-z0-9_]+|group:[a-z0-9_-]+|key:[a-z0-9_]+/[A-Za-z0-9_.@:=-]+")


class InvalidGrant(AuthsvcError, ValidationError, ValueError):
    """A grant whose subject or filter is not valid."""


def validate_filter(value: str) -> None:
    """Raise InvalidGrant unless *value* can be the filter of a grant."""
    if sentence := grants.problem(value):
        raise InvalidGrant(sentence, code="invalid_filter")


def validate_subject(value: str) -> None:
    """Raise InvalidGrant unless *value* can be the subject of a grant."""
    if not _SUBJECT.fullmatch(value):
        raise InvalidGrant(
            "The subject is everyone, type:<type>, group:<group> or key:<kind>/<id>, such as key:account/ingest.",
            code="invalid_subject",
        )


class FilterField(models.CharField):  # type: ignore[type-arg]
    """A topic filter with placeholders. Invalid values are refused on every write."""

    default_validators = [validate_filter]

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if isinstance(value, str):
            validate_filter(value)
        return super().get_db_prep_save(value, connection)


class SubjectField(models.CharField):  # type: ignore[type-arg]
    """The subject of a grant. Invalid values are refused on every write."""

    default_validators = [validate_subject]

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        if isinstance(value, str):
            validate_subject(value)
        return super().get_db_prep_save(value, connection)


class Grant(models.Model):
    """A rule of an operator. An allow must cover the request; a deny refuses all that overlaps it, and wins."""

    class Effect(models.TextChoices):
        ALLOW = "allow", "Allow"
        DENY = "deny", "Deny"

    class Actions(models.TextChoices):
        PUBLISH = ActionSet.PUBLISH.value, "Publish"
        SUBSCRIBE = ActionSet.SUBSCRIBE.value, "Subscribe"
        RECEIVE = ActionSet.RECEIVE.value, "Receive"
        ALL = ActionSet.ALL.value, "All"
        PUBLISH_SUBSCRIBE = ActionSet.PUBLISH_SUBSCRIBE.value, "Publish, subscribe"
        PUBLISH_RECEIVE = ActionSet.PUBLISH_RECEIVE.value, "Publish, receive"
        SUBSCRIBE_RECEIVE = ActionSet.SUBSCRIBE_RECEIVE.value, "Subscribe, receive"

    subject = SubjectField(
        max_length=260,
        db_index=True,
        help_text="everyone, type:TYPE, group:GROUP or key:KEY, such as key:account/ingest",
    )
    effect = models.CharField(max_length=5, choices=Effect, default=Effect.ALLOW)
    actions = models.CharField(max_length=17, choices=Actions)
    filter = FilterField(max_length=512)
    note = models.CharField(max_length=255, blank=True)
    valid_from = models.DateTimeField(
        null=True, blank=True, help_text="In force from this time; empty is from now."
    )
    valid_until = models.DateTimeField(
        null=True, blank=True, help_text="In force until this time; empty is without an end."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["subject", "filter"]
        constraints = [
            models.UniqueConstraint(
                fields=["subject", "effect", "actions", "filter"], name="authsvc_grant_unique"
            ),
            # An unreadable row would have to stop every question, since a deny must not be left out.
            models.CheckConstraint(
                condition=models.Q(effect__in=["allow", "deny"])
                & models.Q(actions__in=[actions.value for actions in ActionSet]),
                name="authsvc_grant_words",
            ),
            models.CheckConstraint(
                condition=models.Q(valid_from=None)
                | models.Q(valid_until=None)
                | models.Q(valid_until__gt=models.F("valid_from")),
                name="authsvc_grant_period",
                violation_error_message="The period must end after it begins.",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.whom}: {self.effect} {ActionSet(self.actions).sentence} on {self.filter}"

    @property
    def whom(self) -> str:
        """The subject in words: `Every weatherstation`, `Device weatherstation/STATION-001`, `Group “barn”`."""
        form, _, name = self.subject.partition(":")
        if form == "everyone":
            return "Everyone"
        if form == "group":
            return f"Group “{name}”"
        is_account = (name if form == "type" else name.partition("/")[0]) == access.ACCOUNT
        if form == "type":
            return "Every service account" if is_account else f"Every {name}"
        return f"Service account “{name.partition('/')[2]}”" if is_account else f"Device {name}"


class Denial(models.Model):
    """Refusals, counted by client, topic and reason. Written in the background, bounded in number.

    A row with the reason REST counts all refusals of a principal that do not have their own row.
    """

    REST = "more"

    dialect = models.CharField(max_length=20)
    username = models.CharField(max_length=128, blank=True)
    client_id = models.CharField(max_length=128, blank=True)
    principal = models.CharField(max_length=260, blank=True, db_index=True)
    action = models.CharField(max_length=20)
    topic = models.CharField(max_length=256, blank=True)
    reason = models.CharField(max_length=30)
    rule = models.CharField(max_length=300, blank=True)
    address = models.CharField(
        max_length=45, blank=True, default="", db_default="", help_text="from where the broker asked last"
    )
    broker = models.CharField(
        max_length=100, blank=True, default="", db_default="", help_text="the broker that asked last"
    )
    count = models.PositiveBigIntegerField(default=1)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField(db_index=True)
    # Set by an operator who has seen it, and cleared when it happens again.
    dismissed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-last_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["dialect", "username", "client_id", "action", "topic", "reason"],
                name="authsvc_denial_unique",
            )
        ]

    def __str__(self) -> str:
        if self.is_rest:
            return f"{self.username or 'unknown names'}: {self.summary}"
        return f"{self.username or 'unknown'} {self.action} {self.topic}: {self.reason}"

    @property
    def is_rest(self) -> bool:
        return self.reason == self.REST

    @property
    def summary(self) -> str:
        """The topic; for a row of the rest, the number of its refusals."""
        return f"and {self.count:,} more topics or names" if self.is_rest else self.topic


class LastLogin(models.Model):
    """The last login of a device or an account, by its key. Written in the background, one row each.

    *current_at* and *previous_at* are the last logins with the current and with the previous password. *current_mark*
    names the password that was the current one at *current_at*; a comparison of times would be wrong for a login
    during the transaction of a change.
    """

    key = models.CharField(max_length=260, primary_key=True)
    first_at = models.DateTimeField()
    at = models.DateTimeField(db_index=True)
    broker = models.CharField(max_length=100, blank=True)
    client_id = models.CharField(max_length=128, blank=True)
    address = models.CharField(max_length=45, blank=True)
    current_at = models.DateTimeField(null=True, blank=True)
    current_mark = SecretField(max_length=16, blank=True, default="", editable=False)
    previous_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.key} at {self.at}"

    def used_password_of(self, row: Credentials) -> bool:
        """Return whether a login with the current password of *row* was noted."""
        return bool(self.current_mark) and self.current_mark == row.password_mark


class BrokerUse(models.Model):
    """The questions of a broker, by the address that it asked from. Written in the background, bounded for each broker.

    It is a table of its own: a write to a broker would make every process load the policy again.
    """

    broker = models.ForeignKey(Broker, on_delete=models.CASCADE, related_name="uses")
    address = models.CharField(max_length=45, blank=True)
    count = models.PositiveBigIntegerField(default=0)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField(db_index=True)
    # The last question with the current and with the previous token.
    current_at = models.DateTimeField(null=True, blank=True)
    previous_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-last_at"]
        constraints = [
            models.UniqueConstraint(fields=["broker", "address"], name="authsvc_brokeruse_address")
        ]

    def __str__(self) -> str:
        return f"{self.broker} from {self.address}"


class AuditEntry(models.Model):
    """One change of an identity or a right: the actor, the action, the object and the values. Append-only.

    Triggers refuse UPDATE, and DELETE of rows younger than the retention.
    """

    class Kind(models.TextChoices):
        USER = "user", "User"
        KEY = "key", "API key"
        SHELL = "shell", "Shell"
        SYSTEM = "system", "System"

    at = models.DateTimeField(db_index=True)
    actor_kind = models.CharField(max_length=10, choices=Kind)
    actor = models.CharField(max_length=150)
    address = models.CharField(max_length=45, blank=True)
    action = models.CharField(max_length=40, db_index=True)
    object_key = models.CharField(max_length=260, db_index=True)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-at", "-pk"]
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        indexes = [models.Index(fields=["actor", "at"], name="authsvc_audit_of_actor")]

    def __str__(self) -> str:
        return f"{self.action} {self.object_key} by {self.actor}"


class AuditRetention(models.Model):
    """One row with the seconds for which audit entries are kept; the triggers read it. Null keeps them for ever.

    *since* is the time from which changes have entries.
    """

    id = models.SmallIntegerField(primary_key=True)
    keep_seconds = models.BigIntegerField(null=True)
    since = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(keep_seconds__gte=86_400), name="authsvc_auditretention_a_day"
            )
        ]

    def __str__(self) -> str:
        return "for ever" if self.keep_seconds is None else f"{self.keep_seconds} s"


class PolicyRevision(models.Model):
    """One row with the revision of brokers and grants. Triggers raise it, so changes by SQL count too."""

    id = models.SmallIntegerField(primary_key=True)
    revision = models.BigIntegerField()

    class Meta:
        db_table = "authsvc_policy"

    def __str__(self) -> str:
        return f"revision {self.revision}"
