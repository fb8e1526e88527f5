"""Fields of the admin for columns of JSON, and panels above a form."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils.html import format_html

from authsvc.models import Account, Grant
from devicehub import roles
from devicehub.admin.devices import DeviceAdmin
from devicehub.admin.widgets import MAX_LINES, MAX_PAIRS, ChoiceBoxesField, LinesField, PairsField
from fleet.models import WeatherStationDevice

pytestmark = pytest.mark.pages

VALUES = [1, 1.5, True, None, "north", "2", "true", "", " padded ", '"quoted"', ["a"], {"b": 1}, "NaN"]


class Fields(forms.Form):
    networks = LinesField(required=False)
    dialects = ChoiceBoxesField(choices=[("emqx", "EMQX"), ("go-auth", "mosquitto, go-auth")])
    metadata = PairsField(required=False)


def test_lines_become_a_list_and_a_list_lines():
    form = Fields(QueryDict("networks=10.0.0.0/8%0D%0A%0D%0A ::1/128%0A10.0.0.0/8&dialects=emqx"))

    assert form.is_valid()
    assert form.cleaned_data == {
        "networks": ["10.0.0.0/8", "::1/128"],
        "dialects": ["emqx"],
        "metadata": {},
    }
    assert ">\na\nb</textarea>" in str(Fields(initial={"networks": ["a", "b"]})["networks"])
    assert not LinesField().has_changed(["a", "b"], "a\r\nb\r\n")
    assert LinesField().has_changed(["a"], "a\nb")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (LinesField(), ""),
        (LinesField(), "a\x00b"),
        (LinesField(), "\n".join(map(str, range(MAX_LINES + 1)))),
        (ChoiceBoxesField(choices=[("emqx", "EMQX")]), ["other"]),
        (PairsField(), []),
        (PairsField(), [("", "value")]),
        (PairsField(), [("key", "1"), ("key", "2")]),
        (PairsField(), [(f"k{n}", "") for n in range(MAX_PAIRS + 1)]),
        (PairsField(), [("key", "1e400")]),
        (PairsField(), [("key", '{"deep": [-1e999]}')]),
        (PairsField(), [("key", "a\x00b")]),
        (PairsField(), [("key", '"\\u0000"')]),
        (PairsField(), [("a\ud800b", "1")]),
        (PairsField(), [("key", f"{'[' * 900}{']' * 900}")]),
    ],
)
def test_wrong_entries_are_refused_with_a_sentence(field, value):
    with pytest.raises(ValidationError) as error:
        field.clean(value)

    assert error.value.messages[0].endswith(".")


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_of_an_object_stays_the_same(value):
    field = PairsField()
    rows = field.prepare_value({"key": value})

    assert field.clean(rows) == {"key": value}
    assert not field.has_changed({"key": value}, rows)


@pytest.mark.django_db
@pytest.mark.parametrize(("zone", "shown"), [("UTC", "12:00:00"), ("Europe/Berlin", "13:00:00")])
def test_the_label_of_a_time_names_its_zone(admin_client, client, settings, zone, shown):
    """Both where a time is typed, and on a page that a viewer only reads."""
    settings.TIME_ZONE = zone
    noon = datetime(2030, 1, 1, 12, tzinfo=UTC)
    account = Account.objects.create(username="backend", password_expires_at=noon)
    grant = Grant.objects.create(subject="everyone", actions="publish", filter="a/b", valid_until=noon)
    viewer = User.objects.create_user("vera", is_staff=True)
    roles.assign(viewer, roles.VIEWER, None)
    client.force_login(viewer)

    for reader in (admin_client, client):
        pages = [
            reader.get(f"/admin/authsvc/{name}/{pk}/change/").content.decode()
            for name, pk in (("account", account.pk), ("grant", grant.pk))
        ]
        assert f"Created at, in {zone}" in pages[0]
        for page, label in zip(pages, ("Password expires at", "Valid until"), strict=True):
            assert f"{label}, in {zone}" in page
            assert f'value="{shown}"' in page or f"2030-01-01 {shown}" in page


def test_pairs_are_rows_with_spare_ones(admin_client, station):
    device = WeatherStationDevice.objects.get()
    device.metadata = {"floor": 2, "<b>": "B7"}
    device.save(update_fields=["metadata"])

    page = admin_client.get(f"/admin/fleet/weatherstationdevice/{device.pk}/change/").content.decode()

    assert page.count('name="metadata_key"') == 5
    assert 'value="&lt;b&gt;"' in page
    assert 'aria-label="Key 1"' in page


def test_a_panel_stands_above_the_form_of_a_device_that_exists(admin_client, monkeypatch, station):
    device = WeatherStationDevice.objects.get()
    panels = [
        lambda request, found: format_html("<p>Panel of {} for {}</p>", found.device_id, request.user),
        lambda request, found: "",
    ]
    monkeypatch.setattr(DeviceAdmin, "panels", panels)

    page = admin_client.get(f"/admin/fleet/weatherstationdevice/{device.pk}/change/").content.decode()

    assert page.index("<p>Panel of STATION-001 for admin</p>") < page.index('name="name"')
    assert "Panel of" not in admin_client.get("/admin/fleet/weatherstationdevice/add/").content.decode()
