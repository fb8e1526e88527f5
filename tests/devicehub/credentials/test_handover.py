"""Downloads, programs and QR code: right in their language for any names, and secrets only where they belong."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from django.test import override_settings

from devicehub import DeviceType, Reading, reading_types
from devicehub.credentials import handover, snippets
from devicehub.provisioning import kind_of
from fleet.models import WeatherStationDevice

HOSTILE = 'it\'s a "client" \\ $(touch gone) `x` é1 😀 ??/ %s </script>'
PLAIN = "STATION-001"
pytestmark = [pytest.mark.sqlite_only, pytest.mark.pages]


def made(client_id: str = PLAIN, **secrets: str) -> handover.Handover:
    device = WeatherStationDevice(
        device_id="STATION:001",
        mqtt_username="fleet-weatherstationdevice-STATION:001",
        mqtt_client_id=client_id,
    )
    both = secrets or {"mqtt_password": "p" * 43, "api_key": "a1" * 32}
    return handover.of(kind_of("weatherstation"), device, both)


def texts(shown: handover.Handover) -> dict[str, str]:
    found = {download.slug: download.text for download in snippets.downloads(shown)}
    return found | {snippet.slug: snippet.text for snippet in snippets.snippets(shown)}


def in_shell(folder: Path, script: str) -> str:
    return subprocess.run(
        ["sh", "-euc", script], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    ).stdout


@pytest.mark.parametrize("client_id", [PLAIN, HOSTILE])
def test_the_json_holds_everything(client_id):
    found = json.loads(texts(made(client_id))["json"])

    assert found["client_id"] == client_id
    assert found["mqtt_password"] == "p" * 43
    assert found["api_key"] == "a1" * 32
    assert found["topics"]["cmd"] == "things/weatherstation/STATION:001/cmd"
    assert (found["type"], found["device_id"]) == ("weatherstation", "STATION:001")


@pytest.mark.parametrize("client_id", [PLAIN, HOSTILE])
def test_a_shell_reads_the_variables(tmp_path, client_id):
    (tmp_path / "device.env").write_text(texts(made(client_id))["env"])

    out = in_shell(
        tmp_path, '. ./device.env; printf "%s\\n" "$MQTT_CLIENT_ID" "$MQTT_PASSWORD" "$TOPIC_DATA"'
    )

    assert out.splitlines() == [client_id, "p" * 43, "things/weatherstation/STATION:001/data"]
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("client_id", [PLAIN, HOSTILE])
def test_the_header_holds_literals_of_c(client_id):
    header = texts(made(client_id))["header"]

    found = dict(re.findall(r"^#define (\w+) +(.+)$", header, re.MULTILINE))
    literal = found["MQTT_CLIENT_ID"].replace("\\?", "?")
    assert header.isascii()
    assert ast.literal_eval(f"b{literal}").decode() == client_id
    assert found["MQTT_PORT"].isdigit()
    assert found["MQTT_URI"].startswith('"mqtt')


@pytest.mark.parametrize("client_id", [PLAIN, HOSTILE])
def test_mosquitto_gets_the_password_from_a_file_and_not_from_the_command_line(tmp_path, client_id):
    shown = texts(made(client_id))
    (tmp_path / "STATION-001.env").write_text(shown["env"])
    for program in ("mosquitto_pub", "mosquitto_sub"):
        tool = tmp_path / "bin" / program
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"; cat "$XDG_CONFIG_HOME/{program}"\n')
        tool.chmod(0o755)

    out = in_shell(tmp_path, f'PATH="{tmp_path}/bin:$PATH"\n{shown["mosquitto"]}').splitlines()

    assert out.count(f"-P {'p' * 43}") == 2
    assert out.count(f"-i {client_id}") == 2
    assert "p" * 43 not in shown["mosquitto"]
    folder = tmp_path / "STATION-001.mosquitto"
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert json.loads(out[out.index("-m") + 1]) == snippets.sample(kind_of("weatherstation"))


def test_no_program_holds_a_secret():
    shown = made()
    for snippet in snippets.snippets(shown):
        assert shown.password not in snippet.text
        assert shown.api_key not in snippet.text


def test_the_python_program_compiles():
    with override_settings(DEVICEHUB_DEVICE_URL="mqtts://mqtt.orchard.example"):
        program = texts(made())["python"]

    ast.parse(program)
    assert "ssl.create_default_context()" in program
    assert "'STATION-001.json'" in program


@pytest.mark.parametrize(("url", "lines"), [("mqtts://a.example", True), ("mqtt://a.example", False)])
def test_programs_use_tls_where_the_broker_does(url, lines):
    with override_settings(DEVICEHUB_DEVICE_URL=url):
        shown = texts(made())

    for slug, words in {
        "mosquitto": "--tls-use-os-certs",
        "python": "tls_set_context",
        "arduino": "WiFiClientSecure",
        "espidf": "crt_bundle_attach",
    }.items():
        assert (words in shown[slug]) is lines


def test_the_qr_code_holds_what_the_page_says():
    shown = made(HOSTILE)
    drawn = shown.qr()

    assert json.loads(shown.qr_text()) == {
        "url": shown.address.url,
        "username": shown.username,
        "password": "p" * 43,
        "client_id": HOSTILE,
    }
    assert "style=" not in drawn
    assert 'role="img"' in drawn


def test_no_representation_shows_a_secret():
    shown = made()
    for thing in (shown, *snippets.downloads(shown)):
        assert "p" * 43 not in repr(thing)
        assert "a1" * 32 not in repr(thing)


def test_a_key_alone_has_no_program_and_no_login():
    shown = made(api_key="a1" * 32)

    assert snippets.snippets(shown) == []
    assert set(texts(shown)) == {"json", "env"}
    assert "mqtt_password" not in texts(shown)["json"]
    assert "MQTT_PASSWORD" not in texts(shown)["env"]


def test_the_sample_fits_the_declared_readings(declared):
    class Oven(DeviceType):
        heat = Reading(type=reading_types.FLOAT, range=(200, 900))
        depth = Reading(type=reading_types.FLOAT, range=(None, -3))
        turns = Reading(type=reading_types.INTEGER, required=True)
        lit = Reading(type=reading_types.BOOLEAN)
        label = Reading(type=reading_types.STRING)
        extra = Reading(type=reading_types.JSON)
        raw = Reading(type=reading_types.BINARY)

    declared(Oven)

    assert snippets.sample(kind_of("oven")) == {
        "heat": 200, "depth": -3, "turns": 21, "lit": True, "label": "ok", "extra": {}
    }  # fmt: skip
