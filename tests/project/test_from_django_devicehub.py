"""A project of django-devicehub with its tables and rows, moved here as the page about it says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher, BCryptPasswordHasher, PBKDF2PasswordHasher
from django.core.management import call_command

from authsvc.logins import renewals
from rig.hub import ROOT
from rig.projects import Project, steps

pytestmark = pytest.mark.sqlite_only

HERE = Path(__file__).parent / "devicehub_project"
HOW_TO = ROOT / "docs" / "how-to"
PASSWORD = "i2brWawGXDWPQKMgyxr8W_JhUV8peUg4kresKjVFPhw"
KEY = "95d76e2697c238f8dbe3e1b74765149db32946849d24cb46dc951420c9493140"
NOW = "2026-05-01 12:00:00"
QUESTIONS = """
import json, os, sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "plant.settings"
django.setup()

from django.core.management import call_command
from django.test import Client
from greenhouses.models import GreenHouseDevice, GreenHouseMessage, GreenHouseReading

token, password = sys.argv[-2:]
def ask(question, **fields):
    path = f"/mqtt/go-auth/{question}?k={token}"
    return Client(SERVER_NAME="localhost").post(path, fields, "application/json").status_code == 200

call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
device = GreenHouseDevice.objects.get(device_id="GH-1")
username = device.mqtt_username
print(json.dumps({
    "admitted": [ask("user", username=f"greenhouses-greenhousedevice-GH-{n}", password=password,
                     clientid=f"GH-{n}") for n in (1, 2, 3)],
    "wrong": ask("user", username=username, password="wrong", clientid="GH-1"),
    "own": ask("acl", username=username, clientid="GH-1", topic="things/greenhouse/GH-1/data", acc=2),
    "foreign": ask("acl", username=username, clientid="GH-1", topic="things/greenhouse/GH-2/data", acc=2),
    "right": device.check_mqtt_password(password),
    "key": device.api_key,
    "device": [device.name, device.status, device.battery_level, device.metadata, device.mode],
    "readings": [[r.device.device_id, r.temperature, r.door_openings, r.timestamp.isoformat()]
                 for r in GreenHouseReading.objects.order_by("pk")],
    "messages": [[m.topic, m.payload_json, m.processing_status] for m in GreenHouseMessage.objects.all()],
    "ids": sorted(GreenHouseDevice.objects.values_list("device_id", flat=True)),
}))
"""


def hashes() -> list[str]:
    """Return PASSWORD as Django hashes it, in four ways of which this service verifies three."""
    quick = PBKDF2PasswordHasher().encode(PASSWORD, "leFwkAMjVXZqCzI7jvzqX4", iterations=1000)
    argon2 = Argon2PasswordHasher()
    argon2.memory_cost = 1024
    bcrypt = BCryptPasswordHasher()
    return [
        quick,
        argon2.encode(PASSWORD, "leFwkAMjVXZqCzI7jvzqX4"),
        bcrypt.encode(PASSWORD, b"$2b$04$IhHMfYvh4syjkE.3dbKU.O"),
        "scrypt$16384$leFwkAMjVXZqCzI7jvzqX4$8$5$MdWA==",
        quick,
    ]


def fill(database: Path) -> None:
    """Store five devices, two readings and a message as django-devicehub did."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executescript((HERE / "tables.sql").read_text())
        for number, (device_id, stored) in enumerate(
            zip(["GH-1", "GH-2", "GH-3", "GH-4", "GH 5"], hashes(), strict=True), start=1
        ):
            connection.execute(
                "INSERT INTO greenhouses_greenhousedevice (id, device_id, name, status, battery_level, "
                "firmware_version, is_active, mqtt_username, mqtt_password_hash, api_key, metadata, created_at, "
                "updated_at, mode) VALUES (?, ?, 'North', 'online', 81.5, '1.4', 1, ?, ?, ?, ?, ?, ?, 'manual')",
                [
                    *(number, device_id, f"greenhouses-greenhousedevice-{device_id}", stored),
                    *(KEY if number == 1 else None, '{"row": 4}', NOW, NOW),
                ],
            )
        for temperature, minute in ((21.5, 1), (999.0, 2)):  # the second is outside the declared range
            connection.execute(
                "INSERT INTO greenhouses_greenhousereading (timestamp, received_at, temperature, door_openings, "
                "device_id) VALUES (?, ?, ?, 7, 1)",
                [f"2026-05-01 12:0{minute}:00", NOW, temperature],
            )
        connection.execute(
            "INSERT INTO greenhouses_greenhousemessage (topic, payload_json, content_type, correlation_id, "
            "user_properties, processing_status, processing_error, received_at, device_id) "
            "VALUES ('things/greenhouse/GH-1/data', '{\"temperature\": 21.5}', '', '', '{}', 'completed', '', ?, 1)",
            [NOW],
        )


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project whose tables and rows are those of django-devicehub."""
    folder = tmp_path_factory.mktemp("plant")
    programs = folder / "programs"
    programs.mkdir()
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "python").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    project = Project(folder, environment)
    call_command("startproject", "plant", str(folder))
    (folder / "greenhouses").mkdir()
    call_command("startapp", "greenhouses", str(folder / "greenhouses"))
    shutil.copy(HERE / "0001_initial.txt", folder / "greenhouses" / "migrations" / "0001_initial.py")
    fill(folder / "db.sqlite3")
    return project


@pytest.fixture(scope="module")
def moved(old: Project) -> Project:
    """Return the project after every block of the page, and those of the page about projects that it refers to."""
    for instruction, block in steps(HOW_TO / "include-in-your-project.md"):
        match instruction.split():
            case ["end", "of", name]:
                with (old.folder / name).open("a") as file:
                    file.write(block)
            case ["file", name] if name.startswith("plant/"):
                (old.folder / name).write_text(block)
    assert list(old.follow(HOW_TO / "from-django-devicehub.md")) == []
    return old


@pytest.mark.servers
@pytest.mark.long
def test_devices_log_in_with_their_passwords_and_readings_are_in_place(moved: Project) -> None:
    token = json.loads((moved.folder / "broker.json").read_text())["token"]
    (moved.folder / "questions.py").write_text(QUESTIONS)
    found = json.loads(moved.run(f"python questions.py {token} {PASSWORD}").splitlines()[-1])

    assert found == {
        "admitted": [True, True, True],
        "wrong": False,
        "own": True,
        "foreign": False,
        "right": True,
        "key": hashlib.sha256(KEY.encode()).hexdigest(),
        "device": ["North", "online", 81.5, {"row": 4}, "manual"],
        "readings": [
            ["GH-1", 21.5, 7, "2026-05-01T12:01:00+00:00"],
            ["GH-1", 999.0, 7, "2026-05-01T12:02:00+00:00"],
        ],
        "messages": [["things/greenhouse/GH-1/data", {"temperature": 21.5}, "completed"]],
        "ids": ["GH-1", "GH-2", "GH-3", "GH-4", "GH-5"],
    }


def test_a_generated_password_of_django_devicehub_is_long_enough_to_be_upgraded() -> None:
    assert renewals._looks_generated(PASSWORD)
