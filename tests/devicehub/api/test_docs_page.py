"""The page about the API in a real browser: alone on its host, with the session, in every look."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from devicehub import roles
from devicehub.models import ApiKey
from rig import axe, hub
from rig.browser import complaints, in_browser
from rig.people import person

pytestmark = [
    pytest.mark.servers,
    pytest.mark.sqlite_only,
    pytest.mark.django_db(transaction=True),
    pytest.mark.pages,
]


# Swagger UI draws its own controls, and no setting of it changes these: its list of servers and its editor of a body
# have no label (label, select-name), a row that opens has a button in a button (nested-interactive), long examples
# scroll without focus (scrollable-region-focusable), and its badges are pale (color-contrast).
DRAWN_BY_SWAGGER_UI = ".swagger-ui"


def try_out(page: Any, operation: str, body: Any = None) -> tuple[str, str]:
    """Try *operation* on *page*; return the status and the body of the answer that it shows."""
    block = page.locator(f"[id$='-{operation}']")
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    if body is not None:
        block.locator("textarea.body-param__text").fill(json.dumps(body))
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response").first
    return (
        answer.locator(".response-col_status").inner_text().split()[0],
        answer.locator(".highlight-code code").inner_text(),
    )


def test_the_page_tries_requests_with_the_session_and_loads_nothing_from_elsewhere(
    client: Client, browser: Any, tmp_path: Path
):
    """It reads and writes, the latter with the CSRF token; the console has no complaint."""
    client.force_login(person("ada", roles.ADMINISTRATOR))
    hosts: set[str] = set()
    findings: list[str] = []

    with hub.gunicorn(tmp_path) as url:
        page = in_browser(browser, client, url).new_page()
        found = complaints(page)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto("/")
        page.get_by_role("link", name="REST API").click()
        page.locator("[data-tag=Keys] button").first.click()

        listed = try_out(page, "list_keys")
        made = try_out(page, "create_key", {"name": "of the page", "scopes": ["access:read"]})
        findings += axe.problems_in_every_look(page, outside=DRAWN_BY_SWAGGER_UI)
        is_cut = page.evaluate("document.getElementById('api').scrollWidth > innerWidth")
    assert found == []
    assert hosts == {urlsplit(url).netloc}
    assert (listed[0], made[0]) == ("200", "201")
    assert json.loads(made[1])["key"].startswith("dh_")
    assert ApiKey.objects.get().name == "of the page"
    assert (findings, is_cut) == ([], False)
