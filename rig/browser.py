"""The browser of tests of pages: its command line options, and the fixture that runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test import Client

from rig import servers

BROWSER_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def settled(page: Any) -> str:
    """Return the content of *page* once no navigation replaces it, at most three seconds later."""
    from playwright.sync_api import Error

    for _ in range(30):
        try:
            return str(page.content())
        except Error:  # The page of an error is still coming.
            page.wait_for_timeout(100)
    return str(page.content())


def in_browser(browser: Any, client: Client, url: str, **options: Any) -> Any:
    """Return a context of *browser* for the site at *url*, signed in as *client* is."""
    context = browser.new_context(base_url=url, **options)
    name = settings.SESSION_COOKIE_NAME
    context.add_cookies([{"name": name, "value": client.cookies[name].value, "url": url}])
    return context


def complaints(page: Any) -> list[str]:
    """Return the list to which the errors of *page* and the lines in its console are added, apart from plain logs."""
    found: list[str] = []
    page.on("console", lambda line: found.append(line.text) if line.type != "log" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


@pytest.fixture
def browser(needs_real: Callable[[servers.MissingServer], None]) -> Iterator[Any]:
    """Run Debian's chromium; return the browser of playwright."""
    from playwright.sync_api import sync_playwright

    try:
        program = servers.chromium()
    except servers.MissingServer as missing:
        needs_real(missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # The event loop of playwright runs in this thread.
        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
            yield opened
            opened.close()
            connections.close_all()  # Inside that loop Django uses other connections than outside.
