"""The stream of events and the posts of devices on a real server, read by a program and by a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from django.test import Client

from devicehub import api_keys
from fleet.models import WeatherStationDevice
from rig import hub
from rig.browser import in_browser
from rig.programs import person

pytestmark = [pytest.mark.servers, pytest.mark.django_db(transaction=True)]

PATH = "/api/devices/weatherstation/STATION-001/readings/"


@pytest.fixture
def post():
    """Return a function that posts a temperature as our station to the server at an address."""
    station = WeatherStationDevice(device_id="STATION-001", site="north")
    headers = {"Authorization": f"Api-Key {station.generate_credentials()['api_key']}"}
    station.save()

    def send(url: str, temperature: float) -> None:
        answer = httpx.post(url + PATH, headers=headers, json={"temperature": temperature}, timeout=20)
        assert (answer.status_code, answer.json()["outcome"]) == (202, "stored")

    return send


def events(response: httpx.Response) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Yield id, name and data of each event."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "event" in fields:
                yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


def test_a_restart_of_the_server_loses_no_event(tmp_path, post):
    """A program goes on at another process after its last event."""
    key = api_keys.create(person("ada"), "program", ["telemetry:read"]).secret
    headers = {"Authorization": f"Api-Key {key}"}
    path = "/api/events/?type=readings"
    with hub.gunicorn(tmp_path) as url:
        with httpx.stream("GET", url + path, headers=headers, timeout=20) as response:
            found = events(response)
            assert next(found)[1] == "start"
            post(url, 1)
            last, _, data = next(found)
            assert data["values"] == {"temperature": {"value": 1.0, "unit": "Cel"}}
        post(url, 2)
    with (
        hub.gunicorn(tmp_path) as url,
        httpx.stream("GET", url + path, headers={**headers, "Last-Event-ID": last}, timeout=20) as response,
    ):
        found = events(response)
        assert next(found)[2]["values"] == {"temperature": {"value": 2.0, "unit": "Cel"}}
        post(url, 3)
        assert next(found)[2]["values"] == {"temperature": {"value": 3.0, "unit": "Cel"}}


def test_a_browser_reads_the_stream(browser, tmp_path, post):
    """With its session, and with nothing but an EventSource."""
    client = Client()
    client.force_login(person("ada"))
    with hub.gunicorn(tmp_path) as url, in_browser(browser, client, url) as context:
        page = context.new_page()
        page.goto("/")
        page.evaluate("""() => new Promise(done => {
            window.heard = [];
            window.source = new EventSource("/api/events/?type=readings");
            window.source.addEventListener("readings", event => window.heard.push(JSON.parse(event.data)));
            window.source.addEventListener("start", done);
        })""")
        post(url, 21.5)
        assert hub.eventually(lambda: page.evaluate("() => window.heard.length") == 1, 20)
        heard = page.evaluate("() => { window.source.close(); return window.heard; }")
    assert heard[0]["values"]["temperature"]["value"] == 21.5
