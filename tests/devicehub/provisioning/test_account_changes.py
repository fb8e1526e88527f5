"""Changes and deletions of service accounts and brokers: what was read earlier is not written back."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError

from authsvc import broker_tokens
from authsvc.models import Account, AuditEntry, Broker
from devicehub import provisioning

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("field", ["client_ids", "is_active"])
def test_a_change_keeps_a_password_that_was_rotated_meanwhile(field):
    """A page that was opened before a rotation saves its own fields alone."""
    account, _ = provisioning.create_account("backend")
    opened = Account.objects.get()
    provisioning.rotate_account(account, valid_until=None)

    provisioning.change_account(opened, **{field: ["x"] if field == "client_ids" else False})

    assert Account.objects.get().password_hash == account.password_hash


def test_a_change_keeps_a_token_that_was_rotated_meanwhile():
    """A page that was opened before a rotation saves its own fields alone."""
    broker, _ = broker_tokens.create_broker("orchard", [])
    opened = Broker.objects.get()
    broker_tokens.rotate_token(broker, valid_until=None)

    broker_tokens.change_broker(opened, is_active=False)

    stored = Broker.objects.get()
    assert (stored.token_digest, stored.is_active) == (broker.token_digest, False)


def test_a_refused_change_changes_nothing():
    """Neither the row nor the audit."""
    account, _ = provisioning.create_account("backend")
    broker, _ = broker_tokens.create_broker("orchard", [])
    broker_tokens.create_broker("meadow", [])
    entries = AuditEntry.objects.count()

    with pytest.raises(ValidationError):
        provisioning.change_account(account, client_ids=["*"])
    with pytest.raises(ValidationError):
        broker_tokens.change_broker(broker, networks=["here"])
    with pytest.raises(broker_tokens.BrokerExists):
        broker_tokens.change_broker(broker, name="meadow")
    for change in (provisioning.change_account, broker_tokens.change_broker):
        with pytest.raises(ValueError, match="is not a field"):
            change(account if change is provisioning.change_account else broker, created_at=None)

    assert (Account.objects.get().client_ids, Broker.objects.get(name="orchard").networks) == ([], [])
    assert AuditEntry.objects.count() == entries


def test_a_second_deletion_does_nothing():
    """Two people may press the button at the same time."""
    account, _ = provisioning.create_account("backend")
    broker, _ = broker_tokens.create_broker("orchard", [])

    for _ in range(2):
        provisioning.delete_account(Account(pk=account.pk))
        broker_tokens.delete_broker(Broker(pk=broker.pk))

    assert AuditEntry.objects.filter(action__endswith="_deleted").count() == 2
