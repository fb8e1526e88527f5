"""The shell in a browser: accessible in both themes and on a phone, and complete by keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import second_factor
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice
from rig import axe, hub
from rig.people import person

pytestmark = [
    pytest.mark.servers,
    pytest.mark.sqlite_only,
    pytest.mark.django_db(transaction=True),
    pytest.mark.pages,
]

WIDE, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
PAGES = ("/", "/search/?q=S", "/account/", "/account/second-factor/", "/account/password/", "/none/")


def cookie(client: Client, url: str) -> dict[str, str]:
    return {
        "name": settings.SESSION_COOKIE_NAME,
        "value": client.cookies[settings.SESSION_COOKIE_NAME].value,
        "url": url,
    }


def fill() -> None:
    """Make a device, a denial and a quarantined message, so that every card is shown."""
    now = timezone.now()
    WeatherStationDevice.objects.create(device_id="STATION-001", name="North field", connected=True)
    WeatherStationDevice.objects.create(device_id="STATION-002", status="error")
    Denial.objects.create(
        dialect="amqtt",
        username="x",
        action="publish",
        topic="a/b",
        reason=Reason.NO_GRANT,
        first_at=now,
        last_at=now,
    )
    QuarantinedMessage.objects.create(reason="not_json", topic="a/b", payload=b"", received_at=now)


@pytest.mark.long
def test_the_pages_are_accessible_in_both_themes_and_on_a_phone(client: Client, browser: Any, tmp_path: Path):
    fill()
    client.force_login(person("viewer"))
    newcomer, careful = Client(), Client()
    newcomer.force_login(person("newcomer", role=None))
    owner = person("careful")
    second_factor.prepare(owner)
    owner.totpdevice_set.update(confirmed=True)
    careful.force_login(owner)
    found: list[str] = []

    with hub.gunicorn(tmp_path) as url:
        for who, pages in (
            (client, PAGES),
            (newcomer, ("/?none",)),
            (careful, ("/?code",)),
            (None, ("/login/",)),
        ):
            context = browser.new_context(base_url=url)
            if who is not None:
                context.add_cookies([cookie(who, url)])
            page = context.new_page()
            for address in pages:
                page.goto(address)
                found += axe.problems_in_every_look(page)
            context.close()

    assert found == []


def test_the_shell_works_by_keyboard(client: Client, browser: Any, tmp_path: Path):
    fill()
    client.force_login(person("viewer"))

    with hub.gunicorn(tmp_path) as url:
        context = browser.new_context(base_url=url, viewport=WIDE, color_scheme="dark")
        context.add_cookies([cookie(client, url)])
        page = context.new_page()
        page.goto("/")
        focused = "document.activeElement.id || document.activeElement.className"

        page.keyboard.press("Tab")
        assert page.evaluate(focused) == "skip"
        page.keyboard.press("Enter")
        assert page.evaluate(focused) == "main"
        page.keyboard.press("/")
        assert page.evaluate(focused) == "find"
        page.keyboard.type("STATION-001\n")
        page.wait_for_url("**/?q=STATION-001")

        summary = page.locator("details.account > summary")
        summary.focus()
        page.keyboard.press("Enter")
        page.get_by_role("link", name="My account").wait_for()
        page.keyboard.press("Escape")
        assert not page.locator("details.account").get_attribute("open")

        page.get_by_title("Light", exact=True).press("Enter")
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
        assert page.evaluate("localStorage.adminTheme") == '"light"'
        page.locator("#collapse").press("Enter")
        page.goto("/account/")
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
        assert page.locator("#nav").bounding_box()["width"] < 60

        page.set_viewport_size(PHONE)
        page.locator("#nav").wait_for(state="hidden")
        page.get_by_role("link", name="Menu").press("Enter")
        page.locator("#nav").get_by_role("link", name="Overview").wait_for()
        page.keyboard.press("Escape")
        page.locator("#nav").wait_for(state="hidden")
        context.close()


def test_the_shell_works_without_a_script(client: Client, browser: Any, tmp_path: Path):
    fill()
    client.force_login(person("viewer"))

    with hub.gunicorn(tmp_path) as url:
        context = browser.new_context(base_url=url, java_script_enabled=False, viewport=PHONE)
        context.add_cookies([cookie(client, url)])
        page = context.new_page()
        page.goto("/")
        page.get_by_role("link", name="Menu").click()
        page.get_by_role("link", name="Close").wait_for()
        page.get_by_role("link", name="Close").click()
        page.locator("details.account > summary").click()
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/login/")
        context.close()
