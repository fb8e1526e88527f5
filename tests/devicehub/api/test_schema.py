"""The description of the API: complete, free of warnings, as committed, and true for any request."""

from __future__ import annotations

import pytest
import schemathesis
import yaml
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.urls import get_resolver
from drf_spectacular.drainage import GENERATOR_STATS
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from devicehub import api_keys, roles
from devicehub.api import documentation
from devicehub.conf import settings as options
from fleet.models import WeatherStationDevice
from rig.examples import FACTOR, examples
from rig.openapi import COMMAND, PAGE, described
from rig.programs import Program, person, program

METHODS = ("get", "post", "put", "patch", "delete")
WITHOUT_DESCRIPTION = {"/api/schema/", "/api/docs/", "/api/token", "/api/"}


def operations(found=None):
    """Return the operations of the description by path and method."""
    paths = (found or documentation.document())["paths"]
    return {
        (path, method): item[method] for path, item in paths.items() for method in METHODS if method in item
    }


def test_the_committed_description_is_that_of_the_routes():
    """The file is written by a command, which the message names."""
    assert PAGE.read_text() == described(), f"a route or a type has changed: run {COMMAND}"


def test_the_description_is_made_without_a_warning(capsys):
    """A warning names a serializer or a parameter that the library could not read."""
    GENERATOR_STATS.reset()
    documentation._generate("/")
    assert GENERATOR_STATS._warn_cache == {}, GENERATOR_STATS._warn_cache
    assert GENERATOR_STATS._error_cache == {}


def test_every_operation_is_described():
    """Each has a name of its own, a summary, a tag, ways to authenticate and the form of its errors."""
    found = operations()
    assert len({operation["operationId"] for operation in found.values()}) == len(found)
    for place, operation in found.items():
        assert {"summary", "description", "tags", "security"} <= operation.keys(), place
        assert {"401", "403", "429", "default"} <= operation["responses"].keys(), place
        for code, response in operation["responses"].items():
            if code[0] in "45d":
                assert list(response["content"]) == ["application/problem+json"], (place, code)


def test_the_headers_of_answers_are_described():
    """Of changes that may be refused or repeated, and of waits; a guard compares them with each answer of the tests."""
    for place, operation in operations().items():
        sent = {parameter["name"] for parameter in operation.get("parameters", ())}
        headers = {code: set(one.get("headers", ())) for code, one in operation["responses"].items()}
        assert headers["429"] == headers["503"] == {"Retry-After"}, place
        if "If-Match" in sent:
            assert "412" in headers, place
            assert headers.get("200", {"ETag"}) == {"ETag"}, place
        if "Idempotency-Key" in sent:
            assert "422" in headers, place
            assert [headers[code] for code in headers if code[0] == "2" or code == "409"] == [
                {"Location"}
            ] * 2


