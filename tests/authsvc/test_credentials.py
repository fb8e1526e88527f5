"""The password columns that devices and accounts share."""

from datetime import timedelta

import pytest
from django.contrib import admin
from django.utils import timezone

from authsvc.credentials import UNTIL_USED, Credentials
from authsvc.models import Account
from devicehub import provisioning
from fleet.models import WeatherStationDevice

MODELS = pytest.mark.parametrize("model", [Account, WeatherStationDevice], ids=["account", "device"])


def holder(model: type[Credentials], **fields: object) -> Credentials:
    return model(**{model.HASH_COLUMN: "old", **fields})


def current(row: Credentials) -> str:
    return getattr(row, row.HASH_COLUMN)


def previous(row: Credentials) -> tuple[str, object]:
    return row.previous_password_hash, row.previous_valid_until


@MODELS
def test_a_new_hash_revokes_the_old_one_its_expiry_and_the_tokens(model):
    before = timezone.now()
    row = holder(model, previous_password_hash="older", previous_valid_until=UNTIL_USED)
    row.password_expires_at = before + timedelta(days=1)

    row.set_hash("new")

    assert (current(row), *previous(row), row.password_expires_at) == ("new", "", None, None)
    assert before <= row.credentials_changed_at <= timezone.now()


@MODELS
@pytest.mark.parametrize("until", [UNTIL_USED, timezone.now() + timedelta(days=300)], ids=["used", "date"])
def test_the_old_hash_stays_valid_for_an_overlap(model, until):
    row = holder(model)

    row.set_hash("new", keep_previous_until=until)

    assert (current(row), *previous(row)) == ("new", "old", until)


@MODELS
@pytest.mark.parametrize("until", [UNTIL_USED, timezone.now() + timedelta(days=300)], ids=["used", "date"])
def test_an_overlap_keeps_the_hash_in_use_and_not_one_that_was_never_used(model, until):
    row = holder(model)
    row.set_hash("lost", keep_previous_until=UNTIL_USED)

    row.set_hash("new", keep_previous_until=until)

    assert (current(row), *previous(row)) == ("new", "old", until)


@MODELS
def test_an_overlap_is_no_longer_than_the_old_password(model):
    soon = timezone.now() + timedelta(hours=1)
    row = holder(model, password_expires_at=soon)

    row.set_hash("new", keep_previous_until=UNTIL_USED)

    assert previous(row) == ("old", soon)


@MODELS
def test_an_overlap_does_not_renew_an_expired_password(model):
    row = holder(model, password_expires_at=timezone.now() - timedelta(seconds=1))

    row.set_hash("new", keep_previous_until=UNTIL_USED)

    assert previous(row) == ("", None)


@MODELS
def test_without_an_old_hash_there_is_no_overlap(model):
    row = holder(model, **{model.HASH_COLUMN: ""})

    row.set_hash("new", keep_previous_until=UNTIL_USED)

    assert previous(row) == ("", None)


@MODELS
def test_no_hash_is_in_a_text_of_the_row(model):
    row = holder(model)
    row.set_hash("new", keep_previous_until=UNTIL_USED)

    assert "old" not in f"{row!r} {row}"
    assert "new" not in f"{row!r} {row}"


@MODELS
def test_the_password_columns_are_columns(model):
    names = model.password_columns()

    assert names[0] == model.HASH_COLUMN
    assert {model._meta.get_field(name).column for name in names} == set(names)


@pytest.mark.django_db
def test_a_new_password_writes_only_the_password_of_an_account():
    account, _ = provisioning.create_account("backend")
    Account.objects.update(is_active=False)

    provisioning.rotate_account(account, valid_until=None)
    provisioning.choose_account_password(account, "a long enough password")

    assert not Account.objects.get().is_active


def test_the_form_of_a_device_shows_the_expiry_after_the_client_id(rf, admin_user):
    request = rf.get("/")
    request.user = admin_user

    device = WeatherStationDevice(device_id="STATION-001")
    sections = admin.site.get_model_admin(WeatherStationDevice).get_fieldsets(request, device)
    fields = [field for _, section in sections for field in section["fields"]]

    assert fields[0] == "device_id"
    assert fields[fields.index("mqtt_client_id") + 1] == "password_expires_at"
