"""The API in a project below a prefix, and in one with settings for an API of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import django_filters
import pytest
from django.db import connection
from django.urls import include, path, resolve
from rest_framework.settings import DEFAULTS

from devicehub import checks
from devicehub.api import documentation
from devicehub.api.filters import Settled
from rig.hub import ROOT
from rig.openapi import described
from rig.programs import Program, person, program

PREFIXED = (path("devices/", include("devicehub.urls")),)


@pytest.mark.django_db
def test_all_addresses_are_right_below_a_prefix(settings):
    """Those of the index, of the description and its page, of pages, of new objects, and of errors."""
    settings.ROOT_URLCONF = PREFIXED
    ada = person("ada")
    caller, host = program(ada), "http://testserver"
    index = caller.get("/devices/api/").json()
    assert index["keys"] == f"{host}/devices/api/keys/"
    for address in index.values():
        assert address.startswith(f"{host}/devices/api/")
    found = caller.get("/devices/api/schema/").json()
    assert found["servers"] == [{"url": "/devices"}]
    assert "/api/keys/" in found["paths"]
    page = Program(user=ada).get("/devices/api/docs/").content.decode()
    assert 'data-schema="/devices/api/schema/"' in page
    made = caller.post("/devices/api/keys/", {"name": "n", "scopes": ["access:read"]})
    assert made["Location"] == f"/devices/api/keys/{made.json()['id']}/"
    assert caller.get("/devices/api/keys/", limit=1).json()["next"].startswith(f"{host}/devices/api/keys/?")
    assert "/devices/api/keys/, with" in caller.get("/devices/api/keys").json()["detail"]
    nobody = Program().client.get("/devices/api/docs/", headers={"Accept": "text/html"})
    assert nobody["Location"] == "/devices/login/?next=/devices/api/docs/"
    assert Program().get("/devices/problems/not-found").status_code == 200


@pytest.mark.parametrize(
    ("redirects", "exempt", "apps", "problems"),
    [
        (True, [r"^devices/api(/|$)"], ["drf_spectacular_sidecar"], []),
        (True, [r"^devices/api/"], ["drf_spectacular_sidecar"], []),
        (True, [r"^api/"], ["drf_spectacular_sidecar"], ["after they sent their key"]),
        (False, [], ["drf_spectacular_sidecar"], []),
        (False, [], [], ["lacks its script"]),
    ],
)
def test_missing_settings_of_the_api_are_named(settings, redirects, exempt, apps, problems):
    """The hint is what the check then accepts."""
    settings.ROOT_URLCONF = PREFIXED
    settings.SECURE_SSL_REDIRECT, settings.SECURE_REDIRECT_EXEMPT = redirects, exempt
    settings.INSTALLED_APPS = [*(a for a in settings.INSTALLED_APPS if "sidecar" not in a), *apps]
    found = checks.check_api()
    assert [one.id for one in found] == ["devicehub.W026"] * len(problems)
    for one, text in zip(found, problems, strict=True):
        assert text in one.msg
    if problems == ["after they sent their key"]:
        assert r'"^devices/api(/|$)"' in found[0].hint


def test_a_project_without_the_pages_gets_no_message(settings):
    """It has no API."""
    settings.ROOT_URLCONF = ()
    assert checks.check_api() == []


@pytest.mark.parametrize(
    ("value", "is_reported"), [("", False), ("10/s", False), ("10 a minute", True), ("0/m", True)]
)
def test_a_wrong_rate_is_reported(settings, value, is_reported):
    """The check names the setting."""
    settings.DEVICEHUB_API_RATE = value
    found = checks.check_rate_limit()
    assert ["DEVICEHUB_API_RATE" in one.msg for one in found] == [True] * is_reported


@pytest.mark.django_db(transaction=True)
def test_a_project_may_open_a_transaction_for_each_request(monkeypatch):
    """The API opens its own, so a list locks no device; Django refuses asynchronous views without a mark."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    caller = program(person("ada"))
    for address in ("/api/", "/api/events/"):
        answer = caller.get(address)
        assert answer.status_code == 200, address
        answer.close()
    assert Program().post("/api/token").status_code == 401
    assert "_non_atomic_requests" in vars(resolve("/api/devices/weatherstation/STATION-001/").func)


