"""An administrator registers a broker in a browser, puts its token to use, and rotates it without a gap."""

from __future__ import annotations

import httpx
import pytest

from authsvc import background
from authsvc.models import Broker
from devicehub import roles
from rig.asking import DENIED, OK
from rig.browser import in_browser, settled
from rig.credential_pages import signed_in
from rig.people import person

pytestmark = [
    pytest.mark.servers,
    pytest.mark.sqlite_only,
    pytest.mark.django_db(transaction=True),
    pytest.mark.pages,
]


@pytest.fixture
def page(browser, live_server):
    """Return the page of an administrator, who may use the clipboard."""
    roles.install()
    client = signed_in(person("ada", roles.ADMINISTRATOR, is_staff=True))
    clipboard = ["clipboard-read", "clipboard-write"]
    return in_browser(browser, client, live_server.url, permissions=clipboard).new_page()


def test_a_broker_is_born_used_and_rotated(page, live_server, station):
    def ask(token):
        fields = {"username": station.username, "clientid": station.username, "password": station.password}
        headers = {"authorization": f"Bearer {token}"}
        status = httpx.post(f"{live_server.url}/mqtt/go-auth/user", json=fields, headers=headers).status_code
        background.stop()
        return status

    page.goto(f"{live_server.url}/admin/authsvc/broker/add/")
    page.fill("[name=name]", "orchard-main")
    page.check("[value=go-auth]")
    page.fill("[name=networks]", "127.0.0.0/8")
    page.click("[name=_save]")
    page.click("[data-copy=value-token]")
    token = page.inner_text("#value-token")
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.length > 20)")
    assert page.evaluate("navigator.clipboard.readText()") == token
    with page.expect_download() as download:
        page.click("[data-download=file-go-auth]")
    assert token in download.value.path().read_text()

    assert ask(token) == OK
    page.click("text=Go to orchard-main")
    assert "127.0.0.1" in page.inner_text(".dh-panel")
    assert "Asking" in page.inner_text(".dh-panel")
    with pytest.raises(Exception, match="ERR_CACHE_MISS"):  # The answer is nowhere in the browser.
        page.go_back()
    assert token not in settled(page)

    page.goto(f"{live_server.url}/admin/authsvc/broker/{Broker.objects.get().pk}/change/")
    page.click("text=Rotate token")
    page.click("#rotate button[type=submit]")
    new = page.inner_text("#value-token")
    assert (ask(token), ask(new), ask(token)) == (OK, OK, DENIED)
