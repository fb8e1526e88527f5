"""The pages of the audit: for reading and export alone, and limited to the devices of the reader."""

from __future__ import annotations

import asyncio
import csv
import io
import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, Permission, User
from django.db import connections
from django.test import AsyncClient
from django.urls import reverse
from django.utils import timezone

from authsvc import audit, broker_tokens, granting
from authsvc.models import AuditEntry
from devicehub import provisioning, roles
from devicehub.models import Rotation
from rig.people import person

pytestmark = pytest.mark.pages

LIST = "/admin/authsvc/auditentry/"
OF_PEOPLE = ("user_created", "user_changed", "sites_changed")


@pytest.fixture
def north(db):
    return provisioning.create(provisioning.kind_of("weatherstation"), "NORTH-1", site="north")[0]


@pytest.fixture
def south(db):
    return provisioning.create(provisioning.kind_of("weatherstation"), "SOUTH-1", site="south")[0]


def signed_in(client, **options):
    client.force_login(person("mara", is_staff=True, **options))
    return client


def keys(response):
    """Return the objects in a CSV export, without the people of the test."""
    text = b"".join(response.streaming_content).decode()
    return {row["object_key"] for row in csv.DictReader(io.StringIO(text)) if row["action"] not in OF_PEOPLE}


@pytest.mark.django_db
class TestPages:
    def test_an_operator_sees_the_action_the_object_the_author_and_the_values(self, client, north):
        with audit.because("new roof"):
            provisioning.move(north, "east")
        page = signed_in(client, role=roles.OPERATOR).get(LIST).content.decode()

        assert "Device moved" in page
        assert "site: north → east" in page
        assert "new roof" in page
        assert "AUTHSVC_KEEP_AUDIT" in page
        entry = AuditEntry.objects.get(action="device_moved")
        assert f"{LIST}{entry.pk}/change/" in page
        detail = client.get(f"{LIST}{entry.pk}/change/").content.decode()
        assert '<th scope="row">site</th><td>north</td><td>east</td>' in detail
        assert "NORTH-1</a>" in detail

    def test_objects_are_linked_to_their_lists(self, client):
        provisioning.create_account("backend")
        client = signed_in(client, is_superuser=True, role=None)
        page = client.get(LIST).content.decode()

        assert 'href="/admin/authsvc/account/?username=backend"' in page
        assert client.get("/admin/authsvc/account/?username=backend").context["cl"].result_count == 1
        assert client.get("/admin/auth/user/?username=mara").context["cl"].result_count == 1

    def test_a_rotation_is_linked_to_its_page(self, client):
        now = timezone.now()
        rotation = Rotation.objects.create(name="spring", started_at=now, touched_at=now)
        audit.record("rotation_started", f"rotation/{rotation.pk}")
        page = signed_in(client, is_superuser=True, role=None).get(LIST).content.decode()

        url = f"/admin/devicehub/rotation/{rotation.pk}/change/"
        assert f'href="{url}">rotation/{rotation.pk}<' in page
        assert client.get(url).status_code == 200

    def test_the_history_of_an_object_is_its_part_of_the_audit(self, client, north, south):
        account, _ = provisioning.create_account("backend")
        broker, _ = broker_tokens.create_broker("hall", ["emqx"])
        grant = granting.create_grant("everyone", ["publish"], "news")
        group = provisioning.create_group("roof", "Roof")
        role = Group.objects.create(name="Field crew")
        client = signed_in(client, is_superuser=True, role=None)
        objects = {
            north: "weatherstation/NORTH-1",
            account: "account/backend",
            broker: "broker/hall",
            grant: f"grant/{grant.pk}",
            group: "group/roof",
            role: "role/Field crew",
            User.objects.get(username="mara"): "user/mara",
        }
        for row, key in objects.items():
            meta = row._meta
            page = reverse(f"admin:{meta.app_label}_{meta.model_name}_history", args=[row.pk])
            change = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
            assert page in client.get(change).content.decode()
            shown = client.get(page, follow=True).context["cl"].queryset
            assert {entry.object_key for entry in shown} == {key}

    def test_people_who_may_not_see_the_audit_get_no_history(self, client, north):
        person("vera", role=None, is_staff=True).user_permissions.set(
            Permission.objects.filter(codename="view_weatherstationdevice")
        )
        client.force_login(User.objects.get(username="vera"))
        page = f"/admin/fleet/weatherstationdevice/{north.pk}"

        assert "history/" not in client.get(f"{page}/change/").content.decode()
        assert client.get(f"{page}/history/").status_code == 403

    @pytest.mark.parametrize(
        ("query", "found"),
        [
            ("action=device_moved", 1),
            ("actor=nightly+sync", 1),
            ("actor=joe", 0),
            ("since=1h", 2),
            ("address=10.0.0.1", 0),
            ("actor_kind__exact=system", 1),
            ("q=NORTH", 2),
            ("object_key=weatherstation/NORTH-1", 2),
        ],
    )
    def test_a_filter_applies_to_the_list_and_to_the_export(self, client, north, query, found):
        with audit.acting(audit.system("nightly sync")):
            provisioning.move(north, "east")
        client = signed_in(client, role=roles.OPERATOR)

        shown = client.get(f"{LIST}?{query}").context["cl"].queryset.exclude(action__in=OF_PEOPLE)

        assert shown.count() == found
        assert len(keys(client.get(f"{LIST}export/csv/?{query}"))) == bool(found)

    def test_no_page_adds_changes_or_deletes(self, client, north):
        client = signed_in(client, is_superuser=True, role=None)
        entry = AuditEntry.objects.get(object_key="weatherstation/NORTH-1")
        for address, data in (
            (f"{LIST}add/", {}),
            (f"{LIST}{entry.pk}/change/", {"actor": "x"}),
            (f"{LIST}{entry.pk}/delete/", {"post": "yes"}),
        ):
            assert client.post(address, data).status_code == 403
        client.post(LIST, {"action": "delete_selected", "_selected_action": [entry.pk], "post": "yes"})

        assert AuditEntry.objects.get(pk=entry.pk).actor == entry.actor

    def test_a_limited_user_sees_and_exports_entries_of_their_devices_alone(self, client, north, south):
        provisioning.create_account("backend")
        client = signed_in(client, role=roles.OPERATOR, sites=["north"])
        hidden = AuditEntry.objects.get(object_key="weatherstation/SOUTH-1")

        page = client.get(LIST).content.decode()

        assert "NORTH-1" in page
        assert "SOUTH-1" not in page
        assert "backend" not in page
        assert client.get(f"{LIST}{hidden.pk}/change/").status_code == 302
        assert keys(client.get(f"{LIST}export/csv/")) == {"weatherstation/NORTH-1"}

    def test_without_the_permission_there_is_neither_list_nor_export(self, client, north):
        client = signed_in(client, role=roles.VIEWER)

        assert client.get(LIST).status_code == 403
        assert client.get(f"{LIST}export/csv/").status_code == 403

    def test_an_export_is_not_kept_by_the_browser(self, client, north):
        response = signed_in(client, role=roles.OPERATOR).get(f"{LIST}export/ndjson/")

        assert "no-store" in response["Cache-Control"]
        assert response["Content-Disposition"].endswith('.ndjson"')
        assert json.loads(b"".join(response.streaming_content).splitlines()[-1])["object_key"]
        assert client.get(f"{LIST}export/exe/").status_code == 404
        assert client.get(f"{LIST}export/csv/?nonsense=1").status_code == 302

    def test_the_list_takes_few_queries(self, client, django_assert_max_num_queries):
        kind = provisioning.kind_of("weatherstation")
        for number in range(30):
            provisioning.create(kind, f"S-{number}")
        client = signed_in(client, role=roles.OPERATOR)

        with django_assert_max_num_queries(20):
            client.get(LIST)


@pytest.mark.django_db(transaction=True)
def test_under_asgi_the_export_is_streamed():
    """Of a plain iterator Django would collect all first, with a warning, which is an error here."""
    provisioning.create_account("backend")
    user = person("mara", is_staff=True, is_superuser=True)

    async def export():
        client = AsyncClient()
        await client.aforce_login(user)
        response = await client.get(reverse("admin:authsvc_auditentry_export", args=["csv"]))
        text = b"".join([part async for part in response.streaming_content]).decode()
        await sync_to_async(connections.close_all)()  # Those of the thread of this event loop.
        return text

    assert "account/backend" in asyncio.run(export())
