"""The search: ids, names, usernames, topics and pages, of the devices that a reader may see only."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path

from devicehub import roles
from devicehub.dashboard import search
from devicehub.dashboard.links import device_url
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]

# A project without the admin.
urlpatterns = [path("devices/", include("devicehub.urls"))]


@pytest.fixture
def station() -> WeatherStationDevice:
    device = WeatherStationDevice(device_id="STATION-001", name="North field", site="north")
    device.generate_credentials()
    device.save()
    return device


@pytest.fixture
def viewer(client: Client) -> Any:
    user = person("viewer")
    client.force_login(user)
    return user


def found(client: Client, text: str) -> str:
    response = client.get("/search/", {"q": text})
    assert response.status_code == 200
    return response.content.decode().partition("<main")[2]


@pytest.mark.parametrize("text", ["ion-00", "north", "NORTH FIELD", "weatherstationdevice-station"])
def test_a_part_of_an_id_a_name_or_a_username_finds_the_device(client, viewer, station, text):
    assert ">STATION-001</a>" in found(client, text)


def test_an_exact_id_key_username_or_topic_leads_to_the_device(client, viewer, station):
    kind = registry.resolve("weatherstation/STATION-001")[0]
    topic = topics.build(kind, "STATION-001", "data")

    for text in ("STATION-001", "weatherstation/STATION-001", station.mqtt_username, topic):
        assert client.get("/search/", {"q": text})["Location"] == "/?q=STATION-001"


def test_staff_are_led_to_its_admin_page(client, viewer, station):
    viewer.is_staff = True
    viewer.save()

    address = client.get("/search/", {"q": "STATION-001"})["Location"]
    assert client.get(address)["Location"] == f"/admin/fleet/weatherstationdevice/{station.pk}/change/"


@override_settings(ROOT_URLCONF=__name__)
def test_a_project_without_the_admin_leads_to_the_overview(rf, viewer, station):
    viewer.is_staff = True
    request = rf.get("/")
    request.user = viewer

    assert device_url("weatherstation/STATION-001", request) == "/devices/?q=STATION-001"
    assert device_url("toaster/T-1", request) == ""


@pytest.mark.parametrize("is_staff", [True, False])
def test_no_link_leads_to_a_device_that_is_gone(rf, viewer, station, is_staff):
    viewer.is_staff = is_staff
    request = rf.get("/")
    request.user = viewer
    key = "weatherstation/STATION-001"
    assert device_url(key, request) != ""

    station.delete()

    assert device_url(key, request) == ""
    assert device_url(key, request, [key]) != ""


def test_an_id_of_two_types_leads_nowhere_by_itself(client, viewer, station):
    IrrigationValveDevice.objects.create(device_id="STATION-001")

    assert found(client, "STATION-001").count(">STATION-001</a>") == 2


def test_pages_are_found_by_their_label(client, viewer):
    assert 'href="/"' in found(client, "overv")
    assert "Nothing fits" in found(client, "no such thing")
    assert "Type an id" in found(client, "")


def test_a_limited_reader_finds_devices_of_their_sites_only(client, station):
    client.force_login(person("southerner", roles.OPERATOR, ["south"]))

    for text in ("STATION-001", "north", station.mqtt_username, "weatherstation/STATION-001"):
        assert "Nothing fits" in found(client, text)


def test_at_most_twenty_are_shown_with_as_many_queries_as_for_one(client, viewer):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            found(client, "bulk")
        return len(captured)

    WeatherStationDevice.objects.create(device_id="BULK-00")
    few = queries()
    WeatherStationDevice.objects.bulk_create(
        WeatherStationDevice(device_id=f"BULK-{number:02d}", mqtt_username=f"u{number}")
        for number in range(1, 40)
    )

    text = found(client, "bulk")
    assert text.count('class="id"') == search.MOST
    assert "the first 20" in text
    assert queries() <= few


@pytest.mark.parametrize("text", ["\x00", "%", "_", "<script>alert(1)</script>", "x" * 5000, "/", "#", "+/+"])
def test_odd_texts_are_no_error(client, viewer, station, text):
    assert "<script>alert" not in found(client, text)


def test_a_stranger_is_sent_to_the_login(client):
    assert client.get("/search/?q=a")["Location"] == "/login/?next=/search/%3Fq%3Da"
