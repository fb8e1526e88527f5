"""One journey in a browser: endpoints, the objects of one, the history of a resource by keyboard, events, the admin."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.utils import timezone

from devicehub.lwm2m.models import Endpoint, Resource
from devicehub.lwm2m.pages import tree
from rig import axe, hub
from rig.browser import browser as browser
from rig.browser import complaints, in_browser
from rig.messages import STORED, send

pytestmark = [
    pytest.mark.servers,
    pytest.mark.sqlite_only,
    pytest.mark.django_db(transaction=True),
    pytest.mark.pages,
]
LINKS = "</3/0>,</3303>;ver=1.1,</3303/0>,</33001/0>"


@pytest.fixture
def endpoint() -> Endpoint:
    """Return a registered endpoint with values of many kinds, and thousands of another object."""
    made = Endpoint.objects.create(device_id="weir-7", endpoint_name="Weir 7", name="Weir gauge")
    now = timezone.now()
    registration = {"registration": {"lifetime": 3600, "version": "1.1", "binding": "UQ", "links": LINKS}}
    assert send(made, registration, "status", at=now) == STORED
    samples = [
        {"n": "/3303/0/5700", "v": 15 + minute / 4, "t": round((now - timedelta(minutes=minute)).timestamp())}
        for minute in range(40)
    ]
    facts = [
        {"n": "/3303/0/5701", "vs": "Cel"},
        {"n": "/3/0/0", "vs": "Weirtech"},
        {"n": "/3/0/6/0", "v": 1},
        {"n": "/3/0/6/5", "v": 2},
        {"n": "/3/0/13", "v": 1_767_225_600},
        {"n": "/33001/0/7", "vs": "as it came"},
        {"n": "/3/0/9", "v": 63, "t": round((now - timedelta(days=200)).timestamp())},
    ]
    assert send(made, [*samples, *facts], at=now) == STORED
    assert send(made, {"awake": False}, "status", at=now) == STORED
    Resource.objects.bulk_create(
        Resource(
            device=made, path=f"3342/{number}/5850", type="Boolean", number=1, integer=1, object_id=3342,
            object_instance=number, resource_id=5850, timestamp=now, received_at=now,
        )
        for number in range(10_000)
    )  # fmt: skip
    return made


def test_the_objects_of_an_endpoint_are_found_read_and_charted(
    browser: Any, client: Client, endpoint: Endpoint, tmp_path: Path
):
    client.force_login(User.objects.create_superuser("mara", password=None))
    with hub.gunicorn(tmp_path) as url:
        size = {"width": 1280, "height": 900}
        page = in_browser(browser, client, url, viewport=size).new_page()
        problems = complaints(page)

        page.goto(f"{url}/")
        page.get_by_role("navigation", name="Main").get_by_role("link", name="LwM2M").click()
        problems += axe.problems(page)
        page.get_by_role("link", name="weir-7").click()
        assert page.url == f"{url}/devices/lwm2m/weir-7/objects/"
        assert "It sleeps." in page.locator("main").inner_text()
        page.locator("#chart .uplot canvas").wait_for()
        assert page.get_by_role(
            "img", name="Sensor Value in the last 1 h: between 15 and 24.75 °C"
        ).is_visible()
        problems += axe.problems_in_every_look(page)
        page.set_viewport_size(size)

        # Objects open and resources are chosen by keyboard alone.
        device = page.locator("#o3")
        assert device.get_attribute("open") is None
        device.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert device.get_by_text("Weirtech").is_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**?resource=3/0/0#history")
        assert page.locator("#history").get_by_role("heading", name="Manufacturer").is_visible()
        assert page.locator("#chart").count() == 0

        page.get_by_label("Name or path of a resource").fill("sensor")
        page.keyboard.press("Enter")
        page.wait_for_url("**?q=sensor**")
        page.get_by_role("link", name="Sensor Value").click()
        page.get_by_role("navigation", name="Range of the chart").get_by_role("link", name="24 h").click()
        page.wait_for_url("**range=24h**")
        page.locator("#chart .uplot canvas").wait_for()
        page.get_by_role("link", name="show all objects").click()

        # The latest value is old: the empty chart says how old, and the mark does not cover the operations.
        page.goto(f"{url}/devices/lwm2m/weir-7/objects/?resource=3/0/9&range=1h")
        page.get_by_text("The latest one was measured 200 d ago").wait_for(timeout=3_000)
        old, read = (page.locator(f"#o3 .current {part}").bounding_box() for part in (".tag", ".op"))
        assert old["x"] + old["width"] <= read["x"]
        page.goto(f"{url}/devices/lwm2m/weir-7/objects/")

        # An object with 10,000 values is a page of its own.
        page.locator("#o3342 summary").first.click()
        page.get_by_role("link", name="Show the values of").click()
        page.wait_for_url("**object=3342**")
        assert page.locator("#o3342 tbody tr").count() == tree.MOST_ROWS
        page.get_by_role("link", name="Next").click()
        page.get_by_text("/3342/300/5850", exact=True).wait_for()

        page.get_by_role("link", name="Events").click()
        page.get_by_label("Type").select_option("registration")
        page.get_by_role("button", name="Filter").click()
        page.get_by_text("sleeping", exact=True).wait_for()
        problems += axe.problems_in_every_look(page)
        page.set_viewport_size(size)
        page.goto(f"{url}/lwm2m/events/?type=notification")
        page.locator("td.when a").first.click()
        page.get_by_role("heading", name="Notification").wait_for()
        problems += axe.problems(page)

        for address in (f"endpoint/{endpoint.pk}/change/", "resource/"):
            page.goto(f"{url}/admin/lwm2m/{address}")
            problems += [f"{address}: {problem}" for problem in axe.problems(page)]
        page.context.close()
        connections.close_all()

    assert problems == []


def test_the_page_is_complete_without_a_script(
    browser: Any, client: Client, endpoint: Endpoint, tmp_path: Path
):
    client.force_login(User.objects.create_superuser("mara", password=None))
    with hub.gunicorn(tmp_path) as url:
        page = in_browser(browser, client, url, java_script_enabled=False).new_page()
        page.goto(f"{url}/devices/lwm2m/weir-7/objects/?resource=3303/0/5700")
        text = page.locator("#history").inner_text()
        page.locator("#o3 summary").first.click()
        assert page.locator("#o3").get_by_text("2026-01-01 00:00:00 UTC").is_visible()
        page.context.close()
        connections.close_all()

    assert "between 15 and 24.75 °C" in text
    assert "24.75 °C" in text
