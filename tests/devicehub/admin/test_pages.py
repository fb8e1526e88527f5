"""Every page of the admin opens, with a help text on every column of ours and no word of an empty template."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import label_for_field
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from authsvc.models import Account, AuditEntry, Broker, Denial, Grant
from devicehub import provisioning, roles, sites
from devicehub.admin.base import EvidenceAdmin
from devicehub.kinds.registry import registry
from devicehub.models import (
    CommandState,
    CountedRefusal,
    DeviceCommand,
    DeviceGroup,
    IngestWorker,
    QuarantinedMessage,
    RemovalRequest,
    RetainedTopic,
)
from fleet.models import (
    IrrigationValveDevice,
    WeatherStationDevice,
    WeatherStationMessage,
    WeatherStationReading,
)
from rig.hub import ROOT
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
OURS = ("authsvc", "devicehub", "fleet", "auth")
KEY = "weatherstation/Station-a"
ABBREVIATIONS = {word.lower(): word for word in ("API", "HTTP", "IP", "JSON", "MQTT", "QoS", "URL", "id")}
EVIDENCE = {
    AuditEntry,
    CountedRefusal,
    Denial,
    DeviceCommand,
    IngestWorker,
    QuarantinedMessage,
    RemovalRequest,
    RetainedTopic,
    WeatherStationMessage,
    WeatherStationReading,
}


def pages() -> list[type]:
    """Return the models of ours with the pages of a ModelAdmin; a few have only a page of their own as their list."""
    return [model for model in registered() if is_there(model)]


def registered() -> list[type]:
    return [model for model in admin.site._registry if model._meta.app_label in OURS]


def is_there(model: type) -> bool:
    try:
        return bool(url(model, "add"))
    except NoReverseMatch:
        return False


def url(model: type, page: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


@pytest.fixture
def rows() -> None:
    now = timezone.now()
    device = WeatherStationDevice.objects.create(device_id="Station-a", metadata={"floor": 2}, last_seen=now)
    WeatherStationReading.objects.create(device=device, timestamp=now, temperature=20.33333)
    WeatherStationMessage.objects.create(
        device=device, topic="things/a", outcome="partial", notes=["wind: <unknown>"], payload_json={"a": 1}
    )
    DeviceCommand.objects.create(device_key=KEY, name="reboot")
    QuarantinedMessage.objects.create(
        device_key=KEY, reason="not_json", topic="things/a", payload=b"{", received_at=now
    )
    Denial.objects.create(
        dialect="emqx",
        principal=KEY,
        action="publish",
        topic="no/Topic",
        reason="no_grant",
        first_at=now,
        last_at=now,
    )
    Grant.objects.create(subject=f"key:{KEY}", actions="publish", filter="extra/Topic")
    Broker.objects.create(name="hall", token_digest="x", dialects=["emqx"])
    Account.objects.create(username="Backend")
    AuditEntry.objects.create(at=now, actor_kind="user", actor="mara", action="revoked", object_key=KEY)
    CountedRefusal.objects.create(device_key=KEY, reason="not_json", count=1, first_at=now, last_at=now)
    IngestWorker.objects.create(client_id="ingest-1", group="", heard_since=now, heard_until=now)
    RetainedTopic.objects.create(topic="things/a/cmd", requested_at=now, next_at=now)
    RemovalRequest.objects.create(device_key=KEY, requested_at=now)
    Group.objects.create(name="Field crew")
    provisioning.create_group("roof", "Roof")


@pytest.mark.usefixtures("rows")
def test_every_page_opens(admin_client: Client):
    for model in pages():
        for query in ("", "?q=a", "?o=1.-2"):
            assert admin_client.get(url(model, "changelist") + query).status_code in (200, 302), (
                model,
                query,
            )
        assert admin_client.get(url(model, "add")).status_code in (200, 302, 403), model
        for row in model._base_manager.all()[:1]:
            for page in ("change", "history", "delete"):
                answer = admin_client.get(url(model, page, row.pk), follow=True)
                assert answer.status_code in (200, 403), (model, page)
    assert admin_client.get("/admin/").status_code == 200


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("authsvc/grant/?device=weatherstation/%00", 302),
        ("fleet/weatherstationdevice/?site__exact=%00", 302),
        ("devicehub/devicecommand/?device_key__exact=%00", 302),
        ("fleet/weatherstationdevice/named/%00/", 404),
        ("fleet/weatherstationdevice/credentials/%00/", 404),
        ("fleet/weatherstationdevice/credentials/%00/light/", 404),
    ],
)
def test_a_nul_in_an_address_is_refused_before_the_database(admin_client: Client, url, status):
    assert admin_client.get(f"/admin/{url}").status_code == status


@pytest.mark.parametrize("selected", ["\x00", "STATION-001", "9" * 20])
def test_a_selected_row_that_no_list_has_is_refused(admin_client: Client, selected):
    form = {"action": "rotate_many", "_selected_action": [selected]}

    assert admin_client.post(url(WeatherStationDevice, "changelist"), form).status_code == 400


def test_every_empty_list_says_what_would_be_there(admin_client: Client):
    for model in pages():
        text = admin_client.get(url(model, "changelist")).content.decode()
        assert "yielded into no results" not in text, model
        if not model._base_manager.exists():
            assert admin.site._registry[model].empty_text in text, model


@pytest.mark.usefixtures("rows")
def test_every_column_in_a_form_has_a_help_text(admin_client: Client):
    without = set()
    for model in pages():
        urls = [url(model, "change", row.pk) for row in model._base_manager.all()[:1]] + [url(model, "add")]
        for page in map(admin_client.get, urls):
            if page.status_code != 200 or "adminform" not in (page.context or ()):
                continue
            columns = {field.name for field in model._meta.get_fields()}
            for fieldset in page.context["adminform"]:
                for line in fieldset:
                    for found in line:
                        field = found.field
                        name = field["name"] if isinstance(field, dict) else field.name
                        text = field["help_text"] if isinstance(field, dict) else field.help_text
                        if name in columns and not text:
                            without.add(f"{model._meta.label}.{name}")

    assert without == set()


def labels(page: Any) -> Iterator[str]:
    """Yield the heads of the columns and filters of a list, or the labels of a form."""
    yield from heads(page)
    if (found := page.context.get("cl")) is not None:
        yield from (str(filter_spec.title) for filter_spec in found.filter_specs)
    for fieldset in page.context.get("adminform") or ():
        fields = [field.field for line in fieldset for field in line]
        yield from (str(field["label"] if isinstance(field, dict) else field.label) for field in fields)


def heads(page: Any) -> Iterator[str]:
    """Yield the heads of the columns of a list."""
    if (found := page.context.get("cl")) is not None:
        yield from (
            str(label_for_field(name, found.model, found.model_admin)) for name in found.list_display[1:]
        )


@pytest.mark.usefixtures("rows")
def test_labels_and_their_abbreviations_have_the_case_of_people(admin_client: Client):
    wrong, seen = set(), set()
    for model in pages():
        urls = [url(model, "change", row.pk) for row in model._base_manager.all()[:1]]
        for address in (url(model, "changelist"), url(model, "add"), *urls):
            page = admin_client.get(address)
            if page.status_code != 200:
                continue
            # On a phone each head stands before its cell as it is.
            wrong |= {f"{model._meta.label}: {text}" for text in heads(page) if text[0].islower()}
            for text in labels(page):
                seen |= {word for word in re.findall(r"\w+", text) if word in ABBREVIATIONS.values()}
                wrong |= {
                    f"{model._meta.label}: {text}"
                    for word in re.findall(r"\w+", text)
                    if ABBREVIATIONS.get(word.lower(), word) != word
                }

    assert wrong == set()
    assert {"MQTT", "JSON", "id"} <= seen


@pytest.mark.usefixtures("rows")
def test_numbers_stand_at_the_right_and_the_end_of_a_form_is_its_removal(admin_client: Client):
    device = WeatherStationDevice.objects.get()
    for model, names in (
        (CountedRefusal, ["number_count"]),
        (WeatherStationReading, ["number_temperature"]),
        (DeviceGroup, ["number_of_members"]),
        (Broker, ["number_of_questions"]),
    ):
        text = admin_client.get(url(model, "changelist")).content.decode()
        for name in names:
            assert f"column-{name}" in text, model
            assert f"field-{name}" in text, model
    for model, row, noun in (
        (WeatherStationDevice, device, "weather station"),
        (Grant, Grant.objects.get(), "grant"),
        (Group, Group.objects.get(name="Field crew"), "role"),
    ):
        form = admin_client.get(url(model, "change", row.pk)).content.decode()
        assert f'href="{url(model, "delete", row.pk)}">Remove this {noun}</a>' in form
        asked = admin_client.get(url(model, "delete", row.pk)).content.decode()
        assert f"Remove this {noun}?" in asked
        assert "sure" not in asked
        assert ">Remove</option>" in admin_client.get(url(model, "changelist")).content.decode()
        assert not re.search(r">\s*Delete", form + asked)


def test_the_removal_of_many_needs_their_number(admin_client: Client):
    for number in range(11):
        Grant.objects.create(subject="everyone", actions="publish", filter=f"a/{number}")
    rows = list(Grant.objects.values_list("pk", flat=True))
    chosen = {"action": "delete_selected", "_selected_action": rows}

    asked = admin_client.post(url(Grant, "changelist"), chosen).content.decode()
    assert "Remove 11 grants?" in asked
    assert "Type the number 11" in asked
    for typed in ({}, {"confirmed": "yes", "typed": "12"}):
        answered = {**chosen, "post": "yes", "reason": 'no "longer"', **typed}
        page = admin_client.post(url(Grant, "changelist"), answered).content.decode()
        assert "The number is not 11." in page
        assert 'value="no &quot;longer&quot;"' in page
    assert Grant.objects.count() == 11
    typed = {**chosen, "post": "yes", "confirmed": "yes", "typed": "11", "reason": "site closed"}
    answer = admin_client.post(url(Grant, "changelist"), typed, follow=True)

    assert AuditEntry.objects.filter(action="grant_deleted", reason="site closed").count() == 11
    assert [str(notice) for notice in answer.context["messages"]] == ["11 grants removed."]
    assert not Grant.objects.exists()


def test_all_rows_of_a_list_are_removed_by_its_query(admin_client: Client, settings):
    """A form may have DATA_UPLOAD_MAX_NUMBER_FIELDS fields, so the page does not name each row."""
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 12
    rows = [Grant(subject="everyone", actions="publish", filter=f"a/{number}") for number in range(20)]
    Grant.objects.bulk_create(
        [*rows, Grant(subject="everyone", actions="publish", filter="b", effect="deny")]
    )
    page = url(Grant, "changelist") + "?effect__exact=allow"
    chosen = {"action": "delete_selected", "_selected_action": Grant.objects.first().pk, "select_across": "1"}

    asked = admin_client.post(page, chosen).content.decode()
    form = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', asked))
    typed = {**form, "confirmed": "yes", "typed": "20"}
    late = Grant.objects.create(subject="everyone", actions="publish", filter="late")
    assert "The number is not 21." in admin_client.post(page, typed).content.decode()
    late.delete()
    admin_client.post(page, typed)

    assert [grant.filter for grant in Grant.objects.all()] == ["b"]


@pytest.mark.parametrize(("count", "word"), [(1, "it"), (2, "them")])
def test_a_refused_removal_says_why(admin_client: Client, monkeypatch, count, word):
    page = admin.site._registry[Grant]
    for number in range(count):
        Grant.objects.create(subject="everyone", actions="publish", filter=f"a/{number}")
    chosen = {
        "action": "delete_selected",
        "_selected_action": list(Grant.objects.values_list("pk", flat=True)),
    }
    refusals = [
        (({"permits"}, []), f"You may not remove {word}, since these would go too:"),
        ((set(), ["permit 7"]), f"{word.capitalize()} cannot be removed while these refer to {word}:"),
    ]
    for (lacking, protected), sentence in refusals:
        found = ([], {}, lacking, protected)
        monkeypatch.setattr(page, "get_deleted_objects", lambda *_, found=found: found)

        assert sentence in admin_client.post(url(Grant, "changelist"), chosen).content.decode()


@pytest.mark.usefixtures("rows")
def test_a_row_of_the_list_of_devices_leads_to_its_pages(admin_client: Client):
    device = WeatherStationDevice.objects.get()
    listed = admin_client.get(url(WeatherStationDevice, "changelist")).content.decode()
    if not apps.is_installed("unfold"):
        assert "Actions of this row" not in listed
        return
    pages = {
        "open": url(WeatherStationDevice, "change", device.pk),
        "rotate": f"{url(WeatherStationDevice, 'credentials', device.device_id)}#rotate",
        "denials": f"{url(Denial, 'changelist')}?principal__exact={KEY}",
    }
    for name, page in pages.items():
        link = url(WeatherStationDevice, name, device.pk)
        assert f'href="{link}"' in listed
        assert admin_client.get(link)["Location"] == page
    assert admin_client.get(url(WeatherStationDevice, "rotate", 9_999)).status_code == 404


def test_the_actions_of_a_row_are_those_that_the_user_may_do(rows):
    if not apps.is_installed("unfold"):
        pytest.skip("needs unfold")
    device = WeatherStationDevice.objects.get()
    viewer, limited = Client(), Client()
    viewer.force_login(person("vera", is_staff=True))
    limited.force_login(person("nora", roles.OPERATOR, ["north"], is_staff=True))

    listed = viewer.get(url(WeatherStationDevice, "changelist")).content.decode()

    assert url(WeatherStationDevice, "denials", device.pk) in listed
    assert url(WeatherStationDevice, "rotate", device.pk) not in listed
    assert viewer.get(url(WeatherStationDevice, "rotate", device.pk)).status_code == 403
    for name in ("open", "rotate", "denials"):
        assert limited.get(url(WeatherStationDevice, name, device.pk)).status_code == 404


def test_evidence_is_neither_added_nor_deleted(admin_client: Client, rows):
    for model in EVIDENCE & set(pages()):
        row = model._base_manager.first()
        assert isinstance(admin.site._registry[model], EvidenceAdmin) or row is not None, model
        shown = admin_client.get(url(model, "change", row.pk)).content.decode()
        assert url(model, "history", row.pk) not in shown, "no page of a record has a history"
        assert admin_client.get(url(model, "add")).status_code == 403, model
        assert admin_client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403, model
        chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
        admin_client.post(url(model, "changelist"), chosen)
        assert model._base_manager.filter(pk=row.pk).exists(), model


def test_rows_link_to_their_device_and_keep_the_case_of_ids(admin_client: Client, rows):
    named = reverse("admin:fleet_weatherstationdevice_named", args=["Station-a"])
    device = WeatherStationDevice.objects.get()
    page = url(WeatherStationDevice, "change", device.pk)

    assert admin_client.get(named)["Location"] == page
    for model in (DeviceCommand, QuarantinedMessage):
        assert named in admin_client.get(url(model, "changelist")).content.decode()
    for model in (WeatherStationReading, WeatherStationMessage):
        text = admin_client.get(url(model, "changelist")).content.decode()
        assert page in text
        assert (
            url(
                apps.get_model("fleet", model.__name__.replace("WeatherStation", "IrrigationValve")),
                "changelist",
            )
            in text
        )
    text = admin_client.get(page).content.decode()
    for link in (f"?device={device.pk}", f"?principal__exact={KEY}", f"?device_key__exact={KEY}"):
        assert link in text
    message = WeatherStationMessage.objects.get()
    text = admin_client.get(url(WeatherStationMessage, "change", message.pk)).content.decode()
    for words in ("Partly stored", "wind: &lt;unknown&gt;", "Received at", "Message on things/a"):
        assert words in text


def test_a_key_without_a_device_is_a_text(admin_client: Client, rows):
    """The key of a device that was removed, or of one that was only named by a topic."""
    DeviceCommand.objects.update(state=CommandState.ANSWERED)  # The deletion of a device ends waiting ones.
    WeatherStationDevice.objects.all().delete()
    named = "weatherstationdevice/named/"
    with_keys = (AuditEntry, Denial, DeviceCommand, QuarantinedMessage, CountedRefusal)

    for model in with_keys:
        row = model._base_manager.latest("pk")
        for page in (url(model, "changelist"), url(model, "change", row.pk)):
            text = admin_client.get(page).content.decode()
            assert KEY in text, page
            assert named not in text, page
    start = admin_client.get("/admin/").content.decode()
    assert KEY in start
    assert named not in start


def test_a_list_looks_devices_up_at_once(admin_client: Client, rows):
    page, counted = url(QuarantinedMessage, "changelist"), []
    WeatherStationDevice.objects.create(device_id="S-1")
    for number in range(1, 4):
        QuarantinedMessage.objects.create(
            device_key=f"weatherstation/S-{number}",
            reason="not_json",
            topic="t",
            payload=b"{",
            received_at=timezone.now(),
        )
        with CaptureQueriesContext(connection) as queries:
            text = admin_client.get(page).content.decode()
        counted.append(len(queries))

    assert counted[1] == counted[2]
    assert reverse("admin:fleet_weatherstationdevice_named", args=["S-1"]) in text
    assert reverse("admin:fleet_weatherstationdevice_named", args=["S-2"]) not in text


def test_empty_user_properties_show_the_mark_of_an_empty_value(admin_client: Client, rows):
    row = QuarantinedMessage.objects.get()
    page = url(QuarantinedMessage, "change", row.pk)

    assert "{}" not in re.sub(r"<[^>]+>", "", admin_client.get(page).content.decode())
    QuarantinedMessage.objects.filter(pk=row.pk).update(user_properties={"unit": "kelvin"})
    assert "kelvin" in admin_client.get(page).content.decode()


def test_the_sites_of_a_filter_are_bounded(admin_client: Client, monkeypatch):
    """A link may name any other site."""
    monkeypatch.setattr(sites, "MOST", 2)
    for site in ("", "a", "b", "c"):
        WeatherStationDevice.objects.create(device_id=f"S-{site}", site=site)
    page = url(WeatherStationDevice, "changelist")

    shown = {query: admin_client.get(page + query).context["cl"] for query in ("", "?site=", "?site=c")}

    filters = [next(f for f in cl.filter_specs if f.title == "site") for cl in shown.values()]
    offered = [[site for site, _ in found.lookup_choices] for found in filters]
    assert offered == [["a", "b", ""], ["a", "b", ""], ["a", "b", "", "c"]]
    found = {query: [device.site for device in cl.result_list] for query, cl in shown.items()}
    assert found == {"": ["", "a", "b", "c"], "?site=": [""], "?site=c": ["c"]}


def test_lists_name_their_rows_as_the_navigation_does(admin_client: Client, rows):
    for model, one, several in (
        (Group, "role", f"{Group.objects.count()} roles"),
        (WeatherStationDevice, "weather station", "1 weather station"),
    ):
        page = " ".join(admin_client.get(url(model, "changelist")).content.decode().split())
        assert f'title="Add {one}"' in page or f">Add {one}</a>" in page
        assert f'<p class="dh-count">{several}</p>' in page or f" {several} </p>" in page


def test_a_list_leads_to_the_form_for_another_row(admin_client: Client):
    """The button has the word of the navigation; evidence, which nobody adds, has none."""
    page = admin_client.get("/admin/authsvc/account/").content.decode()
    links = re.findall(r"<a [^>]*addlink[^>]*>.*", page)
    assert any(
        'href="/admin/authsvc/account/add/"' in link and "Add service account" in link for link in links
    )
    assert "/admin/authsvc/denial/add/" not in admin_client.get("/admin/authsvc/denial/").content.decode()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?state=never", {"never"}),
        ("?state=silent", {"quiet"}),
        ("?credentials=none", {"never"}),
        ("?credentials=expired", {"expired"}),
        ("?quiet=1d", {"quiet"}),
        ("?quiet=30d", set()),
        ("?site=north", set()),
        ("?q=qui", {"quiet"}),
    ],
)
def test_devices_are_filtered_by_what_needs_a_look(admin_client: Client, query, found):
    now, day = timezone.now(), timedelta(days=1)
    valid = {"mqtt_password_hash": "x", "status": "online"}
    WeatherStationDevice.objects.create(device_id="never")
    WeatherStationDevice.objects.create(device_id="quiet", last_seen=now - 2 * day, **valid)
    WeatherStationDevice.objects.create(
        device_id="expired", last_seen=now, password_expires_at=now - day, **valid
    )

    page = admin_client.get(url(WeatherStationDevice, "changelist") + query)

    assert {device.device_id for device in page.context["cl"].result_list} == found
    names = {getattr(column, "__name__", column) for column in page.context["cl"].list_display}
    assert "device_id" in names
    assert not {"name", "site"} & names  # No device has one.


def test_the_page_of_a_device_leads_to_the_form_of_a_command(admin_client: Client):
    station = WeatherStationDevice.objects.create(device_id="ROOF-1")
    page = admin_client.get(f"/admin/fleet/weatherstationdevice/{station.pk}/change/").content.decode()
    assert "Send a command" in page

    form = {"action": "send_many", "_selected_action": station.pk}
    answer = admin_client.post("/admin/fleet/weatherstationdevice/", form).content.decode()

    assert "Send a command to 1 device?" in answer


def test_the_page_of_a_quarantined_message_replays_it(admin_client: Client):
    WeatherStationDevice.objects.create(device_id="ROOF-1")
    row = QuarantinedMessage.objects.create(
        device_key="weatherstation/ROOF-1",
        topic="things/weatherstation/ROOF-1/data",
        payload=b"{",
        reason="not_json",
        received_at=timezone.now(),
    )
    page = admin_client.get(f"/admin/devicehub/quarantinedmessage/{row.pk}/change/").content.decode()
    assert "Replay this message" in page

    form = {"action": "replay", "_selected_action": row.pk}
    answer = admin_client.post("/admin/devicehub/quarantinedmessage/", form, follow=True).content.decode()

    assert f"Failed again: {row.pk}" in answer


def test_a_status_is_chosen_by_an_operator_or_left_to_the_device(admin_client: Client):
    device = WeatherStationDevice.objects.create(
        device_id="S-1", status="error", connected=True, reported_status="error"
    )
    page = url(WeatherStationDevice, "change", device.pk)
    form = {"is_active": "on", "metadata_key": ["floor", ""], "metadata_value": ["2", ""]}

    for chosen, status in (("", "error"), ("maintenance", "maintenance"), ("error", "error")):
        assert admin_client.post(page, {**form, "status": chosen}).status_code == 302
        device.refresh_from_db()
        assert (device.status, device.metadata) == (status, {"floor": 2})


def test_what_a_device_reports_is_read_and_not_typed(admin_client: Client):
    valve = IrrigationValveDevice.objects.create(device_id="V-1", name="Orchard", mode="auto")
    page, add = url(IrrigationValveDevice, "change", valve.pk), url(IrrigationValveDevice, "add")

    shown, form = admin_client.get(page).content.decode(), admin_client.get(add).content.decode()
    answer = admin_client.post(page, {"status": "", "name": "Orchard", "mode": "off", "is_active": ""})

    for name in ("mode", "is_active", *registry.get("irrigationvalve").state_fields):
        assert f'name="{name}"' not in shown + form, name
    assert "The device reports it." in shown
    assert "The device reports it." not in form
    assert answer.status_code == 302
    valve.refresh_from_db()
    assert (valve.mode, valve.is_active) == ("auto", True)


def test_a_form_names_its_object(admin_client: Client):
    valve = IrrigationValveDevice.objects.create(device_id="V-1", name="Orchard")

    shown = admin_client.get(url(IrrigationValveDevice, "change", valve.pk)).content.decode()
    device, broker, grant = (
        admin_client.get(url(model, "add")).content.decode()
        for model in (IrrigationValveDevice, Broker, Grant)
    )

    assert "V-1, Orchard" in shown
    assert "The page that follows shows them once." in device
    assert "Saving makes its token." in broker
    if apps.is_installed("unfold"):
        assert "Add irrigation valve</h2>" in device
        assert "Add grant</h2>" in grant


@pytest.mark.servers
@pytest.mark.long
@pytest.mark.sqlite_only
def test_the_pages_work_in_the_admin_of_django():
    """A project without unfold, and without the pages of devicehub.urls."""
    if not apps.is_installed("unfold"):
        pytest.skip("this is that project")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=rig.stock_admin"]
    chosen = [
        "-m",
        "not servers",
        "tests/devicehub/admin/test_pages.py",
        "tests/devicehub/admin/test_index.py",
        "tests/devicehub/admin/test_options.py",
    ]
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PYTEST_", "DATABASE_"))}
    run = subprocess.run(
        [*command, *chosen],
        cwd=ROOT,
        env={name: text for name, text in kept.items() if name != "DJANGO_SETTINGS_MODULE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout


def test_a_device_is_called_device(admin_client: Client):
    now, key = timezone.now(), "weatherstation/STATION-001"
    quarantined = {"reason": "not_json", "topic": "a", "payload": b"{", "received_at": now}
    rows = [
        CountedRefusal.objects.create(device_key=key, reason="not_json", count=1, first_at=now, last_at=now),
        RemovalRequest.objects.create(device_key=key, requested_at=now),
        DeviceCommand.objects.create(device_key=key, name="reboot"),
        QuarantinedMessage.objects.create(device_key=key, **quarantined),
    ]

    for row in rows:
        for address in (url(type(row), "changelist"), url(type(row), "change", row.pk)):
            page = admin_client.get(address).content.decode()
            assert not re.search("device key", page, re.IGNORECASE), address
            assert re.search(r">\s*Device:?\s*<", page), address


def test_the_expiry_of_a_device_has_one_form_only(admin_client: Client):
    """The form shows it, and *Set expiry* changes it."""
    device = WeatherStationDevice.objects.create(device_id="STATION-001")
    page = admin_client.get(url(WeatherStationDevice, "change", device.pk)).content.decode()

    assert "Password expires at" in page
    assert 'name="password_expires_at' not in page
    assert "password_expires_at" not in admin_client.get(url(WeatherStationDevice, "add")).content.decode()


def test_the_list_of_messages_reads_no_payloads(admin_client):
    """Each may have a mebibyte, and JSON takes many times that in memory; the page of one shows it."""
    device = WeatherStationDevice.objects.create(device_id="HEAVY-1", mqtt_username="h1")
    row = WeatherStationMessage.objects.create(device=device, topic="t", payload_json={"weight": "seventeen"})
    with CaptureQueriesContext(connection) as queries:
        assert admin_client.get("/admin/fleet/weatherstationmessage/").status_code == 200
    assert not [one["sql"] for one in queries if "payload_json" in one["sql"]]
    page = admin_client.get(f"/admin/fleet/weatherstationmessage/{row.pk}/change/").content.decode()
    assert "seventeen" in page
