"""`script/demo` for a new user: start, look, stop with ctrl-c, start again."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rig.hub import ROOT, eventually
from rig.servers import free_port

pytestmark = [pytest.mark.sqlite_only, pytest.mark.servers]


class Demo:
    """A running demo in a copy of the checkout that shares its .venv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http, self.mqtt = free_port(), free_port()
        self.log = folder / "demo.out"
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(
                [folder / "script" / "demo"],
                env={**os.environ, "DEMO_HTTP_PORT": str(self.http), "DEMO_MQTT_PORT": str(self.mqtt)},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def login(self) -> tuple[str, str]:
        """Return the printed username and password of the admin."""
        found = eventually(lambda: re.search(r"Login\s+(\S+) / (\S+)", self.output), 60)
        assert found, self.output
        return found[1], found[2]

    def page(self) -> str:
        """Return the page at `/` for the printed admin."""
        return self.page_at("/")

    def page_at(self, path: str) -> str:
        """Return the page at *path* for the printed admin; "" for one that is not there yet."""
        username, password = self.login()
        with httpx.Client(base_url=f"http://127.0.0.1:{self.http}", follow_redirects=True) as client:
            client.get("/login/")
            form = {
                "username": username,
                "password": password,
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
            }
            page = client.post(f"/login/?next={path}", data=form)
            return "" if page.status_code == 404 else page.raise_for_status().text

    def children(self) -> set[int]:
        """Return all processes whose working directory is this copy."""
        found = set()
        for process in Path("/proc").iterdir():
            try:
                here = process.name.isdigit() and (process / "cwd").resolve() == self.folder.resolve()
            except OSError:
                continue
            if here:
                found.add(int(process.name))
        return found - {self.process.pid}

    def interrupt(self) -> int:
        """Press ctrl-c twice, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def copy_of_the_checkout(folder: Path) -> Path:
    ignored = shutil.ignore_patterns(".git", ".venv", "var", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, folder, ignore=ignored)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_checkout(tmp_path_factory.mktemp("demo") / "checkout")


@pytest.fixture(scope="module")
def demo(checkout: Path) -> Iterator[Demo]:
    """Yield a demo that stores readings. ctrl-c stops it after the last test, in order and with all its processes."""
    demo = Demo(checkout)
    try:
        assert eventually(lambda: "First new reading stored" in demo.output, 60), demo.output
        yield demo
    finally:
        code = demo.interrupt()
    assert_stopped(demo, code)


def assert_stopped(demo: Demo, code: int) -> None:
    assert code == 0
    assert demo.children() == set()
    assert demo.output.rstrip().endswith("Stopping")
    logs = demo.output + "".join(log.read_text() for log in (demo.folder / "var" / "demo").glob("*.log"))
    assert "Traceback" not in logs


def test_the_demo_shows_readings_and_a_denial(demo):
    # One station tries the topic of its neighbour, and the page shows the denial.
    assert eventually(lambda: "things/weatherstation/STATION-001/data" in demo.page(), 40)
    page = demo.page()
    assert "STATION-008" in page
    assert "°C" in page
    assert len(demo.children()) >= 4, "web, broker, ingest and stations are processes of their own"


def test_the_demo_shows_two_lwm2m_endpoints_with_their_values(demo):
    first = "/devices/lwm2m/ENDPOINT-001/objects/"
    assert eventually(lambda: "Sensor Value" in demo.page_at(first), 60), demo.output
    page = demo.page_at(first)
    for found in ("Battery Level", "Temperature", "Humidity", "Registered", "ENDPOINT-001"):
        assert found in page
    assert eventually(lambda: "Asleep" in demo.page_at("/lwm2m/"), 60), "the second one uses queue mode"
    assert "registered" in demo.page_at("/lwm2m/events/")


@pytest.mark.long
def test_the_demo_starts_again_with_the_same_login(tmp_path):
    folder = copy_of_the_checkout(tmp_path / "checkout")
    logins = []
    for _ in range(2):
        demo = Demo(folder)
        try:
            assert eventually(lambda demo=demo: "First new reading stored" in demo.output, 60), demo.output
            logins.append(demo.login())
        finally:
            code = demo.interrupt()
        assert_stopped(demo, code)
    assert logins[0] == logins[1]


def test_what_the_demo_says_to_try_works(demo, checkout):
    said = demo.output.partition("In another terminal, here:\n")[2].partition("\n\n")[0]
    assert "send_command" in said

    done = subprocess.run(
        ["bash", "-c", said],
        cwd=checkout,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert "answered" in done.stdout
    assert " ".join(said.split("\n")[1].split()) in (ROOT / "README.md").read_text()


def test_the_demo_keeps_its_secrets_private(demo, checkout):
    folder = checkout / "var" / "demo"
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file.name
    command_lines = [
        Path(f"/proc/{pid}/cmdline").read_bytes() for pid in demo.children() if Path(f"/proc/{pid}").exists()
    ]
    assert not any(b"ingest:" in line or b"?k=" in line for line in command_lines)


@pytest.mark.parametrize("name", ["DEMO_HTTP_PORT", "DEMO_MQTT_PORT"])
def test_a_taken_port_is_named(checkout, name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"DEMO_HTTP_PORT": str(free_port()), "DEMO_MQTT_PORT": str(free_port()), name: str(port)}
        began = time.monotonic()
        done = subprocess.run(
            [checkout / "script" / "demo"],
            env={**os.environ, **ports},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    assert done.returncode == 1
    assert f"port {port} is taken; free it, or choose another one with {name}" in done.stderr
    assert time.monotonic() - began < 10, "said before anything is set up"
