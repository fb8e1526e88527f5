"""The start page of the admin, its navigation, its badges and its search."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.models import Account, AuditEntry, Broker, Denial
from devicehub import roles, states
from devicehub.admin import index, sidebar
from devicehub.kinds.registry import registry
from devicehub.models import QuarantinedMessage, Rotation
from fleet.models import IrrigationValveDevice, WeatherStationDevice

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
HOUR = timedelta(hours=1)


@pytest.fixture
def fleet() -> None:
    now = timezone.now()
    seen = {"last_seen": now, "status": "online", "mqtt_password_hash": "x"}
    WeatherStationDevice.objects.create(device_id="N-1", site="north", **seen)
    WeatherStationDevice.objects.create(device_id="S-1", site="south", **{**seen, "status": "error"})
    WeatherStationDevice.objects.create(device_id="S-2", site="south")
    WeatherStationDevice.objects.create(
        device_id="S-3", site="south", credentials_changed_at=now, **{**seen, "mqtt_password_hash": ""}
    )
    WeatherStationDevice.objects.create(device_id="S-4", site="south", is_active=False, **seen)
    IrrigationValveDevice.objects.create(
        device_id="V-1", site="north", **{**seen, "last_seen": now - 9 * HOUR}
    )
    for key in ("weatherstation/N-1", "weatherstation/S-1", "weatherstation/S-2"):
        Denial.objects.create(
            dismissed_at=now if key.endswith("S-2") else None,
            dialect="emqx",
            principal=key,
            username=key[-3:],
            topic=f"other/{key}",
            action="publish",
            reason="no_grant",
            first_at=now,
            last_at=now,
        )
    for replayed in (None, now):
        QuarantinedMessage.objects.create(
            device_key="weatherstation/S-1",
            reason="not_json",
            detail="no JSON",
            topic="t",
            payload=b"{",
            received_at=now,
            replayed_at=replayed,
        )
    broker = Broker.objects.create(name="hall", token_digest="x")
    broker.uses.create(address="10.0.0.1", first_at=now - 9 * HOUR, last_at=now - 2 * HOUR, count=5)


def user(name: str, role: str, sites: list[str] | None = None) -> User:
    found = User.objects.create_user(name, is_staff=True)
    roles.assign(found, role, sites)
    return found


def tiles(page) -> dict[str, int]:
    return {tile.label: tile.value for tile in page.context["fleet"].tiles}


def test_the_tiles_count_and_link_on(admin_client, fleet):
    page = admin_client.get("/admin/")

    assert tiles(page) == {
        "Connected": 1,
        "Silent": 1,
        "Never seen": 1,
        "In error": 1,
        "Revoked": 1,
        "Disabled": 1,
        "Denied, 24 h": 2,
        "Quarantine, 24 h": 1,
    }
    for tile in page.context["fleet"].tiles:
        assert admin_client.get(tile.url).context["cl"].result_count == tile.value, tile
    IrrigationValveDevice.objects.create(device_id="V-2", site="north")
    page = admin_client.get("/admin/")
    never = next(tile for tile in page.context["fleet"].tiles if tile.label == "Never seen")
    of_kinds = [part for bar in page.context["fleet"].bars for part in bar.parts]
    assert (never.value, never.url) == (2, "#dh-types")
    assert 'id="dh-types"' in page.content.decode()
    assert len(of_kinds) == 7
    for part in of_kinds:
        assert admin_client.get(part.url).context["cl"].result_count == part.value, part
    assert {tile.label for tile in page.context["fleet"].tiles if tile.is_red} == {
        "In error",
        "Denied, 24 h",
        "Quarantine, 24 h",
    }
    text = page.content.decode()
    assert "hall" in text
    assert "no JSON" in text
    assert "2 h ago" in text
    assert "N-1 publish other/weatherstation/N-1" in text


def test_a_number_of_several_types_leads_to_the_chart(admin_client):
    page = admin_client.get("/admin/")
    of_devices = [tile for tile in page.context["fleet"].tiles if tile.glyph]

    assert {(tile.value, tile.url) for tile in of_devices} == {(0, "#dh-types")}
    assert page.content.decode().count('id="dh-types"') == 1
    assert "No devices yet" in page.content.decode()


def bars(page) -> dict[str, list[tuple[str, int]]]:
    return {bar.name: [(part.label, part.value) for part in bar.parts] for bar in page.context["fleet"].bars}


def test_the_chart_divides_each_type_by_state(admin_client, client, fleet):
    WeatherStationDevice.objects.create(device_id="N-2", site="north", status="maintenance")
    WeatherStationDevice.objects.filter(device_id="N-2").update(last_seen=timezone.now())
    page = admin_client.get("/admin/")
    text = page.content.decode()

    found = bars(page)
    assert found["Weather stations"] == [
        ("Connected", 1),
        ("Maintenance", 1),
        ("Revoked", 1),
        ("In error", 1),
        ("Disabled", 1),
        ("Never seen", 1),
    ]
    assert found["Irrigation valves"] == [("Silent", 1)]
    address = "/admin/fleet/weatherstationdevice/?state=maintenance"
    assert text.count(f'href="{address}"') == 2  # The part, and the same in words.
    assert "<title>Maintenance: 1</title>" in text
    assert "style=" not in text[text.index('id="dh-types"') : text.index('id="dh-looks"')]

    client.force_login(user("nora", roles.OPERATOR, ["north"]))
    found = bars(client.get("/admin/"))
    assert found["Weather stations"] == [("Connected", 1), ("Maintenance", 1)]


@pytest.mark.parametrize("values", [[1], [100_000, 1], [1] * len(states.STATES), [10**9, *[1] * 9]], ids=str)
def test_a_bar_is_full_and_each_part_can_be_seen(values):
    widths = index._widths(values)

    assert sum(widths) + index.GAP * (len(values) - 1) == pytest.approx(index.BAR)
    assert min(widths) >= index.THINNEST


def test_large_numbers_are_grouped(admin_client, monkeypatch):
    kind = registry.of(WeatherStationDevice)
    monkeypatch.setattr(index, "_states", lambda user: {kind: {"connected": 12_345}})
    monkeypatch.setattr(index, "counts", lambda user: {"denials": 23_456, "quarantine": 34_567})

    page = admin_client.get("/admin/").content.decode()

    assert re.findall(r'class="value[^"]*">([^<]+)<', page).count("12,345") == 1
    for text in ("23,456", "34,567", 'dh-quiet">12,345<', "Connected: 12,345<", "<b>12,345</b>"):
        assert text in page, text
    assert not re.search("12345|23456|34567", page)


def test_a_bar_is_written_for_machines_in_each_language(admin_client, fleet, settings):
    settings.LANGUAGE_CODE = "de"

    page = admin_client.get("/admin/", headers={"Accept-Language": "de"}).content.decode()

    assert re.findall(r'<rect class="dh-good" x="([^"]+)" width="([^"]+)"', page) == [("0.0", "197.6")]


def test_a_limited_user_counts_their_site(client, fleet):
    client.force_login(user("nora", roles.OPERATOR, ["north"]))

    page = client.get("/admin/")

    assert tiles(page) == {
        "Connected": 1,
        "Silent": 1,
        "Never seen": 0,
        "In error": 0,
        "Revoked": 0,
        "Disabled": 0,
        "Denied, 24 h": 1,
        "Quarantine, 24 h": 0,
    }
    for hidden in ("S-1", "S-2", "hall"):
        assert hidden not in page.content.decode()


def test_the_index_makes_at_most_eight_queries(rf, admin_user, fleet):
    request = rf.get("/admin/")
    request.user = admin_user

    with CaptureQueriesContext(
        connection,
    ) as queries:
        index.fleet(request)

    assert len(queries) <= 8


def test_a_badge_counts_the_rotations_that_the_user_may_see(fleet):
    now = timezone.now()
    rotation = Rotation.objects.create(name="spring", started_at=now, touched_at=now)
    rotation.members.create(kind="weatherstation", device_key="weatherstation/S-1")

    assert index.counts(user("sven", roles.VIEWER, ["south"]))["rotations"] == 1
    assert index.counts(user("nora", roles.VIEWER, ["north"])).get("rotations", 0) == 0


def test_changes_are_shown_with_their_author(admin_client):
    AuditEntry.objects.create(
        at=timezone.now(), actor_kind="user", actor="mara", action="grant_created", object_key="grant/7"
    )

    text = admin_client.get("/admin/").content.decode()

    assert "mara" in text
    assert "Grant created" in text
    assert 'href="/admin/authsvc/grant/?id=7">grant/7<' in text


def titles(request) -> list[str]:
    return [item["title"] for group in sidebar.navigation(request) for item in group["items"]]


def test_the_navigation_shows_pages_that_exist_and_that_the_user_may_see(rf, fleet):
    request = rf.get("/admin/authsvc/denial/5/change/")
    request.user = user("olga", roles.ADMINISTRATOR)
    groups = sidebar.navigation(request)
    items = {item["title"]: item for group in groups for item in group["items"]}

    assert [group["title"] for group in groups] == ["", "Fleet", "Access", "Messages", "Operation", "People"]
    assert {"Weather stations", "LwM2M endpoints", "Denials", "Brokers", "Users", "Roles"} <= set(items)
    assert (items["Denials"]["badge"], items["Denials"]["badge_variant"]) == ("2", "danger")
    assert items["Brokers"]["badge"] == "1"
    assert [title for title, item in items.items() if item["active"]] == ["Denials"]

    request.user = user("nora", roles.VIEWER, ["north"])
    assert not {"Brokers", "Grants", "Service accounts", "Users"} & set(titles(request))
    request.user = User.objects.create_user("eve", is_staff=True)
    back = ["Back to the dashboard"] if sidebar.address("devicehub:overview") else []
    assert titles(request) == ["Overview of the administration", *back]


def test_an_item_of_an_app_appears_once_its_page_exists(rf, admin_user, monkeypatch):
    monkeypatch.setattr(sidebar, "_items", dict(sidebar._items))
    sidebar.register("Nowhere", "nowhere:list", group=sidebar.FLEET, icon="star", order=1)
    sidebar.register("Index again", "admin:password_change", group="Own", icon="star", order=1)
    request = rf.get("/admin/")
    request.user = admin_user

    assert "Nowhere" not in titles(request)
    assert titles(request)[-1] == "Index again"


def test_the_search_finds_what_the_user_may_see(rf, fleet):
    Account.objects.create(username="N-1-backend")
    request = rf.get("/admin/search/")
    request.user = user("olga", roles.ADMINISTRATOR)
    assert {found.title for found in index.search(request, "n-1")} == {
        "N-1",
        "N-1-backend",
        "other/weatherstation/N-1",
    }

    request.user = user("nora", roles.OPERATOR, ["north"])
    assert index.search(request, "s-1") == []
    assert index.search(request, "\x00") == []
    WeatherStationDevice.objects.bulk_create(
        WeatherStationDevice(device_id=f"M-{n}", site="north") for n in range(index.FOUND + 5)
    )
    assert len(index.search(request, "M-")) == index.FOUND


@pytest.mark.usefixtures("fleet")
def test_unfold_searches_with_it(admin_client):
    if not apps.is_installed("unfold"):
        pytest.skip("needs unfold")

    page = admin_client.get("/admin/search/?s=s-2&extended=1")

    assert "S-2" in page.content.decode()
