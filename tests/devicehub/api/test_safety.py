"""The API against the transport, other settings and odd requests: nothing leaks, and each refusal is a problem."""

from __future__ import annotations

import json

import pytest
from django.db import OperationalError, ProgrammingError
from django.test import Client

from authsvc.asgi import REFUSALS
from devicehub.api import problems, throttling
from devicehub.api.problems import KINDS
from devicehub.conf import RateLimit
from devicehub.conf import settings as options
from devicehub.content_security import POLICY
from fleet.models import WeatherStationDevice
from rig.programs import PROBLEM, Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

NEW_KEY = {"name": "n", "scopes": ["access:read"]}


@pytest.fixture
def caller():
    """Return a program with a key of an administrator."""
    return program(person("ada"))


def problem(answer, code):
    """Return the content of *answer* after checks that it is the problem *code*."""
    assert (answer.status_code, answer["Content-Type"]) == (KINDS[code].status, PROBLEM), answer.content
    assert "no-store" in answer["Cache-Control"]
    content = answer.json()
    assert content["type"] == f"/problems/{code}"
    return content


# http and https


@pytest.mark.parametrize("path", ["/api/", "/api", "/api/keys", "/api/keys/", "/api/none", "/api/docs/"])
def test_a_request_over_http_is_refused_and_not_redirected(path, caller, settings):
    """A client that follows redirects would send its key in clear text every time."""
    settings.SECURE_SSL_REDIRECT = True
    assert "make a new key" in problem(caller.get(path), "https-required")["detail"]
    secure = caller.client.get(path, headers=caller._headers, secure=True)
    assert secure.status_code in (200, 404)


@pytest.mark.sqlite_only  # Each request of a synchronous client has a loop of its own, and leaves a connection there.
@pytest.mark.django_db(transaction=True)
def test_a_token_is_not_made_over_http(settings):
    """The key of a device is not read either."""
    device = WeatherStationDevice(device_id="STATION-001", mqtt_username="STATION-001")
    key = device.generate_credentials()["api_key"]
    device.save()
    settings.SECURE_SSL_REDIRECT = True
    caller = Program(key)
    assert "token" not in problem(caller.post("/api/token"), "https-required")
    assert "http" in caller.post("/api/token").json()["error"]
    secure = caller.client.generic("POST", "/api/token", headers=caller._headers, secure=True)
    assert secure.json().keys() == {"token", "token_type", "expires_in"}
    assert secure["Cache-Control"] == "no-store"


@pytest.mark.parametrize("method", ["get", "post", "delete"])
@pytest.mark.parametrize("path", ["/api", "/api/keys", "/api/keys/1"])
def test_a_missing_slash_is_named_and_not_redirected(path, method, caller):
    """A redirect would turn a POST into a GET in most clients."""
    assert f"{path}/" in problem(getattr(caller, method)(path), "not-found")["detail"]


# Browsers


@pytest.mark.parametrize("method", ["get", "options"])
def test_no_header_lets_another_site_in(method, caller):
    """CORS is off."""
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET", **caller._headers}
    answer = getattr(caller.client, method)("/api/keys/", headers=headers)
    assert [name for name in answer.headers if name.lower().startswith("access-control")] == []


def test_options_shows_methods_to_callers_alone(caller):
    """The answer has no description of the view; nobody gets the answer of any other method."""
    problem(Program().client.options("/api/keys/"), "not-authenticated")
    answer = caller.client.options("/api/keys/", headers=caller._headers)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"


def test_the_page_has_the_strict_policy():
    """Swagger UI runs with it; no cache keeps the page, which holds a CSRF token."""
    answer = Program(user=person("ada")).get("/api/docs/")
    assert answer["Content-Security-Policy"] == POLICY
    assert "no-store" in answer["Cache-Control"]
    assert answer["X-Frame-Options"] == "DENY"


# Caches


@pytest.mark.parametrize("path", ["/api/", "/api/keys/", "/api/schema/", "/api/docs/", "/api/none/"])
def test_no_cache_keeps_an_answer(path, caller):
    """All of them are for one caller."""
    assert "no-store" in caller.get(path)["Cache-Control"]


# Forms of requests


def test_an_address_that_does_not_exist_is_the_same_for_everybody(caller):
    """It says nothing about the caller."""
    assert problem(caller.get("/api/none/"), "not-found") == problem(Program().get("/api/none/"), "not-found")


