"""Each page of the admin shows a user the rows of their sites alone."""

from __future__ import annotations

import re

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from authsvc.models import Account, Broker, Denial, Grant
from devicehub import roles
from devicehub.admin.base import Limited
from devicehub.models import DeviceCommand, QuarantinedMessage, RemovalRequest, SiteScope
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading
from rig.credential_pages import nonce_of

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
OURS = ("authsvc", "devicehub", "fleet", "lwm2m", "auth")
FOREIGN = "SOUTH-7"  # A device of another site; no page may contain its id.


def url(model: type, page: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def add_rows(device_id: str, site: str) -> WeatherStationDevice:
    """Create a device with a row in each table that names it."""
    now, key = timezone.now(), f"weatherstation/{device_id}"
    device = WeatherStationDevice.objects.create(
        device_id=device_id, site=site, mqtt_username=f"u-{device_id}"
    )
    WeatherStationReading.objects.create(device=device, timestamp=now)
    WeatherStationMessage.objects.create(device=device, topic=f"things/weatherstation/{device_id}/data")
    DeviceCommand.objects.create(device_key=key, name="reboot")
    QuarantinedMessage.objects.create(
        device_key=key, reason="not_json", topic=f"things/{key}/data", payload=b"{", received_at=now
    )
    Denial.objects.create(
        dialect="emqx",
        username=f"u-{device_id}",
        principal=key,
        action="publish",
        topic=f"things/{key}/other",
        reason="no_grant",
        first_at=now,
        last_at=now,
    )
    RemovalRequest.objects.create(device_key=key, requested_at=now)
    Grant.objects.create(subject=f"key:{key}", actions="publish", filter=f"extra/{device_id}")
    return device


@pytest.fixture
def foreign():
    add_rows("NORTH-1", "north")
    Broker(name=f"broker of {FOREIGN}", token_digest="x").save()
    Account.objects.create(username=f"account-{FOREIGN}")
    return add_rows(FOREIGN, "south")


@pytest.fixture
def operator(foreign) -> Client:
    """Return the client of an administrator of the northern site, who has every permission that a role gives."""
    user = User.objects.create_user("nora", is_staff=True)
    user.groups.add(Group.objects.get(name=roles.ADMINISTRATOR))
    SiteScope.objects.create(user=user, sites=["north"])
    client = Client()
    client.force_login(user)
    return client


def pages() -> list[type]:
    """Return the models of ours with the pages of a ModelAdmin; a few have only a page of their own as their list."""
    return [model for model in registered() if is_there(model)]


def registered() -> list[type]:
    return [model for model in admin.site._registry if model._meta.app_label in OURS]


def is_there(model: type) -> bool:
    try:
        return bool(url(model, "add"))
    except NoReverseMatch:
        return False


def test_each_page_limits_its_rows():
    """A new page derives from devicehub.admin.base.ModelAdmin, and then is hidden or limited by default."""
    others = [
        model._meta.label for model in registered() if not isinstance(admin.site._registry[model], Limited)
    ]

    assert others == []


def test_no_list_shows_the_device_of_another_site(operator):
    seen = set()
    for model in registered():
        for query in ("", f"?q={FOREIGN}", "?q=NORTH"):
            answer = operator.get(url(model, "changelist") + query)
            if answer.status_code == 200:
                text = re.sub(
                    rf'(q=|q%3D|value="){FOREIGN}', "", answer.content.decode()
                )  # the search itself
                assert FOREIGN not in text, (model, query)
                seen |= {model} if "NORTH-1" in text else set()
            else:
                assert answer.status_code == 403, model
    assert {WeatherStationDevice, WeatherStationReading, WeatherStationMessage, Denial} <= seen
    assert {DeviceCommand, QuarantinedMessage, RemovalRequest} <= seen
    assert not {Grant, Broker, Account, User, Group} & seen


@pytest.mark.parametrize("page", ["change", "delete", "history"])
def test_no_page_of_a_row_of_another_site_opens(operator, foreign, page):
    for model in pages():
        for row in model._base_manager.all():
            if FOREIGN not in str(vars(row)) and getattr(row, "device", None) != foreign:
                continue
            for answer in (
                operator.get(url(model, page, row.pk)),
                operator.post(url(model, page, row.pk), {"post": "yes", "_save": "1"}),
            ):
                assert answer.status_code in (302, 403, 404), (model, page)
                assert FOREIGN not in answer.content.decode()
    assert WeatherStationDevice.objects.filter(pk=foreign.pk).exists()


def test_actions_and_suggestions_reach_no_other_site(operator, foreign):
    chosen = {"_selected_action": [foreign.pk], "action": "delete_selected", "post": "yes"}
    operator.post(url(WeatherStationDevice, "changelist"), chosen)
    commands = DeviceCommand.objects.filter(device_key__endswith=FOREIGN)
    ids = [str(command.pk) for command in commands]
    operator.post(url(DeviceCommand, "changelist"), {"_selected_action": ids, "action": "cancel"})

    assert WeatherStationDevice.objects.filter(pk=foreign.pk).exists()
    assert [command.state for command in commands.all()] == ["queued"]
    field = {"app_label": "fleet", "model_name": "weatherstationreading", "field_name": "device"}
    assert FOREIGN not in operator.get("/admin/autocomplete/", field).content.decode()
    assert operator.get(url(WeatherStationDevice, "named", FOREIGN)).status_code == 404
    assert operator.get(url(WeatherStationDevice, "named", "NORTH-1")).status_code == 302
    assert "south" not in operator.get(url(WeatherStationDevice, "changelist")).content.decode()


@pytest.mark.parametrize("site", ["south", "", "North"])
def test_a_limited_user_sets_no_other_site(operator, site):
    own = WeatherStationDevice.objects.get(device_id="NORTH-1")
    nonce = nonce_of(operator.get(url(WeatherStationDevice, "add")).content.decode())
    form = {"name": "Roof", "status": "", "is_active": "on", "site": site, "nonce": nonce}

    for answer in (
        operator.post(url(WeatherStationDevice, "change", own.pk), form),
        operator.post(url(WeatherStationDevice, "add"), {**form, "device_id": "NEW-1"}),
    ):
        assert answer.status_code == 200
        assert 'name="site"' in answer.content.decode()
    own.refresh_from_db()
    assert (own.site, own.name) == ("north", "")
    assert WeatherStationDevice.objects.count() == 2


def test_a_limited_user_changes_a_device_of_their_site(operator):
    own = WeatherStationDevice.objects.get(device_id="NORTH-1")

    form = {"name": "Roof", "status": "maintenance", "is_active": "on", "site": "north"}
    answer = operator.post(url(WeatherStationDevice, "change", own.pk), form)

    assert answer.status_code == 302
    own.refresh_from_db()
    assert (own.name, own.status, own.site) == ("Roof", "maintenance", "north")


def test_a_taken_name_does_not_tell_a_limited_user_by_whom(foreign):
    WeatherStationDevice.objects.filter(device_id=FOREIGN).update(mqtt_client_id="radio-7")
    own = WeatherStationDevice.objects.get(device_id="NORTH-1")
    user = User.objects.create_user("olga", is_staff=True)
    roles.assign(user, roles.OPERATOR, ["north"])
    client = Client()
    client.force_login(user)

    form = {"site": "north", "is_active": "on", "mqtt_client_id": "radio-7"}
    page = client.post(url(WeatherStationDevice, "change", own.pk), form).content.decode()

    assert "Another identity has one of these names already" in page
    assert FOREIGN not in page
