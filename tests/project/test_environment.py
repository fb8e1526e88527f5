"""Unreadable settings in the environment: one clear line without a secret, and never the default instead."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.test import override_settings

from authsvc.models import Broker
from config import settings
from devicehub.mqtt import BrokerAddress, InvalidAddress
from rig.hub import ROOT

SECRET = "hunter2"
UNREADABLE = [
    "postgres://u:{}/x@host/db",
    "postgres://u:x/{}@host/db",
    "postgres://u:{}?x@host/db",
    "postgres://u:12/{}@host/db",
    "postgres://u:12?{}@host/db",
    "postgres://u:{}@host:port/db",
    "postgres://u:{}@host:99999/db",
    "u:{}@host/db",
    "{}",
    "${}",
    "sqlite://{}/devicehub.sqlite3",
    "",
]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("url", UNREADABLE)
def test_a_database_url_that_cannot_be_read_is_not_repeated(url):
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL cannot be read; write ") as error:
        settings.database(url.format(SECRET))

    assert SECRET not in str(error.value)
    assert error.value.__context__ is None, "a traceback would show its text"


@pytest.mark.sqlite_only
@pytest.mark.parametrize("password", ["a%2Fb", "a%3Fb", "a%23b", "a#b", "a:b", "a@b", "$ab", "12#3", "a%25b"])
def test_a_password_may_hold_every_character(password):
    found = settings.database(f"postgres://u:{password}@host:5433/db")

    plain = {"%2F": "/", "%3F": "?", "%23": "#", "%25": "%"}
    for code, character in plain.items():
        password = password.replace(code, character)
    assert (found["PASSWORD"], found["HOST"], found["PORT"], found["NAME"]) == (password, "host", 5433, "db")


@pytest.mark.servers
@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "program", [["manage.py", "check"], ["-m", "gunicorn", "--check-config", "config.asgi"]]
)
def test_no_program_prints_a_part_of_the_password(program):
    done = subprocess.run(
        [sys.executable, *program],
        cwd=ROOT,
        env={
            **os.environ,
            "DATABASE_URL": f"postgres://u:{SECRET}/x@host/db",
            "DJANGO_SETTINGS_MODULE": "config.settings",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "DATABASE_URL cannot be read" in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.sqlite_only
def test_a_value_that_begins_with_a_dollar_is_that_value(monkeypatch):
    monkeypatch.setenv("DEVICEHUB_TOPIC_PREFIX", "$things")
    monkeypatch.setenv("ALLOWED_HOSTS", "$a, b,,")

    assert settings.text("DEVICEHUB_TOPIC_PREFIX", "things") == "$things"
    assert settings.texts("ALLOWED_HOSTS", ["localhost"]) == ["$a", "b"]


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("value", "default", "found"),
    [
        ("1", False, True),
        ("Yes", False, True),
        ("off", True, False),
        ("0", True, False),
        ("", True, True),
        (" ", False, False),
    ],
)
def test_a_flag_is_read_in_every_spelling(monkeypatch, value, default, found):
    monkeypatch.setenv("DEVICEHUB_HTTPS", value)

    assert settings.flag("DEVICEHUB_HTTPS", default) is found


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("keep_readings=90d, keep_hours = 730d,", {"keep_readings": "90d", "keep_hours": "730d"}),
        ("keep_readings", {"keep_readings": ""}),  # A check refuses this.
        ("", {}),
    ],
)
def test_pairs_are_read(monkeypatch, value, found):
    monkeypatch.setenv("DEVICEHUB_LWM2M_KEEP", value)

    assert settings.pairs("DEVICEHUB_LWM2M_KEEP") == found


@pytest.mark.sqlite_only
@pytest.mark.parametrize("value", ["ture", "2", "$DEBUG", "enabled?"])
def test_a_misspelt_flag_switches_nothing_off(monkeypatch, value):
    monkeypatch.setenv("DEVICEHUB_HTTPS", value)

    with pytest.raises(ImproperlyConfigured, match=r"DEVICEHUB_HTTPS is .*; write 1 or 0"):
        settings.flag("DEVICEHUB_HTTPS", default=True)


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "url",
    [
        "mqtt://ingest:{}/x@host",
        "mqtt://ingest:x/{}@host",
        "mqtt://ingest:{}#x@host:1883",
        "mqtt://ingest:12#{}@host:1883",
        "mqtt://ingest:12?{}@host:1883",
        "mqtt://ingest:[{}@host:1883",
        "mqtt://ingest:{}@host:port",
        "mqtt://host:1883/{}",
    ],
)
def test_an_mqtt_url_with_such_a_password_hints_at_percent_encoding(url):
    with pytest.raises(InvalidAddress, match="Percent-encode / ") as error:
        BrokerAddress.parse(url.format(SECRET))

    assert SECRET not in str(error.value)
    assert error.value.__context__ is None


@pytest.mark.sqlite_only
def test_a_percent_encoded_password_of_an_mqtt_url_is_decoded():
    found = BrokerAddress.parse("mqtts://ingest:a%2Fb%23c%3F@host/")

    assert (found.password, found.host, found.port) == ("a/b#c?", "host", 8883)


def create_broker(url: str) -> str:
    """Run `create_broker` with *url*, and return its notes."""
    noted = StringIO()
    call_command("create_broker", "one", "go-auth", "--url", url, stdout=StringIO(), stderr=noted)
    return noted.getvalue()


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "url",
    [
        "http://u:hunter2@host:8000",
        "http://host:port",
        "http://host:0",
        "http://host/?k=hunter2",
        "ftp://host",
    ],
)
def test_create_broker_refuses_what_is_not_an_address_before_it_writes(db, url):
    with pytest.raises(CommandError, match="write http://host:8000") as error:
        create_broker(url)

    assert SECRET not in str(error.value)
    assert not Broker.objects.exists()


@pytest.mark.sqlite_only
@override_settings(ALLOWED_HOSTS=["hub.example.org", ".plant.example", "[::1]"])
@pytest.mark.parametrize(
    ("url", "note"),
    [
        ("http://hub.example.org:8000", ""),
        ("http://HUB.example.org:8000", ""),
        ("http://a.plant.example", ""),
        ("http://[::1]:8000", ""),
        ("http://web:8000", "add web to ALLOWED_HOSTS"),
        ("http://device_hub:8000", "device_hub is not a valid host name"),
    ],
)
def test_create_broker_advises_what_can_work(db, url, note):
    notes = create_broker(url)

    assert note in notes
    assert bool(notes) == bool(note)
    if "_" in url:
        assert "add device_hub" not in notes


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    "value", ["postgres//u:hunter2@host", "hunter2", "postgres://u:hunter2/x@host/db", "passwort=hunter2"]
)
def test_a_dsn_that_cannot_be_read_is_not_repeated(value):
    with pytest.raises(ImproperlyConfigured, match="AUTHSVC_LISTEN_DSN cannot be read") as error:
        settings.dsn(value)

    assert SECRET not in str(error.value)
    assert error.value.__context__ is None
