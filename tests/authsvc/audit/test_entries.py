"""The audit: rows with an actor, in the transaction of the change, without secrets."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime

import pytest
from django.db import transaction

from authsvc import audit
from authsvc.audit import actions, actors
from authsvc.models import AuditEntry, Broker
from rig.hub import ROOT

pytestmark = pytest.mark.django_db


def test_a_change_in_a_shell_is_that_of_its_login(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "mara")

    audit.record(
        "device_disabled", "weatherstation/S-1", before={"is_active": True}, after={"is_active": False}
    )

    entry = AuditEntry.objects.get()
    assert (entry.actor_kind, entry.actor, entry.action) == ("shell", "mara", "device_disabled")
    assert (entry.before, entry.after) == ({"is_active": True}, {"is_active": False})


def test_a_process_without_a_name_is_recorded_by_its_number(monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(actors.getpass, "getuser", lambda: {}["nobody"])

    assert audit.current_actor().name.startswith("uid ")


def test_the_context_names_the_actor_and_the_reason():
    with audit.acting(audit.system("listen_mqtt")), audit.because("  spring\x00 cleaning  "):
        audit.record("credentials_revoked", "weatherstation/S-1")
    audit.record("credentials_revoked", "weatherstation/S-2")

    of_system, of_shell = AuditEntry.objects.order_by("pk")
    assert (of_system.actor_kind, of_system.actor) == ("system", "listen_mqtt")
    assert of_system.reason == "spring\ufffd cleaning"
    assert (of_shell.actor_kind, of_shell.reason) == ("shell", "")


def test_a_change_that_is_rolled_back_leaves_no_row():
    with pytest.raises(RuntimeError), transaction.atomic():
        audit.record("credentials_revoked", "weatherstation/S-1")
        raise RuntimeError

    assert not AuditEntry.objects.exists()


def test_a_secret_column_is_refused():
    with pytest.raises(ValueError, match="api_key"):
        audit.record("api_key_rotated", "weatherstation/S-1", after={"api_key": "x"})

    assert not AuditEntry.objects.exists()


def test_a_word_that_is_not_registered_is_refused(monkeypatch):
    monkeypatch.setattr(actions, "_labels", dict(actions._labels))
    with pytest.raises(audit.UnknownAction):
        audit.record("webhook_created", "webhook/1")

    audit.register("webhook_created", "Webhook created")
    audit.record("webhook_created", "webhook/1")

    assert audit.label(AuditEntry.objects.get().action) == "Webhook created"
    with pytest.raises(ValueError, match="taken"):
        audit.register("webhook_created", "Something else")


def test_an_entry_of_an_app_that_is_gone_has_a_label():
    assert audit.label("webhook_created") == "Webhook created"


def test_any_value_can_be_stored():
    """Times, long texts, and what PostgreSQL refuses in JSON become texts."""
    given = {"at": datetime(2026, 1, 2, tzinfo=UTC), "nul": "a\x00b", "half": "\ud800", "nan": float("nan")}

    audit.record("device_changed", "weatherstation/S-1", before={"metadata": "x" * 5_000}, after=given)

    entry = AuditEntry.objects.get()
    assert len(entry.before["metadata"]) == 2_001
    assert entry.after["at"] == "2026-01-02T00:00:00Z"
    assert entry.after["nan"] == "NaN"


def test_many_changes_are_written_with_few_statements(django_assert_max_num_queries):
    changes = (audit.Change(f"weatherstation/S-{number}", None, {"site": "north"}) for number in range(1_001))

    with django_assert_max_num_queries(12):
        assert audit.record_many("device_moved", changes) == 1_001

    assert AuditEntry.objects.filter(action="device_moved", after={"site": "north"}).count() == 1_001


def test_threads_of_a_process_act_as_that_process():
    def work() -> None:
        seen.append(audit.current_actor().name)

    seen: list[str] = []
    with audit.process(audit.system("listen_mqtt")), audit.acting(audit.system("this thread alone")):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        work()

    assert seen == ["listen_mqtt", "this thread alone"]


def test_values_leave_out_secrets():
    broker = Broker(name="mosquitto-1", token_digest="x", is_active=False)

    assert audit.values(broker, ["name", "token_digest"]) == {"name": "mosquitto-1"}
    assert not {"token_digest", "previous_token_digest", "id"} & set(audit.values(broker))


def test_the_page_lists_each_action():
    page = (ROOT / "docs/explanation/audit.md").read_text()
    tables = [line for line in page.partition("## The actions")[2].splitlines() if line.startswith("| ")]

    assert sorted(re.findall(r"`(\w+)`", "\n".join(tables))) == sorted(audit.labels())
    assert set(actions.OF_CREDENTIALS) <= audit.labels().keys()