OF_A_PROJECT = {
    "REST_FRAMEWORK": {
        "ALLOWED_VERSIONS": ["9"],
        "COERCE_BIGINT_TO_STRING": True,
        "COERCE_DECIMAL_TO_STRING": False,
        "COMPACT_JSON": False,
        "DATETIME_FORMAT": "%d",
        "DATETIME_INPUT_FORMATS": ["%d"],
        "DATE_FORMAT": "%d",
        "DATE_INPUT_FORMATS": ["%d"],
        "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.BasicAuthentication"],
        "DEFAULT_CONTENT_NEGOTIATION_CLASS": "rest_framework.negotiation.BaseContentNegotiation",
        "DEFAULT_FILTER_BACKENDS": ["rest_framework.filters.SearchFilter"],
        "DEFAULT_METADATA_CLASS": None,
        "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
        "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.MultiPartParser"],
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.BrowsableAPIRenderer"],
        "DEFAULT_SCHEMA_CLASS": "rest_framework.schemas.openapi.AutoSchema",
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.UserRateThrottle"],
        "DEFAULT_THROTTLE_RATES": {"user": "1/day"},
        "DEFAULT_VERSION": "9",
        "DEFAULT_VERSIONING_CLASS": "rest_framework.versioning.AcceptHeaderVersioning",
        "DURATION_FORMAT": "iso-8601",
        "EXCEPTION_HANDLER": "rest_framework.views.exception_handler",
        "FORMAT_SUFFIX_KWARG": "number",
        "HTML_SELECT_CUTOFF": 1,
        "HTML_SELECT_CUTOFF_TEXT": "more",
        "LIST_SERIALIZER_ERRORS_AS_DICT": True,
        "NON_FIELD_ERRORS_KEY": "all",
        "NUM_PROXIES": 3,
        "ORDERING_PARAM": "limit",
        "PAGE_SIZE": 3,
        "SCHEMA_COERCE_METHOD_NAMES": {"get": "read"},
        "SCHEMA_COERCE_PATH_PK": False,
        "SEARCH_PARAM": "owner",
        "STRICT_JSON": False,
        "TEST_REQUEST_DEFAULT_FORMAT": "json",
        "TEST_REQUEST_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
        "TIME_FORMAT": "%H",
        "TIME_INPUT_FORMATS": ["%H"],
        "UNAUTHENTICATED_TOKEN": "builtins.object",
        "UNAUTHENTICATED_USER": None,
        "UNICODE_JSON": False,
        "UPLOADED_FILES_USE_URL": False,
        "URL_FIELD_NAME": "id",
        "URL_FORMAT_OVERRIDE": "limit",
        "VERSION_PARAM": "limit",
        "VIEW_DESCRIPTION_FUNCTION": "builtins.repr",
        "VIEW_NAME_FUNCTION": "builtins.repr",
    },
    "FILTERS_DEFAULT_LOOKUP_EXPR": "icontains",
    "FILTERS_DISABLE_HELP_TEXT": True,
    "FILTERS_EMPTY_CHOICE_LABEL": None,
    "FILTERS_NULL_CHOICE_LABEL": "nothing",
    "FILTERS_NULL_CHOICE_VALUE": "stored",
    "FILTERS_VERBOSE_LOOKUPS": {"exact": "is"},
    "SPECTACULAR_SETTINGS": {
        "APPEND_COMPONENTS": {},
        "CAMELIZE_NAMES": True,
        "COMPONENT_SPLIT_REQUEST": True,
        "ENUM_NAME_OVERRIDES": {"Nothing": ["access:read"]},
        "OAS_VERSION": "3.0.3",
        "POSTPROCESSING_HOOKS": [],
        "SCHEMA_PATH_PREFIX": "/x",
        "SECURITY": [{"basic": []}],
        "SORT_OPERATIONS": False,
        "TAGS": [{"name": "Plant"}],
        "TITLE": "Plant",
    },
}
# Requests of a superuser who needs no database, in a project with these settings.
ASK = """
import json, os, sys

os.environ["DJANGO_SETTINGS_MODULE"] = "rig.settings"
import rig.settings

for name, value in json.loads(sys.argv[1]).items():
    setattr(rig.settings, name, value)
rig.settings.ALLOWED_HOSTS = ["testserver"]
rig.settings.LOGGING = {"version": 1}
import django

django.setup()
from django.contrib.auth.models import User
from django.test import Client
from devicehub.api import callers

callers.of_request = lambda _: (User(pk=1, username="ada", is_superuser=True), None)
client = Client()


def ask(method, path, body=None, **headers):
    answer = client.generic(method, path, json.dumps(body or {}), "application/json", headers=headers)
    return [answer.status_code, answer["Content-Type"], answer.content.decode()]


asked = [
    ask("GET", "/api/"),
    ask("GET", "/api/schema/"),
    ask("GET", "/api/keys/?limit=none"),
    ask("GET", "/api/", Accept="application/json; version=1"),
    ask("POST", "/api/keys/", []),
    ask("POST", "/api/keys/", {"name": 1, "scopes": ["x"], "expires_at": "1"}),
]
from rig.openapi import described
from devicehub.api import urls
import django_filters


def filters(base):
    for found in base.__subclasses__():
        for name, one in found.base_filters.items() if found.__module__.startswith("devicehub.") else ():
            null = [getattr(one, "null_value", ""), one.extra.get("null_label"), one.extra.get("empty_label")]
            yield [found.__name__, name, one.field_name, one.lookup_expr, null]
        yield from filters(found)


asked.append(sorted(filters(django_filters.FilterSet)))
print(json.dumps([asked, described()]))
"""


