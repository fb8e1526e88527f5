"""Each action leaves one entry with its author, address and reason, in the transaction of the change."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from authsvc import audit, broker_tokens, granting
from authsvc.credentials import UNTIL_USED
from authsvc.directory import AccountDirectory
from authsvc.models import Account, AuditEntry, AuditRetention, Broker, Grant
from devicehub import commands, provisioning, removal
from devicehub.directory import DeviceDirectory
from devicehub.ingest import replay
from devicehub.kinds.registry import registry
from devicehub.models import DeviceCommand, DeviceGroup, QuarantinedMessage
from devicehub.provisioning import credentials_file
from devicehub.provisioning.credentials_file import Row, RowOutcome

pytestmark = pytest.mark.django_db
MARA = audit.Actor(AuditEntry.Kind.USER, "mara", "10.0.0.7")
SOON = datetime(2100, 1, 1, tzinfo=UTC)
STATION, BACKEND = "weatherstation/STATION-001", "account/backend"


class Case(NamedTuple):
    """An action, with the word and the object of its entry."""

    do: Callable[[], Any]
    word: str
    key: str = STATION


def station() -> Any:
    return registry.get("weatherstation").device_model.objects.get(device_id="STATION-001")


def account() -> Account:
    return Account.objects.get(username="backend")


def quarantined() -> QuarantinedMessage:
    return QuarantinedMessage.objects.create(
        received_at=datetime(2026, 5, 1, tzinfo=UTC),
        topic="things/weatherstation/STATION-001/data",
        payload=b'{"temperature": 7}',
        reason="not_json",
        device_key=STATION,
    )


def imported() -> None:
    row = Row(1, "old-1", "PBKDF2$sha512$1$c2FsdA==$aGFzaA==", "OLD-1", outcome=RowOutcome.NEW)
    credentials_file.write([row], provisioning.kind_of("weatherstation"))


def deleted() -> None:
    with transaction.atomic():  # In the transaction of a test, an error inside of delete() would end it.
        station().delete()


def overlapping(row: Any) -> Any:
    type(row).objects.filter(pk=row.pk).update(previous_password_hash="x", previous_valid_until=UNTIL_USED)
    row.refresh_from_db()
    return row


PROVISIONING = {
    "add": Case(
        lambda: provisioning.create(provisioning.kind_of("weatherstation"), "NEW-1"),
        "device_created",
        "weatherstation/NEW-1",
    ),
    "rotate_password": Case(
        lambda: provisioning.rotate_password(station(), valid_until=SOON), "password_rotated"
    ),
    "choose_password": Case(
        lambda: provisioning.choose_password(station(), "a long enough one"), "password_chosen"
    ),
    "end_overlap": Case(lambda: provisioning.end_overlap(overlapping(station())), "overlap_ended"),
    "rotate_api_key": Case(lambda: provisioning.rotate_api_key(station()), "api_key_rotated"),
    "revoke": Case(lambda: provisioning.revoke(station()), "credentials_revoked"),
    "disable": Case(lambda: provisioning.disable(station()), "device_disabled"),
    "enable": Case(lambda: provisioning.enable(station()), "device_enabled"),
    "move": Case(lambda: provisioning.move(station(), "north"), "device_moved"),
    "set_expiry": Case(lambda: provisioning.set_expiry(account(), SOON), "expiry_set", BACKEND),
    "add_account": Case(lambda: provisioning.create_account("new"), "account_created", "account/new"),
    "change_account": Case(
        lambda: provisioning.change_account(account(), is_active=False), "account_changed", BACKEND
    ),
    "delete_account": Case(lambda: provisioning.delete_account(account()), "account_deleted", BACKEND),
    "revoke_account": Case(lambda: provisioning.revoke_account(account()), "credentials_revoked", BACKEND),
    "end_account_overlap": Case(
        lambda: provisioning.end_account_overlap(overlapping(account())), "overlap_ended", BACKEND
    ),
    "rotate_account": Case(
        lambda: provisioning.rotate_account(account(), valid_until=None), "password_rotated", BACKEND
    ),
    "choose_account_password": Case(
        lambda: provisioning.choose_account_password(account(), "a long enough one"),
        "password_chosen",
        BACKEND,
    ),
    "grant_ingest": Case(lambda: provisioning.grant_ingest(account()), "grant_created", ""),
}
GROUPS = {
    "create_group": Case(lambda: provisioning.create_group("new", "New"), "group_created", "group/new"),
    "change_group": Case(
        lambda: provisioning.change_group(DeviceGroup.objects.get(slug="hall"), name="North hall"),
        "group_changed",
        "group/hall",
    ),
    "delete_group": Case(
        lambda: provisioning.delete_group(DeviceGroup.objects.get(slug="hall")), "group_deleted", "group/hall"
    ),
    "set_tags": Case(lambda: provisioning.set_tags(STATION, ["roof"]), "device_changed"),
    "set_options": Case(lambda: provisioning.set_options(STATION, rate_limit="60/m"), "device_changed"),
}
OTHERS = {
    "import": Case(imported, "credentials_imported", "weatherstation/OLD-1"),
    "removal": Case(lambda: removal.request(station()), "removal_requested"),
    "deletion": Case(deleted, "device_removed"),
    "command": Case(lambda: commands.send(station(), "reboot"), "command_sent"),
    "replay": Case(lambda: replay.replay(QuarantinedMessage.objects.all()), "quarantine_replayed"),
    "first use": Case(
        lambda: DeviceDirectory().retire_previous(STATION, overlapping(station()).mqtt_password_hash, "x"),
        "overlap_ended",
    ),
    "first use by an account": Case(
        lambda: AccountDirectory().retire_previous(BACKEND, overlapping(account()).password_hash, "x"),
        "overlap_ended",
        BACKEND,
    ),
    "grant": Case(lambda: granting.create_grant("everyone", ["publish"], "plant/1"), "grant_created", ""),
    "broker": Case(lambda: broker_tokens.create_broker("new", ["go-auth"]), "broker_created", "broker/new"),
    "token": Case(
        lambda: broker_tokens.rotate_token(Broker.objects.get(), valid_until=None),
        "token_rotated",
        "broker/mq",
    ),
}
CASES = PROVISIONING | GROUPS | OTHERS
PREPARED = (
    "end_overlap",
    "end_account_overlap",
    "first use",
    "first use by an account",
)  # They change the row first, for the test.


@pytest.fixture(autouse=True)
def cast():
    """Make the objects of the actions, and delete the entries about that."""
    provisioning.create(provisioning.kind_of("weatherstation"), "STATION-001")
    provisioning.create_account("backend")
    broker_tokens.create_broker("mq", ["go-auth"])
    DeviceGroup.objects.create(slug="hall", name="Hall")
    quarantined()
    AuditEntry.objects.all().delete()
    AuditRetention.objects.update(since=timezone.now())


@pytest.mark.parametrize("name", CASES)
def test_an_action_leaves_its_author_and_its_reason_and_nothing_after_a_rollback(name):
    case = CASES[name]
    with pytest.raises(RuntimeError), transaction.atomic():
        case.do()
        raise RuntimeError
    assert not AuditEntry.objects.exists()

    with audit.acting(MARA), audit.because("ticket 4711"):
        case.do()

    entry = AuditEntry.objects.filter(action=case.word).last()
    assert (entry.actor_kind, entry.actor, entry.address) == ("user", "mara", "10.0.0.7")
    assert entry.reason == "ticket 4711"
    assert entry.object_key == case.key or not case.key
    assert provisioning.unrecorded(5) == []


@pytest.mark.parametrize("name", CASES)
def test_an_action_whose_entry_cannot_be_written_changes_nothing(name, monkeypatch):
    def state() -> list[Any]:
        models = (type(station_row), Account, Broker, Grant, DeviceCommand, DeviceGroup, QuarantinedMessage)
        return [list(model.objects.order_by("pk").values()) for model in models]

    station_row = station()
    before = state() if name not in PREPARED else None
    monkeypatch.setattr(AuditEntry, "save", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("django.db.models.query.QuerySet.bulk_create", _refusing_entries())

    with pytest.raises(ZeroDivisionError):
        CASES[name].do()

    assert before is None or state() == before


def _refusing_entries() -> Any:
    bulk_create = QuerySet.bulk_create

    def refuse(rows: Any, *args: Any, **options: Any) -> Any:
        return 1 / 0 if rows.model is AuditEntry else bulk_create(rows, *args, **options)

    return refuse


def test_each_action_of_provisioning_has_a_case():
    public = {name: getattr(provisioning, name) for name in provisioning.__all__}
    recording = {
        name
        for name, found in public.items()
        if inspect.isfunction(found) and "audit.record" in inspect.getsource(found)
    }

    assert recording - PROVISIONING.keys() - GROUPS.keys() == set()
