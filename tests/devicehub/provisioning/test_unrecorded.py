"""The check of credentials that were changed without an entry in the audit."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from authsvc import audit
from authsvc.models import Account, AuditEntry, AuditRetention
from devicehub import checks, provisioning, second_factor
from fleet.models import WeatherStationDevice

pytestmark = pytest.mark.django_db
KIND = "weatherstation"


def device(device_id="STATION-001"):
    return provisioning.create(provisioning.kind_of(KIND), device_id)[0]


def change(row):
    """Change the credentials of *row* as documented for code that does it on its own."""
    row.generate_credentials() if hasattr(row, "generate_credentials") else row.generate_password()
    row.save()


def checked():
    err = StringIO()
    call_command("check", "--database", "default", stdout=StringIO(), stderr=err)
    return [line for line in err.getvalue().splitlines() if "devicehub.W024" in line]


def test_a_change_past_the_actions_is_reported_until_the_next_one_with_an_entry():
    station = device()
    account, _ = provisioning.create_account("backend")
    assert provisioning.unrecorded(10) == []
    assert checked() == []

    change(station)
    change(account)

    assert provisioning.unrecorded(10) == [f"{KIND}/STATION-001", "account/backend"]
    assert "weatherstation/STATION-001, account/backend." in checked()[0]
    provisioning.rotate_password(station, valid_until=None)
    audit.record("password_rotated", account.key)
    assert provisioning.unrecorded(10) == []


def test_an_entry_about_something_else_hides_nothing():
    station = device()
    change(station)
    provisioning.disable(station)

    assert provisioning.unrecorded(10) == [f"{KIND}/STATION-001"]


def test_a_message_names_five():
    for number in range(7):
        change(WeatherStationDevice(device_id=f"S-{number}"))

    [line] = checked()

    assert line.count(f"{KIND}/S-") == 5
    assert "and others" in line


def test_credentials_from_before_the_audit_are_not_reported():
    change(Account(username="old"))
    AuditRetention.objects.update(since=timezone.now())

    assert provisioning.unrecorded(10) == []


def test_credentials_whose_entries_were_deleted_by_time_are_not_reported():
    station = device()
    long_ago = timezone.now() - timedelta(days=800)
    AuditRetention.objects.update(since=long_ago - timedelta(days=1))
    WeatherStationDevice.objects.update(credentials_changed_at=long_ago)
    AuditEntry.objects.all().delete()
    assert provisioning.unrecorded(10) == []

    AuditRetention.objects.update(keep_seconds=None)

    assert provisioning.unrecorded(10) == [f"{KIND}/{station.device_id}"]


@pytest.mark.parametrize(
    ("change_middleware", "reported"),
    [
        (lambda found: found, False),
        (lambda found: [path for path in found if "note_actor" not in path], True),
        (lambda found: sorted(found, key=lambda path: "note_actor" not in path), True),
        (lambda found: [path for path in found if "devicehub.dashboard" in path], False),
    ],
)
def test_a_missing_or_misplaced_middleware_is_reported(settings, change_middleware, reported):
    settings.MIDDLEWARE = change_middleware(settings.MIDDLEWARE)

    assert [found.id for found in checks.check_actors()] == ["devicehub.W023"] * reported


@pytest.mark.parametrize("removed", [second_factor.MIDDLEWARE, None])
def test_a_second_factor_that_no_sign_in_asks_for_is_reported(settings, removed):
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != removed]

    assert [found.id for found in checks.check_second_factor()] == ["devicehub.W025"] * bool(removed)
