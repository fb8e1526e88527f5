"""Actions on brokers: register, change and delete one, rotate and revoke its tokens. Each has its row in the audit."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.db import transaction

from authsvc import audit
from authsvc.credentials import UNTIL_USED
from authsvc.errors import AuthsvcError
from authsvc.models import TOKEN_FIELDS, Broker

FIELDS = ("name", "dialects", "networks", "is_active")


class BrokerExists(AuthsvcError, ValueError):
    """The name belongs to a broker already."""


def create_broker(name: str, dialects: Iterable[str], networks: Iterable[str] = ()) -> tuple[Broker, str]:
    """Register a broker; return it and its token, only once. Raise BrokerExists, ValidationError."""
    if Broker.objects.filter(name=name).exists():
        raise BrokerExists(f"There is already a broker {name}")
    broker = Broker(name=name, dialects=list(dialects), networks=list(networks))
    return broker, add(broker)


@transaction.atomic
def add(broker: Broker) -> str:
    """Save the new *broker* and return its token, only once. Raise ValidationError."""
    token = broker.issue_token()
    broker.full_clean()
    broker.save(force_insert=True)
    audit.record("broker_created", broker.key, after=audit.values(broker, ("dialects", "networks")))
    return token


@transaction.atomic
def change_broker(broker: Broker, **changes: Any) -> Broker:
    """Change *changes*, some of FIELDS, of *broker* and return it. Raise BrokerExists, ValidationError."""
    locked = _locked(broker)
    before = audit.values(locked, FIELDS)
    for name, value in changes.items():
        if name not in FIELDS:
            raise ValueError(f"{name!r} is not a field of a broker that can be changed")
        setattr(locked, name, value)
    old, new = audit.difference(before, audit.values(locked, FIELDS))
    if not new:
        return broker
    if "name" in new and Broker.objects.filter(name=locked.name).exists():
        raise BrokerExists(f"There is already a broker {locked.name}")
    locked.clean_fields(exclude={field.name for field in Broker._meta.fields} - new.keys())
    locked.clean()
    locked.save(update_fields=sorted(new))
    for name in new:
        setattr(broker, name, getattr(locked, name))
    audit.record("broker_changed", broker.key, before=old, after=new)
    return broker


@transaction.atomic
def delete_broker(broker: Broker) -> None:
    """Delete *broker*, whose questions are refused from now on; do nothing if it is gone already."""
    stored = Broker.objects.select_for_update().filter(pk=broker.pk).first()
    if stored is None:
        return
    audit.record("broker_deleted", stored.key, before=audit.values(stored, FIELDS))
    stored.delete()


@transaction.atomic
def rotate_token(broker: Broker, *, valid_until: datetime | None) -> str:
    """Give *broker* a new token and return it, only once; the old one stays valid until *valid_until*.

    None ends the old one now; authsvc.credentials.UNTIL_USED ends it when the new one is first used.
    """
    locked = _locked(broker)
    token = locked.issue_token(keep_previous_until=valid_until)
    _save(locked, broker)
    audit.record("token_rotated", broker.key, after={"previous_token_until": _end(locked)})
    return token


@transaction.atomic
def revoke_tokens(broker: Broker) -> None:
    """End every token of *broker*: each of its questions is refused until it gets a new one."""
    locked = _locked(broker)
    locked.revoke_tokens()
    _save(locked, broker)
    audit.record("token_revoked", broker.key)


@transaction.atomic
def end_previous_token(broker: Broker) -> None:
    """End the overlap of *broker* now."""
    locked = _locked(broker)
    locked.end_previous_token()
    _save(locked, broker)
    audit.record("previous_token_ended", broker.key)


def retire_previous(pk: int, digest: str, previous: str) -> None:
    """End the token of *previous*, which a broker was to keep until the token of *digest* is used.

    If the token of *digest* was replaced since its use, the broker has only that one: it is then kept instead.
    """
    rows = Broker.objects.filter(pk=pk, previous_token_digest=previous, previous_token_until=UNTIL_USED)
    with transaction.atomic(), audit.acting(audit.system("authorization service")):
        broker = rows.select_for_update().first()
        if broker is None:  # Another process was first.
            return
        reason = "the new token was used"
        if broker.token_digest == digest:
            broker.end_previous_token()
        else:
            broker.previous_token_digest = digest
            reason = "the token after it was used, and is kept until the current one is used"
        broker.save(update_fields=TOKEN_FIELDS)
        audit.record("previous_token_ended", broker.key, after={"reason": reason})


def _locked(broker: Broker) -> Broker:
    """Return the row of *broker*, locked, so that two rotations at once follow each other."""
    return Broker.objects.select_for_update().get(pk=broker.pk)


def _save(changed: Broker, broker: Broker) -> None:
    changed.save(update_fields=TOKEN_FIELDS)
    for name in TOKEN_FIELDS:
        setattr(broker, name, getattr(changed, name))


def _end(broker: Broker) -> Any:
    """Return the end of the overlap of *broker* for the audit; None without one."""
    until = broker.previous_token_until
    return "until used" if until == UNTIL_USED else until and until.isoformat()
