"""Adding a device: it is born with credentials, which the answer shows once."""

from __future__ import annotations

import pytest
from django.test import override_settings

from authsvc.models import AuditEntry
from devicehub import provisioning
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.cast import provision
from rig.credential_pages import ADD, nonce_of, secrets_of, signed_in
from rig.people import person

pytestmark = pytest.mark.pages


def test_a_new_device_can_log_in_with_what_the_answer_shows(operator, add):
    answer = add(operator, device_id="STATION-115", name="Gate", site="north")

    page = answer.content.decode()
    shown = secrets_of(page)
    device = WeatherStationDevice.objects.get(device_id="STATION-115")
    assert answer.status_code == 200
    assert device.check_mqtt_password(shown["password"])
    assert len(shown["key"]) == 64
    assert int(shown["key"], 16)
    assert (device.name, device.site) == ("Gate", "north")
    for text in (
        device.mqtt_username,
        "things/weatherstation/STATION-115/",
        "added just now",
        "shown this once",
    ):
        assert text in page


def test_no_cache_keeps_the_answer(operator, add):
    answer = add(operator, device_id="STATION-115")

    assert "no-store" in answer["Cache-Control"]
    assert "default-src 'self'" in answer["Content-Security-Policy"]


def test_a_form_works_once(operator):
    number = nonce_of(operator.get(ADD).content.decode())
    fields = {"nonce": number, "type": "weatherstation", "device_id": ""}
    first = operator.post(ADD, fields).content.decode()

    again = operator.post(ADD, fields)

    assert again.status_code == 409
    assert "submitted already" in again.content.decode()
    assert not any(secret in again.content.decode() for secret in secrets_of(first).values())
    assert WeatherStationDevice.objects.count() == 1


def test_a_form_that_came_back_with_errors_still_works(operator):
    number = nonce_of(operator.get(ADD).content.decode())
    wrong = operator.post(ADD, {"nonce": number, "type": "weatherstation", "device_id": "a/b"})

    right = operator.post(ADD, {"nonce": number, "type": "weatherstation", "device_id": "STATION-1"})

    assert "Use letters, digits" in wrong.content.decode()
    assert secrets_of(right.content.decode())


def test_the_form_of_another_user_and_no_number_are_refused(operator):
    number = nonce_of(signed_in(person("nora", "DeviceHub operator")).get(ADD).content.decode())

    for nonce in (number, "", "nonsense"):
        assert operator.post(ADD, {"nonce": nonce, "type": "weatherstation"}).status_code == 409
    assert not WeatherStationDevice.objects.exists()


def test_without_an_id_the_device_gets_the_next_free_one(operator, add):
    provision("STATION-115")
    provision("STATION-116", name="taken before")
    WeatherStationDevice.objects.filter(device_id="STATION-115").update(name="the newest is another")

    page = add(operator, device_id="").content.decode()

    assert "Put these on STATION-117" in page


def test_the_first_device_of_a_type_is_called_like_the_type(operator, add):
    add(operator, type="irrigationvalve", device_id="")

    assert IrrigationValveDevice.objects.get().device_id == "IRRIGATIONVALVE-001"


def test_a_taken_id_names_its_owner_to_those_who_may_see_it(operator, southerner, add):
    provision("STATION-001", site="north")

    theirs = add(operator, device_id="STATION-001").content.decode()
    others = add(southerner, device_id="STATION-001", site="south").content.decode()

    assert "weatherstation/STATION-001 has the name" in theirs
    assert "weatherstation/STATION-001" not in others
    assert "This id is taken" in others


def test_a_limited_operator_adds_devices_at_own_sites_only(southerner, add):
    page = southerner.get(ADD).content.decode()
    foreign = add(southerner, device_id="STATION-1", site="north")
    none = add(southerner, device_id="STATION-1", site="")
    own = add(southerner, device_id="STATION-1", site="south")

    assert '<option value="south"' in page
    assert "north" not in page
    assert not secrets_of(foreign.content.decode())
    assert not secrets_of(none.content.decode())
    assert secrets_of(own.content.decode())
    assert WeatherStationDevice.objects.get().site == "south"


def test_a_limited_operator_does_not_take_the_records_of_an_earlier_device(operator, southerner, add):
    add(operator, device_id="STATION-1", site="north")
    WeatherStationDevice.objects.get().delete()  # Its audit stays.

    taken = add(southerner, device_id="STATION-1", site="south").content.decode()
    of_operator = add(operator, device_id="STATION-1", site="north").content.decode()

    assert "This id is taken" in taken
    assert not secrets_of(taken)
    assert secrets_of(of_operator)


def test_tags_are_for_people_without_a_limit(operator, southerner, add):
    wrong = add(operator, device_id="STATION-1", tags="a/b").content.decode()
    add(operator, device_id="STATION-1", tags="roof, north-wing  roof")
    add(southerner, device_id="STATION-2", site="south", tags="roof")

    assert "a/b cannot be a tag" in wrong
    assert provisioning.tags_of("weatherstation/STATION-1") == ["north-wing", "roof"]
    assert provisioning.tags_of("weatherstation/STATION-2") == []


def test_viewers_and_strangers_add_nothing(viewer, client, db):
    assert viewer.get(ADD).status_code == 403
    assert viewer.post(ADD, {"type": "weatherstation"}).status_code == 403
    assert client.post(ADD, {"type": "weatherstation"})["Location"].startswith("/login/")
    assert not WeatherStationDevice.objects.exists()


def test_the_audit_has_the_reason_and_no_secret(operator, add):
    page = add(operator, device_id="STATION-1", reason="replaces a broken one").content.decode()

    entries = AuditEntry.objects.filter(object_key="weatherstation/STATION-1")
    assert {entry.action for entry in entries} == {"device_created", "credentials_shown"}
    for entry in entries:
        assert entry.reason == "replaces a broken one"
        assert not any(secret in repr(vars(entry)) for secret in secrets_of(page).values())


@override_settings(
    DEVICEHUB_DEVICE_URL="mqtts://mqtt.orchard.example", MQTT_URL="mqtt://ingest:pass-of-ingest@10.0.0.1"
)
def test_the_address_for_devices_is_a_setting(operator, add):
    page = add(operator, device_id="STATION-1").content.decode()

    assert '<code id="s-host">mqtt.orchard.example</code>' in page
    assert '<code id="s-port">8883</code>, TLS' in page
    assert "10.0.0.1" not in page


@override_settings(DEVICEHUB_DEVICE_URL="", MQTT_URL="mqtt://ingest:pass-of-ingest@127.0.0.1:1885")
def test_without_the_setting_it_is_that_of_the_service_without_its_login(operator, add):
    page = add(operator, device_id="STATION-1").content.decode()

    assert '<code id="s-host">127.0.0.1</code>' in page
    assert '<code id="s-port">1885</code>' in page
    assert "127.0.0.1 is this server itself: set DEVICEHUB_DEVICE_URL" in page
    assert "pass-of-ingest" not in page
