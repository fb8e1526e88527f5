"""The panel of a device's form about its rights: its own topics, and the grants that apply to it."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from authsvc.models import Grant
from devicehub import provisioning, roles
from devicehub.admin import device_rights
from fleet.models import WeatherStationDevice
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
KEY = "weatherstation/S-1"
DAY = timedelta(days=1)


@pytest.fixture
def device() -> WeatherStationDevice:
    return WeatherStationDevice.objects.create(device_id="S-1", site="north", mqtt_username="u-1")


def grant(subject: str, topic: str, **fields: Any) -> Grant:
    return Grant.objects.create(subject=subject, actions="publish", filter=topic, **fields)


def rights(client: Client, device: WeatherStationDevice) -> tuple[list[list[str]], str]:
    """Return the rows of the panel, and the text of the whole page."""
    page = client.get(reverse("admin:fleet_weatherstationdevice_change", args=[device.pk])).content.decode()
    panel = re.search(r'aria-labelledby="rights-t".*?</section>', page, re.S)
    assert panel
    rows = re.findall(r"<tr>(<td.*?)</tr>", panel[0], re.S)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in row] for row in cells], page


def test_it_lists_own_topics_and_each_grant_with_its_subject_and_period(admin_client, device):
    now = timezone.now()
    provisioning.create_group("mill", "Mill", members=[KEY])
    provisioning.create_group("barn", "Barn")
    grant("everyone", "news", valid_until=now + DAY)
    grant("type:weatherstation", "{prefix}/all/{device_id}", valid_from=now + DAY)
    grant("group:mill", "mill/#", effect="deny")
    own = grant(f"key:{KEY}", "extra", valid_from=now - 2 * DAY, valid_until=now - DAY)
    for subject in ("group:barn", "type:irrigationvalve", "key:weatherstation/S-2", "key:account/S-1"):
        grant(subject, "foreign/topic")

    rows, page = rights(admin_client, device)

    assert [row[:4] for row in rows] == [
        ["Allow", "publish", "things/weatherstation/S-1/data", "Its own topic"],
        ["Allow", "publish", "things/weatherstation/S-1/status", "Its own topic"],
        ["Allow", "publish", "things/weatherstation/S-1/reply", "Its own topic"],
        ["Allow", "subscribe, receive", "things/weatherstation/S-1/cmd", "Its own topic"],
        ["Deny", "publish", "mill/#", "Its group: Mill"],
        ["Allow", "publish", "news", "Everyone"],
        ["Allow", "publish", "things/all/S-1", "Its type: Weather Station"],
        ["Allow", "publish", "extra", "This device"],
    ]
    tomorrow, yesterday = (f"{now + days:%Y-%m-%d %H:%M:%S} UTC" for days in (DAY, -DAY))
    periods = [row[4] for row in rows[4:]]
    assert periods[:3] == ["always", f"until {tomorrow}", f"from {tomorrow}, not in force"]
    assert periods[3].endswith(f"ended {yesterday}, not in force")
    assert reverse("admin:authsvc_grant_change", args=[own.pk]) in page
    assert "foreign/topic" not in page


def test_it_says_why_a_device_may_do_nothing_and_leads_to_a_new_grant(admin_client, client, device):
    add = f"{reverse('admin:authsvc_grant_add')}?subject=key%3Aweatherstation%2FS-1"
    for fields, sentence in (
        ({}, "It has no valid credentials"),
        ({"mqtt_password_hash": "x"}, ""),
        ({"password_expires_at": timezone.now() - DAY}, "It has no valid credentials"),
        ({"is_active": False}, "It is disabled"),
    ):
        WeatherStationDevice.objects.update(**fields)
        _, page = rights(admin_client, device)
        panel = page.partition('id="rights-t"')[2].partition("</section>")[0]
        assert ("so it may do nothing now" in panel) == bool(sentence)
        assert sentence in panel
        assert f'href="{add}"' in panel
    client.force_login(person("vera", is_staff=True))
    assert add not in rights(client, device)[1]


def test_it_is_bounded_and_leads_to_the_rest(admin_client, device):
    for number in range(device_rights.LISTED + 2):
        grant(f"key:{KEY}", f"extra/{number}")
    grant("everyone", "news")
    grant("key:account/other", "foreign/topic")

    rows, page = rights(admin_client, device)

    assert len(rows) == 4 + device_rights.LISTED
    assert "3 more." in page
    link = re.search(r'href="([^"]*\?device=[^"]*)">Show all grants', page)
    assert link
    listed = admin_client.get(html.unescape(link[1]))
    assert listed.context["cl"].result_count == device_rights.LISTED + 3
    assert admin_client.get(f"{reverse('admin:authsvc_grant_changelist')}?device=other").status_code == 200


def test_people_limited_to_sites_see_its_own_topics_alone(client, device):
    grant("everyone", "things/weatherstation/SOUTH-7/#")
    client.force_login(person("nora", roles.OPERATOR, ["north"], is_staff=True))

    rows, page = rights(client, device)

    assert {row[3] for row in rows} == {"Its own topic"}
    assert "SOUTH-7" not in page
    assert "People who may see grants" in page


def test_the_list_of_devices_queries_no_grants(admin_client, device):
    grant(f"key:{KEY}", "extra")

    with CaptureQueriesContext(connection) as queries:
        admin_client.get(reverse("admin:fleet_weatherstationdevice_changelist"))

    assert not [query["sql"] for query in queries if "authsvc_grant" in query["sql"]]
