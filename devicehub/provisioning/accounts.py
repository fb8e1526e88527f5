"""Create service accounts, grant them what ingest needs, and change their passwords."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from authsvc.core.grants import ActionSet
from authsvc.models import Account, Grant
from devicehub.kinds import topics
from devicehub.provisioning.credentials import hash_chosen
from devicehub.provisioning.names import IdentityTaken, refuse_used


def rotate_account(account: Account, *, valid_until: datetime | None) -> str:
    """A new password for *account*, shown this once; the old one as for rotate_password()."""
    if valid_until is not None and account.password_expires_at is not None:
        valid_until = min(valid_until, account.password_expires_at)
    old = account.password_hash if valid_until is not None and valid_until > timezone.now() else ""
    password = account.generate_password()
    account.previous_password_hash = old
    account.previous_valid_until = valid_until if old else None
    account.save()
    return password


def choose_account_password(account: Account, password: str) -> None:
    """The same for a service account."""
    account.set_hash(hash_chosen(password))
    account.save()


@transaction.atomic
def create_account(
    name: str,
    *,
    superuser: bool = False,
    ingest: bool = False,
    clear_retained: bool = False,
    client_ids: Iterable[str] = (),
) -> tuple[Account, str]:
    """A service account and its password, shown this once. Raises IdentityTaken, InvalidUsername.

    *ingest* grants what `listen_mqtt` and the sender of commands need and nothing else: receive and
    subscribe to all data, status and reply, publish to all cmd; with *clear_retained* to the others too.
    """
    if Account.objects.filter(username=name).exists():
        raise IdentityTaken(f"There is an account {name} already")
    account = Account(username=name, is_superuser=superuser, client_ids=list(client_ids))
    refuse_used([name, *(text for text in account.client_ids if not text.endswith("*"))])
    password = account.generate_password()
    account.save(force_insert=True)
    if ingest:
        grant_ingest(account, clear_retained=clear_retained)
    return account, password


def grant_ingest(account: Account, *, clear_retained: bool = False) -> int:
    """Give *account* the grants of ingest for the kinds that exist now; how many were missing.

    *clear_retained* lets it publish to what devices publish to: a broker forgets a retained message by an empty
    one on its topic, and no broker asks about payloads.
    """
    wanted = [
        (actions, text)
        for text in topics.subscriptions()
        for actions in (ActionSet.SUBSCRIBE, ActionSet.RECEIVE)
    ] + [(ActionSet.PUBLISH, text) for text in topics.command_filters()]
    if clear_retained:
        wanted += [(ActionSet.PUBLISH, text) for text in topics.subscriptions()]
    added = 0
    for actions, text in wanted:
        _, made = Grant.objects.get_or_create(
            subject=f"key:{account.key}",
            effect=Grant.Effect.ALLOW,
            actions=actions.value,
            filter=text,
            defaults={"note": "create_account --ingest"},
        )
        added += made
    return added
