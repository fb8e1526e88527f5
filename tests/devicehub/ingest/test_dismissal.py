"""The action *Dismiss* on quarantined messages: its page, its entries of the audit, the filter, and what stays."""

from __future__ import annotations

import re
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from authsvc.models import AuditEntry
from devicehub import roles
from devicehub.dashboard import overview
from devicehub.ingest import dismissal, replay
from devicehub.models import QuarantinedMessage
from rig import fleets
from rig.credential_pages import signed_in
from rig.people import person

pytestmark = pytest.mark.django_db
LIST = "/admin/devicehub/quarantinedmessage/"


@pytest.fixture
def rows() -> list[QuarantinedMessage]:
    """Return two messages of a northern station, one of a southern, and one of no known device."""
    fleets.two_sites(2)
    north, south = "weatherstation/F-01", "weatherstation/F-00"
    return [kept(north), kept(north), kept(south), kept("", "unknown_topic")]


def kept(device_key: str, reason: str = "not_json", **columns) -> QuarantinedMessage:
    topic = f"things/{device_key or 'boat/B-1'}/data"
    columns = {"received_at": timezone.now(), "payload": b"{", "size": 1_025} | columns
    return QuarantinedMessage.objects.create(device_key=device_key, topic=topic, reason=reason, **columns)


def operator(sites=None) -> Client:
    return signed_in(person("olga", roles.OPERATOR, sites, is_staff=True))


def ask(client: Client, rows, **more):
    form = {"action": "dismiss", "_selected_action": [row.pk for row in rows]}
    return client.post(LIST, form | more, follow=True)


def listed(client: Client, query: str = "") -> set[int]:
    page = client.get(LIST + query).content.decode()
    return set(map(int, re.findall(r'name="_selected_action" value="(\d+)"', page)))


def dismissed() -> set[int]:
    return set(QuarantinedMessage.objects.exclude(dismissed_at=None).values_list("pk", flat=True))


def test_dismissed_messages_leave_the_list_and_are_found_by_a_filter(rows):
    client, chosen = operator(), rows[:3]

    asked = ask(client, chosen).content.decode()
    assert "Dismiss 3 messages?" in asked
    assert not dismissed(), "it asks first"
    answer = ask(client, chosen, confirmed="yes", reason="old firmware")

    assert "3 messages dismissed." in answer.content.decode()
    assert dismissed() == {row.pk for row in chosen}
    assert listed(client) == {rows[3].pk}
    assert listed(client, "?dismissed=yes") == dismissed()
    assert listed(client, "?dismissed=all") == {row.pk for row in rows}
    assert f"{rows[0].pk}/change/" in client.get(LIST + "?dismissed=yes").content.decode()
    assert client.get(f"{LIST}{rows[0].pk}/change/").status_code == 200


def test_the_audit_has_an_entry_for_each_device_and_reason(rows):
    ask(operator(), rows, confirmed="yes", reason="old firmware")

    found = AuditEntry.objects.filter(action="quarantine_dismissed", actor="olga", reason="old firmware")
    assert {entry.object_key: entry.after for entry in found} == {
        "weatherstation/F-01": {"quarantined_because": "not_json", "messages": 2},
        "weatherstation/F-00": {"quarantined_because": "not_json", "messages": 1},
        "quarantine": {"quarantined_because": "unknown_topic", "messages": 1},
    }


def test_the_page_of_a_message_has_the_button_until_it_is_dismissed(rows):
    client, page = operator(), f"{LIST}{rows[0].pk}/change/"
    assert "Dismiss this message" in client.get(page).content.decode()

    asked = ask(client, rows[:1], of_one="yes").content.decode()
    assert f'href="{page}">Keep it</a>' in asked
    ask(client, rows[:1], confirmed="yes")

    assert "Dismiss this message" not in client.get(page).content.decode()
    assert "Replay this message" in client.get(page).content.decode()


def test_messages_that_were_dismissed_keep_their_time(rows):
    client = operator()
    ask(client, rows[:1], confirmed="yes")
    first = QuarantinedMessage.objects.get(pk=rows[0].pk).dismissed_at

    assert "These messages were dismissed before." in ask(client, rows[:1], confirmed="yes").content.decode()

    assert QuarantinedMessage.objects.get(pk=rows[0].pk).dismissed_at == first
    assert AuditEntry.objects.filter(action="quarantine_dismissed").count() == 1


def test_a_large_number_is_typed(rows):
    client = operator()
    many = [kept("weatherstation/F-01") for _ in range(11)]

    wrong = ask(client, many, confirmed="yes", typed="12").content.decode()
    assert "The number is not 11." in wrong
    assert not dismissed()
    ask(client, many, confirmed="yes", typed="11")

    assert dismissed() == {row.pk for row in many}


def test_a_request_dismisses_a_bounded_number(rows, monkeypatch):
    monkeypatch.setattr(dismissal, "MOST", 3)
    monkeypatch.setattr(dismissal, "AT_ONCE", 2)

    answer = ask(operator(), rows, confirmed="yes").content.decode()

    assert "3 messages dismissed. These are the oldest of the chosen ones; dismiss the rest again." in answer
    assert dismissed() == {row.pk for row in rows[:3]}


def test_a_limited_operator_dismisses_messages_of_their_sites(rows):
    ask(operator(["north"]), rows, confirmed="yes")

    assert dismissed() == {rows[0].pk, rows[1].pk}


def test_a_viewer_dismisses_nothing(rows):
    viewer = signed_in(person("vera", roles.VIEWER, is_staff=True))

    ask(viewer, rows, confirmed="yes")

    assert not dismissed()
    assert "Dismiss this message" not in viewer.get(f"{LIST}{rows[0].pk}/change/").content.decode()


def test_the_overview_and_a_replay_of_all_leave_them_out(rows):
    client = operator()
    ask(client, rows[:3], confirmed="yes")
    olga = person("anna", roles.OPERATOR)

    assert overview.quarantine(olga).count == 1
    assert [row.pk for row in overview.quarantine(olga).latest] == [rows[3].pk]
    assert [row.pk for row in replay.waiting()] == [rows[3].pk]
    assert [row.pk for row in replay.waiting(row=rows[0].pk)] == [rows[0].pk]
    assert set(re.findall(r"quarantinedmessage/(\d+)/change/", client.get("/admin/").content.decode())) == {
        str(rows[3].pk)
    }


def test_retention_deletes_them_as_any_other(rows, settings):
    settings.DEVICEHUB_KEEP_QUARANTINE = "30d"
    old = timezone.now() - timedelta(days=31)
    QuarantinedMessage.objects.filter(pk=rows[0].pk).update(received_at=old)
    ask(operator(), rows[:2], confirmed="yes")

    call_command("prune_telemetry", stdout=StringIO())

    assert not QuarantinedMessage.objects.filter(pk=rows[0].pk).exists()
    assert dismissed() == {rows[1].pk}
