"""The Django entrance in a project that was not made for brokers: its middleware, settings, logs and mails."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import httpx
import pytest
from django.conf import settings as django_settings
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.contrib.auth.views import redirect_to_login
from django.core import mail
from django.core.asgi import get_asgi_application
from django.core.cache import cache
from django.core.checks import run_checks
from django.db import connections
from django.http import HttpResponse
from django.test import override_settings
from django.urls import include, path, re_path
from django.utils.deprecation import MiddlewareMixin
from django.utils.log import AdminEmailHandler

from authsvc import checks, gateway, policy, views
from authsvc.dialects import emqx
from authsvc.models import Broker
from devicehub import provisioning
from rig import leaks
from rig.questions import QUESTIONS, good
from tests.conftest import ENTRANCES

HERE = "tests.authsvc.test_hostile_project"
AT_MQTT = path("mqtt/", include("authsvc.urls"))
COMMON = "django.middleware.common.CommonMiddleware"


def page(_request, **_options):
    return HttpResponse("<h1>Welcome</h1>")


PAGES = (AT_MQTT, path("healthz", views.alive), path("accounts/login/", page))


def language_page():
    return (*PAGES, *i18n_patterns(re_path(r"^(?P<slug>.*)$", page)))


class AsksEveryView(MiddlewareMixin):
    """As django-login-required-middleware does: afterwards, by an attribute of the view."""

    def process_response(self, request, response):
        match = request.resolver_match
        return (
            response if match and not getattr(match.func, "login_required", True) else redirect_to_login("/")
        )


class Stronghold(MiddlewareMixin):
    """As django-stronghold does: before, by an attribute of its own."""

    def process_view(self, request, view, _arguments, _options):
        return None if getattr(view, "STRONGHOLD_IS_PUBLIC", False) else redirect_to_login(request.path)


class LoginRequired(MiddlewareMixin):
    """As it is written in a thousand projects: by the path alone."""

    def process_request(self, request):
        return None if request.path == "/accounts/login/" else redirect_to_login(request.path)


class Renamed(LoginRequiredMiddleware):
    """Django's own, with another way to the login page."""


class Strict(LoginRequiredMiddleware):
    def process_view(self, request, view_func, view_args, view_kwargs):
        return redirect_to_login(request.path)


class ReadsTheBody(MiddlewareMixin):
    """As audit trails and request loggers do."""

    def process_request(self, request):
        request.seen = (request.body, request.POST)


class Breaks(MiddlewareMixin):
    def process_request(self, _request):
        raise RuntimeError("provoked before the view")


class BreaksLate(MiddlewareMixin):
    def process_response(self, _request, _response):
        raise RuntimeError("provoked after the view")


def besides(*names, first=()):
    """The middleware of an ordinary project, with more of it around and inside."""
    return [*first, *django_settings.MIDDLEWARE, *names]


CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
HOSTILE = {
    "an ordinary project": {},
    "no middleware": {"MIDDLEWARE": []},
    "a cache of the whole site": {
        "CACHES": CACHES,
        "MIDDLEWARE": lambda: besides(
            "django.middleware.cache.FetchFromCacheMiddleware",
            first=["django.middleware.cache.UpdateCacheMiddleware"],
        ),
    },
    "conditional answers": {
        "MIDDLEWARE": lambda: besides(first=["django.middleware.http.ConditionalGetMiddleware"])
    },
    "compressed answers": {"MIDDLEWARE": lambda: besides(first=["django.middleware.gzip.GZipMiddleware"])},
    "languages, and a page at every path": {
        "ROOT_URLCONF": language_page,
        "MIDDLEWARE": lambda: besides("django.middleware.locale.LocaleMiddleware"),
    },
    "slashes appended": {"APPEND_SLASH": True},
    "sessions that are always saved": {"SESSION_SAVE_EVERY_REQUEST": True},
    "tokens against CSRF in sessions": {"CSRF_USE_SESSIONS": True},
    "Django's login for every view": {
        "MIDDLEWARE": lambda: besides("django.contrib.auth.middleware.LoginRequiredMiddleware")
    },
    "a login asked afterwards": {"MIDDLEWARE": lambda: besides(f"{HERE}.AsksEveryView")},
    "django-stronghold": {"MIDDLEWARE": lambda: besides(f"{HERE}.Stronghold")},
    "a body that was read before": {"MIDDLEWARE": lambda: besides(f"{HERE}.ReadsTheBody")},
    "small uploads": {"DATA_UPLOAD_MAX_MEMORY_SIZE": 5, "DATA_UPLOAD_MAX_NUMBER_FIELDS": 1},
    "a host that a proxy names": {"USE_X_FORWARDED_HOST": True},
    "debugging": {"DEBUG": True},
    "another time zone": {"TIME_ZONE": "Pacific/Auckland"},
    "https at a proxy": {
        "SECURE_SSL_REDIRECT": True,
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "SECURE_HSTS_SECONDS": 60,
    },
}
# What a client library or a proxy may add to a question.
ADDED = {
    "accept": "text/html",
    "accept-encoding": "gzip",
    "accept-language": "de",
    "if-none-match": '"*"',
    "if-modified-since": "Sun, 22 Nov 2099 00:00:00 GMT",
    "x-forwarded-host": "localhost",
    "x-forwarded-for": "127.0.0.1",
    "cookie": "anything=x",
}