@pytest.mark.long
@pytest.mark.servers
@pytest.mark.sqlite_only
def test_settings_of_a_project_for_its_own_api_change_nothing():
    """Each answer, and the description, is that of a project without such settings."""

    def ask(settings):
        done = subprocess.run(
            [sys.executable, "-c", ASK, json.dumps(settings)],
            cwd=ROOT,
            env=dict(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    (plain, page), (changed, other) = ask({}), ask(OF_A_PROJECT)
    assert other == page == described()
    assert [pair for pair in zip(plain, changed, strict=True) if pair[0] != pair[1]] == []
    *answers, filters = plain
    assert [answer[0] for answer in answers] == [200, 200, 400, 200, 400, 400]
    assert ["KeyFilter", "owner", "owner__username", "exact", ["", None, None]] in filters


def test_the_settings_of_that_project_are_all():
    """A new setting of the libraries is tried too."""
    assert OF_A_PROJECT["REST_FRAMEWORK"].keys() == DEFAULTS.keys()
    named = {name.removeprefix("FILTERS_") for name in OF_A_PROJECT if name.startswith("FILTERS_")}
    assert named == django_filters.conf.DEFAULTS.keys()


def test_the_description_is_made_once_for_each_root(settings):
    """Another prefix has a description of its own."""
    first = documentation.document()["servers"]
    settings.ROOT_URLCONF = PREFIXED
    assert (first, documentation.document()["servers"]) == ([{"url": "/"}], [{"url": "/devices"}])


def test_each_filter_has_defaults_of_its_own():
    """A project may set FILTERS_DEFAULT_LOOKUP_EXPR, which the library reads where filters are declared."""
    found = documentation.document()["paths"]  # All views are imported.
    assert found
    filtersets = [
        one for one in subclasses(django_filters.FilterSet) if one.__module__.startswith("devicehub.")
    ]
    assert len(filtersets) > 5
    loose = [
        (one.__name__, name)
        for one in filtersets
        for name, each in one.base_filters.items()
        if not isinstance(each, Settled)
    ]
    assert loose == []


def subclasses(base):
    """Yield all classes below *base*."""
    for found in base.__subclasses__():
        yield found
        yield from subclasses(found)
