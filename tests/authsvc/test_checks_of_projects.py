"""Checks that report obstacles for brokers in a project, and that these are obstacles."""

from __future__ import annotations

import re

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.checks import run_checks
from django.db import connections
from django.urls import include, path, re_path

from authsvc import checks
from rig.hostile_projects import AT_MQTT, HERE, besides, page, plain
from rig.questions import good

# ---------------------------------------------------------------- found by a check


WRONG = {
    "authsvc.E004": ("SECURE_SSL_REDIRECT", {"SECURE_SSL_REDIRECT": True, "SECURE_REDIRECT_EXEMPT": []}),
    "authsvc.E006": ("PREPEND_WWW", {"PREPEND_WWW": True}),
    "authsvc.E007": ("i18n_patterns", {"ROOT_URLCONF": lambda: below_a_language()}),
    "authsvc.E008": ("ALLOWED_HOSTS", {"ALLOWED_HOSTS": []}),
    "authsvc.E009": ("DISALLOWED_USER_AGENTS", {"DISALLOWED_USER_AGENTS": lambda: [agent("Go-http")]}),
    "authsvc.W010": (f"{HERE}.LoginRequired", {"MIDDLEWARE": lambda: besides(f"{HERE}.LoginRequired")}),
    "authsvc.E012": ("DATABASE_ROUTERS", {"DATABASE_ROUTERS": [f"{HERE}.Elsewhere"]}),
    "authsvc.E013": ("USE_TZ", {"USE_TZ": False}),
}


def below_a_language():
    return tuple(i18n_patterns(AT_MQTT, path("accounts/login/", page)))


def agent(pattern):
    return re.compile(pattern)


def found():
    """Return the messages of the checks of authsvc by id."""
    return {message.id: message for message in run_checks() if message.id.startswith("authsvc.")}


@pytest.mark.parametrize("check", WRONG)
def test_a_setting_that_blocks_brokers_is_reported(settings, check):
    name, options = WRONG[check]
    for setting, value in options.items():
        setattr(settings, setting, value() if callable(value) else value)

    message = found()[check]

    assert name in message.msg
    assert message.hint
    assert message.is_serious() == check.startswith("authsvc.E")


def test_devices_that_are_written_elsewhere_are_reported(settings):
    assert "devicehub.E008" not in {message.id for message in run_checks()}

    settings.DATABASE_ROUTERS = [f"{HERE}.Elsewhere"]

    messages = [message.msg for message in run_checks() if message.id == "devicehub.E008"]
    assert any("fleet.WeatherStationDevice" in message for message in messages)


def test_an_ordinary_project_has_no_findings():
    assert found() == {}


@pytest.mark.parametrize("check", [check for check in WRONG if check not in ("authsvc.E012", "authsvc.E013")])
def test_with_the_asgi_entrance_only_there_are_no_findings(settings, check):
    for setting, value in WRONG[check][1].items():
        setattr(settings, setting, value() if callable(value) else value)

    settings.ROOT_URLCONF = (path("accounts/login/", page),)

    assert found() == {}


@pytest.mark.parametrize(
    ("patterns", "script", "right", "wrong"),
    [
        ((AT_MQTT,), None, r"^mqtt/", r"^broker/"),
        ((path("broker/", include("authsvc.urls")),), None, r"^broker/", r"^mqtt/"),
        ((path("a/", include([path("b/", include("authsvc.urls"))])),), None, r"^a/b/", r"^b/"),
        ((re_path(r"^x/y/", include("authsvc.urls")),), None, r"^x/y/", r"^mqtt/"),
        ((path("<slug:tenant>/mqtt/", include("authsvc.urls")),), None, r"^[a-z]+/mqtt/", r"^mqtt/"),
        ((AT_MQTT, path("old/", include("authsvc.urls"))), None, r"^(mqtt|old)/", r"^mqtt/"),
        ((path("", include("authsvc.urls")),), None, r"^go-auth/", r"^mqtt/"),
        ((AT_MQTT,), "/hub", r"^hub/mqtt/", r"^mqtt/"),
    ],
    ids=["mqtt", "another", "nested", "regex", "tenants", "two places", "root", "below a script"],
)
def test_the_exemption_is_compared_with_the_real_path(settings, patterns, script, right, wrong):
    settings.ROOT_URLCONF, settings.FORCE_SCRIPT_NAME = patterns, script
    settings.SECURE_SSL_REDIRECT = True

    settings.SECURE_REDIRECT_EXEMPT = [right]
    assert checks.check_redirects() == []
    settings.SECURE_REDIRECT_EXEMPT = [wrong]
    (error,) = checks.check_redirects()
    assert error.id == "authsvc.E004"