@pytest.fixture
def project(settings, loop, transactional_db):
    """Sets up a project; what comes back asks its Django entrance."""
    cache.clear()

    def configured(**options):
        for name, value in options.items():
            setattr(settings, name, value() if callable(value) else value)
        site = get_asgi_application()

        async def one(method, url, **request):
            transport = httpx.ASGITransport(site, client=("10.1.2.3", 40000))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, url, **request)

        return lambda *arguments, **request: loop.run(one(*arguments, **request))

    yield configured
    cache.clear()


def plain(reply):
    """What a broker looks at, once nothing in *reply* would have led it elsewhere."""
    assert not {"location", "set-cookie"} & set(reply.headers), reply.headers
    assert not reply.headers["content-type"].startswith("text/html"), reply.text
    kept_by_caches = reply.request.method in ("GET", "HEAD")
    assert reply.headers.get("cache-control") == ("no-store" if kept_by_caches else None)
    return reply.status_code, reply.headers["content-type"], reply.content


def of_our_own(loop, method, url, **request):
    """The answer of the ASGI entrance, which no project can change."""

    async def one():
        transport = httpx.ASGITransport(ENTRANCES["asgi"], client=("10.1.2.3", 40000))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, url, **request)

    reply = loop.run(one())
    return reply.status_code, reply.headers["content-type"], reply.content


# ---------------------------------------------------------------- made safe in the code


@pytest.mark.parametrize("added", [{}, ADDED], ids=["as brokers ask", "with more headers"])
@pytest.mark.parametrize("name", HOSTILE)
def test_the_answer_is_the_one_of_the_asgi_entrance(
    project, loop, token, station, neighbour, name, added, monkeypatch
):
    """Byte for byte: allows and denials, what is no question, and methods that ask nothing."""
    monkeypatch.setattr(emqx, "time", SimpleNamespace(time=lambda: 1_800_000_000.0))  # when its rules end
    site = project(**HOSTILE[name])
    questions = [
        ("POST", f"/mqtt/{path}?k={token}", {"json": good(path, who)})
        for path in QUESTIONS
        for who in (station, neighbour)
        if not path.startswith(("jwt/", "vernemq/"))
    ]
    questions += [
        ("GET", f"/mqtt/rabbitmq/user?{urlencode(good('rabbitmq/user', station))}&k={token}", {}),
        ("POST", f"/mqtt/k/{token}/go-auth/user", {"data": good("go-auth/user", station)}),
        ("POST", "/mqtt/go-auth/user?k=wrong", {"json": good("go-auth/user", station)}),
        ("POST", "/mqtt/emqx/authz", {"content": b"no question"}),
    ]
    questions += [
        ("GET", f"/mqtt{path}", {}) for path in ("/", "/go-auth", "/go-auth/user/", "/x%0ay", "/%00")
    ]
    questions += [
        (method, f"/mqtt/go-auth/{about}?k={token}", {})
        for method in ("HEAD", "OPTIONS", "DELETE", "TRACE", "PATCH", "PROPFIND")
        for about in ("user", "nothing")
    ]

    for method, url, fields in questions:
        request = {**fields, "headers": added | {"x-forwarded-proto": "https"}}
        assert plain(site(method, url, **request)) == of_our_own(loop, method, url, **request), (method, url)


def test_an_allow_is_never_served_from_a_cache(project, token, station):
    """RabbitMQ asks by GET, so to a cache all its questions look alike."""
    site = project(**HOSTILE["a cache of the whole site"])
    url = f"/mqtt/rabbitmq/user?{urlencode(good('rabbitmq/user', station))}&k={token}"
    assert site("GET", url).text == "allow"

    provisioning.revoke(station.device)

    assert site("GET", url).text == "deny"


