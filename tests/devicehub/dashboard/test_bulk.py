"""Acts on many devices from the list of the admin: the page that asks, its rights, and the file it answers."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from authsvc.models import AuditEntry
from devicehub import roles
from devicehub.models import DeviceCommand, Rotation
from fleet.models import WeatherStationDevice
from rig import fleets
from rig.credential_pages import signed_in
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
LIST = "/admin/fleet/weatherstationdevice/"
Stations = WeatherStationDevice.objects


@pytest.fixture
def fleet():
    return fleets.two_sites()


@pytest.fixture
def operator(fleet) -> Client:
    return signed_in(person("olga", roles.OPERATOR, is_staff=True))


@pytest.fixture
def northern(fleet) -> Client:
    return signed_in(person("mara", roles.OPERATOR, ["north"], is_staff=True))


def fields_of(page: str) -> dict[str, object]:
    """Return the hidden fields of the form on *page*; the choice of devices is a list."""
    pairs = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    found: dict[str, object] = dict(pairs)
    return found | {"_selected_action": [value for name, value in pairs if name == "_selected_action"]}


def ask(client: Client, act: str, devices, across: bool = False, query: str = ""):
    chosen = [str(device.pk) for device in devices]
    form = {"action": f"{act}_many", "_selected_action": chosen, "index": "0", "select_across": int(across)}
    return client.post(LIST + query, form)


def do(client: Client, act: str, devices, *, across: bool = False, query: str = "", **fields):
    page = ask(client, act, devices, across, query).content.decode()
    return client.post(LIST + query, fields_of(page) | {"confirmed": "yes"} | fields)


def text(response) -> str:
    return b"".join(response.streaming_content).decode()


def test_the_page_names_the_number_and_repeats_the_verb(operator, fleet):
    page = ask(operator, "revoke", fleet[:3]).content.decode()

    assert "Revoke the credentials of 3 devices?" in page
    assert ">Revoke 3 devices</button>" in page
    assert "Keep them" in page
    assert "F-01" in page
    assert "Type the number" not in page
    assert "Type the number 12" in ask(operator, "revoke", fleet).content.decode()


def test_nothing_changes_before_the_answer(operator, fleet):
    for act in ("rotate", "revoke", "disable", "enable", "move", "send"):
        assert ask(operator, act, fleet).status_code == 200

    assert not AuditEntry.objects.filter(object_key__startswith="weatherstation/").exists()
    assert not Rotation.objects.exists()


@pytest.mark.parametrize("typed", ["", "11", "twelve", "12.0"])
def test_a_large_number_is_typed(operator, fleet, typed):
    refused = do(operator, "disable", fleet, typed=typed)

    assert "The number is not 12." in refused.content.decode()
    assert Stations.filter(is_active=False).count() == 0
    assert do(operator, "disable", fleet, typed="12").status_code == 302
    assert Stations.filter(is_active=False).count() == 12


def test_a_selection_across_pages_follows_the_filter_of_the_list(operator, fleet):
    done = do(operator, "disable", fleet[:1], across=True, query="?site__exact=south")

    assert done.status_code == 302
    assert set(Stations.filter(is_active=False).values_list("site", flat=True)) == {"south"}
    assert Stations.filter(is_active=False).count() == 4


def test_a_list_that_grew_since_the_page_is_asked_about_again(operator, fleet):
    page = ask(operator, "disable", fleet[:1], across=True, query="?site__exact=south").content.decode()
    Stations.create(device_id="LATE", site="south")

    again = operator.post(LIST + "?site__exact=south", fields_of(page) | {"confirmed": "yes"})

    assert "Other devices fit the list now: 5 in all." in again.content.decode()
    assert not Stations.filter(is_active=False).exists()


def test_the_reason_stands_in_the_audit(operator, fleet):
    do(operator, "disable", fleet[:2], reason="recall of batch 7")

    entries = AuditEntry.objects.filter(action="device_disabled")
    assert {(e.actor, e.reason) for e in entries} == {("olga", "recall of batch 7")}
    assert entries.count() == 2


def test_devices_move_and_are_enabled(operator, fleet):
    do(operator, "disable", fleet[:3])
    do(operator, "enable", fleet[:3])
    do(operator, "move", fleet[:3], site="west")

    assert Stations.filter(is_active=True, site="west").count() == 3


def test_a_command_goes_to_all_with_its_parameters(operator, fleet):
    page = ask(operator, "send", fleet[:2]).content.decode()
    assert 'Interval <span class="optional">of set_interval</span>' in page

    wrong = do(operator, "send", fleet[:2], command="set_interval")
    assert "set_interval needs interval." in wrong.content.decode()
    sent = do(operator, "send", fleet[:2], command="set_interval", **{"set_interval.interval": "60"})

    assert sent["Location"] == "/admin/devicehub/devicecommand/?name=set_interval&since=1h"
    assert operator.get(sent["Location"]).context["cl"].result_count == 2
    assert (
        list(DeviceCommand.objects.values_list("name", "payload")) == [("set_interval", {"interval": 60})] * 2
    )


def test_a_command_to_one_device_leads_to_its_commands(operator, fleet):
    do(operator, "send", fleet[:2], command="set_interval", **{"set_interval.interval": "60"})
    sent = do(operator, "send", fleet[:1], command="set_interval", **{"set_interval.interval": "60"})

    listed = operator.get(sent["Location"])
    assert {row.device_key for row in listed.context["cl"].result_list} == {"weatherstation/F-00"}
    assert "queued for 1 device." in listed.content.decode()


def test_the_page_before_a_rotation_counts_the_revoked_devices(operator, fleet):
    for device in fleet[:3]:
        device.generate_credentials()
        device.save()
    assert "revoked" not in ask(operator, "rotate", fleet[:3]).content.decode()

    do(operator, "revoke", fleet[:1])
    one = ask(operator, "rotate", fleet[:3]).content.decode()
    do(operator, "revoke", fleet[:2])
    two = ask(operator, "rotate", fleet[:3]).content.decode()

    assert "1 of them is revoked, and can log in again with its new password." in one
    assert "2 of them are revoked, and can log in again with their new passwords." in two


def test_a_rotation_answers_with_a_file_that_works_once(operator, fleet):
    page = ask(operator, "rotate", fleet[:3]).content.decode()
    form = fields_of(page) | {"confirmed": "yes", "name": "spring", "ends": "used", "file_format": "json"}

    answer = operator.post(LIST, form)

    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
    mark = f"{form['nonce'][-12:]}.rotation-{Rotation.objects.get().pk}"
    assert answer.cookies["devicehub_file"].value == mark, "for the page, which then leads to this rotation"
    assert re.search(r'value="Weather Station \d{4}-\d\d-\d\d \d\d:\d\d"', page)
    assert 'data-rotation="/admin/devicehub/rotation/0/change/"' in page
    issued = json.loads(text(answer))
    assert [found["device_id"] for found in issued] == ["F-00", "F-01", "F-02"]
    for found in issued:
        assert Stations.get(device_id=found["device_id"]).check_mqtt_password(found["mqtt_password"])
    before = list(Stations.order_by("pk").values_list("mqtt_password_hash", flat=True))
    assert operator.post(LIST, form).status_code == 409
    assert list(Stations.order_by("pk").values_list("mqtt_password_hash", flat=True)) == before
    assert Rotation.objects.get().started_by == "olga"
    entries = AuditEntry.objects.filter(action="password_rotated")
    assert {entry.actor for entry in entries} == {"olga"}, "also while the file is streamed"


def test_a_csv_file_holds_no_formula(operator, fleet):
    Stations.filter(device_id="F-01").update(name="=HYPERLINK(1)")

    answer = do(operator, "rotate", fleet[1:2], name="x", ends="now", file_format="csv")

    (row,) = csv.DictReader(io.StringIO(text(answer).removeprefix("\ufeff")))
    assert row["name"] == "'=HYPERLINK(1)"


def test_a_device_that_moves_away_while_the_file_streams_is_not_in_it(northern, fleet):
    answer = do(northern, "rotate", fleet[1:3], name="x", ends="used", file_format="json")
    pieces = iter(answer.streaming_content)
    begin = next(pieces)
    Stations.filter(device_id="F-02").update(site="south")

    issued = json.loads(begin + b"".join(pieces))

    assert [found["device_id"] for found in issued] == ["F-01"]
    assert not Stations.get(device_id="F-02").mqtt_password_hash


def test_a_limited_operator_reaches_their_sites_only(northern, fleet):
    do(northern, "disable", fleet, typed="8")

    assert set(Stations.filter(is_active=False).values_list("site", flat=True)) == {"north"}
    assert Stations.filter(is_active=False).count() == 8
    moved = do(northern, "move", [d for d in fleet if d.site == "north"][:1], site="south")
    assert moved.status_code == 200, "the site is refused"
    assert Stations.filter(site="south").count() == 4


def test_forged_choices_of_other_sites_change_nothing(northern, fleet):
    southern = [device for device in fleet if device.site == "south"]

    answer = ask(northern, "revoke", southern)

    assert answer.status_code == 302
    assert not AuditEntry.objects.filter(action="credentials_revoked").exists()


def test_a_viewer_does_none_of_it(fleet):
    viewer = signed_in(person("vera", roles.VIEWER, is_staff=True))

    assert "rotate_many" not in viewer.get(LIST).content.decode()
    for act in ("rotate", "revoke", "disable", "enable", "move", "send"):
        forged = {
            "action": f"{act}_many",
            "_selected_action": [fleet[0].pk],
            "confirmed": "yes",
            "count": "1",
        }
        viewer.post(LIST, forged)
    assert not AuditEntry.objects.filter(object_key__startswith="weatherstation/").exists()


def test_commands_need_their_own_permission(fleet):
    user = person("rosa", None, is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=["view_weatherstationdevice", "change_weatherstationdevice"])
    )
    client = signed_in(user)

    page = client.get(LIST).content.decode()

    assert "disable_many" in page
    assert "send_many" not in page


def test_types_without_commands_offer_none(operator, monkeypatch):
    from devicehub.dashboard import bulk
    from devicehub.kinds.registry import registry

    kind = registry.get("weatherstation")
    monkeypatch.setattr(type(kind), "__setattr__", object.__setattr__)
    monkeypatch.setattr(kind, "commands", {})

    assert not bulk.may(person("root", roles.ADMINISTRATOR, is_staff=True), "send", kind)
