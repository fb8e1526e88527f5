"""The dashboard under WSGI, where no stream can be held open: the page requests its content every few seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import DatabaseError
from django.test import AsyncClient, Client
from django.utils import timezone

from devicehub.dashboard import live
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig import hub
from rig.people import person

STREAM, JSON = "text/event-stream", "application/json"


@pytest.fixture
def viewer(client: Client, transactional_db: None) -> User:
    """Return a user who is signed in and may see the page."""
    user = person("viewer")
    client.force_login(user)
    return user


def measure(device: WeatherStationDevice, temperature: float, ago: float = 0) -> None:
    WeatherStationReading.objects.create(
        device=device, timestamp=timezone.now() - timedelta(seconds=ago), temperature=temperature
    )


@pytest.fixture
def north() -> WeatherStationDevice:
    """Return a weather station with readings of ten minutes."""
    device = WeatherStationDevice.objects.create(device_id="STATION-001")
    for ago in range(600, 0, -20):
        measure(device, 20.0, ago)
    return device


@pytest.mark.sqlite_only
def test_a_stream_is_refused_under_wsgi_with_204(client: Client, viewer: User) -> None:
    """After a 204 a browser does not request the stream again."""
    response = client.get("/stream/", headers={"Accept": STREAM})

    assert response.status_code == 204
    assert response["Cache-Control"] == "no-store"
    assert not response.streaming
    assert not live._streams


def test_the_news_come_as_json_under_wsgi(client: Client, viewer: User, north: WeatherStationDevice) -> None:
    response = client.get("/stream/?reading=weatherstation.temperature", headers={"Accept": JSON})

    assert response.status_code == 200
    assert response["Content-Type"] == JSON
    assert response["Cache-Control"] == "no-store"
    news = response.json()
    assert "20.00" in news["rows"]["weatherstation/STATION-001"]
    assert len(news["chart"]["series"][0]["v"]) == 30
    assert news["counts"]["devices"] == "1"


@pytest.mark.sqlite_only
def test_the_news_come_as_json_under_asgi_too(viewer: User, north: WeatherStationDevice, loop: Any) -> None:
    async def news() -> Any:
        client = AsyncClient()
        await client.aforce_login(viewer)
        return await client.get("/stream/", headers={"Accept": JSON})

    assert "weatherstation/STATION-001" in json.loads(loop.run(news()).content)["rows"]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("accepted", [STREAM, JSON])
def test_a_stranger_gets_neither(client: Client, transactional_db: None, accepted: str) -> None:
    response = client.get("/stream/", headers={"Accept": accepted})

    assert response.status_code == 403
    assert response["Cache-Control"] == "no-store"


@pytest.mark.sqlite_only
def test_the_news_are_refused_while_the_database_is_away(
    client: Client, viewer: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise DatabaseError

    monkeypatch.setattr(live, "snapshot", away)

    assert client.get("/stream/", headers={"Accept": JSON}).status_code == 503


@pytest.mark.sqlite_only
def test_the_page_says_which_of_the_two_it_does(client: Client, viewer: User, loop: Any) -> None:
    async def page() -> str:
        asgi = AsyncClient()
        await asgi.aforce_login(viewer)
        return (await asgi.get("/")).content.decode()

    assert f'data-every="{live.POLL_SECONDS}"' in client.get("/").content.decode()
    assert "data-every" not in loop.run(page())


@pytest.fixture
def page(client: Client, viewer: User, browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Yield a page of a browser that is signed in at runserver. The test moves its clock."""
    with hub.runserver(tmp_path) as url:
        context = browser.new_context(base_url=url)
        session = client.cookies[settings.SESSION_COOKIE_NAME].value
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
        page = context.new_page()
        page.clock.install()
        yield page
        context.close()
    assert "must consume" not in (tmp_path / "runserver.log").read_text()


@pytest.mark.sqlite_only
@pytest.mark.servers
def test_a_browser_sees_a_new_reading_under_runserver(page: Any, north: WeatherStationDevice) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type != "log" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto("/?reading=weatherstation.temperature")
    page.wait_for_selector("#chart canvas")
    page.locator("#live.on").get_by_text(f"updates every {live.POLL_SECONDS} s").wait_for()
    loaded = page.evaluate("performance.timeOrigin")

    measure(north, 31.25)
    page.clock.fast_forward(live.POLL_SECONDS * 1000)
    page.locator("tr[data-key='weatherstation/STATION-001']").get_by_text("31.25").wait_for()
    page.locator("#legend").get_by_text("31.25").wait_for()

    assert page.evaluate("performance.timeOrigin") == loaded
    assert problems == []


@pytest.mark.sqlite_only
@pytest.mark.servers
def test_a_page_polls_when_its_server_cannot_stream_any_more(page: Any) -> None:
    """It was loaded from an ASGI server, which a WSGI server replaced."""

    def as_from_asgi(route: Any) -> None:
        reply = route.fetch()
        route.fulfill(response=reply, body=reply.text().replace("data-every", "data-was-every"))

    page.route(lambda url: urlsplit(url).path == "/", as_from_asgi, times=1)
    page.goto("/")
    page.locator("#live.lost").get_by_text("reconnecting").wait_for()

    page.clock.fast_forward(10_000)

    page.locator("#live.on").get_by_text(f"updates every {live.POLL_SECONDS} s").wait_for()


@pytest.mark.sqlite_only
@pytest.mark.servers
def test_news_that_the_page_cannot_show_do_not_end_the_polling(page: Any) -> None:
    page.route(
        "**/stream/",
        lambda route: route.fulfill(json={"now": 0, "counts": {"of_a_newer_server": "1"}}),
        times=1,
    )
    with page.expect_event("pageerror"):
        page.goto("/")

    page.clock.fast_forward(live.POLL_SECONDS * 1000)

    page.locator("#live.on").get_by_text(f"updates every {live.POLL_SECONDS} s").wait_for()
