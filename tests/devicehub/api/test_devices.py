"""Devices over the API: the list of all types, one device, its change and its removal."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.models import AuditEntry
from devicehub import provisioning, roles
from devicehub.api import device_pages
from devicehub.kinds.registry import registry
from devicehub.lwm2m.models import Endpoint
from devicehub.models import DeviceGroup, DeviceOptions, GroupMember, RemovalRequest
from devicehub.removal import requests
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.programs import Program, person, program

pytestmark = pytest.mark.django_db

LIST, STATION = "/api/devices/", "/api/devices/weatherstation/STATION-1/"


@pytest.fixture
def admin():
    """Return the program of an administrator."""
    return program(person("ada"))


@pytest.fixture
def station():
    """Return a device at the north."""
    return WeatherStationDevice.objects.create(device_id="STATION-1", name="Gate", site="north")


def ids(answer):
    assert answer.status_code == 200, answer.content
    return [f"{row['type']}/{row['device_id']}" for row in answer.json()["results"]]


def problem(answer):
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")


class TestTheList:
    """`GET /api/devices/`."""

    @pytest.fixture(autouse=True)
    def fleet(self):
        """Create devices of three types."""
        for number in range(3):
            WeatherStationDevice.objects.create(device_id=f"W-{number}", site="north", status="online")
            IrrigationValveDevice.objects.create(device_id=f"V-{number}", connected=number == 1)
        Endpoint.objects.create(device_id="E-0", endpoint_name="urn:e0", site="south", is_active=False)

    def test_the_pages_lead_through_all_types_and_back(self, admin):
        whole = ids(admin.get(LIST))
        assert whole == [
            *(f"irrigationvalve/V-{number}" for number in range(3)),
            "lwm2m/E-0",
            *(f"weatherstation/W-{number}" for number in range(3)),
        ]
        page, forward = admin.get(LIST, limit=2), []
        while True:
            forward.append(ids(page))
            if page.json()["next"] is None:
                break
            page = admin.get(page.json()["next"])
        assert [row for rows in forward for row in rows] == whole
        back = [forward[-1]]
        while page.json()["previous"]:
            page = admin.get(page.json()["previous"])
            back.append(ids(page))
        assert [rows for rows in back[::-1] if rows] == forward

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({"type": "irrigationvalve", "prefix": "V-2"}, ["irrigationvalve/V-2"]),
            ({"site": "south"}, ["lwm2m/E-0"]),
            ({"status": "online", "prefix": "W-1"}, ["weatherstation/W-1"]),
            ({"connected": "true"}, ["irrigationvalve/V-1"]),
            ({"is_active": "false"}, ["lwm2m/E-0"]),
            ({"tag": "roof"}, ["irrigationvalve/V-0", "weatherstation/W-2"]),
            ({"tag": "roof", "site": "north"}, ["weatherstation/W-2"]),
            ({"group": "yard"}, ["weatherstation/W-0"]),
            ({"username": "fleet-w"}, ["weatherstation/W-1"]),
            ({"prefix": "w-"}, []),
            ({"site": ""}, ["irrigationvalve/V-0", "irrigationvalve/V-1", "irrigationvalve/V-2"]),
            ({"group": "none"}, []),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
    )
    def test_filters_select(self, admin, wanted, found):
        for key in ("irrigationvalve/V-0", "weatherstation/W-2"):
            provisioning.set_tags(key, ["roof"])
        group = DeviceGroup.objects.create(slug="yard", name="Yard")
        GroupMember.objects.create(group=group, device_key="weatherstation/W-0")
        WeatherStationDevice.objects.filter(device_id="W-1").update(mqtt_username="fleet-w")

        assert ids(admin.get(LIST, **wanted)) == found

    @pytest.mark.parametrize(
        ("wanted", "code"),
        [
            ({"type": "toaster"}, "invalid"),
            ({"status": "asleep"}, "invalid"),
            ({"connected": "maybe"}, "invalid"),
            ({"limit": 201}, "invalid"),
            ({"name": "Gate"}, "unknown-parameter"),
            ({"ordering": "name"}, "unknown-parameter"),
            ({"prefix": "a\x00"}, "invalid"),
            ({"fields": "api_key"}, "invalid"),
            ({"cursor": "WzAsMSwyXQ"}, "invalid-cursor"),
            ({"cursor": "WzAsImEiXQ"}, "invalid-cursor"),
            ({"cursor": "WzAsImEiLCJcdTAwMDAiXQ"}, "invalid-cursor"),
        ],
    )
    def test_other_parameters_are_refused(self, admin, wanted, code):
        assert problem(admin.get(LIST, **wanted)) == (400, code)

    def test_the_cursor_of_a_type_that_is_gone_still_leads_on(self, admin):
        """It is a place in the order, as every cursor."""
        assert ids(admin.get(LIST, cursor="WzAsInRvYXN0ZXIiLCJUIl0", limit=1)) == ["weatherstation/W-0"]
        assert ids(admin.get(LIST, cursor="WzEsIm0iLCJUIl0", limit=1)) == ["lwm2m/E-0"]

    def test_a_caller_with_a_limit_sees_their_site(self):
        limited = program(person("lena", roles.VIEWER, ["south"]))
        assert ids(limited.get(LIST)) == ["lwm2m/E-0"]
        assert ids(limited.get(LIST, site="north")) == []
        assert problem(limited.get(LIST, group="yard")) == (403, "not-allowed")
        assert ids(program(person("nils", roles.VIEWER, [])).get(LIST)) == []
        assert ids(program(person("root"), site="south").get(LIST)) == ["lwm2m/E-0"]

    def test_a_caller_who_may_not_see_tags_finds_no_device_by_one(self):
        """The answers show them no tags, and the filter tells nothing about them."""
        provisioning.set_tags("weatherstation/W-2", ["roof"])
        user = person("nina", "")
        user.user_permissions.add(Permission.objects.get(codename="view_weatherstationdevice"))
        caller = program(user)
        assert [row["tags"] for row in caller.get(LIST).json()["results"]] == [None] * 3
        assert problem(caller.get(LIST, tag="roof")) == (403, "not-allowed")

    def test_a_caller_without_permissions_sees_no_type(self):
        assert ids(program(person("nina", "")).get(LIST)) == []

    def test_a_key_needs_the_scope(self):
        assert problem(program(person("ada"), ["telemetry:read"]).get(LIST)) == (403, "not-allowed")


def test_a_list_takes_as_many_queries_for_many_devices(admin):
    """Also with tags, groups and options, and at most 12."""

    def count(limit):
        admin.get(LIST, limit=limit)
        with CaptureQueriesContext(connection) as found:
            answer = admin.get(LIST, limit=limit)
        return len(answer.json()["results"]), len(found)

    for model, start in ((WeatherStationDevice, "W"), (IrrigationValveDevice, "V"), (Endpoint, "E")):
        model.objects.bulk_create(
            model(device_id=f"{start}-{number}", **({"endpoint_name": str(number)} if start == "E" else {}))
            for number in range(40)
        )
    provisioning.set_tags("weatherstation/W-1", ["roof"])
    few, queries = count(81)
    assert (few, queries <= 12) == (81, True)
    assert count(120) == (120, queries)


class TestOne:
    """`GET /api/devices/{type}/{device_id}/`."""

    def test_everything_about_it_but_its_secrets(self, admin):
        valve = IrrigationValveDevice(
            device_id="V-1",
            mode="manual",
            battery_level=87.5,
            last_seen=timezone.now(),
            connected=True,
            status="maintenance",
            metadata={"big": 2**62},
        )
        credentials = valve.generate_credentials()
        valve.save()
        provisioning.set_options("irrigationvalve/V-1", rate_limit="60/m")

        answer = admin.get("/api/devices/irrigationvalve/V-1/")

        found = answer.json()
        assert (found["state"], found["states"]) == ("maintenance", ["maintenance"])
        assert found["state_fields"] == {"mode": "manual", "opening": 0, "serviced_at": None}
        assert found["battery"] == {"value": 87.5, "unit": "%"}
        assert found["metadata"] == {"big": 2**62}
        assert (found["rate_limit"], found["expected_heartbeat"], found["heartbeat_interval"]) == (
            "60/m",
            None,
            900,
        )
        assert found["topics"][0]["topic"] == "things/irrigationvalve/V-1/data"
        assert (found["credentials"]["state"], found["credentials"]["has_password"]) == ("unused", True)
        assert credentials["mqtt_username"] == found["mqtt_username"] == found["credentials"]["mqtt_username"]
        assert found["last_seen"].endswith("Z")

    def test_members_can_be_selected(self, admin, station):
        assert admin.get(STATION, fields="name,site").json() == {"name": "Gate", "site": "north"}
        assert problem(admin.get(STATION, fields="mqtt_password_hash")) == (400, "invalid")

    def test_another_site_an_unknown_type_and_no_permission_are_not_found(self, station):
        south = program(person("sue", roles.OPERATOR, ["south"]))
        assert problem(south.get(STATION)) == (404, "not-found")
        assert problem(south.patch(STATION, {"name": "mine"})) == (404, "not-found")
        assert problem(south.delete(STATION)) == (404, "not-found")
        ada = program(person("ada"))
        for path in (
            "toaster/STATION-1",
            "irrigationvalve/STATION-1",
            "weatherstation/S%00",
            "weatherstation/%F0",
        ):
            assert problem(ada.get(f"/api/devices/{path}/")) == (404, "not-found")
        assert problem(program(person("nina", "")).get(STATION)) == (403, "not-allowed")

    def test_a_device_reads_itself_alone(self, station):
        provisioning.create(registry.get("weatherstation"), "STATION-2")
        own = Program(provisioning.rotate_api_key(station))
        found = own.get(STATION).json()
        assert (found["device_id"], found["tags"], found["groups"]) == ("STATION-1", None, None)
        assert problem(own.get("/api/devices/weatherstation/STATION-2/")) == (404, "not-found")
        for answer in (
            own.get(LIST),
            own.patch(STATION, {"name": "x"}),
            own.delete(STATION),
            own.post(LIST, {}),
        ):
            assert problem(answer) == (403, "not-allowed")

    def test_a_limit_hides_the_groups(self, station):
        group = DeviceGroup.objects.create(slug="yard", name="Yard")
        GroupMember.objects.create(group=group, device_key="weatherstation/STATION-1")
        assert program(person("ada")).get(STATION).json()["groups"] == ["yard"]
        assert program(person("lena", roles.VIEWER, ["north"])).get(STATION).json()["groups"] is None

    @pytest.mark.parametrize("method", ["get", "patch"])
    def test_one_that_is_removed_meanwhile_is_not_found(self, admin, station, monkeypatch, method):
        """Between two queries of a request."""
        monkeypatch.setattr(device_pages, "read", lambda *_: {})
        answer = admin.get(STATION) if method == "get" else admin.patch(STATION, {"name": "x"})
        assert problem(answer) == (404, "not-found")

    def test_it_takes_few_queries(self, admin, station):
        admin.get(STATION)
        with CaptureQueriesContext(connection) as found:
            admin.get(STATION)
        assert len(found) <= 12


class TestAddition:
    """`POST /api/devices/`."""

    BODY = {
        "type": "weatherstation",
        "device_id": "S-9",
        "name": "Roof",
        "site": "north",
        "tags": ["roof"],
        "metadata": {"a": [1, None]},
        "expected_heartbeat": 60,
        "rate_limit": "10/s",
    }

    def test_the_answer_has_the_credentials_once(self, admin, settings):
        settings.DEVICEHUB_DEVICE_URL = "mqtts://broker.example.org"
        answer = admin.post(LIST, {**self.BODY, "reason": "for the roof"})

        made, device = answer.json(), WeatherStationDevice.objects.get()
        assert (answer.status_code, answer["Location"]) == (201, "/api/devices/weatherstation/S-9/")
        assert answer["Cache-Control"] == "no-store"
        assert device.check_mqtt_password(made["mqtt_password"])
        assert (made["url"], made["client_id"]) == ("mqtts://broker.example.org:8883", "S-9")
        assert Program(made["api_key"]).get(answer["Location"]).status_code == 200
        found = admin.get(answer["Location"]).json()
        given = {name: value for name, value in self.BODY.items() if name in found}
        assert {name: found[name] for name in given} == given
        entries = dict(AuditEntry.objects.values_list("action", "reason"))
        assert {entries["device_created"], entries["credentials_shown"]} == {"for the roof"}

    def test_without_an_id_it_is_the_next_free_one(self, admin, station):
        assert admin.post(LIST, {"type": "weatherstation"}).json()["device_id"] == "STATION-002"

    def test_a_repetition_makes_no_second_device_and_shows_no_secret(self, admin):
        first = admin.post(LIST, {"type": "weatherstation"}, Idempotency_Key="one")
        again = admin.post(LIST, {"type": "weatherstation"}, Idempotency_Key="one")
        assert (first.status_code, problem(again)) == (201, (409, "already-made"))
        assert again["Location"] == first["Location"]
        assert WeatherStationDevice.objects.count() == 1

    def test_a_taken_id_is_refused(self, admin, station):
        assert problem(admin.post(LIST, {"type": "weatherstation", "device_id": "STATION-1"})) == (
            409,
            "taken",
        )

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"type": "toaster"}, "type"),
            ({"device_id": "a/b"}, "device_id"),
            ({"device_id": "a\n"}, "device_id"),
            ({"device_id": {}}, "device_id"),
            ({"device_id": "x" * 129}, "device_id"),
            ({"name": "x" * 256}, "name"),
            ({"name": {}}, "name"),
            ({"site": "x" * 101}, "site"),
            ({"tags": ["a b"]}, "tags.0"),
            ({"tags": "roof"}, "tags"),
            ({"metadata": []}, "metadata"),
            ({"metadata": {"a": "x" * 17_000}}, "metadata"),
            ({"expected_heartbeat": 0}, "expected_heartbeat"),
            ({"expected_heartbeat": 1e15}, "expected_heartbeat"),
            ({"rate_limit": "fast"}, "rate_limit"),
            ({"is_active": True}, "is_active"),
            ({"password": "mine"}, "password"),
        ],
    )
    def test_a_wrong_value_is_named(self, admin, change, field):
        answer = admin.post(LIST, {**self.BODY, **change})
        assert problem(answer) == (400, "invalid")
        assert field in [error["field"] for error in answer.json()["errors"]]
        assert not WeatherStationDevice.objects.exists()

    @pytest.mark.parametrize(
        "body", [b'{"type": "weatherstation", "name": "\\u0000"}', b"{", b"[]", b"\xff", b""]
    )
    def test_another_body_is_refused(self, admin, body):
        answer = admin.client.post(LIST, body, content_type="application/json", headers=admin._headers)
        assert answer.status_code == 400

    def test_a_viewer_and_a_key_without_the_scope_add_none(self):
        for caller in (
            program(person("vera", roles.VIEWER)),
            program(person("ada"), ["devices:read", "credentials:write"]),
        ):
            assert problem(caller.post(LIST, self.BODY)) == (403, "not-allowed")

    def test_a_caller_with_a_limit_adds_at_their_site_without_tags(self):
        limited = program(person("lena", roles.OPERATOR, ["north"]))
        body = {"type": "weatherstation", "site": "north"}
        assert problem(limited.post(LIST, {**body, "site": "south"})) == (403, "not-allowed")
        assert problem(limited.post(LIST, {**body, "tags": ["roof"]})) == (403, "not-allowed")
        assert limited.post(LIST, body).status_code == 201


class TestChange:
    """`PATCH /api/devices/{type}/{device_id}/`."""

    def test_only_what_is_given_changes(self, admin, station):
        body = {"name": "Roof", "site": "south", "tags": ["b", "a"], "metadata": {}, "status": "maintenance"}
        answer = admin.patch(STATION, {**body, "rate_limit": "5/s", "reason": "moved"})

        assert answer.status_code == 200
        expected = {**body, "tags": ["a", "b"], "rate_limit": "5/s", "is_active": True}
        assert {name: answer.json()[name] for name in expected} == expected
        assert {
            entry.reason for entry in AuditEntry.objects.filter(object_key="weatherstation/STATION-1")
        } == {"moved"}
        assert admin.patch(STATION, {"status": None}).json()["status"] == "offline"
        assert DeviceOptions.objects.get().rate_limit == "5/s"

    def test_it_is_disabled_at_once(self, admin, station):
        assert admin.patch(STATION, {"is_active": False}).json()["state"] == "disabled"
        station.refresh_from_db()
        assert not station.is_active

    def test_a_change_that_somebody_made_meanwhile_is_not_overwritten(self, admin, station):
        """A message of the device does not count as a change."""
        tag = admin.get(STATION)["ETag"]
        WeatherStationDevice.objects.update(last_seen=timezone.now(), status="online", connected=True)
        changed = admin.patch(STATION, {"name": "first"}, If_Match=tag)
        assert (changed.status_code, changed["ETag"] != tag) == (200, True)
        assert problem(admin.patch(STATION, {"name": "second"}, If_Match=tag)) == (412, "changed")
        assert problem(admin.delete(STATION, If_Match=tag)) == (412, "changed")
        assert admin.get(STATION).json()["name"] == "first"
        assert admin.patch(STATION, {"name": "second"}, If_Match="*").status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            {"device_id": "S-2"},
            {"mqtt_username": "x"},
            {"status": "online"},
            {"status": ""},
            {"is_active": "perhaps"},
            {"is_active": None},
            {"metadata": None},
            {"tags": None},
            {"tags": [f"t{number}" for number in range(51)]},
            {"expected_heartbeat": "soon"},
            [],
        ],
        ids=str,
    )
    def test_other_values_are_refused(self, admin, station, body):
        assert problem(admin.patch(STATION, body)) == (400, "invalid")

    def test_rights_are_those_of_the_pages(self, station):
        for caller in (program(person("vera", roles.VIEWER)), program(person("ada"), ["devices:read"])):
            assert problem(caller.patch(STATION, {"name": "x"})) == (403, "not-allowed")
        limited = program(person("lena", roles.OPERATOR, ["north"]))
        for change in ({"site": "south"}, {"site": ""}, {"tags": ["roof"]}):
            assert problem(limited.patch(STATION, change)) == (403, "not-allowed")
        assert limited.patch(STATION, {"name": "Roof", "site": "north"}).status_code == 200


class TestRemoval:
    """`DELETE /api/devices/{type}/{device_id}/`."""

    def test_one_with_few_rows_is_gone(self, admin, station):
        assert admin.delete(STATION).status_code == 204
        assert admin.get(STATION).status_code == 404
        assert AuditEntry.objects.filter(action="device_removed").count() == 1

    def test_one_with_many_rows_is_disabled_and_goes_later(self, admin, station, monkeypatch):
        monkeypatch.setattr(requests, "FEW", 0)
        assert admin.delete(STATION).status_code == 202
        found = admin.get(STATION).json()
        assert (found["is_active"], found["removal_requested_at"] is not None) == (False, True)
        assert admin.delete(STATION).status_code == 202
        assert admin.patch(STATION, {"is_active": True}).json()["removal_requested_at"] is None
        assert not RemovalRequest.objects.exists()

    def test_rights_are_those_of_the_pages(self, station):
        for caller in (program(person("vera", roles.VIEWER)), program(person("ada"), ["devices:read"])):
            assert problem(caller.delete(STATION)) == (403, "not-allowed")
        assert WeatherStationDevice.objects.exists()


class TestCredentials:
    """`POST /api/devices/{type}/{device_id}/credentials/rotate/` and `.../revoke/`."""

    ROTATE, REVOKE = f"{STATION}credentials/rotate/", f"{STATION}credentials/revoke/"

    @pytest.fixture
    def password(self, station):
        """Return the first password."""
        return provisioning.rotate_password(station, valid_until=None)

    def test_a_new_password_is_shown_once_beside_the_old_one(self, admin, station, password):
        answer = admin.post(self.ROTATE, {"what": "password", "overlap": "24h", "reason": "yearly"})

        station.refresh_from_db()
        assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
        assert station.check_mqtt_password(answer.json()["mqtt_password"])
        assert answer.json()["api_key"] is None
        left = station.previous_valid_until - timezone.now()
        assert timedelta(hours=23) < left <= timedelta(hours=24)
        shown = admin.get(STATION).json()["credentials"]
        assert (shown["state"], shown["overlap"]["is_new_used"]) == ("two", False)
        assert AuditEntry.objects.filter(action="credentials_shown", reason="yearly").count() == 1

    @pytest.mark.parametrize(("overlap", "has_old"), [("now", False), ("until_used", True), (None, True)])
    def test_the_end_of_the_old_one_is_chosen(self, admin, station, password, overlap, has_old):
        body = {"what": "password", **({} if overlap is None else {"overlap": overlap})}
        assert admin.post(self.ROTATE, body).status_code == 200
        overlap_now = admin.get(STATION).json()["credentials"]["overlap"]
        assert (overlap_now is not None) == has_old
        assert not has_old or overlap_now["until"] is None

    def test_a_new_key_ends_the_old_one(self, admin, station):
        old, new = (admin.post(self.ROTATE, {"what": "api_key"}).json()["api_key"] for _ in range(2))
        assert Program(new).get(STATION).status_code == 200
        assert Program(old).get(STATION).status_code == 401

    @pytest.mark.parametrize(
        "body",
        [
            {"what": "api_key", "overlap": "24h"},
            {"what": "api_key", "overlap": "now"},
            {"what": "both"},
            {},
            {"what": "password", "overlap": "0s"},
            {"what": "password", "overlap": "367d"},
            {"what": "password", "overlap": "9999999d"},
            {"what": "password", "overlap": "soon"},
            {"what": "password", "overlap": 24},
            {"what": "password", "reason": "x" * 3_000},
            {"what": "password", "password": "mine"},
        ],
        ids=str,
    )
    def test_other_requests_are_refused(self, admin, station, password, body):
        assert problem(admin.post(self.ROTATE, body)) == (400, "invalid")
        station.refresh_from_db()
        assert station.check_mqtt_password(password)

    def test_a_repetition_rotates_once(self, admin, station):
        first = admin.post(self.ROTATE, {"what": "password"}, Idempotency_Key="one")
        again = admin.post(self.ROTATE, {"what": "password"}, Idempotency_Key="one")
        assert (problem(again), again["Location"]) == ((409, "already-made"), STATION)
        station.refresh_from_db()
        assert station.check_mqtt_password(first.json()["mqtt_password"])

    def test_all_end_at_once(self, admin, station, password):
        answer = admin.post(self.REVOKE, {"reason": "stolen"})
        assert (answer.status_code, answer.json()["state"]) == (200, "revoked")
        assert admin.post(self.REVOKE).status_code == 200
        assert AuditEntry.objects.filter(action="credentials_revoked", reason="stolen").count() == 1
        assert AuditEntry.objects.filter(action="credentials_revoked").count() == 1

    def test_rights_are_those_of_the_pages(self, station, password):
        callers = {
            404: program(person("sue", roles.OPERATOR, ["south"])),
            403: program(person("vera", roles.VIEWER)),
            "scope": program(person("ada"), ["devices:read", "devices:write"]),
            "device": Program(provisioning.rotate_api_key(station)),
        }
        for status, caller in callers.items():
            for path, body in ((self.ROTATE, {"what": "password"}), (self.REVOKE, {})):
                answer = caller.post(path, body)
                assert answer.status_code == (status if status == 404 else 403)
        station.refresh_from_db()
        assert station.check_mqtt_password(password)
