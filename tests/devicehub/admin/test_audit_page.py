"""The pages of the audit: for reading and export alone, and limited to the devices of the reader."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta

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
            ("action=all:devices", 2),
            ("action=all:brokers", 0),
            ("from={today}", 2),
            ("until={today}", 2),
            ("from={today}&until={today}&action=device_moved", 1),
            ("from={tomorrow}", 0),
            ("until={yesterday}", 0),
        ],
    )
    def test_a_filter_applies_to_the_list_and_to_the_export(self, client, north, query, found):
        with audit.acting(audit.system("nightly sync")):
            provisioning.move(north, "east")
        client = signed_in(client, role=roles.OPERATOR)
        today = timezone.now().date()
        days = {"today": today, "tomorrow": today + timedelta(days=1), "yesterday": today - timedelta(days=1)}
        query = query.format(**days)

        shown = client.get(f"{LIST}?{query}").context["cl"].queryset.exclude(action__in=OF_PEOPLE)

        assert shown.count() == found
        assert len(keys(client.get(f"{LIST}export/csv/?{query}"))) == bool(found)

    @pytest.mark.parametrize(
        ("query", "words"),
        [
            ("from=2026-02-30", "2026-02-30 is not a day"),
            ("until=0001-01-01", "0001-01-01 is not a day"),
            ("until=9999-12-31", "9999-12-31 is not a day"),
            ("from=" + "9" * 5_000, "is not a day"),
            ("from=%3Cb%3E", "&lt;b&gt; is not a day"),
            ("from=2026-02-02&until=2026-02-01", "The first day is after the last one"),
        ],
    )
    def test_days_that_cannot_be_are_named_and_find_nothing(self, client, north, query, words):
        client = signed_in(client, role=roles.OPERATOR)

        page = client.get(f"{LIST}?{query}")
        export = client.get(f"{LIST}export/csv/?{query}", follow=True)

        assert words in page.content.decode()
        assert page.context["cl"].result_count == 0
        assert words in export.content.decode(), "the export leads to the list, which says why"

    def test_the_last_day_counts_and_both_stay_in_the_address(self, client, north):
        AuditEntry.objects.bulk_create(
            AuditEntry(
                at=at,
                actor_kind="system",
                actor="x",
                action="device_moved",
                object_key="weatherstation/NORTH-1",
            )
            for at in (datetime(2026, 1, 2, 0, 0, tzinfo=UTC), datetime(2026, 1, 3, 23, 59, 59, tzinfo=UTC))
        )
        client = signed_in(client, role=roles.OPERATOR)

        page = client.get(f"{LIST}?from=2026-01-02&until=2026-01-03&q=NORTH&p=1")

        text = page.content.decode()
        assert page.context["cl"].result_count == 2
        for link in (
            f'href="{LIST}export/csv/?from=2026-01-02&amp;until=2026-01-03&amp;q=NORTH',
            'name="from" value="2026-01-02"',
            'name="until" value="2026-01-03"',
            '<input type="hidden" name="q" value="NORTH">',
            '<a href="?q=NORTH">All days</a>',
        ):
            assert link in text, link
        assert (
            page.context["cl"].get_query_string({"p": 2}) == "?from=2026-01-02&p=2&q=NORTH&until=2026-01-03"
        )
        assert '<input type="hidden" name="p"' not in text, "other days begin at the first page"

    def test_actions_stand_in_groups_and_that_of_the_chosen_one_is_open(self, client, north):
        audit.register("hail_reported", "Hail reported")
        page = signed_in(client, role=roles.OPERATOR).get(f"{LIST}?action=device_moved").content.decode()

        groups = re.findall(r"<details( open)?><summary>([^<]+)</summary>", page)
        assert [name for _, name in groups] == list(audit.groups())
        assert [name for is_open, name in groups if is_open] == ["Devices"]
        assert re.search(r'class="selected"><a href="[^"]*" aria-current="true">Device moved<', page)
        assert "All of many at once</a>" in page
        assert audit.groups()["Other"]["hail_reported"] == "Hail reported"

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
