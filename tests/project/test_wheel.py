"""The package as it is installed: its files, and a new project that includes and serves it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from rig import servers
from rig.hub import ROOT
from rig.pages import fenced
from rig.projects import Project

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]

PACKAGES = ("authsvc", "devicehub")
PAGE = ROOT / "docs" / "how-to" / "include-in-your-project.md"
LEFT_BEHIND = shutil.ignore_patterns(".*", "var", "__pycache__", "build", "dist", "*.egg-info")
# Files of a checkout that has been at work, and must stay in it.
SECRETS = (".env", "stations.json", "broker.json", "devicehub.sqlite3", "var/token", "fleet/credentials.json")
SCRIPT = "text/javascript application/javascript"
SECRET = "of the checkout, and of nothing else in the world"


class Built(NamedTuple):
    """A copy of the checkout, and the wheel and the archive that were built from it."""

    checkout: Path
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    checkout = tmp_path_factory.mktemp("built") / "devicehub"
    shutil.copytree(ROOT, checkout, ignore=LEFT_BEHIND)
    for secret in SECRETS:
        (checkout / secret).parent.mkdir(exist_ok=True)
        (checkout / secret).write_text(SECRET)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", str(checkout)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (checkout / "dist").glob("*.whl")
    (sdist,) = (checkout / "dist").glob("*.tar.gz")
    return Built(checkout, wheel, sdist)


def files(built: Built) -> set[str]:
    """Return the paths of all files of the packages in the checkout."""
    return {
        str(path.relative_to(built.checkout))
        for package in PACKAGES
        for path in (built.checkout / package).rglob("*")
        if path.is_file()
    }


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert inside == files(built)
    assert "devicehub/templates/devicehub/base.html" in inside
    assert "devicehub/static/devicehub/live.js" in inside
    assert "authsvc/gunicorn.py" in inside


def test_the_archive_of_the_sources_holds_no_tests_and_no_secrets(built: Built) -> None:
    texts: dict[str, bytes] = {}
    with tarfile.open(built.sdist) as archive:
        for member in archive:
            if file := archive.extractfile(member):
                texts[member.name.partition("/")[2]] = file.read()

    assert {name.partition("/")[0] for name in texts if "/" in name} == {*PACKAGES, "devicehub.egg-info"}
    assert {name for name in texts if "/" not in name} == {
        *("LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg")
    }
    assert files(built) <= texts.keys()
    assert [name for name, text in texts.items() if SECRET.encode() in text] == []


# A project from nothing, by the page


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel and the requirements of this one, and without the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    home = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (home / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, "--quiet", "--no-compile", str(built.wheel)], check=True)
    for program, module in (("gunicorn", "gunicorn"), ("django-admin", "django")):
        script = folder / "bin" / program  # pip makes these two where it installs the requirements
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -m {module} "$@"\n')
        script.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def made(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    """Return the project that the blocks of the page make, and the page's command that serves it."""
    folder = tmp_path_factory.mktemp("project")
    environment = {"PATH": f"{installed / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}
    project = Project(folder, environment)
    (command,) = project.follow(PAGE)
    environment["DJANGO_SUPERUSER_PASSWORD"] = "grows-tomatoes"
    project.run("python manage.py createsuperuser --noinput --username grower --email grower@example.org")
    return project, command


@pytest.fixture(scope="module")
def project(made: tuple[Project, str]) -> Project:
    return made[0]


@pytest.fixture(scope="module")
def site(made: tuple[Project, str]) -> Iterator[httpx.Client]:
    """Serve the project with the page's own command, and yield a client of it."""
    project, command = made
    port = servers.free_port()
    url = f"http://127.0.0.1:{port}"
    log = project.folder / "gunicorn.log"
    with (
        servers.process(
            ["sh", "-c", f"exec {command.replace('8000', str(port))}"],
            cwd=project.folder,
            env=project.environment,
            log=log,
            ready=lambda: urllib.request.urlopen(f"{url}/healthz", timeout=1).status == 200,
        ),
        httpx.Client(base_url=url) as client,
    ):
        yield client
    assert "Error" not in log.read_text()


def get(site: httpx.Client, path: str, kind: str = "text/html") -> str:
    response = site.get(path)
    assert response.status_code == 200, path
    assert response.headers["Content-Type"].partition(";")[0] in kind.split()
    return response.text


@pytest.mark.long
def test_the_apps_come_from_the_wheel(project: Project) -> None:
    script = "import authsvc, devicehub; print(authsvc.__file__, devicehub.__file__)"

    assert "site-packages/authsvc/" in project.run(f"python -c '{script}'")
    assert str(ROOT) not in project.run(f"python -c '{script}'")


@pytest.mark.long
def test_a_project_from_nothing_has_its_pages_with_their_style_and_scripts(site: httpx.Client) -> None:
    assert site.get("/readyz").status_code == 200

    login = get(site, "/devices/login/?next=/devices/")
    tokens, parts = re.findall(r'<link rel="stylesheet" href="([^"]+)"', login)
    assert "--accent" in get(site, tokens, "text/css")
    assert ".live" in get(site, parts, "text/css")
    token = re.findall(r'name="csrfmiddlewaretoken" value="([^"]+)"', login)[0]
    fields = {"username": "grower", "password": "grows-tomatoes", "csrfmiddlewaretoken": token}
    signed_in = site.post("/devices/login/?next=/devices/", data=fields)
    assert signed_in.headers["Location"] == "/devices/"

    dashboard = get(site, "/devices/")
    assert "GH-001" in dashboard
    _theme, _parts, plot, live = re.findall(r'<script src="([^"]+)"', dashboard)
    assert "uPlot" in get(site, plot, SCRIPT)
    assert "EventSource" in get(site, live, SCRIPT)
    get(site, "/static/devicehub/chart.js", SCRIPT)
    with site.stream("GET", "/devices/stream/", headers={"Accept": "text/event-stream"}) as stream:
        assert next(stream.iter_lines()).startswith("retry:")

    admin = get(site, "/admin/")
    assert "green house" in admin.lower()
    assert 'href="/devices/"' in admin  # "View site"
    (style, *_) = re.findall(r'<link href="(/static/unfold/[^"]+\.css)"', admin)
    get(site, style, "text/css")


PROBE = """
import django

django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client

settings.ALLOWED_HOSTS, client = ["testserver"], Client()
client.force_login(User.objects.create_superuser("prober"))
for url in ("/devices/", "/devices/lwm2m/", "/devices/lwm2m/events/", "/admin/", "/admin/lwm2m/endpoint/"):
    print(url, client.get(url).status_code)
print("posted", client.post("/leshan_api/resource/single").status_code)
"""


@pytest.mark.long
def test_a_project_has_endpoints_only_with_their_app(project: Project, tmp_path: Path) -> None:
    copied = Project(tmp_path / "plant", {**project.environment, "DJANGO_SETTINGS_MODULE": "plant.settings"})
    shutil.copytree(project.folder, copied.folder)
    (copied.folder / "probe.py").write_text(PROBE)
    without = copied.run("python probe.py")
    shutil.copy(project.folder / "db.sqlite3", copied.folder)
    found = [one for one in fenced(PAGE.read_text()) if one.mark.startswith("lwm2m in a project: end of ")]
    for block in found:
        with (copied.folder / block.mark.rpartition(" ")[2]).open("a") as file:
            file.write(block.text)
    copied.run("python manage.py migrate && python manage.py check --fail-level ERROR")

    paths = ("/devices/", "/devices/lwm2m/", "/devices/lwm2m/events/", "/admin/", "/admin/lwm2m/endpoint/")
    assert [line for line in without.splitlines() if line.endswith(" 404")] == [
        *(f"{path} 404" for path in paths if "lwm2m" in path),
        "posted 404",
    ]
    assert copied.run("python probe.py").splitlines()[-6:] == [
        *(f"{path} 200" for path in paths),
        "posted 401",
    ]


@pytest.mark.long
def test_a_project_from_nothing_has_the_api_below_its_prefix(site: httpx.Client, project: Project) -> None:
    """Its page, which loads only what is there, its description with the type of the project, and its problems."""
    key = project.run(
        "python manage.py shell -v 0 -c 'from django.contrib.auth.models import User;"
        " from devicehub import api_keys;"
        ' print(api_keys.create(User.objects.get(), "page", list(api_keys.SCOPES)).secret)\''
    ).strip()
    headers = {"Authorization": f"Api-Key {key}"}
    page = site.get("/devices/api/docs/", headers=headers)
    assert page.status_code == 200
    for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
        assert site.get(address).status_code == 200, address
    assert "swagger-ui-bundle" in page.text
    index = site.get("/devices/api/", headers=headers).json()
    assert site.get(index["devices"], headers=headers).json()["results"][0]["device_id"] == "GH-001"
    found = site.get(index["schema"], headers=headers).json()
    assert found["servers"] == [{"url": "/devices"}]
    missing = site.get("/devices/api/none/")
    assert site.get(missing.json()["type"]).status_code == 200
    assert "devicehub.W026" not in project.run("python manage.py check 2>&1")


@pytest.mark.long
def test_a_project_from_nothing_answers_its_broker(site: httpx.Client, project: Project) -> None:
    token = json.loads((project.folder / "broker.json").read_text())["token"]
    (device,) = json.loads((project.folder / "greenhouses.json").read_text())
    login = {name: device[f"mqtt_{name}"] for name in ("username", "password")}

    def ask(**changes: str) -> int:
        fields = {**login, "clientid": login["username"], **changes}
        return site.post(f"/mqtt/go-auth/user?k={token}", json=fields).status_code

    assert ask() == 200
    assert ask(password="wrong") == 403
    assert site.post("/mqtt/go-auth/user", json=login).status_code == 403
