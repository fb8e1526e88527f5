"""Actions on grants: subjects exist, and each change is in the audit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone

from authsvc import granting
from authsvc.models import AuditEntry, Grant
from devicehub import provisioning
from devicehub.models import DeviceGroup
from rig.cast import provision

pytestmark = pytest.mark.django_db


def test_a_grant_is_created_changed_and_deleted_with_its_history():
    until = timezone.now() + timedelta(days=1)
    grant = granting.create_grant(
        "everyone", ["receive", "publish"], "news/#", note="trial", valid_until=until
    )
    granting.change_grant(grant, note="for good", valid_until=None)
    granting.change_grant(grant, note="for good")
    granting.delete_grant(grant)
    granting.delete_grant(grant)

    made, changed, deleted = AuditEntry.objects.order_by("pk")
    assert {entry.object_key for entry in (made, changed, deleted)} == {f"grant/{made.object_key[6:]}"}
    assert [entry.action for entry in (made, changed, deleted)] == [
        "grant_created",
        "grant_changed",
        "grant_deleted",
    ]
    assert made.after["actions"] == "publish,receive"
    assert made.after["valid_until"] == until.isoformat()
    assert changed.before == {"note": "trial", "valid_until": until.isoformat()}
    assert changed.after == {"note": "for good", "valid_until": None}
    assert deleted.before["filter"] == "news/#"
    assert not Grant.objects.exists()


def test_a_refused_grant_leaves_no_trace():
    granting.create_grant("everyone", ["publish"], "a")
    entries = AuditEntry.objects.count()

    for arguments, more in (
        (("everyone", ["publish"], "a"), {}),  # It exists already.
        (("everyone", [], "b"), {}),
        (("everyone", ["connect"], "b"), {}),
        (("everyone", ["publish"], "b#"), {}),
        (("nobody", ["publish"], "b"), {}),
        (("everyone", ["publish"], "b"), {"effect": "perhaps"}),
        (
            ("everyone", ["publish"], "b"),
            {"valid_from": timezone.now(), "valid_until": timezone.now() - timedelta(1)},
        ),
    ):
        with pytest.raises(ValidationError):
            granting.create_grant(*arguments, **more)
    assert (Grant.objects.count(), AuditEntry.objects.count()) == (1, entries)


def test_a_change_of_another_column_is_refused():
    grant = granting.create_grant("everyone", ["publish"], "a")

    with pytest.raises(ValueError, match="created_at"):
        granting.change_grant(grant, created_at=timezone.now())


@pytest.fixture
def cast():
    provision("S-1", "weatherstation")
    provisioning.create_account("backend")
    DeviceGroup.objects.create(slug="roof", name="Roof")


@pytest.mark.parametrize(
    "subject",
    ["everyone", "type:weatherstation", "key:weatherstation/S-1", "key:account/backend", "group:roof"],
)
def test_a_subject_that_exists(cast, subject):
    assert granting.subject_problem(subject) == ""
    assert granting.create_grant(subject, ["publish"], "a").subject == subject


@pytest.mark.parametrize(
    "subject",
    [
        *("type:nosuch", "key:weatherstation/S-2", "key:weatherstation/s-1", "key:nosuch/S-1"),
        *("key:account/nosuch", "group:nosuch", "key:weatherstation/"),
    ],
)
def test_a_subject_that_names_nothing_is_refused(cast, subject):
    with pytest.raises(ValidationError) as caught:
        granting.create_grant(subject, ["publish"], "a")
    assert list(caught.value.message_dict) == ["subject"]


def test_a_directory_of_a_project_may_know_more(cast, settings):
    settings.AUTHSVC_DIRECTORIES = [*settings.AUTHSVC_DIRECTORIES, "rig.oracles.People"]

    assert granting.subject_problem("key:world/STATION-001") == ""
    assert granting.subject_problem("type:robot") == ""
    assert granting.subject_problem("key:weatherstation/S-2")
    assert granting.subject_problem("group:nosuch")


def test_grants_of_a_subject_are_deleted_one_by_one(cast):
    granting.create_grant("group:roof", ["publish"], "a")
    granting.create_grant("group:roof", ["subscribe"], "a")
    granting.create_grant("everyone", ["subscribe"], "a")

    assert granting.delete_grants_of(["group:roof"]) == 2
    assert AuditEntry.objects.filter(action="grant_deleted").count() == 2
    assert Grant.objects.get().subject == "everyone"
