"""From "Add a device" to the green light, in a browser, with the programs of the page and a real broker."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Error

from devicehub import roles
from devicehub.mqtt import BrokerAddress, Connection, Outgoing
from fleet.models import WeatherStationReading
from rig import hub, servers
from rig.axe import problems, problems_in_every_look
from rig.browser import in_browser, settled
from rig.credential_pages import signed_in
from rig.people import person

pytestmark = [pytest.mark.servers, pytest.mark.django_db(transaction=True), pytest.mark.pages]


TOP_DOWN = """heads => heads.map(head => [head.getBoundingClientRect().top, head.textContent])
  .sort((one, other) => one[0] - other[0]).map(found => found[1])"""


@contextmanager
def running(command: list[str], folder: Path, log: str) -> Iterator[Path]:
    """Run *command* in *folder* until the block ends; yield the file of its output."""
    output = folder / log
    with servers.process(
        command,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        cwd=folder,
        log=output,
        ready=output.exists,
    ):
        yield output


def open_overview(browser: Any, url: str, user: User) -> Any:
    """Return the overview in a browser in which *user* is signed in."""
    clipboard = ["clipboard-read", "clipboard-write"]
    page = in_browser(browser, signed_in(user), url, permissions=clipboard).new_page()
    page.set_default_timeout(15_000)
    page.goto("/")
    return page


def save(page: Any, label: str, folder: Path) -> Path:
    """Click the download *label*, and return the file."""
    with page.expect_download() as download:
        page.get_by_role("button", name=label, exact=True).click()
    file = folder / download.value.suggested_filename
    download.value.save_as(file)
    return file


def snippet(page: Any, slug: str) -> str:
    text = page.text_content(f"#snippet-{slug}")
    assert text
    return str(text)


def command_to(running_hub: hub.Hub, topic: str) -> None:
    """Publish a command as the ingest account."""
    address = BrokerAddress.parse(running_hub.mqtt_url)
    with closing(Connection(address, "ingest-amqtt-cmd", version=hub.VERSION)) as sender:
        sender.publish(Outgoing(topic, b"reboot"))


def test_a_device_is_added_connected_and_seen(browser: Any, tmp_path: Path, needs_real: Callable[..., None]):
    try:
        servers._program("mosquitto_pub", package="mosquitto-clients")
    except servers.MissingServer as missing:
        needs_real(missing)
    mara = person("mara", roles.OPERATOR)
    with hub.running("amqtt", tmp_path) as running_hub:
        page = open_overview(browser, running_hub.url, mara)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.click("text=Add a device")
        assert problems(page) == []
        page.fill("[name=device_id]", "STATION-115")
        page.click("text=Add and show its credentials")

        password = page.text_content("#s-password")
        assert page.is_visible("text=Waiting for the first login")
        page.set_viewport_size({"width": 390, "height": 844})
        order = page.locator("#once .card h2").evaluate_all(TOP_DOWN)
        assert order[:3] == ["Credentials", "Is it there?", "Ready to run"]
        page.set_viewport_size({"width": 1280, "height": 720})
        page.click("button:has-text('the password')")
        page.wait_for_selector("button:has-text('Copied')")
        assert page.evaluate("navigator.clipboard.readText()") == password

        values = json.loads(save(page, "JSON", tmp_path).read_text())
        assert values["mqtt_password"] == password
        assert values["port"] == running_hub.port
        save(page, ".env", tmp_path)
        assert save(page, "SVG", tmp_path).read_text().startswith("<svg")

        program = tmp_path / "device.py"
        program.write_text(snippet(page, "python"))
        with running([sys.executable, str(program)], tmp_path, "python.log") as output:
            assert hub.eventually(lambda: "sent" in output.read_text(), 15), output.read_text()
            page.wait_for_selector("text=First reading: temperature 21.40 °C", timeout=15_000)
            assert page.is_visible("text=/Connected/")
            assert not page.is_visible("text=If it is refused")
            command_to(running_hub, values["topics"]["cmd"])
            assert hub.eventually(lambda: "reboot" in output.read_text()), output.read_text()

        with running(["sh", "-euc", snippet(page, "mosquitto")], tmp_path, "mosquitto.log") as output:
            assert hub.eventually(lambda: WeatherStationReading.objects.count() == 2, 15), output.read_text()

            def commanded() -> bool:
                command_to(running_hub, values["topics"]["cmd"])
                return "reboot" in output.read_text()

            assert hub.eventually(commanded, 15), output.read_text()

        assert problems_in_every_look(page) == []
        state = page.context.new_page()
        state.goto("/devices/weatherstation/STATION-115/credentials/")
        assert problems(state) == []
        assert not state.is_visible("[name=until]"), (
            "a date stands with its choice only, also without a script"
        )
        state.check("[name=ends][value=date]")
        assert state.is_visible("[name=until]")
        state.close()
        page.evaluate("dispatchEvent(new Event('pagehide'))")  # A browser may keep the page in memory.
        assert password not in settled(page)
        page.reload()
        assert page.is_visible("text=This form was submitted already")
        assert password not in settled(page)
        page.go_back()
        assert password not in settled(page)
        with pytest.raises(Error, match="ERR_CACHE_MISS"):  # The browser does not submit a form by itself.
            page.go_forward()
        assert errors == []
        for log in tmp_path.glob("*.log"):
            assert password not in log.read_text(), log
