"""Saves and deletions in the admin leave one entry in the audit each, with the changed values."""

from __future__ import annotations

import pytest
from django.urls import reverse

from authsvc.models import Account, AuditEntry, Broker, Grant
from devicehub import provisioning
from fleet.models import WeatherStationDevice
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]

GRANT = {"subject": "everyone", "effect": "allow", "actions": "publish", "filter": "plant/1", "note": ""}


@pytest.fixture
def admin(client):
    client.force_login(person("mara", is_staff=True, is_superuser=True))
    return client


def entries(after=0):
    """Return the entries with a higher primary key as action, object and values."""
    rows = AuditEntry.objects.filter(pk__gt=after).order_by("pk")
    return [(row.action, row.object_key, row.before, row.after) for row in rows]


def last():
    return AuditEntry.objects.order_by("pk").values_list("pk", flat=True).last() or 0


def save(client, row, **data):
    """Post the form of *row*, with the values that the page shows and those of *data*; return the response."""
    meta = row._meta
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    form = client.get(url).context["adminform"].form
    shown = {name: form[name].value() for name in form.fields}
    sent = {name: value for name, value in {**shown, **data}.items() if value not in (None, False)}
    return client.post(url, {**management(client.get(url)), **sent})


def management(page):
    """Return the hidden fields of the inline forms of *page*, without rows."""
    found = {}
    for formset in page.context.get("inline_admin_formsets", []):
        prefix = formset.formset.prefix
        found |= {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}
    return found


def delete(client, row):
    meta = row._meta
    return client.post(
        reverse(f"admin:{meta.app_label}_{meta.model_name}_delete", args=[row.pk]), {"post": "yes"}
    )


def test_a_change_of_an_account_records_the_user_the_address_and_the_values(admin):
    account, _ = provisioning.create_account("backend")
    before = last()

    save(admin, account, is_superuser="on")

    assert entries(before) == [
        ("account_changed", "account/backend", {"is_superuser": False}, {"is_superuser": True})
    ]
    row = AuditEntry.objects.latest("pk")
    assert (row.actor_kind, row.actor, row.address) == ("user", "mara", "127.0.0.1")


def test_a_form_that_changes_nothing_leaves_no_entry(admin):
    account, _ = provisioning.create_account("backend")
    before = last()

    save(admin, account)

    assert entries(before) == []


def test_a_change_that_is_rolled_back_leaves_no_entry(admin, monkeypatch):
    account, _ = provisioning.create_account("backend")
    before = last()
    monkeypatch.setattr("django.contrib.admin.options.ModelAdmin.log_change", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        save(admin, account, is_superuser="on")

    assert entries(before) == []
    assert not Account.objects.get().is_superuser


def test_deletions_are_recorded_with_the_values_and_without_secrets(admin):
    broker = Broker.objects.create(name="mosquitto-1", token_digest="x" * 64, networks=["10.0.0.0/8"])
    account, _ = provisioning.create_account("backend")
    before = last()

    delete(admin, broker)
    admin.post(
        reverse("admin:authsvc_account_changelist"),
        {"action": "delete_selected", "_selected_action": [account.pk], "post": "yes"},
    )

    (one, of_broker, values, _), (two, of_account, _, _) = entries(before)
    assert (one, of_broker) == ("broker_deleted", "broker/mosquitto-1")
    assert (two, of_account) == ("account_deleted", "account/backend")
    assert values["networks"] == ["10.0.0.0/8"]
    assert "token_digest" not in values


def test_a_grant_is_recorded_once(admin):
    before = last()
    grant = Grant.objects.create(**GRANT)

    save(admin, grant, note="for plant 1")
    delete(admin, grant)

    assert [row[0] for row in entries(before)] == ["grant_changed", "grant_deleted"]


def test_each_change_of_a_device_has_its_word(admin):
    device = provisioning.create(provisioning.kind_of("weatherstation"), "STATION-001")[0]
    before = last()

    save(admin, device, site="north", name="Roof", is_active="")

    assert sorted(row[0] for row in entries(before)) == ["device_changed", "device_moved"]
    assert WeatherStationDevice.objects.get().is_active, "a device is disabled by its button, with a reason"
    before = last()
    delete(admin, device)
    assert [row[0] for row in entries(before)] == ["device_removed"]
