"""One journey in a browser: a table becomes devices, their passwords rotate together, and are rolled back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from devicehub import roles
from fleet.models import WeatherStationDevice
from rig import axe, hub
from rig.browser import complaints, in_browser
from rig.people import person

pytestmark = [pytest.mark.pages, pytest.mark.long]

TABLE = (
    "device_id;name;site;floor\n"
    + "".join(f"ROOF-{n:02d};Dach {n};north;{n}\n" for n in range(12))
    + "bad id;;;\n"
)


@pytest.mark.servers
def test_a_table_becomes_a_fleet_whose_passwords_rotate(
    transactional_db: None, client: Client, browser: Any, tmp_path: Path
):
    client.force_login(person("olga", roles.OPERATOR, is_staff=True))
    (tmp_path / "fleet.csv").write_text(TABLE, encoding="cp1252")

    with hub.gunicorn(tmp_path) as url:
        size = {"width": 1280, "height": 900}
        page = in_browser(browser, client, url, viewport=size).new_page()
        problems = complaints(page)

        page.goto(f"{url}/")
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Import devices").click()
        problems += axe.problems_in_every_look(page)
        page.get_by_label("Table", exact=True).set_input_files(tmp_path / "fleet.csv")
        page.get_by_role("button", name="Read the table").click()
        assert "use 1-128 letters, digits" in page.locator("main").inner_text()
        problems += axe.problems_in_every_look(page)
        page.get_by_role("button", name="Create 12 devices").click()
        page.get_by_label("Type the number 12").fill("12")
        with page.expect_download() as download:
            page.get_by_role("button", name="Create 12 devices").click()
        with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
            first = {row["device_id"]: row["mqtt_password"] for row in csv.DictReader(file)}
        page.get_by_role("heading", name="The file is complete.").wait_for()
        assert "12 devices created, 13 of 13 rows done." in page.locator("main").inner_text()
        assert not page.get_by_label("Type the number 12").is_visible()
        page.get_by_role("link", name="Show the import").click()
        assert "12 devices created" in page.locator("main").inner_text()
        problems += axe.problems(page)

        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(f"{url}/admin/fleet/weatherstationdevice/")
        page.locator("#action-toggle").check()
        page.locator("select[name=action]").select_option("rotate_many")
        page.locator("button[name=index], [type=submit][name=index]").first.click()
        page.get_by_label("Type the number 12").fill("12")
        page.get_by_label("JSON, for programs").check()
        problems += axe.problems_in_every_look(page)
        with page.expect_download() as download:
            page.get_by_role("button", name="Rotate 12 devices").click()
        second = {
            found["device_id"]: found["mqtt_password"]
            for found in json.loads(download.value.path().read_bytes())
        }
        page.get_by_role("heading", name="The file is complete.").wait_for()
        problems += axe.problems_in_every_look(page)
        page.get_by_role("link", name="Show the rotation", exact=True).click()
        problems += axe.problems_in_every_look(page)
        assert accepted(first) == accepted(second) == 12
        page.get_by_role("button", name="Roll back").click()
        page.get_by_label("Type the number 12").fill("12")
        page.get_by_role("button", name="Roll back 12 devices").click()
        page.get_by_text("12 devices have their old passwords again").wait_for()

    assert (accepted(first), accepted(second)) == (12, 0)
    assert problems == []


def accepted(passwords: dict[str, str]) -> int:
    """Return how many of *passwords* are the current or, during an overlap, the previous one of their device."""
    from authsvc.core import passwords as hashes

    count = 0
    for device in WeatherStationDevice.objects.all():
        stored = [device.mqtt_password_hash, device.previous_password_hash]
        count += any(hashes.verify(passwords[device.device_id], found) for found in stored if found)
    return count
