"""`rotate_fleet`: a rotation from the shell, from its file to its end."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command

from authsvc.models import AuditEntry
from devicehub.bulk import rotations
from devicehub.models import DeviceGroup, GroupMember, Rotation
from fleet.models import WeatherStationDevice
from rig.cast import provision

pytestmark = pytest.mark.django_db
Stations = WeatherStationDevice.objects


@pytest.fixture
def cast(db):
    return {n: provision(f"R-{n}", site="north" if n < 2 else "south") for n in range(4)}


def rotate(*options: str) -> str:
    out = io.StringIO()
    call_command("rotate_fleet", *options, stdout=out)
    return out.getvalue()


def issued(path) -> dict[str, str]:
    return {found["device_id"]: found["mqtt_password"] for found in json.loads(path.read_text())}


def test_a_site_is_rotated_and_rolled_back(cast, tmp_path, capsys):
    rotate("spring", "--site", "north", "--output", str(tmp_path / "a.json"), "--reason", "stolen laptop")

    rotation = Rotation.objects.get()
    assert f"Rotation {rotation.pk}: 2 new passwords" in capsys.readouterr().err
    passwords = issued(tmp_path / "a.json")
    assert passwords.keys() == {"R-0", "R-1"}
    assert Stations.get(device_id="R-0").check_mqtt_password(passwords["R-0"])
    assert json.loads(rotate("--show", str(rotation.pk)))["never"] == 2
    assert AuditEntry.objects.filter(action="password_rotated", reason="stolen laptop").count() == 2

    assert "2 old passwords restored" in rotate("--roll-back", str(rotation.pk))

    assert Stations.get(device_id="R-0").check_mqtt_password(cast[0].password)
    assert AuditEntry.objects.filter(action="rotation_rolled_back").count() == 1


def test_a_group_is_rotated_again_and_finished(cast, tmp_path):
    group = DeviceGroup.objects.create(slug="roof", name="Roof")
    for number in (1, 3):
        GroupMember.objects.create(group=group, device_key=f"weatherstation/R-{number}")
    rotate("roof", "--group", "roof", "--output", str(tmp_path / "a.json"))
    rotation = str(Rotation.objects.get().pk)

    rotate("--again", rotation, "--output", str(tmp_path / "b.json"))

    first, second = issued(tmp_path / "a.json"), issued(tmp_path / "b.json")
    assert first.keys() == second.keys() == {"R-1", "R-3"}
    assert Stations.get(device_id="R-1").check_mqtt_password(second["R-1"])
    assert "2 old passwords ended" in rotate("--finish", rotation)
    with pytest.raises(CommandError, match="has ended"):
        rotate("--again", rotation, "--output", str(tmp_path / "c.json"))
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("output", ["a.csv", "-"])
def test_a_file_whose_run_was_overtaken_says_so_at_its_end(cast, tmp_path, monkeypatch, capsys, output):
    monkeypatch.setattr(rotations, "BATCH", 3)
    going_on = rotations.go_on

    def overtaken(rotation, **options):
        if WeatherStationDevice.objects.exclude(previous_password_hash="").exists():
            Rotation.objects.update(run=7)
        going_on(rotation, **options)

    monkeypatch.setattr(rotations, "go_on", overtaken)
    path = tmp_path / "a.json" if output == "-" else tmp_path / output

    with pytest.raises(CommandError, match="This run stopped"):
        rotate("spring", "--output", output if output == "-" else str(path))

    lines = capsys.readouterr().out.strip().split("\n") if output == "-" else path.read_text().splitlines()
    assert sum("R-" in line for line in lines) == 3
    assert "This run stopped" in lines[-1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "Give a name"),
        (["spring", "--show", "1"], "Give a name"),
        (["spring"], "--output is needed"),
        (["--show", "77"], "no rotation 77"),
        (["spring", "--output", "-", "--group", "moon"], "no group moon"),
        (["spring", "--output", "-", "--type", "toaster"], "no device type"),
    ],
)
def test_mistakes_are_reported_in_one_line(db, options, reason):
    with pytest.raises(CommandError, match=reason):
        rotate(*options)
    assert not Rotation.objects.exists()


def test_a_heading_without_the_columns_of_credentials_names_them(db, tmp_path):
    table = tmp_path / "fleet.csv"
    table.write_text("device_id,name,site\nA-1,Roof,north\n")

    with pytest.raises(CommandError, match="columns username and hash are missing"):
        call_command("import_credentials", str(table), "--type", "weatherstation")
    table.write_text("username;name\nA-1;Roof\n")
    with pytest.raises(CommandError, match="column hash is missing"):
        call_command("import_credentials", str(table), "--type", "weatherstation")
