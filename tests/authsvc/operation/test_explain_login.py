"""`explain` with any name of an identity, and for logins."""

from __future__ import annotations

import io
import json
import sys
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from authsvc.models import Account
from devicehub import provisioning
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.cast import Cast

pytestmark = pytest.mark.sqlite_first


def explain(*arguments: str) -> tuple[int, str]:
    out = StringIO()
    try:
        call_command("explain", *arguments, stdout=out)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()


def login(*arguments: str) -> tuple[bool, str, list[str] | None]:
    code, text = explain(arguments[0], "connect", *arguments[1:], "--json")
    found = json.loads(text)
    assert found["allowed"] is (code == 0)
    return found["allowed"], found["reason"], found["client_ids"]


@pytest.mark.parametrize("name", ["weatherstation/STATION-001", "STATION-001", "radio 7"])
def test_a_device_is_found_by_key_device_id_and_client_id(station: Cast, name):
    WeatherStationDevice.objects.update(mqtt_client_id="radio 7")

    code, text = explain(name, "publish", station.topic("data"))

    assert code == 0
    assert "who      weatherstation/STATION-001" in text


def test_an_account_is_found_by_key(transactional_db):
    provisioning.create_account("backend")

    assert login("account/backend")[:2] == (True, "credentials")


def test_an_account_is_found_by_its_client_ids(transactional_db):
    provisioning.create_account("backend", client_ids=["radio 7", "backend-*"])

    for name in ("radio 7", "backend-1"):
        assert "who      account/backend" in explain(name, "connect")[1]
    assert login("account/backend-1")[:2] == (False, "invalid_username")
    provisioning.create_account("other", client_ids=["backend-1"])
    with pytest.raises(CommandError, match="backend-1 names account/backend, account/other"):
        explain("backend-1", "connect")


def test_a_name_of_several_identities_says_which(station: Cast):
    IrrigationValveDevice.objects.bulk_create(
        [IrrigationValveDevice(device_id="STATION-001", mqtt_username="valve-1")]
    )

    with pytest.raises(
        CommandError, match="names irrigationvalve/STATION-001, weatherstation/STATION-001: write one of"
    ):
        explain("STATION-001", "connect")
    assert explain("irrigationvalve/STATION-001", "connect")[0] == 1


def test_a_device_without_credentials_says_so(transactional_db):
    WeatherStationDevice.objects.create(device_id="NEW-1")

    with pytest.raises(CommandError, match="weatherstation/NEW-1 has no username and no password"):
        explain("NEW-1", "connect")


def test_a_stranger_is_unknown(transactional_db):
    assert login("stranger")[:2] == (False, "unknown_username")
    assert login("str/anger")[:2] == (False, "invalid_username")


def test_each_client_id_is_named_once(station: Cast):
    WeatherStationDevice.objects.update(mqtt_username="STATION-001", mqtt_client_id=None)
    Account.objects.create(username="backend", client_ids=["backend", "x", "x", "ingest-*"])

    assert login("STATION-001")[2] == ["STATION-001"]
    assert login("backend")[2] == ["backend", "x", "ingest-*"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "credentials"),
        ({"is_active": False}, "disabled"),
        ({"mqtt_password_hash": ""}, "no_password"),
        ({"mqtt_password_hash": "$9$what"}, "unusable_hash"),
        ({"password_expires_at": timezone.now() - timedelta(days=1)}, "expired_password"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_login_is_decided_as_with_the_right_password(station: Cast, changes, reason):
    WeatherStationDevice.objects.update(**changes)

    assert login(station.username)[:2] == (reason == "credentials", reason)


def test_a_previous_password_ends_with_the_current_one(station: Cast):
    device = WeatherStationDevice.objects.get()
    provisioning.rotate_password(device, valid_until=timezone.now() + timedelta(hours=1))
    assert login(station.username)[:2] == (True, "credentials")

    WeatherStationDevice.objects.update(password_expires_at=timezone.now() - timedelta(minutes=1))
    assert login(station.username)[:2] == (False, "expired_password")


def test_the_client_id_of_a_login_is_checked(station: Cast, neighbour: Cast):
    assert login(station.username, "--client-id", "STATION-001")[0]
    assert login(station.username, "--client-id", "STATION-002")[1] == "client_id"
    WeatherStationDevice.objects.filter(device_id="STATION-001").update(mqtt_client_id="shared")
    Account.objects.create(username="shared")
    assert login(station.username, "--client-id", "shared")[1] == "ambiguous_client_id"


def test_a_password_is_checked_from_standard_input_and_not_printed(station: Cast, monkeypatch):
    for password, reason in ((station.password, "credentials"), (station.password + "x", "wrong_password")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(password + "\n"))
        code, text = explain(station.username, "connect", "--password-stdin")

        assert code == (reason != "credentials")
        assert reason in text
        assert password not in text


def test_a_login_as_text(station: Cast):
    code, text = explain("STATION-001", "connect")

    assert code == 0
    assert text.splitlines() == [
        "ALLOW  connect",
        "  who      weatherstation/STATION-001",
        "  reason   credentials: With the right password it may connect.",
        f"  may connect as  {station.username}, STATION-001",
    ]


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x", "publish"), "publish needs a topic"),
        (("x", "connect", "a/b"), "connect takes no topic"),
        (("x", "publish", "a/b", "--password-stdin"), "publish takes no password"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(arguments, message):
    with pytest.raises(CommandError, match=message):
        explain(*arguments)
