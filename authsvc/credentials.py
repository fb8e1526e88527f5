"""The password columns that devices and accounts share, and the only functions that set them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any, ClassVar

from django.db import models
from django.db.models.functions import SHA256, Left
from django.utils import timezone

from authsvc.secret_columns import SecretField
from authsvc.text import in_utc

# A previous password with this expiry stays valid until the current one is first used.
UNTIL_USED = datetime(9999, 1, 1, tzinfo=UTC)


class Credentials(models.Model):
    """The hash of a password, and the previous hash during an overlap. A row without a hash cannot log in.

    The column of the current hash belongs to the subclass, which gives its name as HASH_COLUMN.
    """

    HASH_COLUMN: ClassVar[str]

    previous_password_hash = SecretField(max_length=256, blank=True, editable=False)
    previous_valid_until = models.DateTimeField(null=True, blank=True, editable=False)
    password_expires_at = models.DateTimeField(null=True, blank=True)
    credentials_changed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    @classmethod
    def password_columns(cls) -> tuple[str, str, str, str, str]:
        """Return the columns that decide on a password: hash and expiry, both of the previous one, last change."""
        return (
            cls.HASH_COLUMN,
            "password_expires_at",
            "previous_password_hash",
            "previous_valid_until",
            "credentials_changed_at",
        )

    def set_hash(self, stored: str, *, keep_previous_until: datetime | None = None) -> None:
        """Accept the password of *stored* from now on, or none if it is empty; the caller saves.

        The replaced hash stays valid until *keep_previous_until*, but not after its own expiry. None makes it invalid
        now, UNTIL_USED when the new password is first used. If the current password waits for its first use, the
        previous one, which the client has, is kept in its place. Every call revokes the tokens issued before.
        """
        replaced = getattr(self, self.HASH_COLUMN)
        if self.awaits_first_use():
            replaced = self.previous_password_hash
        until = keep_previous_until
        if until is not None and self.password_expires_at is not None:
            # An overlap must not make an expired password valid again.
            until = min(until, self.password_expires_at)
        keeps = bool(replaced) and until is not None and until > timezone.now()
        self.previous_password_hash = replaced if keeps else ""
        self.previous_valid_until = until if keeps else None
        setattr(self, self.HASH_COLUMN, stored)
        self.password_expires_at = None
        self.end_tokens()

    @property
    def password_mark(self) -> str:
        """The mark of the current password in the last logins; empty without a password."""
        return mark_of(getattr(self, self.HASH_COLUMN))

    def has_overlap(self) -> bool:
        """Return whether the previous password is valid now beside the current one."""
        now, ends = timezone.now(), (self.previous_valid_until, self.password_expires_at or UNTIL_USED)
        return bool(self.previous_password_hash) and all(end is not None and end > now for end in ends)

    def awaits_first_use(self) -> bool:
        """Return whether the previous password is valid until the current one is first used."""
        return bool(self.previous_password_hash) and self.previous_valid_until == UNTIL_USED

    def end_tokens(self) -> None:
        """Revoke every token that was issued before; the caller saves."""
        self.credentials_changed_at = timezone.now()


def mark_of(stored: str) -> str:
    """Return a short digest of the hash *stored*, by which a login names the password that it used; empty for none."""
    return hashlib.sha256(stored.encode()).hexdigest()[:16] if stored else ""


def mark_in_sql(column: str) -> models.Func:
    """Return mark_of() of *column*, which is not empty, as an expression of a query."""
    return Left(_Sha256(column), 16)


class _Sha256(SHA256):
    """SHA256 without the extension pgcrypto, which Django's needs on PostgreSQL."""

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "ENCODE(SHA256(CONVERT_TO(%(expressions)s, 'UTF8')), 'hex')"
        return self.as_sql(compiler, connection, template=template, **context)


def retire_previous(rows: models.QuerySet[Any], used: str, previous: str) -> int:
    """Delete the hash *previous* of *rows* that keep it until the current one, *used*, is used; return how many."""
    kept = rows.filter(previous_valid_until=UNTIL_USED, previous_password_hash=previous)
    return kept.filter(**{rows.model.HASH_COLUMN: used}).update(
        previous_password_hash="", previous_valid_until=None
    )


def renew_hash(rows: models.QuerySet[Any], stored: str, renewed: str) -> None:
    """Replace the hash *stored* of *rows* by *renewed*. It is of the same password, so tokens stay valid."""
    column = rows.model.HASH_COLUMN
    rows.filter(**{column: stored}).update(**{column: renewed})


def end_of_old(until: datetime | None, name: str = "one", *, was_unused: bool = False) -> str:
    """Return a sentence about the end of an old secret, which people call *name*; *until* as in UNTIL_USED.

    *was_unused*: the replaced secret waited for its first use, so that the one before it is kept.

    >>> end_of_old(None), end_of_old(UNTIL_USED, "token")
    ('The old one has ended.', 'The old token ends when this one is first used.')
    >>> end_of_old(UNTIL_USED, "token", was_unused=True)
    'The token in use ends when this one is first used. The last one, which was never used, has ended.'
    """
    if until is None:
        return f"The old {name} has ended."
    kept, rest = f"The old {name}", ""
    if was_unused:
        kept, rest = f"The {name} in use", " The last one, which was never used, has ended."
    if until == UNTIL_USED:
        return f"{kept} ends when this one is first used.{rest}"
    return f"{kept} is valid until {in_utc(until)}.{rest}"
