"""One journey in a browser, with a real broker: a refused publish, its explanation, and a grant that allows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from authsvc.models import Denial, Grant
from devicehub import roles
from devicehub.mqtt import Outgoing
from fleet.models import WeatherStationReading
from rig import axe, hub
from rig.browser import complaints, in_browser
from rig.cast import Cast
from rig.people import person

pytestmark = pytest.mark.pages


@pytest.mark.servers
def test_a_refused_publish_is_explained_and_allowed(
    station: Cast, neighbour: Cast, client: Client, browser: Any, tmp_path: Path
):
    client.force_login(person("operator", roles.OPERATOR))
    message = Outgoing(neighbour.topic("data"), json.dumps({"temperature": 21.5}).encode())

    with hub.running("amqtt", tmp_path) as running:
        connection = running.connect(station)
        connection.publish(message)  # MQTT 3.1.1 acknowledges a refused publish all the same.
        assert hub.eventually(Denial.objects.filter(topic=message.topic).exists)
        assert not WeatherStationReading.objects.exists()

        size = {"width": 1280, "height": 900}
        page = in_browser(browser, client, running.url, viewport=size).new_page()
        problems = complaints(page)

        page.goto(f"{running.url}/")
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Denials").click()
        cause = page.get_by_role("article")
        assert "This topic belongs to STATION-002." in cause.inner_text()
        assert "test amqtt, aMQTT" in cause.inner_text()
        assert cause.locator(".differs").inner_text().startswith("STATION-002")
        problems += axe.problems_in_every_look(page)

        cause.get_by_role("link", name="Explain").click()
        page.get_by_role("heading", name="Denied").wait_for()
        assert page.get_by_label("Topic", exact=True).input_value() == message.topic
        assert "Level 3 is STATION-001, not STATION-002." in page.locator("main").inner_text()
        problems += axe.problems_in_every_look(page)

        page.go_back()
        page.get_by_role("link", name="Allow this").click()
        assert "STATION-001 could then publish as STATION-002." in page.locator("main").inner_text()
        problems += axe.problems_in_every_look(page)
        page.get_by_label("Why").fill("a gateway for its neighbour")
        page.get_by_role("button", name="Allow this").click()
        page.get_by_text("Allowed now", exact=True).wait_for()
        problems += axe.problems_in_every_look(page)

        connection.publish(message)
        assert hub.eventually(WeatherStationReading.objects.exists)
        connection.close()

        page.get_by_role("button", name="Dismiss").click()
        page.get_by_text("Nothing was denied.").wait_for()
        problems += axe.problems(page)

    assert WeatherStationReading.objects.get().device == neighbour.device
    assert Grant.objects.get(note="a gateway for its neighbour").subject == "key:weatherstation/STATION-001"
    assert problems == []
