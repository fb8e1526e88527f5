"""`provision_devices TYPE --from FILE`: devices from a table, with their credentials in a new file."""

from __future__ import annotations

import csv
import json
import os
import stat

import pytest
from django.core.management import CommandError, call_command

from authsvc.models import AuditEntry
from devicehub.bulk import imports
from fleet.models import WeatherStationDevice

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]
Stations = WeatherStationDevice.objects


def provision(table, *options: str) -> None:
    call_command("provision_devices", "weatherstation", "--from", str(table), *options)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "fleet.csv"
    path.write_text("device_id,name,site,floor\nA-1,=SUM(1),north,3\nA-2,,,\n")
    return path


def test_devices_come_from_a_table(table, tmp_path, capsys, settings):
    settings.DEVICEHUB_DEVICE_URL = "mqtt://mqtt.example.org"
    output = tmp_path / "credentials.json"

    provision(table, "--output", str(output))

    issued = {found["device_id"]: found for found in json.loads(output.read_text())}
    device = Stations.get(device_id="A-1")
    assert device.check_mqtt_password(issued["A-1"]["mqtt_password"])
    assert (device.name, device.site, device.metadata) == ("=SUM(1)", "north", {"floor": "3"})
    assert issued["A-1"]["name"] == "=SUM(1)", "JSON keeps values exactly"
    assert issued["A-1"] | {"host": "mqtt.example.org", "port": 1883, "tls": False} == issued["A-1"]
    assert issued["A-1"]["client_id"] == "A-1"
    assert issued["A-1"]["topics"]["data"] == "things/weatherstation/A-1/data"
    assert stat.S_IMODE(os.stat(output).st_mode) == 0o600
    assert "2 created, 0 exist, 0 refused" in capsys.readouterr().err
    shown = AuditEntry.objects.get(action="credentials_shown")
    assert (shown.object_key, shown.after) == ("provision/weatherstation", {"file": "credentials.json"})


def test_a_csv_file_is_for_people(table, tmp_path, settings):
    settings.DEVICEHUB_DEVICE_URL = "mqtts://mqtt.example.org:8883"
    output = tmp_path / "credentials.csv"

    provision(table, "--output", str(output))

    with open(output, encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["name"] == "'=SUM(1)"
    assert (first["host"], first["port"], first["tls"]) == ("mqtt.example.org", "8883", "true")
    assert first["client_id"] == "A-1"
    assert Stations.get(device_id="A-2").check_mqtt_password(second["mqtt_password"])


def test_a_dry_run_creates_nothing(table, tmp_path, capsys):
    provision(table, "--dry-run")

    assert not Stations.exists()
    assert "2 new, 0 exist, 0 refused" in capsys.readouterr().err


def test_refused_rows_are_named_and_the_others_created(tmp_path, capsys):
    table = tmp_path / "fleet.csv"
    table.write_text("device_id\nA-1\nA 2\n")

    with pytest.raises(SystemExit) as ended:
        provision(table, "--output", str(tmp_path / "out.json"))

    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "Line 3: device_id: use 1-128 letters" in said
    assert "1 created, 0 exist, 1 refused" in said
    assert Stations.get().device_id == "A-1"


def test_a_second_run_leaves_no_empty_file(table, tmp_path):
    provision(table, "--output", str(tmp_path / "first.json"))
    provision(table, "--output", str(tmp_path / "second.json"))

    assert not (tmp_path / "second.json").exists()


def test_a_table_that_cannot_be_read_to_its_end_creates_nothing(tmp_path):
    table = tmp_path / "fleet.csv"
    table.write_text("device_id\n" + "".join(f"A-{n}\n" for n in range(300)) + "x" * 2000)

    with pytest.raises(CommandError, match="line 302"):
        provision(table, "--output", str(tmp_path / "out.json"))

    assert not Stations.exists()
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "--output is needed"),
        (["--output", "/nowhere/x.json"], "No such file"),
        (["--dry-run"], "device_id is missing"),
    ],
)
def test_mistakes_are_reported_in_one_line(tmp_path, options, reason):
    table = tmp_path / "fleet.csv"
    table.write_text("device_id\nA-1\n" if "--dry-run" not in options else "name,floor\nA-1,3\n")

    with pytest.raises(CommandError, match=reason):
        provision(table, *options)


def test_the_lines_are_written_before_the_commit(table, tmp_path, monkeypatch):
    """A crash after the commit loses no credentials, since the file has them already."""
    output, seen = tmp_path / "out.json", []
    monkeypatch.setattr(imports, "_announce", lambda *_: None)
    monkeypatch.setattr(imports.transaction, "on_commit", lambda _: seen.append(Stations.count()))
    create = imports.create

    def crash(*arguments, before_commit, **options):
        def written(issued):
            before_commit(issued)
            seen.append(output.read_text().count("mqtt_password"))

        return create(*arguments, before_commit=written, **options)

    monkeypatch.setattr(imports, "create", crash)
    provision(table, "--output", str(output))

    assert seen == [2, 2]