def test_a_method_without_a_view_is_named(caller):
    """`Allow` lists the others."""
    answer = caller.client.put("/api/keys/", "{}", "application/json", headers=caller._headers)
    problem(answer, "method-not-allowed")
    assert answer["Allow"] == "GET, POST, HEAD, OPTIONS"
    for method in ("TRACE", "PROPFIND", "__class__", "X" * 300):
        problem(caller.client.generic(method, "/api/keys/", headers=caller._headers), "method-not-allowed")


def test_methods_in_odd_case_are_the_same_methods(caller):
    """Nothing of a POST can be had by a `post`."""
    key = program(person("vera"), ["devices:read"])
    for method in ("post", "PoSt"):
        answer = key.client.generic(
            method, "/api/keys/", json.dumps(NEW_KEY), "application/json", headers=key._headers
        )
        problem(answer, "not-allowed")
    assert caller.client.generic("get", "/api/keys/", headers=caller._headers).status_code == 200


def test_a_refused_word_comes_with_those_that_there_are(caller):
    """In a body, in a list of a body, and in a parameter."""
    body = caller.post("/api/keys/", {**NEW_KEY, "scopes": ["root"]})
    assert problem(body, "invalid")["errors"][0]["detail"].endswith("access:read, access:write.")
    WeatherStationDevice.objects.create(device_id="S-1", mqtt_username="S-1")
    query = caller.get("/api/devices/weatherstation/S-1/readings/", interval="week")
    assert problem(query, "invalid")["detail"] == (
        'interval: "week" is not a valid choice; choose one of raw, hour, day.'
    )


def test_head_is_a_get_without_a_body(caller):
    """It needs the scope of the GET."""
    answer = caller.client.head("/api/keys/", headers=caller._headers)
    assert (answer.status_code, answer.content) == (200, b"")
    narrow = program(person("vera"), ["devices:read"])
    assert narrow.client.head("/api/keys/", headers=narrow._headers).status_code == 403


@pytest.mark.parametrize("path", ["/api/keys/", "/api/schema/", "/api/docs/"])
def test_an_unknown_form_of_answer_is_refused(path, caller):
    """The page is HTML for any `Accept`."""
    answer = caller.client.get(path, headers={**caller._headers, "Accept": "text/csv"})
    if path != "/api/docs/":
        problem(answer, "not-acceptable")


def test_a_caller_that_accepts_problems_alone_may_delete(caller):
    """Generated clients accept what the description names, and for an answer without a body that is the problem."""
    made = caller.post("/api/keys/", NEW_KEY).json()
    answer = caller.delete(f"/api/keys/{made['id']}/", Accept=PROBLEM)
    assert (answer.status_code, answer.content) == (204, b"")


def test_a_problem_is_json_also_for_a_caller_that_accepts_yaml_alone():
    """The description comes as YAML, an error about it does not."""
    answer = Client().get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi"})
    problem(answer, "not-authenticated")


def test_the_parameter_format_is_unknown_like_any_other(caller):
    """It does not choose the form of an answer."""
    for value in ("json", "xml"):
        problem(caller.get("/api/keys/", format=value), "unknown-parameter")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_body_of_another_type_is_refused(kind, caller):
    """Only JSON is read."""
    answer = caller.client.generic("POST", "/api/keys/", b"x", kind, headers=caller._headers)
    problem(answer, "unsupported-media-type")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 100_000, "unreadable-body"),
        (b"[" * 1_000 + b"]" * 1_000, "unreadable-body"),
        (b'{"name":' * 65 + b"1" + b"}" * 65, "unreadable-body"),
        (b'{"name":' * 64 + b"1" + b"}" * 64, "invalid"),
        (b'{"name":' + b"9" * 10_000 + b"}", "unreadable-body"),
        (b'{"name": 1e400}', "unreadable-body"),
        (b'{"name": NaN}', "unreadable-body"),
        (b'{"name": "\xff"}', "unreadable-body"),
        (b"\xef\xbb\xbf{}", "unreadable-body"),
        (b'{"name": "' + b"x" * (1 << 20) + b'"}', "too-large"),
    ],
    ids=["open", "deep-list", "deep", "less-deep", "digits", "infinite", "nan", "not-utf-8", "mark", "large"],
)
@pytest.mark.parametrize("key", ["", "one"])
def test_a_hostile_body_is_refused(body, code, key, caller):
    """Also where it would be digested for an Idempotency-Key."""
    headers = caller._headers | ({"Idempotency-Key": key} if key else {})
    answer = caller.client.generic("POST", "/api/keys/", body, "application/json", headers=headers)
    problem(answer, code)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_hostile_form_of_a_session_is_refused(kind):
    """The check of the CSRF token reads forms."""
    browser = Program(user=person("ada"))
    browser.client.handler.enforce_csrf_checks = True
    browser.client.raise_request_exception = False
    for body in (b"a=" + b"x" * (3 << 20), b"&".join(b"a%d=" % n for n in range(2_000)), b"--x\r\n" * 9):
        answer = browser.client.generic("POST", "/api/keys/", body, kind)
        assert answer.status_code in (400, 403, 413, 415), (answer.status_code, body[:20])
        assert answer["Content-Type"] == PROBLEM


