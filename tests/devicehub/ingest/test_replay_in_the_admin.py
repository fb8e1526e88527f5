"""The action *Replay* on quarantined messages: its report, its permission and its sites."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.contrib.messages import get_messages
from django.test import Client

from authsvc.models import AuditEntry
from devicehub import roles
from devicehub.admin import replaying
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig import fleets
from rig.people import person

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/admin/devicehub/quarantinedmessage/"


@pytest.fixture
def rows():
    """Return a message that can be stored now and one that cannot, of a northern station, and one of a southern."""
    fleets.two_sites(2)
    north, south = "F-01", "F-00"
    WeatherStationDevice.objects.get(device_id=north)
    return [
        kept(north, b'{"temperature": 5}'),
        kept(north, b'{"temperature": 999}'),
        kept(south, b'{"temperature": 6}'),
    ]


def kept(device_id: str, payload: bytes) -> QuarantinedMessage:
    return QuarantinedMessage.objects.create(
        received_at=datetime(2026, 11, 1, tzinfo=UTC),
        device_key=f"weatherstation/{device_id}",
        topic=f"things/weatherstation/{device_id}/data",
        payload=payload,
        size=len(payload),
        reason="unknown_device",
        detail="There is no such device.",
        content_type="application/json",
    )


def replay(user, rows) -> list[str]:
    """Return the messages after a replay of *rows* by *user*."""
    client = Client()
    client.force_login(user)
    form = {"action": "replay", "_selected_action": [row.pk for row in rows]}
    answer = client.post(LIST, form, follow=True)
    return [str(message) for message in get_messages(answer.wsgi_request)] or [
        str(message) for message in (answer.context or {}).get("messages", [])
    ]


def test_the_action_reports_which_failed_again(rows):
    said = replay(person("olga", roles.OPERATOR, is_staff=True), rows[:2])

    assert said[0] == "Replayed: 1 stored, 0 partial, 1 failed, 0 duplicate, 0 retained"
    assert said[1].startswith(f"Failed again: {rows[1].pk}, weatherstation/F-01: ")
    assert WeatherStationReading.objects.count() == 1
    entry = AuditEntry.objects.get(action="quarantine_replayed")
    assert (entry.actor, entry.object_key) == ("olga", "weatherstation/F-01")


def test_messages_that_were_replayed_are_left_alone(rows):
    olga = person("olga", roles.OPERATOR, is_staff=True)
    replay(olga, rows[:1])

    assert replay(olga, rows[:1]) == ["These messages were replayed before."]


def test_a_request_replays_a_bounded_number(rows, monkeypatch):
    monkeypatch.setattr(replaying, "MOST", 1)

    said = replay(person("olga", roles.OPERATOR, is_staff=True), rows)

    assert said[0] == "The oldest 1 of the chosen messages; replay the rest again."
    assert QuarantinedMessage.objects.filter(replayed_at=None).count() == 2


def test_a_limited_operator_replays_messages_of_their_sites(rows):
    replay(person("mara", roles.OPERATOR, ["north"], is_staff=True), rows)

    assert QuarantinedMessage.objects.get(pk=rows[2].pk).replayed_at is None
    assert QuarantinedMessage.objects.get(pk=rows[0].pk).replayed_at is not None


def test_a_viewer_replays_nothing(rows):
    replay(person("vera", roles.VIEWER, is_staff=True), rows)

    assert not QuarantinedMessage.objects.exclude(replayed_at=None).exists()
