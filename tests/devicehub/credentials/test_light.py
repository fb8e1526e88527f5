"""The light that waits for the first login and the first message."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from authsvc.models import Denial, LastLogin
from devicehub import provisioning
from fleet.models import WeatherStationReading
from rig.cast import provision

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
KEY = "weatherstation/STATION-001"
LIGHT = "/devices/weatherstation/STATION-001/credentials/light/"


@pytest.fixture
def ours():
    return provision("STATION-001")


def look(client):
    answer = client.get(LIGHT)
    assert "no-store" in answer["Cache-Control"]
    return answer.json()


def logged_in(at=None, **fields):
    now = at or timezone.now()
    LastLogin.objects.create(key=KEY, first_at=now, at=now, **fields)


def sent(device, **values):
    now = timezone.now()
    if values:
        WeatherStationReading.objects.create(device=device, timestamp=now, **values)
        device.last_reading_at = now
    device.last_message_at = now
    device.save()


def test_it_waits(ours, viewer):
    found = look(viewer)

    assert found["stage"] == "waiting"
    assert "Waiting for the first login" in found["html"]


def test_it_is_green_after_a_login_and_after_a_reading(ours, viewer):
    logged_in(broker="orchard", client_id="STATION-001", address="10.4.2.77")
    connected = look(viewer)
    sent(ours.device, temperature=21.4)
    reading = look(viewer)

    assert connected["stage"] == "connected"
    assert "through orchard as <code>STATION-001</code> from 10.4.2.77" in connected["html"]
    assert "Waiting for the first reading" in connected["html"]
    assert reading["stage"] == "sending"
    assert "First reading: temperature 21.40 °C" in reading["html"]
    assert connected["stamp"] != reading["stamp"]


def test_a_message_without_readings_is_a_sign_of_life_and_of_a_login(ours, viewer):
    sent(ours.device)

    found = look(viewer)["html"]
    assert "Connected" in found
    assert "First message" in found


def test_a_refusal_says_why(ours, viewer):
    now = timezone.now()
    Denial.objects.create(
        dialect="go-auth", principal=KEY, action="user", reason="wrong_password", first_at=now, last_at=now
    )

    found = look(viewer)

    assert found["stage"] == "refused"
    assert "password" in found["html"]


def test_signs_of_life_before_a_rotation_do_not_count(ours, viewer):
    logged_in()
    sent(ours.device, temperature=1)
    later = timezone.now() + timedelta(seconds=1)
    provisioning.rotate_password(ours.device, valid_until=None)
    type(ours.device).objects.update(credentials_changed_at=later)

    assert look(viewer)["stage"] == "waiting"


def test_it_holds_no_secret(ours, viewer):
    logged_in()
    text = look(viewer)["html"]

    assert ours.password not in text
    assert ours.api_key not in text