def test_the_refusals_of_the_entrance_are_problems():
    """It stands in front of the API, and knows nothing of it but the types."""
    for status, refusal in REFUSALS.items():
        assert (KINDS[refusal.code].status, KINDS[refusal.code].title) == (status, refusal.title)


def test_a_body_beyond_the_limit_of_the_entrance_is_a_problem(send):
    """With a declared length, and in chunks without one."""
    part = b"x" * (1 << 20)

    for content in (part * 4, iter([part] * 4)):
        answer = send(
            "asgi", "POST", "/api/keys/", content=content, headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.headers["Content-Type"]) == (413, PROBLEM)
        assert answer.json()["type"] == "/problems/too-large"
    answer = send("asgi", "POST", "/api/keys/", content=part * 4, headers={"Accept": "text/html,*/*"})
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


# Limits and faults


def test_requests_beyond_the_rate_are_refused(caller, monkeypatch):
    """Of one key; another one is not concerned."""
    monkeypatch.setattr(throttling, "_counts", type(throttling._counts)(lambda: 100))
    monkeypatch.setattr(type(options), "api_rate", property(lambda _: RateLimit(2, 60)))
    assert [caller.get("/api/").status_code for _ in range(3)] == [200, 200, 429]
    answer = caller.get("/api/")
    problem(answer, "too-many-requests")
    assert 0 < int(answer["Retry-After"]) <= 60
    assert program(person("vera")).get("/api/").status_code == 200


@pytest.mark.parametrize("with_session", [True, False], ids=["session", "key"])
def test_a_database_that_is_away_is_said_so(with_session, caller, monkeypatch):
    """The answer names no table and has no traceback."""

    def fail(*args, **options):
        raise OperationalError("could not connect to db-7.internal")

    browser = Program(user=person("vera")) if with_session else caller
    monkeypatch.setattr("django.db.backends.utils.CursorWrapper.execute", fail)
    browser.client.raise_request_exception = False
    answer = browser.get("/api/keys/")
    content = problem(answer, "unavailable")
    assert int(answer["Retry-After"]) > 0
    assert "db-7" not in json.dumps(content)


def test_a_fault_of_the_server_shows_nothing_of_itself(caller, monkeypatch):
    """The log has the error."""

    def fail(*args, **options):
        raise RuntimeError("secret of the server")

    monkeypatch.setattr("devicehub.api.keys.visible", fail)
    caller.client.raise_request_exception = False
    answer = caller.get("/api/keys/")
    problem(answer, "failed")
    assert b"secret" not in answer.content


# Settings of other projects


def test_the_page_of_a_problem_leads_to_the_documentation():
    """People who follow the `type` of an answer find the request there."""
    assert 'href="/api/docs/"' in Client().get("/problems/invalid").content.decode()


def test_the_pages_of_problems_are_for_everybody(settings):
    """Each type of problem has one; it needs no sign-in."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    for code, kind in KINDS.items():
        answer = Client().get(f"/problems/{code}")
        assert answer.status_code == 200
        assert kind.title in answer.content.decode()
        assert answer["Content-Security-Policy"] == POLICY
    assert "<code>Retry-After</code>" in Client().get("/problems/unavailable").content.decode()
    assert Client().get("/problems/none").status_code == 404


def test_a_wrong_statement_is_no_outage():
    """A fault of the program is 500, with its traceback in the log; a database that is away is 503."""
    assert problems.of(ProgrammingError("no such column")) is None
    assert problems.of(OperationalError("gone")).code == "unavailable"
