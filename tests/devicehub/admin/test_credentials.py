"""Adding a device in the admin makes its credentials, and the answer shows them once."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.test import Client, override_settings
from django.urls import path

from authsvc.models import AuditEntry
from devicehub import provisioning, roles
from fleet.models import WeatherStationDevice
from rig.cast import provision
from rig.credential_pages import nonce_of, secrets_of
from rig.people import person

pytestmark = pytest.mark.pages

# A project without the pages of devicehub.urls.
urlpatterns = [path("manage/", admin.site.urls)]

LIST = "/admin/fleet/weatherstationdevice/"
ADD = f"{LIST}add/"


@pytest.fixture
def boss(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def staff(*sites: str) -> Client:
    client = Client()
    client.force_login(person("sven", roles.OPERATOR, list(sites) or None, is_staff=True))
    return client


def fields(client: Client, device_id: str, add: str = ADD, **more: str) -> dict[str, str]:
    """Return the fields of the form for a new device as a browser sends them."""
    response = client.get(add)
    form = response.context["adminform"].form
    given = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    texts = {name: str(value) for name, value in given.items() if not isinstance(value, dict | list)}
    nonce = nonce_of(response.content.decode())
    return {**texts, "metadata": "{}", "device_id": device_id, "status": "offline", "nonce": nonce, **more}


def test_a_device_of_the_admin_is_born_with_credentials(boss):
    answer = boss.post(ADD, fields(boss, "STATION-115", site="north"))

    secrets = secrets_of(answer.content.decode())
    device = WeatherStationDevice.objects.get()
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    assert device.check_mqtt_password(secrets["password"])
    assert device.site == "north"
    entry = LogEntry.objects.get()
    created = AuditEntry.objects.filter(object_key="weatherstation/STATION-115")
    assert sorted(created.values_list("action", flat=True)) == ["credentials_shown", "device_created"]
    assert not any(secret in f"{entry.object_repr} {entry.change_message}" for secret in secrets.values())


def test_the_form_works_once(boss):
    given = fields(boss, "STATION-115")
    boss.post(ADD, given)

    again = boss.post(ADD, given)
    other = boss.post(ADD, {**given, "device_id": "STATION-116"})

    assert (again.status_code, other.status_code) == (409, 409)
    assert WeatherStationDevice.objects.count() == 1


def test_a_form_with_an_error_comes_back_and_still_works(boss):
    given = fields(boss, "a/b")
    wrong = boss.post(ADD, given)
    right = boss.post(ADD, {**given, "device_id": "STATION-1", "nonce": nonce_of(wrong.content.decode())})

    assert wrong.status_code == 200
    assert secrets_of(right.content.decode())


def test_the_page_of_a_device_has_the_panel_that_leads_to_the_forms(boss):
    ours = provision("STATION-001")
    page = boss.get(f"{LIST}{ours.device.pk}/change/").content.decode()

    assert "Not used yet" in page
    assert f'href="{LIST}credentials/STATION-001/#rotate"' in page
    assert ours.device.mqtt_password_hash not in page
    assert "Set expiry" in page

    provisioning.revoke(ours.device)
    page = boss.get(f"{LIST}{ours.device.pk}/change/").content.decode()
    assert "#rotate" in page
    assert "#expiry" not in page
    assert "#revoke" not in page


def test_credentials_change_at_the_address_of_the_admin(boss):
    provision("STATION-001")
    url = f"{LIST}credentials/STATION-001/"
    page = boss.get(url).content.decode()
    nonce = nonce_of(page.split('value="rotate"')[1])

    answer = boss.post(url, {"do": "rotate", "ends": "now", "nonce": nonce})

    assert WeatherStationDevice.objects.get().check_mqtt_password(
        secrets_of(answer.content.decode())["password"]
    )
    assert boss.get(f"{url}light/").json()["stage"] == "waiting"


@override_settings(ROOT_URLCONF="tests.devicehub.admin.test_credentials", LOGIN_URL="/manage/login/")
def test_it_works_without_the_pages_of_the_dashboard(boss):
    add = "/manage/fleet/weatherstationdevice/add/"
    page = boss.post(add, fields(boss, "STATION-1", add)).content.decode()

    assert secrets_of(page)
    assert 'data-url="/manage/fleet/weatherstationdevice/credentials/STATION-1/light/"' in page
    assert 'href="/devices/' not in page


def test_an_operator_of_another_site_neither_adds_here_nor_finds(db):
    provision("STATION-001", site="north")
    southerner = staff("south")

    foreign = southerner.post(ADD, fields(southerner, "STATION-2", site="north"))

    assert not secrets_of(foreign.content.decode())
    assert WeatherStationDevice.objects.count() == 1
    for page in ("", "light/"):
        assert southerner.get(f"{LIST}credentials/STATION-001/{page}").status_code == 404
    assert southerner.post(f"{LIST}credentials/STATION-001/", {"do": "revoke"}).status_code == 404


def test_people_who_may_not_sign_in_to_the_admin_are_sent_away(db):
    provision("STATION-001")
    client = Client()
    client.force_login(person("vera", roles.OPERATOR))

    for page in ("", "light/"):
        assert client.get(f"{LIST}credentials/STATION-001/{page}").status_code == 302
