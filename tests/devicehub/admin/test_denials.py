"""Denials in the admin: the reason and the nearest rule, what can be done about one, and that evidence stays."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.test import Client, override_settings
from django.urls import path

from authsvc.core.access import Reason
from authsvc.models import AuditEntry, Denial, Grant
from devicehub import roles
from devicehub.denials.dismissal import dismiss
from fleet.models import WeatherStationDevice
from rig.cast import Cast
from rig.denied import denial
from rig.people import person

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.pages]
HOSTILE = "<script>alert(1)</script>"
LIST = "/admin/authsvc/denial/"

urlpatterns = [path("admin/", admin.site.urls)]  # A project without devicehub.urls.


@pytest.fixture
def operator(station: Cast, client: Client) -> Client:
    client.force_login(person("operator", roles.OPERATOR, is_staff=True))
    return client


def test_the_list_says_why_and_which_broker(operator):
    denial()
    text = operator.get(LIST).content.decode()

    assert "This topic belongs to STATION-002." in text
    assert "orchard-main" in text


def test_the_page_shows_the_nearest_rule_and_leads_on(operator):
    found = denial()
    text = operator.get(f"{LIST}{found.pk}/change/").content.decode()

    for part in (
        '<span class="dh-bad">STATION-002</span>',
        '<span class="dh-good">STATION-001</span>',
        "May publish",
        f'href="/denials/{found.pk}/"',
        f'href="/denials/{found.pk}/allow/"',
        'value="dismiss"',
    ):
        assert part in text, part


@override_settings(ROOT_URLCONF=__name__)
def test_a_project_without_the_pages_has_the_form_of_a_grant_and_the_command(operator):
    found = denial()
    text = operator.get(f"{LIST}{found.pk}/change/").content.decode()

    assert "/denials/" not in text
    assert "/admin/authsvc/grant/add/?subject=key%3Aweatherstation%2FSTATION-001&amp;actions=publish" in text
    assert "manage.py explain fleet-weatherstationdevice-STATION-001 publish things/" in text


@override_settings(ROOT_URLCONF=__name__)
def test_a_name_that_looks_like_an_option_is_none_in_the_command(operator):
    found = denial(username="--pythonpath=/tmp/x", principal="", reason=Reason.UNKNOWN_USERNAME)

    text = operator.get(f"{LIST}{found.pk}/change/").content.decode()

    assert "manage.py explain -- --pythonpath=/tmp/x publish things/" in text


def test_evidence_is_dismissed_and_not_deleted_added_or_changed(operator):
    found = denial()
    page = f"{LIST}{found.pk}/"

    operator.post(LIST, {"action": "dismiss", "_selected_action": found.pk})
    operator.post(LIST, {"action": "delete_selected", "_selected_action": found.pk, "post": "yes"})

    assert operator.post(f"{page}delete/", {"post": "yes"}).status_code == 403
    assert operator.post(f"{LIST}add/", {"topic": "x"}).status_code == 403
    assert operator.post(f"{page}change/", {"topic": "x"}).status_code == 403
    assert Denial.objects.get().dismissed_at is not None
    assert AuditEntry.objects.get(action="denial_dismissed").actor == "operator"
    assert "This topic" not in operator.get(f"{LIST}?dismissed=no").content.decode()


def test_many_are_dismissed_by_few_statements(db, django_assert_max_num_queries):
    """A list has up to 20,000 causes, and other writers wait for the transaction."""
    for number in range(20):
        denial(topic=f"other/{number}")

    with django_assert_max_num_queries(6):
        assert dismiss(Denial.objects.all()) == 20

    assert AuditEntry.objects.filter(action="denial_dismissed").count() == 20


def test_a_viewer_only_reads(client, station):
    found = denial()
    client.force_login(person("viewer", is_staff=True))

    text = client.get(f"{LIST}{found.pk}/change/").content.decode()
    client.post(LIST, {"action": "dismiss", "_selected_action": found.pk})

    assert "STATION-002" in text
    assert 'value="dismiss"' not in text
    assert "Allow this" not in text
    assert Denial.objects.get().dismissed_at is None


def test_an_operator_of_one_site_sees_and_dismisses_theirs_only(client, station, neighbour):
    WeatherStationDevice.objects.filter(device_id="STATION-001").update(site="north")
    own, other = denial(), denial(principal="weatherstation/STATION-002", topic="other/one")
    client.force_login(person("limited", roles.OPERATOR, ["north"], is_staff=True))

    assert "other/one" not in client.get(LIST).content.decode()
    assert "Allow this" not in client.get(f"{LIST}{own.pk}/change/").content.decode()
    assert client.get(f"{LIST}{other.pk}/change/").status_code == 302
    client.post(LIST, {"action": "dismiss", "_selected_action": [own.pk, other.pk]})
    assert list(Denial.objects.exclude(dismissed_at=None)) == [own]


def test_hostile_text_is_escaped(operator):
    Grant.objects.create(subject="everyone", actions="publish", filter=f"x/{HOSTILE}")
    found = denial(topic=f"y/{HOSTILE}", client_id="", broker=HOSTILE)
    strange = denial(
        username=HOSTILE, principal="", topic=HOSTILE, client_id=HOSTILE, reason="invalid_username"
    )

    for address in (LIST, f"{LIST}{found.pk}/change/", f"{LIST}{strange.pk}/change/"):
        assert HOSTILE not in operator.get(address).content.decode()