def test_every_schema_is_one():
    """Each component is a valid JSON Schema of the dialect of OpenAPI 3.1."""
    for name, schema in documentation.document()["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema), name


def test_every_object_of_an_answer_has_a_name():
    """Generators name an object without one by its place, such as `GetLatest200ResponseValue`."""

    def objects(schema, place):
        if "properties" in schema:
            yield place
        for part in ("items", "additionalProperties"):
            if isinstance(schema.get(part), dict):
                yield from objects(schema[part], place)
        for part in schema.get("oneOf", []) + schema.get("anyOf", []) + schema.get("allOf", []):
            yield from objects(part, place)

    found = documentation.document()
    parts = [
        (content["schema"], place)
        for place, operation in operations(found).items()
        for body in [*operation["responses"].values(), operation.get("requestBody", {})]
        for media_type, content in body.get("content", {}).items()
        if media_type.endswith("json") and "schema" in content
    ]
    parts += [
        (member, (name, inner))
        for name, schema in found["components"]["schemas"].items()
        for inner, member in schema.get("properties", {}).items()
    ]
    assert [place for schema, place in parts for place in objects(schema, place)] == []


def test_a_choice_of_schemas_is_one():
    """A value that fits two alternatives of oneOf is refused, and an empty schema fits any."""

    def choices(schema):
        if isinstance(schema, dict):
            if "oneOf" in schema:
                yield schema["oneOf"]
            for inner in schema.values():
                yield from choices(inner)
        elif isinstance(schema, list):
            for inner in schema:
                yield from choices(inner)

    found = documentation.document()
    assert [one for one in choices(found) if {} in one] == []
    assert {"Blank", "Null"} & found["components"]["schemas"].keys() == set()


def test_no_change_has_a_default():
    """A generated client sends defaults, and so would change what its user did not name."""
    for name, schema in documentation.document()["components"]["schemas"].items():
        if name.startswith("Patched"):
            assert [m for m, about in schema["properties"].items() if "default" in about] == [], name


def test_a_default_of_a_parameter_is_one_of_its_values():
    """A generated client sends defaults with every request."""
    for place, operation in operations().items():
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            if "default" in schema:
                assert schema["default"] != "", (place, parameter["name"])
                Draft202012Validator(schema).validate(schema["default"])


def test_readings_have_one_form_of_json():
    """Generators choose the media type of a body by its schema, and any value fits each kind of JSON here."""
    body = operations()["/api/devices/{type}/{device_id}/readings/", "post"]["requestBody"]
    assert [name for name in body["content"] if "json" in name] == ["application/json"]
    assert body["required"]


def test_a_change_needs_its_body():
    """Generators put an optional body behind the optional headers, which then come first by position."""
    changes = [operation for (_, method), operation in operations().items() if method == "patch"]
    assert all(operation["requestBody"]["required"] for operation in changes)


def test_every_route_is_described():
    """A route without an operation in the description would be known to nobody."""

    def paths(patterns, prefix=""):
        for pattern in patterns:
            inner = prefix + str(pattern.pattern)
            if hasattr(pattern, "url_patterns"):
                yield from paths(pattern.url_patterns, inner)
            else:
                yield inner

    def shape(path):
        return [level if level[:1] not in "<{" else "*" for level in path.strip("/").split("/")]

    routes = {f"/{path}" for path in paths(get_resolver().url_patterns) if path.startswith("api/")}
    described_paths = [shape(path) for path in documentation.document()["paths"]]
    assert [p for p in routes - WITHOUT_DESCRIPTION if p != "/api/" and shape(p) not in described_paths] == []


@pytest.mark.django_db
def test_the_description_is_served_to_callers_only():
    """Reading it takes a key or a session; it comes as JSON or YAML."""
    caller = program(person("ada"))
    assert Program().get("/api/schema/").status_code == 401
    answer = caller.get("/api/schema/")
    assert answer.json()["openapi"] == "3.1.0"
    as_yaml = caller.client.get(
        "/api/schema/", headers={**caller._headers, "Accept": "application/vnd.oai.openapi"}
    )
    assert yaml.safe_load(as_yaml.content) == answer.json()


@pytest.mark.django_db
def test_the_page_leads_people_to_the_sign_in():
    """A browser without a session is led to it; a program gets a problem."""
    nobody = Program()
    answer = nobody.client.get("/api/docs/", headers={"Accept": "text/html"})
    assert (answer.status_code, answer["Location"]) == (302, "/login/?next=/api/docs/")
    assert nobody.get("/api/docs/").status_code == 401
    assert Program(user=person("ada")).get("/api/docs/").status_code == 200


@pytest.fixture
def callers(db, monkeypatch):
    """Return the headers of an administrator, a viewer, a device and nobody, and a device that they may name."""
    monkeypatch.setattr(type(options), "api_rate", None)
    monkeypatch.setattr("devicehub.api.callers.MAX_OF_ONE", 10**9)
    device = WeatherStationDevice(device_id="STATION-001", name="first", site="north")
    secrets = device.generate_credentials()
    device.save()
    keys = {
        "administrator": api_keys.create(person("ada"), "ada", list(api_keys.SCOPES)).secret,
        "viewer": api_keys.create(person("vera", roles.VIEWER), "vera", list(api_keys.SCOPES)).secret,
        "device": secrets["api_key"],
    }
    return [{"Authorization": f"Api-Key {key}"} for key in keys.values()] + [{}]


@pytest.fixture
def description():
    """Return the description for schemathesis, answered by this process in the transaction of the test."""
    request_started.disconnect(close_old_connections)
    request_finished.disconnect(close_old_connections)
    found = schemathesis.openapi.from_dict(documentation.document(), config=SchemathesisConfig())
    found.app = WSGIHandler()
    yield found
    request_started.connect(close_old_connections)
    request_finished.connect(close_old_connections)


CONFORMS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
# The values that a generated request has for a part of a path half of the time, so that it finds its object.
KNOWN = {"type": "weatherstation", "device_id": "STATION-001"}


@pytest.mark.fuzzed
@pytest.mark.pages
@pytest.mark.parametrize("place", sorted(operations()), ids=lambda place: f"{place[1]} {place[0]}")
def test_any_request_gets_an_answer_of_the_description(place, callers, description):
    """As an administrator, a viewer, a device and nobody; none is a fault of the server."""
    path, method = place
    operation = description[path][method]
    checks = CHECKS.get_by_names(CONFORMS)

    @settings(
        max_examples=min(examples(10), 50),
        derandomize=FACTOR
        == 1,  # A commit's run tries the same requests each time, and the long part others.
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case):
        if len(str(case.path_parameters)) % 2:
            case.path_parameters = {
                **case.path_parameters,
                **{k: v for k, v in KNOWN.items() if k in case.path_parameters},
            }
        for headers in callers:
            response = case.call(headers=headers)
            case.validate_response(response, checks=checks)

    ask()
