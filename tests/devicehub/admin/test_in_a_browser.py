"""The pages of the admin in a browser: no serious finding of axe, no error in the console, no sideways scroll."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.utils import timezone

from authsvc.models import AuditEntry, Broker, Denial, Grant
from devicehub import provisioning, roles
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationMessage, WeatherStationReading
from rig import axe, hub
from rig.browser import in_browser
from rig.cast import Cast

pytestmark = [
    pytest.mark.servers,
    pytest.mark.long,
    pytest.mark.sqlite_only,
    pytest.mark.django_db(transaction=True),
    pytest.mark.pages,
]
IN_EVERY_LOOK = ("", "fleet/weatherstationdevice/{device}/change/")
PAGES = (
    "fleet/weatherstationdevice/",
    "fleet/weatherstationmessage/{message}/change/",
    "fleet/irrigationvalvedevice/",
    "authsvc/auditentry/",
    "authsvc/auditentry/{entry}/change/",
    "authsvc/denial/{denial}/change/",
    "authsvc/grant/add/",
    "devicehub/devicegroup/add/",
    "authsvc/broker/{broker}/change/",
    "devicehub/quarantinedmessage/{quarantined}/change/",
    "auth/user/{user}/change/",
)


SIZES = "table => [table.scrollWidth, table.parentElement.clientWidth]"
ROOM_FOR_TEXT = """select => {
  const style = getComputedStyle(select);
  const inside = select.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
  return inside >= parseFloat(style.fontSize) * 1.2;
}"""
TALLEST = "rows => Math.max(...rows.map(row => row.clientHeight))"
LISTS = ("authsvc/grant/", "authsvc/denial/", "devicehub/quarantinedmessage/")
DETAIL = "not JSON at byte 1: a value is missing (a number, a text in double quotes, true, false, null, or an object)"


def fill(station: Cast) -> dict[str, Any]:
    """Create the rows that the pages show; return their primary keys by name."""
    now, device = timezone.now(), station.device
    key = f"weatherstation/{device.device_id}"
    WeatherStationReading.objects.create(device=device, timestamp=now, temperature=20.5)
    message = WeatherStationMessage.objects.create(
        device=device, topic=station.topic("data"), outcome="stored"
    )
    denial = Denial.objects.create(
        dialect="emqx",
        principal=key,
        action="publish",
        topic="things/weatherstation/NEIGHBOUR-1/data",
        reason="no_grant",
        first_at=now,
        last_at=now,
    )
    row = {
        "reason": "not_json",
        "topic": station.topic("data"),
        "detail": DETAIL,
        "payload": b"{",
        "received_at": now,
    }
    quarantined = QuarantinedMessage.objects.create(device_key=key, **row)
    Grant.objects.create(subject=f"key:{key}", actions="publish", filter="extra/topic")
    note = {"note": "create_account --ingest", "valid_until": now + timedelta(days=1)}
    Grant.objects.create(
        subject=f"key:{key}", actions="publish", filter="things/weatherstation/+/status", **note
    )
    many = range(21)
    Grant.objects.bulk_create(Grant(subject="everyone", actions="publish", filter=f"a/{n}") for n in many)
    mara = User.objects.create_user("mara", is_staff=True)
    roles.assign(mara, roles.OPERATOR, ["north"])
    entry = AuditEntry.objects.create(
        at=now,
        actor_kind="user",
        actor="mara",
        address="10.0.0.4",
        action="device_moved",
        object_key=key,
        before={"site": ""},
        after={"site": "north"},
        reason="moved after the storm",
    )
    return {
        "device": device.pk,
        "entry": entry.pk,
        "message": message.pk,
        "denial": denial.pk,
        "quarantined": quarantined.pk,
        "broker": Broker.objects.create(name="hall", token_digest="x").pk,
        "user": mara.pk,
    }


def test_the_pages_can_be_used_by_everybody(browser: Any, client: Client, station: Cast, tmp_path: Path):
    rows = fill(station)
    client.force_login(User.objects.create_superuser("admin"))
    session = client.cookies[settings.SESSION_COOKIE_NAME].value
    found: list[str] = []
    with hub.gunicorn(tmp_path) as url:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
        page = context.new_page()
        page.on("console", lambda m: found.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: found.append(str(error)))
        for address in IN_EVERY_LOOK:
            page.goto(f"{url}/admin/{address.format(**rows)}")
            found += axe.problems_in_every_look(page)
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 1280, "height": 900})
        for address in PAGES:
            page.goto(f"{url}/admin/{address.format(**rows)}")
            found += [f"{page.url}: {problem}" for problem in axe.problems(page)]
        page.emulate_media(color_scheme="light")
        for address in LISTS:
            page.goto(f"{url}/admin/{address}")
            rows_wide, room = page.locator("#result_list").evaluate(SIZES)
            tallest = page.locator("#result_list tbody tr").evaluate_all(TALLEST)
            if rows_wide > room or tallest > 150:
                found.append(f"{page.url}: {rows_wide} px wide in {room} px, and a row is {tallest} px high")
        # The bar of actions, which comes with the first chosen row, leaves the last one free.
        page.goto(f"{url}/admin/authsvc/grant/")
        page.locator("input.action-select").first.check()
        page.get_by_text("1 of 23 selected").wait_for()
        page.mouse.move(700, 400)
        page.mouse.wheel(0, 9_999)
        page.locator("input.action-select").last.check(timeout=3_000)
        # From the chart of the start page to the list of a state.
        page.goto(f"{url}/admin/")
        page.locator("#dh-types svg a").first.click()
        page.wait_for_url("**/admin/fleet/weatherstationdevice/?state=*")
        # From the start page over a number to the list of its rows, and from a row to its device.
        page.goto(f"{url}/admin/")
        page.get_by_role("link", name="Denied, 24 h 1").click()
        assert page.url.endswith("/admin/authsvc/denial/?since=24h&dismissed=no")
        page.get_by_role("link", name="Weather stations", exact=True).first.click()
        page.get_by_role("link", name="STATION-001").click()
        page.get_by_label("More about this device").get_by_role("link", name="Readings").click()
        assert page.url.endswith(f"?device={rows['device']}")
        page.get_by_role("link", name="Back to the dashboard").click()
        assert page.url == f"{url}/"
        context.close()
        connections.close_all()

    assert found == []


def test_the_admin_of_django_itself_has_room_for_all_parts(browser: Any, client: Client, tmp_path: Path):
    """Its content floats, so the link to a removal stood beside it; its fields are lower than ours."""
    account, _ = provisioning.create_account("backend")
    client.force_login(User.objects.create_superuser("admin"))
    with hub.gunicorn(tmp_path, DJANGO_SETTINGS_MODULE="rig.stock_admin") as url:
        page = in_browser(browser, client, url).new_page()
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"/admin/authsvc/account/{account.pk}/change/")
            end = page.get_by_role("link", name="Remove this service account").bounding_box()
            last = page.locator(".submit-row").bounding_box()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert (end["x"], end["y"] > last["y"] + last["height"]) == (last["x"], True)
            page.goto("/admin/authsvc/grant/add/")
            assert page.locator("#id_type").evaluate(ROOM_FOR_TEXT)
        page.context.close()
        connections.close_all()
