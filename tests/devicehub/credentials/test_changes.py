"""Changes of the credentials of one device on its page."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from authsvc.credentials import UNTIL_USED
from authsvc.models import AuditEntry
from devicehub.models import digest_api_key
from fleet.models import WeatherStationDevice
from rig.cast import provision
from rig.credential_pages import nonce_of, secrets_of

pytestmark = pytest.mark.pages

URL = "/devices/weatherstation/STATION-001/credentials/"
LIGHT = f"{URL}light/"


def in_form(moment):
    return moment.strftime("%Y-%m-%dT%H:%M")


def stored():
    return WeatherStationDevice.objects.get(device_id="STATION-001")


@pytest.fixture
def ours(db):
    return provision("STATION-001", site="north")


def test_the_page_never_shows_a_secret(ours, operator):
    page = operator.get(URL)

    assert "no-store" in page["Cache-Control"]
    assert ours.username in page.content.decode()
    for secret in (ours.password, ours.api_key, ours.device.mqtt_password_hash, ours.device.api_key):
        assert secret not in page.content.decode()


@pytest.mark.parametrize(
    ("ends", "old_works", "sentence"),
    [
        ("used", True, "The old one ends when this one is first used."),
        ("date", True, "The old one is valid until"),
        ("now", False, "The old one has ended."),
    ],
)
def test_a_rotation_shows_the_new_password_and_says_when_the_old_one_ends(
    ours, operator, change, ends, old_works, sentence
):
    until = timezone.now() + timedelta(days=2)

    page = change(operator, "STATION-001", "rotate", ends=ends, until=in_form(until)).content.decode()

    device = stored()
    assert device.check_mqtt_password(secrets_of(page)["password"])
    assert bool(device.previous_password_hash) is old_works
    assert sentence in page
    assert "API key" not in page
    if ends == "date":
        assert abs(device.previous_valid_until - until) < timedelta(minutes=1)
    if ends == "used":
        assert device.previous_valid_until == UNTIL_USED


@pytest.mark.parametrize("until", ["", "2001-01-01T00:00", "2999-01-01T00:00", "tomorrow"])
def test_an_overlap_has_a_date_in_the_next_year(ours, operator, change, until):
    page = change(operator, "STATION-001", "rotate", ends="date", until=until).content.decode()

    assert 'class="error"' in page
    assert stored().mqtt_password_hash == ours.device.mqtt_password_hash


def test_a_rotation_works_once(ours, operator):
    number = nonce_of(operator.get(URL).content.decode(), "rotate")
    fields = {"do": "rotate", "ends": "now", "nonce": number}
    first = operator.post(URL, fields)
    made = stored().mqtt_password_hash

    again = operator.post(URL, fields)

    assert secrets_of(first.content.decode())
    assert again.status_code == 409
    assert secrets_of(again.content.decode()) == {}
    assert stored().mqtt_password_hash == made


def test_the_number_of_a_form_fits_no_other_form(ours, operator):
    provision("STATION-002", site="north")
    number = nonce_of(operator.get(URL).content.decode(), "rotate")

    key = operator.post(URL, {"do": "rotate_key", "nonce": number})
    other = operator.post(URL.replace("001", "002"), {"do": "rotate", "ends": "now", "nonce": number})

    assert (key.status_code, other.status_code) == (409, 409)


def test_a_new_api_key_ends_the_old_one(ours, operator, change):
    page = change(operator, "STATION-001", "rotate_key").content.decode()

    assert AuditEntry.objects.get(action="credentials_shown").after == {"shown": ["api_key"]}
    shown = secrets_of(page)
    assert stored().api_key == digest_api_key(shown["key"])
    assert "password" not in shown
    assert "The old key and its tokens have ended." in page
    assert "mosquitto_pub" not in page


def test_revoking_ends_password_and_key(ours, operator, change):
    answer = change(operator, "STATION-001", "revoke", reason="stolen")

    page = operator.get(answer["Location"]).content.decode()
    assert (stored().mqtt_password_hash, stored().api_key) == ("", None)
    assert "every further question about it is denied" in page
    assert "Revoked" in page
    assert "Make a password" in page


def test_a_revoked_device_gets_a_new_password_without_a_word_about_an_old_one(ours, operator, change):
    revoked = change(operator, "STATION-001", "revoke")
    form = operator.get(revoked["Location"]).content.decode()
    (ends,) = re.findall(r'type="hidden" name="ends" value="([a-z]+)"', form)

    page = change(operator, "STATION-001", "rotate", ends=ends).content.decode()

    assert secrets_of(page)
    assert "There was no password before." in page
    change(operator, "STATION-001", "rotate", ends=ends)
    assert stored().has_overlap(), "a page that is open since does not end the password of somebody else"


def test_an_expiry_is_set_and_removed(ours, operator, change):
    moment = (timezone.now() + timedelta(days=3)).replace(second=0, microsecond=0)

    change(operator, "STATION-001", "expiry", expires_at=in_form(moment))
    assert stored().password_expires_at == moment
    assert "Ends in 2 d" in operator.get(URL).content.decode()

    change(operator, "STATION-001", "expiry", expires_at="")
    assert stored().password_expires_at is None


@pytest.mark.parametrize("moment", ["0001-12-31T23:59", "9999-12-31T23:59"])
def test_an_expiry_lies_in_the_calendar_of_every_zone(ours, operator, change, moment):
    page = change(operator, "STATION-001", "expiry", expires_at=moment).content.decode()

    assert "Write a year from 2 to 9998." in page
    assert stored().password_expires_at is None


def test_the_old_password_can_be_ended_at_once(ours, operator, change):
    change(operator, "STATION-001", "rotate", ends="used")
    assert "The new password has not been used yet." in operator.get(URL).content.decode()

    change(operator, "STATION-001", "end_overlap")

    assert stored().previous_password_hash == ""


def test_a_device_is_disabled_enabled_and_moved(ours, operator, change):
    change(operator, "STATION-001", "disable")
    assert stored().is_active is False

    change(operator, "STATION-001", "enable")
    change(operator, "STATION-001", "move", site="east")

    assert (stored().is_active, stored().site) == (True, "east")
    moved = AuditEntry.objects.get(action="device_moved")
    assert (moved.before, moved.after, moved.actor) == ({"site": "north"}, {"site": "east"}, "mara")


def test_the_reason_of_an_operator_is_in_the_audit(ours, operator, change):
    change(operator, "STATION-001", "expiry", expires_at="", reason="asked by the grower")

    assert AuditEntry.objects.get(action="expiry_set").reason == "asked by the grower"


@pytest.mark.parametrize("do", ["rotate", "rotate_key", "revoke", "expiry", "move", "disable", "end_overlap"])
def test_viewers_change_nothing_and_people_of_another_site_find_nothing(ours, viewer, southerner, client, do):
    before = WeatherStationDevice.objects.values().get()
    fields = {"do": do, "ends": "now", "site": "south"}

    assert viewer.get(URL).status_code == 200
    assert 'name="do"' not in viewer.get(URL).content.decode()
    assert viewer.post(URL, fields).status_code == 403
    assert [southerner.get(url).status_code for url in (URL, LIGHT)] == [404, 404]
    assert southerner.post(URL, fields).status_code == 404
    assert client.post(URL, fields)["Location"].startswith("/login/")
    assert WeatherStationDevice.objects.values().get() == before


def test_a_limited_operator_moves_a_device_to_own_sites_only(southerner, change, db):
    provision("STATION-001", site="south")

    change(southerner, "STATION-001", "move", site="north")

    assert stored().site == "south"


def test_unknown_devices_types_and_acts_are_not_found(ours, operator):
    assert operator.get("/devices/weatherstation/NOSUCH/credentials/").status_code == 404
    assert operator.get("/devices/toaster/T-1/credentials/").status_code == 404
    assert operator.post(URL, {"do": "explode"}).status_code == 404
    assert operator.put(URL).status_code == 405
