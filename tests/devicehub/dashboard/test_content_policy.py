"""The Content-Security-Policy: once on every response, and no page of ours violates it in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path
from django.utils import timezone

from authsvc.models import Broker, Denial
from devicehub.dashboard.policy import ADMIN_POLICY, HEADER, POLICY, content_policy
from devicehub.models import DeviceCommand
from fleet.models import WeatherStationDevice
from rig import hub, servers
from rig.browser import BROWSER_FLAGS
from rig.cast import provision
from rig.credential_pages import nonce_of, secrets_of

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only, pytest.mark.pages]
LOUD = ("error", "warning")  # The types of console messages that count.
ADMIN_MAY = {"script-src": {"'unsafe-eval'"}, "style-src": {"'unsafe-inline'"}}


def directives(policy: str) -> dict[str, set[str]]:
    return {name: set(rest.split()) for name, _, rest in (part.partition(" ") for part in policy.split("; "))}


def broken_page(_request: HttpRequest) -> HttpResponse:
    raise RuntimeError("of a page")


def own_policy(_request: HttpRequest) -> HttpResponse:
    return HttpResponse(headers={HEADER: "default-src 'none'", "X-Content-Type-Options": "own"})


def test_the_admin_may_what_alpine_needs_and_nothing_more():
    strict, wide = directives(POLICY), directives(ADMIN_POLICY)

    assert strict.keys() == wide.keys()
    assert {name: wide[name] - strict[name] for name in strict if wide[name] != strict[name]} == ADMIN_MAY
    assert all(strict[name] <= wide[name] for name in strict)
    assert "unsafe" not in POLICY


@pytest.mark.parametrize(
    ("url", "status", "policy"),
    [
        ("/", 302, POLICY),
        ("/login/", 200, POLICY),
        ("/none", 404, POLICY),
        ("/broken", 500, POLICY),
        ("/stream/", 403, POLICY),
        ("/api/token", 405, POLICY),
        ("/static/devicehub/parts.css", 200, POLICY),
        ("/static/none.css", 404, POLICY),
        ("/admin/", 302, ADMIN_POLICY),
        ("/admin/login/", 200, ADMIN_POLICY),
        ("/own", 200, "default-src 'none'"),
    ],
)
def test_every_answer_of_django_has_the_policy_once(client: Client, settings, url, status, policy):
    settings.ROOT_URLCONF = (
        path("admin/", admin.site.urls),
        path("broken", broken_page),
        path("own", own_policy),
        path("", include("devicehub.urls")),
    )
    client.raise_request_exception = False

    response = client.get(url)

    assert (response.status_code, response[HEADER]) == (status, policy)
    assert response["X-Content-Type-Options"] == ("own" if url == "/own" else "nosniff")
    response.getvalue()  # It closes the static file.


def test_a_page_of_the_admin_that_shows_a_secret_has_the_strict_policy(client: Client):
    client.force_login(User.objects.create_superuser("admin"))
    provision("STATION-001")
    url = "/admin/fleet/weatherstationdevice/credentials/STATION-001/"
    state = client.get(url)

    shown = client.post(url, {"do": "rotate_key", "nonce": nonce_of(state.content.decode(), "rotate_key")})

    assert secrets_of(shown.content.decode()).keys() == {"key"}
    addresses = (
        "/admin/authsvc/broker/1/secret/",
        "/admin/devicehub/rotation/",
        "/admin/devicehub/deviceimport/",
    )
    Broker(name="mq", pk=1).save()
    answers = [state, shown, *map(client.get, addresses)]
    assert [(answer.status_code, answer[HEADER]) for answer in answers] == [(200, POLICY)] * 5


def test_a_host_that_is_not_ours_and_a_redirect_to_https_have_it(client: Client, settings):
    assert client.get("/", headers={"host": "evil.example"})[HEADER] == POLICY

    settings.SECURE_SSL_REDIRECT = True
    response = Client().get("/")
    assert (response.status_code, response[HEADER]) == (301, POLICY)


def test_pages_for_debugging_have_all_of_it_inline_and_so_no_policy(rf, settings):
    answer = content_policy(lambda _: HttpResponse(status=500))
    assert HEADER in answer(rf.get("/"))

    settings.DEBUG = True
    assert HEADER not in answer(rf.get("/"))
    assert HEADER in content_policy(lambda _: HttpResponse())(rf.get("/"))


@pytest.mark.parametrize("url", ["/healthz", "/readyz", "/metrics"])
def test_what_the_entrance_answers_itself_has_a_policy(send, url):
    response = send("asgi", "GET", url)

    assert response.headers.get_list(HEADER) == ["default-src 'none'; frame-ancestors 'none'"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("url", ["/login/", "/admin/login/"])
def test_pages_name_their_icon(client: Client, url):
    """Without an icon a browser requests /favicon.ico, and its console shows the 404."""
    icons = re.findall(r'<link rel="icon"[^>]*href="([^"]+)"', client.get(url).content.decode())

    assert icons == ["/static/devicehub/mark.svg"]


def test_brokers_get_no_header_that_is_for_browsers(send):
    assert not {HEADER.lower(), "x-content-type-options"} & {
        *send("asgi", "POST", "/mqtt/go-auth/user").headers
    }


def test_a_project_with_a_policy_of_its_own_gets_no_second_one(client: Client, settings):
    """The views of the dashboard set theirs, and the middleware, which runs after them, keeps it."""
    settings.MIDDLEWARE = [m for m in settings.MIDDLEWARE if not m.endswith("content_policy")]

    assert client.get("/login/")[HEADER] == POLICY
    assert HEADER not in client.get("/admin/login/")


def fill() -> dict[str, Any]:
    """Create the rows that PAGES show; return their primary keys by name."""
    now = timezone.now()
    Denial.objects.create(dialect="amqtt", action="publish", reason="no_grant", first_at=now, last_at=now)
    return {
        "device": WeatherStationDevice.objects.create(device_id="STATION-001").pk,
        "command": DeviceCommand.objects.create(device_key="weatherstation/STATION-001", name="reboot").pk,
        "user": User.objects.get().pk,
    }


PAGES = (
    "/",
    "/?q=nothing",
    "/none",
    "/admin/",
    "/admin/none/",
    "/admin/password_change/",
    "/admin/fleet/weatherstationdevice/",
    "/admin/fleet/weatherstationdevice/add/",
    "/admin/fleet/weatherstationdevice/{device}/change/",
    "/admin/fleet/weatherstationdevice/{device}/delete/",
    "/admin/fleet/weatherstationdevice/{device}/history/",
    "/admin/fleet/weatherstationdevice/credentials/STATION-001/",  # It has the strict policy, as the next two.
    "/admin/devicehub/rotation/",
    "/admin/devicehub/deviceimport/",
    "/admin/devicehub/devicecommand/{command}/change/",  # It has a button of ours.
    "/admin/authsvc/denial/?reason=no_grant",  # It has filters.
    "/admin/auth/user/{user}/change/",  # It has two lists side by side.
)


@pytest.mark.servers
@pytest.mark.django_db(transaction=True)
def test_no_page_breaks_the_policy_in_a_browser(
    client: Client, tmp_path: Path, monkeypatch, needs_real: Callable[[servers.MissingServer], None]
):
    from playwright.sync_api import sync_playwright

    try:
        program = servers.chromium()
    except servers.MissingServer as missing:
        needs_real(missing)
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")  # The event loop of playwright runs in this thread.
    client.force_login(User.objects.create_superuser("admin"))
    rows = fill()
    session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    seen: list[str] = []

    with hub.gunicorn(tmp_path) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=BROWSER_FLAGS)
        context = browser.new_context()
        page = context.new_page()
        page.on("console", lambda m: seen.append(f"{page.url} {m.text}") if m.type in LOUD else None)
        page.on("pageerror", lambda error: seen.append(f"{page.url} {error}"))
        page.goto(f"{url}/admin/login/")  # The browser is not signed in yet.
        page.goto(f"{url}/login/")
        context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": session, "url": url}])
        for address in PAGES:
            page.goto(url + address.format(**rows))
        with page.expect_console_message(lambda m: "inline event handler" in m.text):
            page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(1)>')")
        browser.close()
        connections.close_all()  # Inside that loop Django uses other connections than outside.
    assert [line for line in seen if "status of 404" not in line and "inline event handler" not in line] == []
