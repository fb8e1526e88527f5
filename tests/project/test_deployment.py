"""The shipped files: the configuration of the broker, the compose file, the settings, a project without fleet."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from authsvc import views
from authsvc.checks import check_redirects
from rig import hub, servers
from rig.hub import ROOT
from rig.preloaded import commands
from rig.servers import MissingServer

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]
PYTHON_FOLDER = str(Path(sys.executable).parent)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a project with its database in *folder*."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG")}
    return {
        **kept,
        "PATH": f"{PYTHON_FOLDER}:{os.environ['PATH']}",
        "SECRET_KEY": "a secret of this test alone, and long enough for everybody",
        "DATABASE_URL": f"sqlite:///{folder}/devicehub.sqlite3",
        **more,
    }


def manage(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` on the database in *folder*."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "manage.py", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(folder, **more), capture_output=True, text=True, check=False
    )


def prepare(folder: Path, environment: dict[str, str]) -> None:
    """Run `mosquitto/prepare` in *environment* with *folder* for its files."""
    subprocess.run(
        ["sh", "mosquitto/prepare", str(folder), "http://web:8000", "mosquitto"],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )


def test_prepare_fills_the_brokers_configuration_once(tmp_path, tmp_path_factory):
    with commands(tmp_path_factory.mktemp("commands"), environment(tmp_path)) as here:
        prepare(tmp_path, here)
        first = {name: (tmp_path / name).read_text() for name in ("mosquitto.conf", "mqtt_url")}

        prepare(tmp_path, here)

    assert {name: (tmp_path / name).read_text() for name in first} == first
    host = r"auth_opt_http_host devicehub:[\w-]{43}@web\nauth_opt_http_port 8000\n"
    assert re.search(host, first["mosquitto.conf"])
    token = re.search(r"devicehub:([\w-]{43})@", first["mosquitto.conf"])[1]
    assert first["mosquitto.conf"].count(token) == 1, "no comment holds the token"
    assert "getuser_uri /mqtt/go-auth/user\n" in first["mosquitto.conf"]
    assert not re.search("@[A-Z]+@", first["mosquitto.conf"].partition("\nlistener")[2])
    assert re.fullmatch(r"mqtt://ingest:[A-Za-z0-9]{43}@mosquitto:1883\n", first["mqtt_url"])
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in first} == {0o600}


def test_mosquitto_takes_the_shipped_configuration(tmp_path, needs_real: Callable[[MissingServer], None]):
    """Debian has no plugin, so its lines are left out; all others are as shipped."""
    try:
        program = servers._program("mosquitto", package="mosquitto")
    except MissingServer as missing:
        needs_real(missing)
    port = servers.free_port()
    shipped = (ROOT / "mosquitto" / "mosquitto.conf").read_text()
    lines = [line for line in shipped.splitlines() if not line.startswith("auth_")]
    text = "\n".join(lines).replace("listener 1883", f"listener {port} 127.0.0.1")
    config = tmp_path / "mosquitto.conf"
    config.write_text(text.replace("/mosquitto/data/", f"{tmp_path}/") + "\nuser root\n")

    with servers.process(
        [program, "-c", str(config)],
        env=dict(os.environ),
        log=tmp_path / "mosquitto.log",
        ready=lambda: servers.accepts(port),
    ) as broker:
        assert broker.poll() is None


def test_the_compose_file_starts_what_it_says():
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())

    assert set(document["services"]) == {"db", "setup", "web", "auth", "mosquitto", "subscribe", "ingest"}
    subscribe, ingest = document["services"]["subscribe"], document["services"]["ingest"]
    assert "listen_mqtt --subscribe-only" in " ".join(subscribe["command"])
    assert ingest["depends_on"]["subscribe"]["condition"] == "service_completed_successfully"
    assert ingest["environment"] == subscribe["environment"]  # both must use one session
    for name, service in document["services"].items():
        assert set(service.get("depends_on", ())) <= set(document["services"]), name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in document["volumes"], name
    published = [port for s in document["services"].values() for port in s.get("ports", ())]
    assert published == ["127.0.0.1:8000:8000", "1883:1883"]  # the site is for a proxy, MQTT for devices


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a database that `migrate` made with three settings."""
    folder = tmp_path_factory.mktemp("migrated")
    done = manage(folder, "migrate", ALLOWED_HOSTS="hub.example.org")
    assert done.returncode == 0, done.stderr
    return folder


def test_three_settings_are_enough(migrated):
    assert (migrated / "devicehub.sqlite3").stat().st_mode & 0o777 == 0o600


def test_there_is_no_default_secret(tmp_path):
    refused = manage(tmp_path, "check", SECRET_KEY="")

    assert refused.returncode != 0
    assert "Set SECRET_KEY, or SECRET_KEY_FILE" in refused.stderr


