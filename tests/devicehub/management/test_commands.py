"""Commands for operators: provisioning, accounts, brokers."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.core.management.base import OutputWrapper
from django.db import connection, transaction

from authsvc.brokers import BY_DIALECT
from authsvc.core.passwords import verify
from authsvc.management.command import DatabaseCommand
from authsvc.models import Account, Broker, Grant, digest
from config.settings import database
from devicehub import provisioning
from devicehub.checks import check_identities
from devicehub.models import digest_api_key
from devicehub.signals import device_provisioned
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig import servers
from rig.credential_pages import nonce_of, secrets_of
from rig.hub import ROOT, environment

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, stderr=OutputWrapper(StringIO()))
    return out.getvalue()


def provision(output: Path, *, count: int = 2, prefix: str = "STATION-") -> list[dict[str, object]]:
    options = ["--count", str(count), "--prefix", prefix, "--output", str(output)]
    run("provision_devices", "weatherstation", *options)
    return json.loads(output.read_text())


def test_provisioned_devices_come_with_all_that_a_firmware_needs(tmp_path):
    devices = provision(tmp_path / "fleet.json")

    assert [d["device_id"] for d in devices] == ["STATION-001", "STATION-002"]
    place = {"type", "device_id", "name", "site", "host", "port", "tls", "client_id", "topics"}
    assert devices[0].keys() == place | {"mqtt_username", "mqtt_password", "api_key"}
    prefix = "things/weatherstation/STATION-001"
    assert devices[0]["topics"] == {
        about: f"{prefix}/{about}" for about in ("data", "status", "cmd", "reply")
    }
    stored = WeatherStationDevice.objects.get(device_id="STATION-001")
    assert stored.mqtt_username == devices[0]["mqtt_username"]
    assert verify(devices[0]["mqtt_password"], stored.mqtt_password_hash)
    assert stored.api_key == digest_api_key(devices[0]["api_key"])


def test_the_file_of_credentials_is_private_and_never_overwritten(tmp_path):
    provision(tmp_path / "fleet.json")

    assert (tmp_path / "fleet.json").stat().st_mode & 0o777 == 0o600
    before = (tmp_path / "fleet.json").read_text()
    with pytest.raises(CommandError, match="exists already; give the name of a new file"):
        provision(tmp_path / "fleet.json")
    assert (tmp_path / "fleet.json").read_text() == before
    assert WeatherStationDevice.objects.count() == 2


def test_numbers_continue_after_the_highest(tmp_path):
    WeatherStationDevice.objects.create(device_id="STATION-041")
    WeatherStationDevice.objects.create(device_id="STATION-9x")

    devices = provision(tmp_path / "fleet.json")

    assert [d["device_id"] for d in devices] == ["STATION-042", "STATION-043"]


def test_an_id_that_another_type_has_is_refused(tmp_path):
    """Both would connect with it as their client id, and take over each other's session."""
    IrrigationValveDevice.objects.create(device_id="STATION-002")

    with pytest.raises(CommandError, match="irrigationvalve/STATION-002 has"):
        provision(tmp_path / "fleet.json")

    # The device that was created before is in the file, and no other was created.
    assert [d.device_id for d in WeatherStationDevice.objects.all()] == ["STATION-001"]
    assert "STATION-001" in (tmp_path / "fleet.json").read_text()


@pytest.mark.sqlite_only  # It is refused before any SQL.
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["weathrstation", "--count", "1", "--prefix", "A-"],
            "There is no device type 'weathrstation'; existing types:",
        ),
        (["weatherstation", "--count", "0", "--prefix", "A-"], "--count must be 1 or more"),
        (["weatherstation", "--count", "1", "--prefix", "a/b"], "cannot be a device id"),
    ],
)
def test_what_cannot_be_provisioned_is_said_in_one_line(tmp_path, arguments, message):
    with pytest.raises(CommandError, match=message):
        run("provision_devices", *arguments, "--output", str(tmp_path / "fleet.json"))


def test_provisioning_notifies_receivers_and_sends_no_secret(tmp_path, django_capture_on_commit_callbacks):
    heard: list[dict[str, object]] = []

    def listen(**arguments: object) -> None:
        heard.append(arguments)

    device_provisioned.connect(listen)
    try:
        with django_capture_on_commit_callbacks(execute=True):
            device, _ = provisioning.create(provisioning.kind_of("weatherstation"), "STATION-001")
    finally:
        device_provisioned.disconnect(listen)

    assert [(h["device"], set(h) - {"signal", "sender"}) for h in heard] == [(device, {"device"})]


def test_an_ingest_account_may_do_its_work_and_nothing_else():
    answer = json.loads(run("create_account", "ingest", "--ingest", "--json"))

    account = Account.objects.get(username="ingest")
    assert verify(answer["password"], account.password_hash)
    assert not account.is_superuser
    assert account.client_ids == ["ingest-*"]
    granted = {
        (g.actions, g.filter) for g in Grant.objects.filter(subject="key:account/ingest", effect="allow")
    }
    kinds = ("weatherstation", "irrigationvalve", "lwm2m")
    receive = {
        (actions, f"things/{kind}/+/{about}")
        for kind in kinds
        for about in ("data", "status", "reply")
        for actions in ("subscribe", "receive")
    }
    assert granted == receive | {("publish", f"things/{kind}/+/cmd") for kind in kinds}


