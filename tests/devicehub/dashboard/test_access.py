"""The access to pages: a sign-in, a permission, and the sites of a reader, on the page and in its stream."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import roles
from devicehub.dashboard import live, overview
from devicehub.dashboard.selection import parse
from devicehub.models import CountedRefusal, QuarantinedMessage
from fleet.models import IrrigationValveDevice, WeatherStationDevice, WeatherStationReading
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
JSON = "application/json"


@pytest.fixture
def fleet() -> dict[str, WeatherStationDevice]:
    """Return a station at each of two sites, each with a reading, a denial and a quarantined message."""
    now = timezone.now()
    made = {}
    for site in ("north", "south"):
        key = f"weatherstation/S-{site}"
        device = made[site] = WeatherStationDevice.objects.create(
            device_id=f"S-{site}", site=site, connected=True
        )
        WeatherStationReading.objects.create(
            device=device, timestamp=now - timedelta(seconds=9), temperature=20.0
        )
        Denial.objects.create(
            dialect="amqtt", principal=key, action="publish", topic=f"denied/{site}", reason=Reason.NO_GRANT,
            first_at=now, last_at=now,
        )  # fmt: skip
        QuarantinedMessage.objects.create(
            device_key=key, reason="not_json", topic=f"bad/{site}", payload=b"", received_at=now
        )
        CountedRefusal.objects.create(device_key=key, reason="not_json", count=9, first_at=now, last_at=now)
    Denial.objects.create(
        dialect="amqtt", username="stranger", action="user", reason=Reason.NO_GRANT, first_at=now, last_at=now
    )
    return made


@pytest.fixture
def northerner(fleet: Any) -> User:
    return person("northerner", sites=["north"])


def test_a_user_without_permission_gets_an_explanation_and_no_news(client: Client, fleet):
    client.force_login(person("newcomer", role=None))

    page = client.get("/")
    news = client.get("/stream/", headers={"Accept": JSON})

    assert (page.status_code, news.status_code) == (403, 403)
    assert "You may not see any devices yet" in page.content.decode()
    assert "S-north" not in page.content.decode() + news.content.decode()


def test_a_limited_user_sees_their_sites_only(client: Client, northerner):
    client.force_login(northerner)

    texts = [
        client.get("/").content.decode(),
        client.get("/?q=S-&reading=weatherstation.temperature").content.decode(),
        client.get("/stream/?reading=weatherstation.temperature", headers={"Accept": JSON}).content.decode(),
    ]

    for text in texts:
        assert "S-north" in text
        assert "denied/north" in text
        assert "bad/north" in text
        assert "south" not in text
        assert "stranger" not in text


def test_the_account_menu_names_the_sites_of_a_limit(client: Client, northerner):
    client.force_login(northerner)
    assert re.search(r"northerner<br>north</p>", client.get("/account/").content.decode())

    client.force_login(person("anywhere"))
    assert "anywhere</p>" in client.get("/account/").content.decode()


def test_the_numbers_of_a_limited_user_are_those_of_their_sites(northerner, fleet):
    everybody = User(is_superuser=True)

    def numbers(user: User) -> tuple[int, ...]:
        counts = overview.counts(user, max_age=60)
        return counts.devices, counts.connected, counts.readings, counts.denied

    assert numbers(everybody) == (2, 2, 2, 3)
    assert numbers(northerner) == (1, 1, 1, 1)
    assert numbers(everybody) == (2, 2, 2, 3)  # The numbers are cached for each limit.


def test_an_open_page_hears_of_its_sites_only(northerner, fleet):
    watch = live.Watch(parse({"reading": "weatherstation.temperature"}), northerner)
    watch.start()

    for device in fleet.values():
        WeatherStationReading.objects.create(device=device, timestamp=timezone.now(), temperature=31.25)
    news = watch.look()

    assert set(news["rows"]) == {"weatherstation/S-north"}
    assert [one["device"] for one in news["points"]] == ["S-north"]


def test_the_tables_are_those_of_the_types_that_a_user_may_see(client: Client, fleet):
    IrrigationValveDevice.objects.create(device_id="V-1")
    gardener = person("gardener", role=None)
    gardener.user_permissions.add(Permission.objects.get(codename="view_irrigationvalvedevice"))
    client.force_login(gardener)

    page = client.get("/?reading=weatherstation.temperature").content.decode()
    news = client.get("/stream/?reading=weatherstation.temperature", headers={"Accept": JSON}).json()

    assert "V-1" in page
    assert "S-north" not in page
    assert "denied/" not in page
    assert "chart" not in news
    assert set(news["rows"]) == {"irrigationvalve/V-1"}


def test_limits_whose_numbers_are_cached_are_bounded(monkeypatch, fleet):
    monkeypatch.setattr(overview, "MAX_SCOPES", 2)
    for site in ("a", "b", "c"):
        overview.counts(person(site, roles.VIEWER, [site]))

    assert len(overview._counters) == 2