def test_django_keeps_no_answer_where_it_reads_no_header(project, token, station, monkeypatch):
    """Early releases of Django 5.2 keep an answer although it says no-store."""
    monkeypatch.setattr(
        views, "_response", lambda _request, reply: HttpResponse(reply.body, status=reply.status)
    )
    site = project(**HOSTILE["a cache of the whole site"])
    url = f"/mqtt/rabbitmq/user?{urlencode(good('rabbitmq/user', station))}&k={token}"
    assert site("GET", url).text == "allow"

    provisioning.revoke(station.device)

    assert site("GET", url).text == "deny"


@pytest.mark.parametrize("what", ["mqtt/go-auth/user", "healthz"])
def test_requests_in_transactions_are_answered(project, token, station, monkeypatch, what):
    """With ATOMIC_REQUESTS Django refuses asynchronous views, unless they say that they need none."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    site = project()

    reply = site("POST", f"/{what}?k={token}", json=good("go-auth/user", station))

    assert reply.status_code == 200


def test_a_long_answer_that_was_compressed_is_the_answer(project, token, station):
    """Only EMQX gets answers of 200 bytes and more, and only for who says that it can read that."""
    site = project(**HOSTILE["compressed answers"])
    question = {"json": good("emqx/authn", station)}

    packed = site("POST", f"/mqtt/emqx/authn?k={token}", headers={"accept-encoding": "gzip"}, **question)
    bare = site("POST", f"/mqtt/emqx/authn?k={token}", headers={"accept-encoding": "identity"}, **question)

    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json()["acl"] == bare.json()["acl"]
    assert bare.headers.get("content-encoding") is None


@pytest.mark.parametrize("debug", [True, False])
def test_a_fault_shows_nothing_and_lets_nobody_in(project, token, station, monkeypatch, debug):
    """DEBUG's page with the whole request, and Django's own 500, stay away."""

    def broken(*_arguments):
        raise RuntimeError("provoked")

    monkeypatch.setattr(policy, "known", broken)
    site = project(DEBUG=debug)

    reply = site("POST", f"/mqtt/go-auth/user?k={token}", json=good("go-auth/user", station))

    assert plain(reply) == (503, "application/json", b'{"ok":false,"error":"unavailable"}')


def test_a_claimed_address_admits_nobody(project, token, station):
    """Neither USE_X_FORWARDED_HOST nor a proxy's headers move the caller into the broker's network."""
    Broker.objects.update(networks=["192.0.2.0/24"])
    site = project(USE_X_FORWARDED_HOST=True)

    for header in (
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "x-forwarded-host",
        "client-ip",
        "remote-addr",
    ):
        value = "for=192.0.2.1" if header == "forwarded" else "192.0.2.1"
        headers = {header: value} | ({"x-forwarded-host": "localhost"} if "host" in header else {})
        reply = site(
            "POST", f"/mqtt/go-auth/user?k={token}", json=good("go-auth/user", station), headers=headers
        )
        assert reply.status_code == 403, header


def test_under_another_prefix_it_answers_too(project, token, station):
    site = project(ROOT_URLCONF=(path("inner/broker/", include("authsvc.urls")),))

    reply = site("POST", f"/inner/broker/k/{token}/go-auth/user", json=good("go-auth/user", station))

    assert plain(reply) == (200, "application/json", b'{"ok":true,"error":""}')


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


class Elsewhere:
    def db_for_write(self, model, **_hints):
        return "archive" if model._meta.app_label in ("authsvc", "fleet") else None

    def db_for_read(self, model, **_hints):
        return "default" if model._meta.app_label == "authsvc" else None


class Replica:
    """Reads may go elsewhere: questions do not ask routers."""

    def db_for_read(self, _model, **_hints):
        return "replica"


def found():
    """What the checks of authsvc say, by id."""
    return {message.id: message for message in run_checks() if message.id.startswith("authsvc.")}


@pytest.mark.parametrize("check", WRONG)
def test_a_setting_that_stands_in_the_way_is_named(settings, check):
    name, options = WRONG[check]
    for setting, value in options.items():
        setattr(settings, setting, value() if callable(value) else value)

    message = found()[check]

    assert name in message.msg
    assert message.hint
    assert message.is_serious() == check.startswith("authsvc.E")


def test_devices_that_are_written_elsewhere_are_named(settings):
    assert "devicehub.E008" not in {message.id for message in run_checks()}

    settings.DATABASE_ROUTERS = [f"{HERE}.Elsewhere"]

    messages = [message.msg for message in run_checks() if message.id == "devicehub.E008"]
    assert any("fleet.WeatherStationDevice" in message for message in messages)


def test_an_ordinary_project_is_told_nothing():
    assert found() == {}


@pytest.mark.parametrize("check", [check for check in WRONG if check not in ("authsvc.E012", "authsvc.E013")])
def test_where_only_the_asgi_entrance_answers_nothing_stands_in_the_way(settings, check):
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


def test_the_hint_about_redirects_is_what_helps(settings, project, token, station):
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
def test_what_is_found_does_stand_in_the_way(project, token, station, options, status):
    """Or the check would be about nothing."""
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
def test_a_middleware_that_may_ask_for_a_login_is_named(settings, name):
    settings.MIDDLEWARE = besides(name)

    says = [message.msg for message in checks.check_login_middleware()]

    # The class called Strict says nothing by its name: this is where going by names ends.
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
def test_a_middleware_that_asks_the_view_is_left_alone(settings, name):
    settings.MIDDLEWARE = besides(name)

    assert checks.check_login_middleware() == []


LoginRequiredRenamed = Renamed


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
def test_a_database_that_cannot_be_asked_is_named(monkeypatch, engine, wrong):
    monkeypatch.setitem(connections.settings["default"], "ENGINE", engine)

    messages = checks.check_engine()

    assert [engine in message.msg for message in messages] == [True] * wrong
    assert {message.id for message in messages} == ({"authsvc.E011"} if wrong else set())


def test_a_replica_for_reading_is_no_mistake(settings):
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
def test_a_zone_that_shifts_stored_times_is_named(monkeypatch, engine, zone, wrong):
    """SQLite holds times as text without one, so an end of a password would be hours off."""
    monkeypatch.setitem(connections.settings["default"], "ENGINE", engine)
    monkeypatch.setitem(connections.settings["default"], "TIME_ZONE", zone)

    assert [message.id for message in checks.check_time()] == ["authsvc.E013"] * wrong


# ---------------------------------------------------------------- logs and mails


@contextmanager
def mails():
    """What Django mails to the operators, with all variables, as careless as it can be configured.

    Begun after the project: to set Django up takes the handlers away.
    """
    handler = AdminEmailHandler(include_html=True)
    handler.setLevel(logging.WARNING)  # to write a mail is told at DEBUG, which would be mailed
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
    """The station's right password, with the broker's token at each place where it may stand."""
    fields = good("go-auth/user", station)
    login = urlencode(good("rabbitmq/user", station))
    site("POST", f"/mqtt/go-auth/user?k={token}", json=fields)
    site("POST", f"/mqtt/k/{token}/go-auth/user", data=fields)
    site("POST", f"/mqtt/k/{token}/go-auth/usr", data=fields)
    site("GET", f"/mqtt/rabbitmq/user?{login}&k={token}")
    site("POST", "/mqtt/go-auth/user", json=fields, headers={"x-broker-secret": token})
    site("POST", "/mqtt/go-auth/user", data=fields, auth=("broker", token))
    site("POST", f"/mqtt/k/{token}/go-auth/user", data=fields, headers={"host": "unknown.example"})
    site("GET", f"/mqtt/rabbitmq/user?{login}&k={token}", headers={"host": "unknown.example"})
    site("POST", f"/elsewhere/k/{token}/go-auth/user", data=fields)
    site("GET", f"/elsewhere/rabbitmq/user?{login}")


@pytest.mark.parametrize(
    "trouble",
    ["none", "before the view", "after the view", "inside", "while reading", "a body that was read"],
)
def test_no_secret_is_logged_or_mailed(project, token, station, monkeypatch, trouble):
    """Whatever breaks on the way, and whoever prints the variables of the functions it broke in."""

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
        assert "provoked" in logged.text  # the traceback is there, as text
        assert "Traceback" in mailed()


def test_a_fault_of_other_views_is_mailed_as_ever(project):
    """Only questions are kept back: another view's operators want to see the request."""
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


@pytest.mark.sqlite_only
def test_a_project_that_logs_everything_logs_no_secret(tmp_path):
    """A project of its own that set up nothing for structlog, whose default prints every variable."""
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
    told = json.loads((tmp_path / "plant.json").read_text())
    answers = [200, 403, 200, 403, 400, 400, 404, 404]
    assert told["said"] == [*answers, 503, 503, 503, 503, 400, 400, 404, 404]
    written = (tmp_path / "plant.log").read_text()
    assert "begun" in written
    assert "auth.fault" in written
    assert "provoked" in written
    everywhere = written + done.stdout + done.stderr
    assert leaks.leaked(everywhere, [told["token"], told["password"]]) == []