def test_the_hint_about_redirects_helps(settings, project, token, station):
    patterns = (path("b.r/mqtt/", include("authsvc.urls")),)
    options = {"ROOT_URLCONF": patterns, "SECURE_SSL_REDIRECT": True, "SECURE_REDIRECT_EXEMPT": []}
    site = project(**options)
    question = {"json": good("go-auth/user", station)}
    assert site("POST", f"/b.r/mqtt/go-auth/user?k={token}", **question).status_code == 301

    (error,) = checks.check_redirects()
    exemption = error.hint.partition('"')[2].partition('"')[0]
    site = project(**options | {"SECURE_REDIRECT_EXEMPT": [exemption]})

    assert plain(site("POST", f"/b.r/mqtt/go-auth/user?k={token}", **question))[0] == 200


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (WRONG["authsvc.E006"][1], 301),
        (WRONG["authsvc.E008"][1], 400),
        (WRONG["authsvc.E009"][1], 403),
        (WRONG["authsvc.W010"][1], 302),
    ],
    ids=["PREPEND_WWW", "ALLOWED_HOSTS", "DISALLOWED_USER_AGENTS", "a login by path"],
)
def test_a_reported_setting_does_block_brokers(project, token, station, options, status):
    """Otherwise the check would be pointless."""
    site = project(**options)
    headers = {"user-agent": "Go-http-client/1.1"}

    reply = site("POST", f"/mqtt/go-auth/user?k={token}", json=good("go-auth/user", station), headers=headers)

    assert reply.status_code == status


@pytest.mark.parametrize(
    "name",
    [
        "plant.middleware.LoginRequiredMiddleware",
        "plant.middleware.RequireLoginMiddleware",
        "plant.login_required_middleware",
        "plant.middleware.ForceLogin",
        "plant.AuthRequiredMiddleware",
        "plant.AuthenticationRequired",
        "global_login_required.GlobalLoginRequiredMiddleware",
        "django_auth_adfs.middleware.LoginRequiredMiddleware",
        "plant.TwoFactorEnforceMiddleware",
        "plant.RequireOTPMiddleware",
        "plant.ForcePasswordChangeMiddleware",
        "plant.RestrictAccessMiddleware",
        "maintenance_mode.middleware.MaintenanceModeMiddleware",
        f"{HERE}.Strict",
        f"{HERE}.LoginRequired",
    ],
)
def test_a_middleware_that_may_require_a_login_is_reported(settings, name):
    settings.MIDDLEWARE = besides(name)

    says = [message.msg for message in checks.check_login_middleware()]

    # The name of the class Strict does not mention a login: a check by names cannot find it.
    assert [name in text for text in says] == ([] if name.endswith("Strict") else [True])


@pytest.mark.parametrize(
    "name",
    [
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.PersistentRemoteUserMiddleware",
        "login_required.middleware.LoginRequiredMiddleware",
        "stronghold.middleware.LoginRequiredMiddleware",
        "allauth.account.middleware.AccountMiddleware",
        "django_otp.middleware.OTPMiddleware",
        "corsheaders.middleware.CorsMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        f"{HERE}.LoginRequiredRenamed",
    ],
)
def test_a_middleware_that_reads_the_mark_of_the_view_is_not_reported(settings, name):
    settings.MIDDLEWARE = besides(name)

    assert checks.check_login_middleware() == []


@pytest.mark.parametrize(
    ("engine", "wrong"),
    [
        ("django.db.backends.sqlite3", False),
        ("django.db.backends.postgresql", False),
        ("django.contrib.gis.db.backends.postgis", False),
        ("django.contrib.gis.db.backends.spatialite", False),
        ("django_prometheus.db.backends.postgresql", False),
        ("django.db.backends.mysql", True),
        ("django.db.backends.oracle", True),
        ("django.db.backends.dummy", True),
    ],
)
def test_an_unsupported_database_is_reported(monkeypatch, engine, wrong):
    monkeypatch.setitem(connections.settings["default"], "ENGINE", engine)

    messages = checks.check_engine()

    assert [engine in message.msg for message in messages] == [True] * wrong
    assert {message.id for message in messages} == ({"authsvc.E011"} if wrong else set())


def test_a_replica_for_reading_is_not_reported(settings):
    settings.DATABASE_ROUTERS = [f"{HERE}.Replica"]

    assert checks.check_routers() == []


@pytest.mark.parametrize(
    ("engine", "zone", "wrong"),
    [
        ("django.db.backends.sqlite3", None, False),
        ("django.db.backends.sqlite3", "UTC", False),
        ("django.db.backends.sqlite3", "Asia/Tokyo", True),
        ("django.db.backends.postgresql", "Asia/Tokyo", False),
    ],
)
def test_a_zone_that_shifts_stored_times_is_reported(monkeypatch, engine, zone, wrong):
    """SQLite stores times as text without a zone, so the expiry of a password would be hours off."""
    monkeypatch.setitem(connections.settings["default"], "ENGINE", engine)
    monkeypatch.setitem(connections.settings["default"], "TIME_ZONE", zone)

    assert [message.id for message in checks.check_time()] == ["authsvc.E013"] * wrong
