"""Actions on service accounts: create, change and delete them, rotate their passwords, give them grants of ingest."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import transaction

from authsvc import audit, granting
from authsvc.core.grants import ActionSet
from authsvc.models import Account, Grant
from devicehub.errors import DevicehubError
from devicehub.kinds import topics
from devicehub.provisioning import rows
from devicehub.provisioning.credentials import hash_chosen, overlap
from devicehub.provisioning.names import IdentityTaken, refuse_used

ACCOUNT_FIELDS = (
    "client_ids",
    "is_active",
    "is_superuser",
    "password_expires_at",
)  # Those that people change.
INGEST_NOTE = "create_account --ingest"  # The note of the grants that grant_ingest() makes.


class NotForIngest(DevicehubError, ValueError):
    """An account that is not for ingest would get what only ingest needs."""


@transaction.atomic
def rotate_account(account: Account, *, valid_until: datetime | None) -> str:
    """Give *account* a new password and return it, only once; the old one stays valid as in rotate_password()."""
    changed = rows.locked(account)
    password = changed.generate_password(keep_previous_until=valid_until)
    rows.save(changed, account, Account.password_columns())
    audit.record("password_rotated", account.key, after=overlap(account))
    return password


@transaction.atomic
def choose_account_password(account: Account, password: str) -> None:
    """Let *account* log in with a password that a person chose; the old one ends now. Raise UnusablePassword."""
    stored = hash_chosen(password)  # It takes long, so that the row is locked after it.
    changed = rows.locked(account)
    changed.set_hash(stored)
    rows.save(changed, account, Account.password_columns())
    audit.record("password_chosen", account.key)


@transaction.atomic
def create_account(
    name: str,
    *,
    superuser: bool = False,
    ingest: bool = False,
    clear_retained: bool = False,
    client_ids: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> tuple[Account, str]:
    """Create a service account; return it and its password, only once. Raise IdentityTaken, ValidationError.

    *ingest* gives it exactly the grants that `listen_mqtt` and the sender of commands need: to receive and subscribe
    to all data, status and reply topics, and to publish to all cmd topics; with *clear_retained* to the others too.
    It may then connect under every client id of workers and senders, which begin with its name.
    """
    if clear_retained and not ingest:
        raise NotForIngest("Only an ingest account clears retained messages.")
    # Workers connect as NAME-1, NAME-2, the sender of commands as NAME-commands-...
    ids = dict.fromkeys([*client_ids, *([f"{name}-*"] if ingest else ())])
    account = Account(
        username=name, is_superuser=superuser, client_ids=list(ids), password_expires_at=expires_at
    )
    password = add_account(account)
    if ingest:
        grant_ingest(account, clear_retained=clear_retained)
    return account, password


@transaction.atomic
def add_account(account: Account) -> str:
    """Save the new *account* and return its password, only once. Raise IdentityTaken, InvalidUsername."""
    check_names(account)
    expires_at = account.password_expires_at
    password = account.generate_password()
    account.password_expires_at = expires_at
    account.save(force_insert=True)
    audit.record("account_created", account.key, after=audit.values(account, ("is_superuser", "client_ids")))
    return password


@transaction.atomic
def change_account(account: Account, **changes: Any) -> Account:
    """Change *changes*, some of ACCOUNT_FIELDS, of *account* and return it. Raise ValidationError."""
    changed = rows.locked(account)
    before = audit.values(changed, ACCOUNT_FIELDS)
    for name, value in changes.items():
        if name not in ACCOUNT_FIELDS:
            raise ValueError(f"{name!r} is not a field of an account that can be changed")
        setattr(changed, name, value)
    old, new = audit.difference(before, audit.values(changed, ACCOUNT_FIELDS))
    if not new:
        return account
    changed.clean_fields(exclude={field.name for field in Account._meta.fields} - new.keys())
    changed.clean()
    rows.save(changed, account, new)
    audit.record("account_changed", account.key, before=old, after=new)
    return account


@transaction.atomic
def delete_account(account: Account) -> None:
    """Delete *account* with its grants and its last login; do nothing if it is gone already."""
    stored = Account.objects.select_for_update().filter(pk=account.pk).first()
    if stored is None:
        return
    audit.record("account_deleted", stored.key, before=audit.values(stored, ("username", *ACCOUNT_FIELDS)))
    stored.delete()


def check_names(account: Account) -> None:
    """Raise IdentityTaken if a name of the new *account* belongs to another identity."""
    if Account.objects.filter(username=account.username).exists():
        raise IdentityTaken(f"There is an account {account.username} already")
    refuse_used([account.username, *(text for text in account.client_ids if not text.endswith("*"))])


@transaction.atomic
def end_account_overlap(account: Account) -> None:
    """End the previous password of *account* now."""
    changed = rows.locked(account)
    changed.previous_password_hash, changed.previous_valid_until = "", None
    rows.save(changed, account, ("previous_password_hash", "previous_valid_until"))
    audit.record("overlap_ended", account.key)


@transaction.atomic
def revoke_account(account: Account) -> None:
    """End the passwords and tokens of *account*: no login succeeds until it gets a new password."""
    changed = rows.locked(account)
    changed.set_hash("")
    rows.save(changed, account, Account.password_columns())
    audit.record("credentials_revoked", account.key)


def ingest_rules(*, clear_retained: bool) -> list[tuple[ActionSet, str]]:
    """Return the actions and the filters that grant_ingest() allows."""
    rules = [
        (actions, text)
        for text in topics.subscriptions()
        for actions in (ActionSet.SUBSCRIBE, ActionSet.RECEIVE)
    ] + [(ActionSet.PUBLISH, text) for text in topics.command_filters()]
    if clear_retained:
        rules += [(ActionSet.PUBLISH, text) for text in topics.subscriptions()]
    return rules


@transaction.atomic
def grant_ingest(account: Account, *, clear_retained: bool = False) -> int:
    """Give *account* the grants of ingest for the kinds that exist now; return how many were missing.

    With *clear_retained* it may also publish to the topics of devices: a broker clears a retained message when it
    receives an empty one on its topic, and no broker asks about payloads.
    """
    added = 0
    for actions, text in ingest_rules(clear_retained=clear_retained):
        grant, made = Grant.objects.get_or_create(
            subject=f"key:{account.key}",
            effect=Grant.Effect.ALLOW,
            actions=actions.value,
            filter=text,
            defaults={"note": INGEST_NOTE},
        )
        if made:
            audit.record("grant_created", granting.key(grant), after=audit.values(grant, granting.FIELDS))
        added += made
    return added
