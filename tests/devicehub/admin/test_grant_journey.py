"""An operator allows a group of devices a topic in a browser, by choices and suggestions alone."""

from __future__ import annotations

import os

import pytest

from authsvc.models import Grant
from devicehub import provisioning, roles
from devicehub.models import DeviceGroup
from rig.browser import in_browser
from rig.cast import provision
from rig.credential_pages import signed_in
from rig.people import person

pytestmark = [
    pytest.mark.servers,
    pytest.mark.sqlite_only,
    pytest.mark.django_db(transaction=True),
    pytest.mark.pages,
    pytest.mark.long,
]


@pytest.fixture
def page(browser, live_server):
    roles.install()
    client = signed_in(person("ada", roles.ADMINISTRATOR, is_staff=True))
    page = in_browser(browser, client, live_server.url).new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    return page


def test_a_group_is_made_and_gets_a_grant(page, live_server):
    for number in range(3):
        provision(f"STATION-00{number}", site="mill", name=f"Station {number}")
    page.goto(f"{live_server.url}/admin/devicehub/devicegroup/add/")
    page.type("[name=name]", "Mill")
    assert page.input_value("[name=slug]") == "mill"
    assert page.is_visible("[name=members]")
    assert not page.is_visible("[name=sites]")
    page.fill("[name=add_member]", "station 2")
    page.wait_for_selector("#suggested-device option", state="attached")
    page.fill("[name=add_member]", "weatherstation/STATION-002")
    page.press("[name=add_member]", "Enter")
    page.wait_for_selector(".dh-preview >> text=1 device")
    _look(page, "group-chosen")
    page.check("[name=how][value=filter]")
    page.check("[name=sites][value=mill]")
    page.wait_for_selector(".dh-preview >> text=3 devices")
    _look(page, "group-filter")
    page.click("[name=_save]")
    page.wait_for_url("**/devicegroup/")
    assert provisioning.count_members(DeviceGroup.objects.get()) == 3

    page.goto(f"{live_server.url}/admin/authsvc/grant/add/")
    page.wait_for_timeout(300)  # An empty form has no preview and no errors.
    assert "See which topics it opens" in page.inner_text(".dh-preview")
    page.check("[name=kind][value=group]")
    assert not page.is_visible("[name=device]")
    page.select_option("[name=group]", "mill")
    page.check("[name=actions][value=publish]")
    page.fill("[name=filter]", "alarm/{device_id}")
    page.wait_for_selector(".dh-preview >> text=alarm/STATION-000")
    assert "3 devices" in page.inner_text(".dh-preview")
    _look(page, "grant")
    page.click("[name=_save]")
    page.wait_for_url("**/grant/")
    _look(page, "grants")
    grant = Grant.objects.get()
    assert (grant.subject, grant.actions, grant.filter) == ("group:mill", "publish", "alarm/{device_id}")


def _look(page, name):
    """Save pictures of the page where LOOKS names a folder."""
    folder = os.environ.get("LOOKS")
    for width in (1280, 390) if folder else ():
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=f"{folder}/{name}-{width}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})
