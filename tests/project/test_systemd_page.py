"""The page on systemd and nginx: its units start commands that exist, with settings that exist."""

from __future__ import annotations

import re
from configparser import ConfigParser

import pytest
from django.core.management import get_commands, load_command_class

from rig.pages import ROOT, marked, page

pytestmark = pytest.mark.sqlite_only

PAGE = "how-to/systemd-and-nginx.md"
FOLDER = "/opt/devicehub"


def units() -> list[ConfigParser]:
    """Return the units of the page, in their order."""
    found = []
    for text in marked(page(PAGE), "systemd unit"):
        unit = ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]  # Names of systemd have capital letters.
        unit.read_string(text)
        found.append(unit)
    return found


def commands() -> list[str]:
    """Return the command of each service, with the number of a worker in place of `%i`."""
    return [
        unit["Service"]["ExecStart"].replace("%i", "1") for unit in units() if unit.has_section("Service")
    ]


def test_each_process_has_its_unit():
    assert [command.removeprefix(f"{FOLDER}/.venv/bin/").split()[0] for command in commands()] == [
        "gunicorn",
        "python",
        "python",
    ]
    assert [unit.sections() for unit in units()][-1] == ["Unit", "Timer", "Install"]


def test_units_run_as_a_user_of_their_own_and_write_to_one_folder():
    for unit in units():
        if unit.has_section("Service"):
            service = unit["Service"]
            assert (service["User"], service["WorkingDirectory"]) == ("devicehub", FOLDER)
            assert service["EnvironmentFile"] == "/etc/devicehub/environment"
            assert (service["ProtectSystem"], service["ReadWritePaths"]) == ("strict", f"{FOLDER}/var")


def test_units_start_commands_that_exist():
    service, *managed = commands()

    assert (ROOT / re.search(r"-c (\S+)", service)[1]).is_file()  # type: ignore[index]
    for command in managed:
        _, script, name, *arguments = command.split()
        assert script == "manage.py"
        parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
        parser.parse_args(arguments)


def test_the_environment_names_settings_with_an_entry():
    [text] = marked(page(PAGE), "systemd environment")
    entries = page("reference/settings.md")

    for line in text.splitlines():
        name = line.partition("=")[0]
        assert f"| `{name.removesuffix('_FILE')}` |" in entries, name
        assert not name.endswith("_FILE") or f"`{name}`" in entries


def test_nginx_tells_the_service_what_its_page_needs_and_keeps_the_rest_inside():
    [text] = marked(page(PAGE), "nginx configuration")

    assert text.count("{") == text.count("}")
    for header in (
        "Host $http_host",
        "X-Forwarded-Proto $scheme",
        "X-Forwarded-For $proxy_add_x_forwarded_for",
    ):
        assert f"proxy_set_header {header};" in text
    for path in ("/mqtt/", "/k/", "/leshan_api/", "= /readyz", "= /metrics"):
        assert f"location {path} {{ return 403; }}" in text
