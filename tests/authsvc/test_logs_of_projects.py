"""Logs and mails of a project contain no secret, for any error in a question."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from base64 import b64encode
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from django.core import mail
from django.test import override_settings
from django.urls import path
from django.utils.log import AdminEmailHandler

from authsvc import gateway, views
from rig import leaks
from rig.hostile_projects import AT_MQTT, HERE, besides
from rig.questions import good

pytestmark = pytest.mark.sqlite_first

# ---------------------------------------------------------------- logs and mails


@contextmanager
def mails():
    """Collect the mails of Django to the operators, configured to contain all variables.

    Use it after the project is set up, because the setup of Django removes the handlers.
    """
    handler = AdminEmailHandler(include_html=True)
    handler.setLevel(logging.WARNING)  # Sending a mail logs at DEBUG, which would be mailed too.
    loggers = [logging.getLogger(name) for name in ("", "django")]
    with override_settings(ADMINS=[("Operator", "operator@example.org")]):
        for logger in loggers:
            logger.addHandler(handler)
        yield lambda: "\n".join(
            f"{message.subject} {message.body} {message.alternatives}" for message in mail.outbox
        )
        for logger in loggers:
            logger.removeHandler(handler)


def every_way_to_ask(site, token, station):
    """Ask with the right password of the station, and the token of the broker in each of its possible places."""
    fields = good("go-auth/user", station)
    login = urlencode(good("rabbitmq/user", station))
    basic = b64encode(f"broker:{token}".encode()).decode()
    site("POST", f"/mqtt/go-auth/user?k={token}", json=fields)
    site("POST", f"/mqtt/k/{token}/go-auth/user", data=fields)
    site("POST", f"/mqtt/k/{token}/go-auth/usr", data=fields)
    site("GET", f"/mqtt/rabbitmq/user?{login}&k={token}")
    site("POST", "/mqtt/go-auth/user", json=fields, headers={"x-broker-secret": token})
    site("POST", "/mqtt/go-auth/user", data=fields, headers={"authorization": f"Basic {basic}"})
    site("POST", f"/mqtt/k/{token}/go-auth/user", data=fields, headers={"host": "unknown.example"})
    site("GET", f"/mqtt/rabbitmq/user?{login}&k={token}", headers={"host": "unknown.example"})
    site("POST", f"/elsewhere/k/{token}/go-auth/user", data=fields)
    site("GET", f"/elsewhere/rabbitmq/user?{login}")


@pytest.mark.parametrize(
    "trouble",
    ["none", "before the view", "after the view", "inside", "while reading", "a body that was read"],
)
def test_no_secret_is_logged_or_mailed(project, token, station, monkeypatch, trouble):
    """An error anywhere, with handlers that print the variables of the failed functions."""

    def broken(*_arguments, **_options):
        raise RuntimeError("provoked inside")

    options = {
        "before the view": {"MIDDLEWARE": besides(f"{HERE}.Breaks")},
        "after the view": {"MIDDLEWARE": besides(f"{HERE}.BreaksLate")},
        "a body that was read": {
            "MIDDLEWARE": besides(f"{HERE}.ReadsTheBody"),
            "DATA_UPLOAD_MAX_MEMORY_SIZE": 1,
        },
    }.get(trouble, {})
    if trouble == "inside":
        monkeypatch.setattr(gateway, "judge", broken)
    if trouble == "while reading":
        monkeypatch.setattr(views, "_body", broken)
    site = project(**options)

    with leaks.everything_logged() as logged, mails() as mailed:
        every_way_to_ask(site, token, station)

    assert leaks.leaked(logged.text, [token, station.password]) == []
    assert leaks.leaked(mailed(), [token, station.password]) == []
    if trouble in ("before the view", "after the view", "inside", "while reading"):
        assert "provoked" in logged.text  # The traceback is there, as text.
        assert "Traceback" in mailed()


def test_a_fault_of_other_views_is_mailed_in_full(project):
    """Only questions are filtered: operators need the request of other views."""
    site = project(ROOT_URLCONF=(AT_MQTT, path("page", broken_page)))

    with mails() as mailed:
        assert site("GET", "/page?wanted=seen").status_code == 500

    assert "wanted" in mailed()
    assert "RuntimeError" in mailed()


def broken_page(_request):
    raise RuntimeError("of a page")


def test_the_development_server_prints_no_token(token):
    with leaks.everything_logged() as logged:
        logging.getLogger("django.server").info(
            '"%s" %s %s', f"POST /mqtt/k/{token}/go-auth/user?k={token} HTTP/1.1", "200", "20"
        )
        logging.getLogger("django.server").info(
            '"%s" %s %s', "GET /plant/rabbitmq/user?username=a&password=pass-word HTTP/1.1", "200", "20"
        )

    assert leaks.leaked(logged.text, [token, "pass-word"]) == []
    assert "/go-auth/user" in logged.text


SETTINGS = """
SECRET_KEY = "x" * 50
DEBUG = False
ALLOWED_HOSTS = ["localhost"]
INSTALLED_APPS = ["authsvc", "django.contrib.contenttypes", "django.contrib.auth"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "plant_urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "plant.sqlite3"}}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"all": {"format": "%(asctime)s %(name)s %(message)s"}},
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": "plant.log", "formatter": "all", "level": "DEBUG"},
    },
    "root": {"handlers": ["file"], "level": "DEBUG"},
    "loggers": {"django": {"handlers": ["file"], "level": "DEBUG", "propagate": False}},
}
"""
URLS = """
from django.test import override_settings
from django.urls import include, path
urlpatterns = [path("plant/broker/", include("authsvc.urls"))]
"""
SCRIPT = """
import asyncio, json, logging
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("check")
from django.core.asgi import get_asgi_application
import httpx
from authsvc.models import Account, Broker
from authsvc.caches import clear_caches
from authsvc.core import authority
broker = Broker(name="b"); token = broker.issue_token(); broker.save()
account = Account(username="ingest"); password = account.generate_password(); account.save()
logging.getLogger("authsvc.test").warning("begun")
logging.getLogger("httpx").setLevel("WARNING")

