"""The service logs the findings of `manage.py check --deploy` once, at its start."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from authsvc.operation import deployment
from rig import hub

pytestmark = pytest.mark.sqlite_only


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture):
    """Return a function that runs the checks and returns the ids of the logged findings."""

    def ids() -> list[str]:
        """Run the checks, and return the ids."""
        with caplog.at_level(logging.WARNING, logger="authsvc.operation.deployment"):
            caplog.clear()
            deployment.warn()
        return sorted(
            record.msg["id"] for record in caplog.records if record.name == "authsvc.operation.deployment"
        )

    return ids


def test_a_site_with_a_host_name_logs_findings_for_deployment(warned, settings):
    settings.ALLOWED_HOSTS = ["hub.example.org"]

    assert "security.W008" in warned()  # no redirect to https
    assert not {"security.W005", "security.W021"} & set(warned())  # silenced in the settings

    settings.SECURE_SSL_REDIRECT = True
    assert "security.W008" not in warned()


@pytest.mark.parametrize(
    ("hosts", "debug"), [(["localhost", "127.0.0.1"], False), (["hub.example.org"], True)]
)
def test_a_site_on_this_machine_or_for_debugging_logs_none(warned, settings, hosts, debug):
    settings.ALLOWED_HOSTS, settings.DEBUG = hosts, debug

    assert warned() == []


def test_every_site_logs_the_other_findings(warned, settings):
    settings.ALLOWED_HOSTS, settings.SECRET_KEY = ["localhost"], "x" * 50

    assert warned() == ["authsvc.W021"]


@pytest.mark.servers
@pytest.mark.django_db(transaction=True)
def test_gunicorn_shows_them_once_for_all_workers(tmp_path: Path):
    log = tmp_path / "gunicorn.log"
    with hub.gunicorn(
        tmp_path, ALLOWED_HOSTS="hub.example.org,127.0.0.1", DEVICEHUB_HTTPS="0", WEB_CONCURRENCY="2"
    ):  # the worker that does not log may answer first
        assert hub.eventually(lambda: "security.W008" in log.read_text())

    lines = [json.loads(line) for line in log.read_text().splitlines() if line[0] == "{"]
    found = [line["id"] for line in lines if line["event"] == "check.found"]
    assert "security.W008" in found
    assert len(found) == len(set(found))
