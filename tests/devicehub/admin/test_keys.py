"""The list of all API keys in the admin: for administrators, to read and to delete."""

from __future__ import annotations

import pytest
from django.test import Client

from authsvc.models import AuditEntry
from devicehub import api_keys, roles
from devicehub.models import ApiKey
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]

LIST = "/admin/devicehub/apikey/"


@pytest.fixture
def key() -> ApiKey:
    return api_keys.create(person("mara", roles.OPERATOR), "forecast", ["devices:read"], site="north").row


def signed_in(name: str, role: str, sites: list[str] | None = None) -> Client:
    client = Client(headers={"Accept": "text/html"})
    client.force_login(person(name, role, sites, is_staff=True))
    return client


def test_an_administrator_sees_all_keys_without_their_digests(key):
    ada = signed_in("ada", roles.ADMINISTRATOR)
    pages = [ada.get(url) for url in (LIST, f"{LIST}{key.pk}/change/", f"{LIST}?validity=unused")]

    for page in (answer.content.decode() for answer in pages):
        assert "forecast" in page
        assert "mara" in page
        assert f"{key.start}…" in page
        assert key.digest not in page
        assert key.digest[:12] not in page
    assert f'href="{LIST}"' in ada.get("/admin/").content.decode()


@pytest.mark.parametrize("in_list", [False, True])
def test_an_administrator_deletes_a_key_with_a_reason(key, in_list):
    ada = signed_in("ada", roles.ADMINISTRATOR)
    url, chosen = f"{LIST}{key.pk}/delete/", {}
    if in_list:
        url, chosen = LIST, {"action": "delete_selected", "_selected_action": [key.pk]}
        assert "Remove 1 API key?" in ada.post(url, chosen).content.decode()

    answer = ada.post(url, {**chosen, "post": "yes", "reason": "leaked"}, follow=True)

    assert "removed" in answer.content.decode()
    assert not ApiKey.objects.exists()
    (entry,) = AuditEntry.objects.filter(object_key=key.key).exclude(action="program_key_created")
    assert (entry.action, entry.actor, entry.reason) == ("program_key_deleted", "ada", "leaked")


def test_a_key_is_neither_added_nor_changed_here(key):
    ada = signed_in("ada", roles.ADMINISTRATOR)

    assert ada.get(f"{LIST}add/").status_code == 403
    assert ada.post(f"{LIST}{key.pk}/change/", {"name": "other"}).status_code == 403
    assert ApiKey.objects.get().name == "forecast"


@pytest.mark.parametrize(
    ("role", "sites"), [(roles.VIEWER, None), (roles.OPERATOR, None), (roles.ADMINISTRATOR, ["north"])]
)
def test_nobody_else_sees_them(key, role, sites):
    client = signed_in("eve", role, sites)

    assert client.get(LIST).status_code == 403
    assert client.post(f"{LIST}{key.pk}/delete/", {"post": "yes"}).status_code == 403
    assert ApiKey.objects.exists()


def test_the_audit_leads_to_the_key(key):
    page = signed_in("ada", roles.ADMINISTRATOR).get("/admin/authsvc/auditentry/").content.decode()

    assert f'href="{LIST}?id={key.pk}"' in page


def test_the_history_of_a_key_is_that_of_the_audit(key):
    answer = signed_in("ada", roles.ADMINISTRATOR).get(f"{LIST}{key.pk}/history/")

    assert answer["Location"].endswith(f"object=api_key%2F{key.pk}")