async def ask():
    site = httpx.ASGITransport(get_asgi_application())
    client = httpx.AsyncClient(transport=site, base_url="http://localhost")
    fields = {"username": "ingest", "clientid": "ingest", "password": password}
    said = []
    for path, host in (
        (f"k/{token}/go-auth/user", "localhost"), (f"go-auth/user?k={token}", "localhost"),
        (f"k/{token}/go-auth/user", "unknown"), (f"k/{token}/go-auth/none", "localhost"),
    ):
        for secret in (password, "wrong-" + password):
            reply = await client.post(
                f"/plant/broker/{path}", json=fields | {"password": secret}, headers={"host": host}
            )
            said.append(reply.status_code)
    await client.get("/plant/brokr/k/" + token + "/go-auth/user")
    return said

said = asyncio.run(ask())
async def broken(*arguments, **options):
    inner = arguments[0].password
    raise RuntimeError("provoked")
authority.decide = broken
clear_caches()
said += asyncio.run(ask())
open("plant.json", "w").write(json.dumps({"token": token, "password": password, "said": said}))
"""


@pytest.mark.servers
@pytest.mark.sqlite_only
def test_a_project_that_logs_everything_logs_no_secret(tmp_path):
    """A separate project without a configuration of structlog, whose default prints every variable."""
    (tmp_path / "plant_settings.py").write_text(SETTINGS)
    (tmp_path / "plant_urls.py").write_text(URLS)
    (tmp_path / "plant.py").write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "SECRET_KEY")},
        "DJANGO_SETTINGS_MODULE": "plant_settings",
        "PYTHONPATH": f"{tmp_path}:{root}",
    }

    done = subprocess.run(
        [sys.executable, "plant.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "plant.json").read_text())
    answers = [200, 403, 200, 403, 400, 400, 404, 404]
    assert report["said"] == [*answers, 503, 503, 503, 503, 400, 400, 404, 404]
    written = (tmp_path / "plant.log").read_text()
    assert "begun" in written
    assert "auth.fault" in written
    assert "provoked" in written
    everywhere = written + done.stdout + done.stderr
    assert leaks.leaked(everywhere, [report["token"], report["password"]]) == []
