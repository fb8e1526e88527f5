"""A secret is in one answer, and afterwards nowhere: not in a table, a session, a cache, a log or another answer."""

from __future__ import annotations

import logging

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import connection
from django.test import Client

from fleet.models import WeatherStationDevice
from rig.credential_pages import secrets_of

pytestmark = pytest.mark.pages

PAGES = (
    "/",
    "/devices/add/",
    "/devices/weatherstation/STATION-001/credentials/",
    "/devices/weatherstation/STATION-001/credentials/light/",
    "/search/?q=STATION",
    "/admin/",
    "/admin/fleet/weatherstationdevice/",
    "/admin/fleet/weatherstationdevice/{pk}/change/",
    "/admin/fleet/weatherstationdevice/{pk}/history/",
    "/admin/fleet/weatherstationdevice/credentials/STATION-001/",
)


def every_row() -> str:
    """Return the content of all tables as text."""
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            rows += [repr(row) for row in cursor.fetchall()]
    return "\n".join(rows)


@pytest.fixture
def boss(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("boss"))
    return client


def test_a_shown_secret_is_nowhere_afterwards(boss, add, change, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    kept = []
    made = [
        add(boss, device_id="STATION-001"),
        change(boss, "STATION-001", "rotate", ends="used", reason="first"),
        change(boss, "STATION-001", "rotate_key"),
    ]
    secrets = {secret for answer in made for secret in secrets_of(answer.content.decode()).values()}
    device = WeatherStationDevice.objects.get()

    for url in PAGES:
        answer = boss.get(url.format(pk=device.pk), follow=True)
        assert answer.status_code == 200, url
        kept.append(answer.content.decode())
        kept.append(repr(answer.headers))
    kept.append(repr([session.get_decoded() for session in Session.objects.all()]))
    kept.append(repr([vars(cache) for cache in caches.all(initialized_only=True)]))
    kept.append(repr(boss.cookies))
    kept.append(every_row())
    kept.append(caplog.text)
    kept.extend(capfd.readouterr())
    assert len(secrets) == 4
    assert "STATION-001" in every_row()
    for secret in secrets:
        assert not [text for text in kept if secret in text]