def test_an_account_needs_a_name_that_can_be_a_username():
    with pytest.raises(CommandError, match="cannot be a username"):
        run("create_account", "in gest")
    run("create_account", "ingest")
    with pytest.raises(
        CommandError, match="There is an account ingest already; --rotate gives it a new password"
    ):
        run("create_account", "ingest")


@pytest.mark.sqlite_first  # The dialects share their SQL.
@pytest.mark.parametrize("dialect", sorted(BY_DIALECT))
def test_create_broker_prints_the_token_and_a_configuration_that_holds_it(dialect):
    answer = run("create_broker", "broker-1", dialect, "--url", "http://auth:8000")

    broker = Broker.objects.get(name="broker-1")
    assert broker.dialects == [dialect]
    token = answer.partition("shown this once: ")[2].split()[0]
    assert len(token) == 43
    configuration = answer.split("\n", 2)[2]
    assert token in configuration
    assert "auth" in configuration
    assert "8000" in configuration
    assert token not in repr(broker.__dict__)


def test_a_rotated_token_replaces_the_old_one():
    first = json.loads(run("create_broker", "broker-1", "go-auth", "--json"))["token"]
    with pytest.raises(
        CommandError, match="There is already a broker broker-1; --rotate gives it a new token"
    ):
        run("create_broker", "broker-1", "go-auth")

    second = json.loads(run("create_broker", "broker-1", "go-auth", "--rotate", "--json"))["token"]

    assert Broker.objects.get().token_digest == digest(second) != digest(first)
    with pytest.raises(CommandError, match="There is no broker broker-2"):
        run("create_broker", "broker-2", "go-auth", "--rotate")


def test_a_broker_can_be_bound_to_networks():
    run("create_broker", "broker-1", "go-auth", "--network", "10.0.0.0/8")
    assert Broker.objects.get().networks == ["10.0.0.0/8"]

    with pytest.raises(CommandError, match=r"10\.0\.0\.1/8 is not a network"):
        run("create_broker", "broker-2", "go-auth", "--network", "10.0.0.1/8")


def test_an_account_takes_no_name_of_a_device():
    device, _ = provisioning.create(provisioning.kind_of("weatherstation"), "STATION-001")

    for name in ("STATION-001", device.mqtt_username):
        with pytest.raises(CommandError, match="weatherstation/STATION-001 has"):
            run("create_account", name)
    with pytest.raises(CommandError, match="weatherstation/STATION-001 has"):
        run("create_account", "backend", "--client-id", "STATION-001")


def test_a_database_check_finds_names_that_two_identities_share():
    """Commands compare names before they write; names written by code or SQL are found here."""
    WeatherStationDevice.objects.create(device_id="A1", mqtt_client_id="radio")
    IrrigationValveDevice.objects.create(device_id="A1")
    IrrigationValveDevice.objects.create(device_id="V2", mqtt_client_id="radio", mqtt_username="backend")
    Account.objects.create(username="backend")
    WeatherStationDevice.objects.create(device_id="B1", mqtt_username="B1", mqtt_client_id="B1")

    assert provisioning.shared_names() == [
        ("A1", ["irrigationvalve/A1", "weatherstation/A1"]),
        ("backend", ["account/backend", "irrigationvalve/V2"]),
        ("radio", ["irrigationvalve/V2", "weatherstation/A1"]),
    ]
    found = [error for error in check_identities(databases=["default"]) if error.id == "devicehub.W007"]
    assert [str(error.msg).split()[0] for error in found] == ["'A1'", "'backend'", "'radio'"]
    assert check_identities(databases=None) == []


def test_an_accounts_password_is_rotated_alone():
    first = json.loads(run("create_account", "ingest", "--ingest", "--json"))["password"]
    grants = Grant.objects.count()

    second = json.loads(run("create_account", "ingest", "--rotate", "--json"))["password"]

    stored = Account.objects.get().password_hash
    assert verify(second, stored)
    assert not verify(first, stored)
    assert Grant.objects.count() == grants
    with pytest.raises(CommandError, match="There is no account nobody"):
        run("create_account", "nobody", "--rotate")


def test_new_device_types_are_granted_to_an_ingest_account_that_exists():
    run("create_account", "ingest", "--ingest")
    Grant.objects.filter(filter__contains="irrigationvalve").delete()

    assert "7 grants added" in run("create_account", "ingest", "--ingest", "--grant-only")
    assert "0 grants added" in run("create_account", "ingest", "--ingest", "--grant-only")
    with pytest.raises(CommandError, match="--grant-only needs --ingest"):
        run("create_account", "ingest", "--grant-only")


