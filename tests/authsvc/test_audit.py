"""The audit: rows with an actor, in the transaction of the change, without secrets."""

from __future__ import annotations

import pytest
from django.db import transaction

from authsvc import audit
from authsvc.models import AuditEntry

pytestmark = pytest.mark.django_db


def test_a_change_in_a_shell_is_that_of_its_login(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "mara")

    audit.record("disabled", "weatherstation/S-1", before={"is_active": True}, after={"is_active": False})

    entry = AuditEntry.objects.get()
    assert (entry.actor_kind, entry.actor, entry.action) == ("shell", "mara", "disabled")
    assert (entry.before, entry.after) == ({"is_active": True}, {"is_active": False})


def test_a_process_without_a_name_is_recorded_by_its_number(monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(audit.getpass, "getuser", lambda: {}["nobody"])

    assert audit.current_actor().name.startswith("uid ")


def test_the_context_names_the_actor_and_the_reason():
    with audit.acting(audit.system("listen_mqtt")), audit.because("  spring\x00 cleaning  "):
        audit.record("revoked", "weatherstation/S-1")
    audit.record("revoked", "weatherstation/S-2")

    of_system, of_shell = AuditEntry.objects.order_by("pk")
    assert (of_system.actor_kind, of_system.actor) == ("system", "listen_mqtt")
    assert of_system.reason == "spring\ufffd cleaning"
    assert (of_shell.actor_kind, of_shell.reason) == ("shell", "")


def test_a_change_that_is_rolled_back_leaves_no_row():
    with pytest.raises(RuntimeError), transaction.atomic():
        audit.record("revoked", "weatherstation/S-1")
        raise RuntimeError

    assert not AuditEntry.objects.exists()


def test_a_secret_column_is_refused():
    with pytest.raises(ValueError, match="api_key"):
        audit.record("rotated", "weatherstation/S-1", after={"api_key": "x"})

    assert not AuditEntry.objects.exists()


def test_many_rows_are_written_by_one_statement(django_assert_num_queries):
    changes = [(f"weatherstation/S-{number}", None, {"site": "north"}) for number in range(50)]

    with django_assert_num_queries(1):
        audit.record_many("moved", changes)

    assert AuditEntry.objects.filter(action="moved", after={"site": "north"}).count() == 50
    with pytest.raises(ValueError, match="secret"):
        audit.record_many("moved", [("weatherstation/S-1", {"api_key": "x"}, None)])
