"""Entries of the audit stay as they are: triggers refuse changes, and deletion before the retention is over."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from authsvc import audit
from authsvc.audit import retention, triggers
from authsvc.models import AuditEntry, AuditRetention

TWO_YEARS = timedelta(days=730)
MARGIN = timedelta(minutes=10)


@pytest.fixture
def kept(db):
    """Create the triggers, which the tests otherwise drop; the rollback drops them again."""
    triggers.install()


def entry(age=timedelta(), action="credentials_revoked"):
    found = audit.record(action, "weatherstation/S-1")
    return AuditEntry.objects.create(
        at=timezone.now() - age,
        actor_kind=found.actor_kind,
        actor="mara",
        action=action,
        object_key="weatherstation/S-2",
    )


def refused(statement, *parameters):
    """Return whether the database refuses *statement* and keeps everything."""
    rows = AuditEntry.objects.order_by("pk")
    before = list(rows.values())
    with pytest.raises(IntegrityError, match="audit"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, parameters)
    return list(rows.values()) == before


@pytest.mark.usefixtures("kept")
class TestKept:
    def test_no_entry_can_be_changed(self):
        old = entry(TWO_YEARS + MARGIN)

        assert refused("UPDATE authsvc_auditentry SET actor = 'nobody'")
        assert refused("UPDATE authsvc_auditentry SET actor = 'nobody' WHERE id = %s", old.pk)

    def test_a_young_entry_cannot_be_deleted(self):
        young = entry(TWO_YEARS - MARGIN)

        assert refused("DELETE FROM authsvc_auditentry WHERE id = %s", young.pk)
        with pytest.raises(IntegrityError), transaction.atomic():
            young.delete()

    def test_an_entry_whose_time_is_over_can_be_deleted(self):
        old = entry(TWO_YEARS + MARGIN)

        AuditEntry.objects.filter(pk=old.pk).delete()

        assert AuditEntry.objects.count() == 1

    def test_without_a_retention_nothing_can_be_deleted(self):
        old = entry(timedelta(days=20_000))
        AuditRetention.objects.update(keep_seconds=None)
        assert refused("DELETE FROM authsvc_auditentry WHERE id = %s", old.pk)

        AuditRetention.objects.all().delete()

        assert refused("DELETE FROM authsvc_auditentry WHERE id = %s", old.pk)

    def test_a_row_cannot_be_replaced(self):
        found = entry()
        columns = "id, at, actor_kind, actor, address, action, object_key, reason"
        values = (
            f"SELECT {columns.replace('actor,', 'action,')} FROM authsvc_auditentry WHERE id = {found.pk}"
        )
        statement = {
            "sqlite": f"INSERT OR REPLACE INTO authsvc_auditentry ({columns}) {values}",
            "postgresql": f"INSERT INTO authsvc_auditentry ({columns}) {values} "
            "ON CONFLICT (id) DO UPDATE SET actor = 'nobody'",
        }

        assert refused(statement[connection.vendor])

    @pytest.mark.postgresql_only
    def test_the_table_cannot_be_truncated(self):
        entry()

        assert refused("TRUNCATE authsvc_auditentry")

    @pytest.mark.postgresql_only
    def test_a_trigger_that_a_replica_would_skip_counts_as_missing(self):
        name = f"{triggers.TABLE}_keep"
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {triggers.TABLE} ENABLE TRIGGER {name}")
        assert triggers.missing() == [name]

        triggers.install()

        assert triggers.missing() == []

    def test_a_retention_of_less_than_a_day_is_refused(self):
        with pytest.raises(IntegrityError), transaction.atomic():
            AuditRetention.objects.update(keep_seconds=0)

    def test_installing_again_changes_nothing(self):
        def state():
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
                    if connection.vendor == "sqlite"
                    else "SELECT oid, xmin::text, tgname FROM pg_trigger ORDER BY oid"
                )
                return cursor.fetchall()

        before = state()
        triggers.install()

        assert state() == before
        assert triggers.missing() == []

    def test_a_missing_trigger_is_named_and_created_again(self):
        triggers.drop()
        assert triggers.missing() == list(triggers.NAMES[connection.vendor])

        triggers.install()

        assert triggers.missing() == []

    def test_pruning_deletes_only_entries_whose_time_is_over(self):
        old = [entry(TWO_YEARS + MARGIN).pk for _ in range(7)]
        young = entry(TWO_YEARS - MARGIN)
        out = StringIO()

        call_command("prune_telemetry", "--dry-run", stdout=out)
        call_command("prune_telemetry", "--batch", "3", stdout=out)

        assert out.getvalue().count("audit: 7 ") == 2
        assert not AuditEntry.objects.filter(pk__in=old).exists()
        assert AuditEntry.objects.filter(pk=young.pk).exists()


class TestRetention:
    pytestmark = pytest.mark.django_db

    def test_a_changed_setting_is_applied_and_recorded_once(self, settings):
        settings.AUTHSVC_KEEP_AUDIT = ""
        retention.apply()
        settings.AUTHSVC_KEEP_AUDIT = "90d"
        retention.apply()
        retention.apply()

        assert AuditRetention.objects.get().keep_seconds == 90 * 86_400
        forever, days = AuditEntry.objects.order_by("pk")
        assert (forever.action, forever.before) == ("audit_retention_changed", {"keep_seconds": 730 * 86_400})
        assert (days.before, days.after) == ({"keep_seconds": None}, {"keep_seconds": 90 * 86_400})

    @pytest.mark.parametrize("value", ["soon", "23h", 5, timedelta(hours=1)])
    def test_a_time_that_is_none_is_refused(self, settings, value):
        settings.AUTHSVC_KEEP_AUDIT = value

        with pytest.raises(retention.InvalidRetention):
            retention.apply()
        with pytest.raises(CommandError, match=r"authsvc\.E023"):
            call_command("check")

    def test_the_check_names_a_missing_trigger_and_a_setting_that_is_not_applied(self, settings):
        assert "authsvc_auditentry_keep" in checked()

        triggers.install()
        assert checked() == ""
        settings.AUTHSVC_KEEP_AUDIT = "90d"
        assert "AUTHSVC_KEEP_AUDIT" in checked()


def checked():
    """Return the text of the checks of the database that are about the audit."""
    err = StringIO()
    call_command("check", "--database", "default", stdout=StringIO(), stderr=err)
    return "\n".join(line for line in err.getvalue().splitlines() if "authsvc.W024" in line)


@pytest.mark.django_db(transaction=True)
def test_flush_keeps_the_triggers_until_its_question_is_answered(kept, monkeypatch):
    audit.record("device_created", "weatherstation/S-1")
    seen = []

    def refuse(_question):
        seen.append(triggers.missing())
        return "no"

    monkeypatch.setattr("builtins.input", refuse)
    call_command("flush", verbosity=0, stdout=StringIO())

    assert seen == [[]]
    assert triggers.missing() == []
    assert AuditEntry.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_flush_empties_the_audit_and_creates_its_triggers_again():
    """Tests of projects that use transactions empty their tables so."""
    triggers.install()
    entry()

    call_command("flush", interactive=False, verbosity=0)

    assert not AuditEntry.objects.exists()
    assert triggers.missing() == []
    assert AuditRetention.objects.exists()


@pytest.mark.django_db
def test_a_migration_of_this_app_finds_no_trigger():
    class Planned:
        app_label = "authsvc"

    class Other:
        app_label = "fleet"

    triggers.install()
    triggers.before_migration(plan=[(Other, False)])
    assert triggers.missing() == []

    triggers.before_migration(plan=[(Other, False), (Planned, False)])

    assert triggers.missing() != []