def test_a_secret_may_stand_in_a_file(tmp_path):
    (tmp_path / "key").write_text("a secret from a file, and long enough for everybody\n")

    checked = manage(tmp_path, "check", SECRET_KEY="", SECRET_KEY_FILE=str(tmp_path / "key"))

    assert checked.returncode == 0, checked.stderr


def test_without_fleet_everything_still_starts(tmp_path):
    """fleet is named in INSTALLED_APPS and nowhere else."""
    (tmp_path / "bare.py").write_text(
        "from config.settings import *\nINSTALLED_APPS = [app for app in INSTALLED_APPS if app != 'fleet']\n"
    )
    more = {"DJANGO_SETTINGS_MODULE": "bare", "PYTHONPATH": f"{tmp_path}:{ROOT}"}

    url = environment(tmp_path)["DATABASE_URL"]
    hub.run_commands(url, ["migrate"], ["check"], ["makemigrations", "--check"], **more)

    port = servers.free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "config/gunicorn.conf.py",
        "--bind",
        f"127.0.0.1:{port}",
    ]
    with servers.process(
        [*command, "config.asgi:application"],
        env=environment(tmp_path, **more),
        cwd=ROOT,
        log=tmp_path / "gunicorn.log",
        ready=lambda: servers.accepts(port),
    ) as server:
        assert server.poll() is None


def test_no_other_package_imports_fleet():
    importers = [
        path
        for folder in ("authsvc", "devicehub", "config")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(from|import) fleet\b", path.read_text(), re.MULTILINE)
    ]

    assert importers == []


WRONG = {
    "AUTHSVC_DIRECTORIES": ("a.b.C", "authsvc.E001"),
    "AUTHSVC_CLIENT_ID": ("anny", "authsvc.E003"),
    "DEVICEHUB_TOPIC_PREFIX": ("a/b", "devicehub.E001"),
    "MQTT_URL": ("http://broker", "devicehub.E004"),
    "DEVICEHUB_MQTT_VERSION": ("4", "devicehub.E005"),
    "DEVICEHUB_MQTT_GROUP": ("a/b", "devicehub.E006"),
    "AUTHSVC_JWT_KEYS": ('{"k": "short"}', "authsvc.E002"),
    "AUTHSVC_STALE_SECONDS": ("-1", "authsvc.E014"),
}
OTHERS_WRONG = {
    "AUTHSVC_DIRECTORIES": ("authsvc.models.Broker", "authsvc.E001"),
    "AUTHSVC_CACHE_SIZE": ("0", "authsvc.E014"),
}


@pytest.mark.parametrize("wrong", [WRONG, OTHERS_WRONG], ids=["each", "others"])
def test_a_check_reports_wrong_configuration_before_the_first_login(tmp_path, wrong):
    """Each error is reported, whichever others there are."""
    checked = manage(tmp_path, "check", **{name: value for name, (value, _) in wrong.items()})

    assert checked.returncode == 1
    errors = re.findall(r"^\S+: \((\w+\.E\d+)\) .*\n\tHINT: ", checked.stderr, re.MULTILINE)
    assert sorted(errors) == sorted(check for _, check in wrong.values()), checked.stderr


def test_a_check_names_a_setting_that_is_not_a_number(tmp_path):
    checked = manage(tmp_path, "check", AUTHSVC_CACHE_SIZE="many")

    assert checked.returncode == 1
    assert "AUTHSVC_CACHE_SIZE is 'many'; write a whole number, such as 20000" in checked.stderr


def test_a_redirect_before_the_django_entrance_is_an_error(settings):
    """go-auth follows it, and a page with status 200 at its end would admit every client."""
    settings.SECURE_SSL_REDIRECT, settings.SECURE_REDIRECT_EXEMPT = True, []
    assert [error.id for error in check_redirects()] == ["authsvc.E004"]

    settings.SECURE_REDIRECT_EXEMPT = [r"^mqtt/"]
    assert check_redirects() == []


def test_login_middleware_does_not_redirect_a_question():
    """Django's LoginRequiredMiddleware reads an attribute of each view; these need no login."""
    assert views.question.login_required is False
    assert views.alive.login_required is False


def test_migrate_makes_a_lost_trigger_again(migrated, tmp_path, tmp_path_factory):
    """A finding about the database is a warning, because an error would stop migrate from repairing it."""
    shutil.copy(migrated / "devicehub.sqlite3", tmp_path)
    with sqlite3.connect(tmp_path / "devicehub.sqlite3") as database:
        database.execute("DROP TRIGGER authsvc_grant_update_policy")
    database.close()
    with commands(tmp_path_factory.mktemp("commands"), environment(tmp_path)) as here:

        def run(*arguments: str) -> str:
            done = subprocess.run(
                [here["PATH"].partition(":")[0] + "/python", "manage.py", *arguments],
                cwd=ROOT,
                env=here,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout
            return done.stdout

        assert "authsvc.W005" in run("check", "--database", "default")
        run("migrate")
        assert "authsvc.W005" not in run("check", "--database", "default")
