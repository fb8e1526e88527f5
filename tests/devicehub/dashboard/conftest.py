"""The browser in which pages are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from rig import servers
from rig.browser import BROWSER_FLAGS


@pytest.fixture
def browser(needs_real: Callable[[servers.MissingServer], None]) -> Iterator[Any]:
    """Yield Debian's chromium, opened by playwright."""
    from playwright.sync_api import sync_playwright

    try:
        program = servers.chromium()
    except servers.MissingServer as missing:
        needs_real(missing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # playwright's loop runs in this thread
        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
            yield opened
            opened.close()
            connections.close_all()  # inside that loop Django has other ones than outside
