"""The page about the use of the API: its shell and its Python run against a server."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.utils import timezone

from authsvc.core.access import Reason
from authsvc.models import Denial
from devicehub import api_keys
from devicehub.commands import sender
from devicehub.models import CommandState, DeviceCommand
from fleet.models import WeatherStationDevice
from rig import hub
from rig.messages import send
from rig.pages import blocks, missing_lines, page
from rig.programs import person

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers, pytest.mark.django_db(transaction=True)]

PAGE = "how-to/use-the-api.md"
MARK = "run against the API"
IN_PAGE = "http://127.0.0.1:8000"
SECONDS = 60


@pytest.fixture
def station() -> WeatherStationDevice:
    """Return STATION-001, which was refused once; STATION-002 stands beside it."""
    found = WeatherStationDevice(device_id="STATION-001", site="roof", mqtt_username="STATION-001")
    found.device_key = found.generate_credentials()["api_key"]
    found.save()
    WeatherStationDevice.objects.create(device_id="STATION-002", site="roof")
    now = timezone.now()
    Denial.objects.create(
        dialect="go-auth",
        principal="weatherstation/STATION-001",
        username="STATION-001",
        action="publish",
        topic="plant/alarms",
        reason=Reason.NO_GRANT,
        first_at=now,
        last_at=now,
    )
    return found


def answer_commands(station: WeatherStationDevice) -> None:
    """Send each queued command, and answer it as *station*."""
    for command in DeviceCommand.objects.filter(state=CommandState.QUEUED):
        sender.send_now(command.id)
        reply = {"id": str(command.id), "ok": True, "result": {"interval": 60}}
        send(station, json.dumps(reply).encode(), "reply")


def run(command: list[str], folder: Path, environment: dict[str, str], station: WeatherStationDevice) -> str:
    """Return what *command* printed; *station* answers its commands meanwhile. Raise AssertionError if it fails."""
    with (folder / "output").open("w+") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            end = time.monotonic() + SECONDS
            while process.poll() is None and time.monotonic() < end:
                answer_commands(station)
                time.sleep(0.05)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        text = output.read()
    assert process.returncode == 0, text
    return text


def test_the_page_about_the_api_does_what_it_says(station, published, tmp_path):
    """The shell and the Python do the same tasks on one server; the shown answers have the members of real ones."""
    text = page(PAGE)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "HUB_KEY": api_keys.create(person("ada"), "page", list(api_keys.SCOPES)).secret,
        "DEVICE_KEY": station.device_key,
    }
    (tmp_path / ".curlrc").write_text('silent\nshow-error\nfail-with-body\nwrite-out = "\\n"\n')
    in_shell, in_python = ("\n".join(blocks(text, language, MARK)) for language in ("sh", "python"))
    assert len(blocks(text, "sh", MARK)) == len(blocks(text, "python", MARK)) == 12

    (tmp_path / "served").mkdir()
    with hub.gunicorn(tmp_path / "served") as url:
        shell = run(
            [shutil.which("sh") or "sh", "-euc", in_shell.replace(IN_PAGE, url)],
            tmp_path,
            environment,
            station,
        )
        printed = run([sys.executable, "-c", in_python.replace(IN_PAGE, url)], tmp_path, environment, station)

    assert missing_lines(text, shell) == [], shell
    assert "The command is answered\n" in shell
    for line in ("STATION-001 ", "ROOF-001 ", "The outcome is stored", "temperature 22.5 Cel"):
        assert line in printed, printed
    assert "2026-12-01T06:00:00Z 21.5 22.0 22.5" in printed
    assert "'ok': True, 'result': {'interval': 60}}" in printed
    assert "1 times: " in printed
    assert WeatherStationDevice.objects.filter(device_id__startswith="ROOF-").count() == 2
    with (tmp_path / "readings.csv").open() as file:
        assert [row["temperature"] for row in csv.DictReader(file)] == ["21.5", "22.5"]
    lines = (tmp_path / "readings.ndjson").read_text().splitlines()
    assert len(lines) == 3
    for name in ("key.header", "credentials.json", "ROOF-002.json", "STATION-001.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600, name
