"""Tags, heartbeat and rate limit in the form of a device, the notices after a save, and the trail of groups."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import reverse

from authsvc.models import AuditEntry, Grant
from devicehub import provisioning, roles
from devicehub.admin.devices import DeviceAdmin
from devicehub.models import DeviceGroup, DeviceOptions
from fleet.models import WeatherStationDevice
from rig.credential_pages import nonce_of, signed_in
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]

KEY = "weatherstation/S-1"
OPTIONS = {"device_tags": "", "device_heartbeat": "", "device_rate_limit": ""}


@pytest.fixture
def device() -> WeatherStationDevice:
    return WeatherStationDevice.objects.create(device_id="S-1", site="north", mqtt_username="u-1")


@pytest.fixture
def limited() -> Client:
    return signed_in(person("nora", roles.OPERATOR, ["north"], is_staff=True))


def url(page: str, *args: Any) -> str:
    return reverse(f"admin:fleet_weatherstationdevice_{page}", args=args)


def save(client: Client, device: WeatherStationDevice, **fields: str) -> Any:
    form = {"site": "north", "status": "", "is_active": "on", **OPTIONS, **fields}
    return client.post(url("change", device.pk), form, follow=True)


def entries() -> list[tuple[Any, ...]]:
    rows = AuditEntry.objects.filter(object_key=KEY, action="device_changed").order_by("pk")
    return list(rows.values_list("before", "after"))


def options() -> list[tuple[Any, ...]]:
    return list(DeviceOptions.objects.values_list("device_key", "expected_heartbeat", "rate_limit"))


def test_tags_and_limits_are_saved_with_the_device_and_recorded(admin_client, device):
    provisioning.create_group("roof", "Roof", tags=["roof"])

    save(
        admin_client,
        device,
        name="Roof",
        device_tags="roof\r\nold, b\r\n",
        device_heartbeat="60",
        device_rate_limit="60/m",
    )

    assert provisioning.tags_of(KEY) == ["b", "old", "roof"]
    assert options() == [(KEY, 60.0, "60/m")]
    assert provisioning.count_members(DeviceGroup.objects.get()) == 1
    assert entries() == [
        ({"name": ""}, {"name": "Roof"}),
        ({"tags": []}, {"tags": ["b", "old", "roof"]}),
        (
            {"expected_heartbeat": None, "rate_limit": ""},
            {"expected_heartbeat": 60.0, "rate_limit": "60/m"},
        ),
    ]
    page = admin_client.get(url("change", device.pk)).content.decode()
    assert ">\nb\nold\nroof</textarea>" in page
    assert 'value="60"' in page
    assert 'value="60/m"' in page


def test_only_changed_values_are_written(admin_client, device):
    provisioning.set_tags(KEY, ["roof"])
    provisioning.set_options(KEY, expected_heartbeat=60, rate_limit="60/m")
    before = entries()
    same = {"device_tags": "roof", "device_heartbeat": "60.0", "device_rate_limit": "60/m"}

    save(admin_client, device, **same)
    admin_client.post(url("change", device.pk), {"site": "north", "status": "", "is_active": "on"})
    assert (entries(), options()) == (before, [(KEY, 60.0, "60/m")])

    save(admin_client, device, **{**same, "device_heartbeat": ""})
    assert options() == [(KEY, None, "60/m")]
    save(admin_client, device)
    assert (provisioning.tags_of(KEY), options()) == ([], [])


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("device_tags", "two words!", "words! cannot be a tag: use letters, digits, - and _, at most 50."),
        ("device_tags", ",".join(f"t{n}" for n in range(51)), "A device has at most 50 tags."),
        ("device_heartbeat", "often", "Write a number of seconds, such as 300."),
        ("device_heartbeat", "0.5", "Write 1 second or more."),
        ("device_heartbeat", "9999999", "Write 2,592,000 seconds (30 days) or less."),
        ("device_rate_limit", "often", "Write messages for each second, minute or hour, such as 600/m."),
    ],
)
def test_a_wrong_value_is_explained_beside_its_field_and_nothing_is_saved(
    admin_client, device, field, value, sentence
):
    answer = save(admin_client, device, name="Roof", **{field: value})

    assert answer.context["adminform"].form.errors == {field: [sentence]}
    assert sentence in answer.content.decode()
    device.refresh_from_db()
    assert device.name == ""


def test_the_form_names_the_values_that_hold_without_own_ones(admin_client, device, settings):
    page = admin_client.get(url("change", device.pk)).content.decode()
    assert "Empty: 300 s, the interval of its type." in page
    assert "Empty: no limit, as DEVICEHUB_RATE_LIMIT is not set." in page

    settings.DEVICEHUB_RATE_LIMIT = "600/m"
    page = admin_client.get(url("change", device.pk)).content.decode()
    assert "Empty: 600 messages in 60 s, by DEVICEHUB_RATE_LIMIT." in page


def test_a_new_device_gets_tags_and_limits(admin_client):
    form = {"device_id": "S-1", "site": "", "status": "", "is_active": "on", **OPTIONS}
    nonce = nonce_of(admin_client.get(url("add")).content.decode())

    admin_client.post(url("add"), {**form, "device_tags": "roof", "device_heartbeat": "5", "nonce": nonce})

    assert provisioning.tags_of(KEY) == ["roof"]
    assert options() == [(KEY, 5.0, "")]


def test_a_user_with_a_limit_to_sites_reads_tags_and_sets_none(limited, device):
    """A tag can bring a device into a group, whose grants reach other sites."""
    provisioning.set_tags(KEY, ["roof"])

    answer = save(limited, device, device_tags="cellar", device_heartbeat="60")

    assert answer.status_code == 200
    assert provisioning.tags_of(KEY) == ["roof"]
    assert options() == [(KEY, 60.0, "")]
    page = limited.get(url("change", device.pk)).content.decode()
    assert "roof" in page
    assert 'name="device_tags"' not in page
    added = limited.get(url("add")).content.decode()
    assert 'name="device_tags"' not in added
    form = {"device_id": "S-2", "site": "north", "status": "", "is_active": "on", "nonce": nonce_of(added)}
    limited.post(url("add"), {**form, **OPTIONS, "device_tags": "roof"})
    assert WeatherStationDevice.objects.filter(device_id="S-2").exists()
    assert provisioning.tags_of("weatherstation/S-2") == []


def test_a_viewer_reads_them(device):
    provisioning.set_tags(KEY, ["roof"])
    provisioning.set_options(KEY, expected_heartbeat=61)
    viewer = signed_in(person("vera", roles.VIEWER, is_staff=True))

    page = viewer.get(url("change", device.pk)).content.decode()

    assert "roof" in page
    assert "61 s" in page
    assert "no limit" in page
    assert save(viewer, device, device_tags="cellar").status_code == 403
    assert provisioning.tags_of(KEY) == ["roof"]


def test_a_form_with_sections_of_a_project_empties_nothing(admin_client, device, monkeypatch):
    provisioning.set_tags(KEY, ["roof"])
    monkeypatch.setattr(DeviceAdmin, "fields", ("name", "site", "is_active"))

    assert save(admin_client, device, name="Roof").status_code == 200

    device.refresh_from_db()
    assert device.name == "Roof"
    assert provisioning.tags_of(KEY) == ["roof"]


@pytest.mark.parametrize("button", ["_save", "_continue", "_addanother"])
def test_a_notice_says_the_saved_object_with_a_link(admin_client, device, button):
    device.name = "<b>"
    device.save(update_fields=["name"])

    answer = save(admin_client, device, name="<b>", **{button: "1"})

    (notice,) = map(str, answer.context["messages"])
    page = url("change", device.pk)
    assert (
        notice
        == f'Weather station saved: <a class="dh-link" href="{page}">{device.device_id}, &lt;b&gt;</a>.'
    )
    assert f'<a class="dh-link" href="{page}">{device.device_id}, &lt;b&gt;</a>' in answer.content.decode()


def test_the_removal_of_a_device_names_it_and_not_its_state(admin_client, device):
    WeatherStationDevice.objects.update(status="online", name="Roof")
    page = url("delete", device.pk)
    asked = admin_client.get(page)
    removed = admin_client.post(page, {"post": "yes"}, follow=True)

    assert f"{device.device_id}, Roof: " in asked.content.decode()
    assert str(*removed.context["messages"]) == f"Weather station removed: {device.device_id}, Roof."
    assert "(online)" not in asked.content.decode() + removed.content.decode()


def test_notices_of_other_models_are_in_our_words(admin_client):
    group = {"name": "Roof", "slug": "roof", "how": "chosen"}
    added = admin_client.post(reverse("admin:devicehub_devicegroup_add"), group, follow=True)
    grant = Grant.objects.create(subject="everyone", actions="publish", filter="plant/1")
    deleted = admin_client.post(
        reverse("admin:authsvc_grant_delete", args=[grant.pk]), {"post": "yes"}, follow=True
    )
    named = {"username": "nora", "password1": "a long sentence", "password2": "a long sentence"}
    user = admin_client.post(reverse("admin:auth_user_add"), named, follow=True)

    grants = [Grant.objects.create(subject="everyone", actions="publish", filter=f"plant/{n}") for n in "ab"]
    chosen = {"action": "delete_selected", "_selected_action": [row.pk for row in grants], "post": "yes"}
    many = admin_client.post(reverse("admin:authsvc_grant_changelist"), chosen, follow=True)

    assert str(*many.context["messages"]) == "2 grants removed."
    pk = DeviceGroup.objects.get().pk
    notices = [str(*answer.context["messages"]) for answer in (added, deleted, user)]
    assert notices[0] == (
        f'Group of devices added: <a class="dh-link" href="/admin/devicehub/devicegroup/{pk}/change/">Roof</a>.'
    )
    assert notices[1] == "Grant removed: Everyone: allow publish on plant/1."
    assert notices[2].startswith("User added: <a class=")


def test_the_trail_has_the_names_of_the_navigation(admin_client):
    role = Group.objects.create(name="Field crew")
    device = WeatherStationDevice.objects.create(device_id="S-1")
    for model, row, title in (
        ("auth_group", role, "Roles"),
        ("fleet_weatherstationdevice", device, "Weather stations"),
    ):
        for page, args in (("changelist", ()), ("change", (row.pk,)), ("delete", (row.pk,))):
            text = admin_client.get(reverse(f"admin:{model}_{page}", args=args)).content.decode()
            assert f">{title}</a>" in text or f"&rsaquo; {title}" in text, (model, page)


def test_the_trail_of_groups_names_their_place_in_the_navigation(admin_client):
    group = provisioning.create_group("roof", "Roof")
    for page, args in (("changelist", ()), ("add", ()), ("change", (group.pk,))):
        text = admin_client.get(reverse(f"admin:devicehub_devicegroup_{page}", args=args)).content.decode()
        trail = text[: text.index("roups of devices</a>")] if page == "change" else text
        assert ">Fleet</span>" in trail or "&rsaquo; Fleet" in trail
        assert '<a href="/admin/devicehub/">Messages</a>' not in text