@pytest.mark.sqlite_only  # It is refused before any SQL.
@pytest.mark.parametrize("url", ["hub.example.org:8000", "mqtt://hub", "http://", ""])
def test_an_address_that_is_none_makes_no_broker(url):
    with pytest.raises(CommandError, match="is not the address of this service; write http://host:8000"):
        run("create_broker", "broker-1", "go-auth", "--url", url)

    assert not Broker.objects.exists()


@pytest.mark.parametrize("field", ["dialects", "networks"])
@pytest.mark.parametrize("value", [5, None, "go-auth", [5], [""], {"a": 1}])
def test_what_is_no_list_of_texts_limits_no_broker(field, value):
    broker = Broker(name="broker-1", **{field: value})
    broker.issue_token()

    with pytest.raises(ValidationError):
        broker.full_clean()


def test_the_admin_refuses_a_name_of_another_device(admin_client):
    """Both would be denied as ambiguous."""
    provisioning.create(provisioning.kind_of("weatherstation"), "STATION-001")
    page = "/admin/fleet/irrigationvalvedevice/add/"
    form = {"device_id": "V1", "status": "offline", "metadata": "{}", "mode": "manual", "opening": "0"}

    def add(**more):
        nonce = nonce_of(admin_client.get(page).content.decode())
        return admin_client.post(page, {**form, **more, "nonce": nonce})

    refused = add(mqtt_client_id="fleet-weatherstationdevice-STATION-001")
    assert "weatherstation/STATION-001 has the name" in refused.content.decode()
    assert not IrrigationValveDevice.objects.exists()

    assert secrets_of(add().content.decode())
    assert secrets_of(add(device_id="V2").content.decode())
    assert list(IrrigationValveDevice.objects.values_list("mqtt_client_id", flat=True)) == [None, None]


def test_every_command_says_in_one_line_that_it_failed():
    ours = [(app, name) for name, app in get_commands().items() if app in ("authsvc", "devicehub")]
    others = [name for app, name in ours if not isinstance(load_command_class(app, name), DatabaseCommand)]

    assert len(ours) > 15
    assert others == []


def manage(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment(DATABASE_URL=url),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_a_database_that_is_away_is_said_in_one_line_without_its_password():
    done = manage(f"postgres://hub:hidden-password@127.0.0.1:{servers.free_port()}/hub", "prune_telemetry")

    assert (done.returncode, done.stdout) == (1, "")
    assert "The database failed: " in done.stderr
    assert "Connection refused" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hidden-password" not in done.stderr


@pytest.mark.sqlite_only
@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite://:memory:", "sqlite:///", "sqlite://"])
def test_a_database_in_memory_is_refused(url):
    """Each process would have its own database without tables, and a file of that name would be created."""
    with pytest.raises(
        ImproperlyConfigured, match="names no file; write sqlite:///relative/or//absolute/path"
    ):
        database(url)

    assert not (ROOT / ":memory:").exists()


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_a_wrong_database_is_refused_by_the_program():
    done = manage("sqlite:///:memory:", "check")

    assert done.returncode == 1
    assert done.stderr.endswith("DATABASE_URL names no file; write sqlite:///relative/or//absolute/path\n")


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_a_file_that_is_no_database_is_said_in_one_line(tmp_path):
    (tmp_path / "db.sqlite3").write_bytes(b"no database " * 100)

    done = manage(f"sqlite:///{tmp_path}/db.sqlite3", "list_commands")

    assert done.returncode == 1
    assert done.stderr == (
        "CommandError: The database failed: file is not a database; "
        "committed changes stay, so run this again when it works\n"
    )


def test_a_database_without_our_tables_is_to_be_migrated(monkeypatch):
    """The two databases report it in different ways."""

    def look(*_: Any, **__: Any) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM devicehub_of_tomorrow")

    monkeypatch.setattr("devicehub.management.commands.list_commands.Command.handle", look)

    with pytest.raises(CommandError, match=r"devicehub_of_tomorrow.*: run `manage.py migrate`"):
        run("list_commands")


def test_run_dev_broker_without_amqtt_says_how_to_install_it(monkeypatch):
    monkeypatch.setenv("AUTHSVC_TOKEN", "TOKEN")
    monkeypatch.setitem(sys.modules, "amqtt.contrib.http", None)

    with pytest.raises(CommandError) as refused:
        call_command("run_dev_broker")

    assert 'pip install "devicehub[demo]"' in str(refused.value)
    assert "script/setup --demo" in str(refused.value)


def test_a_first_password_ends_no_old_one():
    WeatherStationDevice.objects.create(device_id="STATION-009")

    first, second = (run("rotate_credentials", "weatherstation", "STATION-009") for _ in range(2))
    key = run("rotate_credentials", "weatherstation", "STATION-009", "--api-key")

    assert "There was no password before." in first
    assert "valid until" not in first
    assert "The old one is valid until" in second
    assert "There was no API key before." in key
