"""`/api/schema/` and `/api/docs/`: the API described as OpenAPI 3.1, and a page to read and try it."""

from __future__ import annotations

import copy
import threading
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponse
from django.shortcuts import render
from django.urls import include, path, reverse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer, OpenApiYamlRenderer
from drf_spectacular.settings import SPECTACULAR_DEFAULTS, patched_settings
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub import api_keys
from devicehub.api.addresses import address
from devicehub.api.base import ApiView
from devicehub.api.bodies import JsonRenderer
from devicehub.api.operations import HEADERS, documented
from devicehub.content_security import restrict
from devicehub.kinds.registry import registry
from devicehub.messages.message import FailureReason

SETTINGS: dict[str, Any] = {
    "TITLE": "DeviceHub",
    "DESCRIPTION": "Devices, their credentials, values, commands and access, for programs.",
    "OAS_VERSION": "3.1.0",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_SUFFIX": "",
    "SCHEMA_PATH_PREFIX": "/api/",
    "SORT_OPERATION_PARAMETERS": False,  # Functions of generated clients take them in the order of the address.
    "AUTHENTICATION_WHITELIST": [],
    # Fields of one name have different choices in different resources, so each list of choices has a name.
    "ENUM_NAME_OVERRIDES": {
        "CredentialsState": "devicehub.api.device_credentials.STATES",
        "DeviceState": "devicehub.api.devices.STATES",
        "FailureReason": [reason.value for reason in FailureReason],
        "Lwm2mType": "devicehub.messages.lwm2m.values.DataType",
        "OperatorStatus": "devicehub.api.devices.OPERATOR_CHOICES",
        "ParameterType": "devicehub.api.types.PARAMETER_TYPES",
        "ReadingType": "devicehub.api.types.READING_TYPES",
        "Scope": list(api_keys.SCOPES),
        "Secret": "devicehub.api.device_credentials.SECRETS",
        "StateFieldType": "devicehub.api.types.STATE_TYPES",
        "TopicDirection": "devicehub.api.types.DIRECTIONS",
    },
    "APPEND_COMPONENTS": {
        "headers": HEADERS,
        # The library makes components of serializers only, and generators name what has no name by its place.
        "schemas": {
            "LatestValue": {
                "type": "object",
                "description": "The newest value of a reading.",
                "required": ["value", "unit", "timestamp"],
                "properties": {
                    "value": {"description": "Integers keep 64 bits; bytes are base64."},
                    "unit": {"type": "string", "description": "The unit of SenML, or an empty text."},
                    "timestamp": {
                        "type": "string",
                        "format": "date-time",
                        "description": "The time of measurement.",
                    },
                },
            }
        },
        "securitySchemes": {
            "apiKey": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "`Api-Key dh_...`: a key of a program, or the key of a device without `dh_`.",
            },
            "session": {
                "type": "apiKey",
                "in": "cookie",
                "name": "sessionid",
                "description": "A session of the pages. Requests that change something need the CSRF token.",
            },
        },
    },
}

# The settings of the library that a project may have changed for an API of its own; the others cannot be patched.
_CHANGEABLE = {
    name
    for name in SPECTACULAR_DEFAULTS
    if not name.startswith(("SERVE_", "SWAGGER_", "REDOC_")) and name != "DEFAULT_GENERATOR_CLASS"
}

BLANK, NULL = ({"$ref": f"#/components/schemas/{name}"} for name in ("Blank", "Null"))

_lock = threading.Lock()
_made: dict[tuple[int, str], Any] = {}


def document() -> dict[str, Any]:
    """Return the description of the API as OpenAPI 3.1, made once for the types that are declared."""
    root = reverse("devicehub:api").removesuffix("/api/")
    key = (registry.version, root)
    with _lock:  # The library has one set of settings for the whole process.
        if key not in _made:
            _made.clear()
            _made[key] = _generate(root)
        return copy.deepcopy(_made[key])


def _generate(root: str) -> dict[str, Any]:
    kept = {name: value for name, value in SPECTACULAR_DEFAULTS.items() if name in _CHANGEABLE}
    settings = kept | SETTINGS | {"VERSION": "1.0", "SERVERS": [{"url": root or "/"}]}
    with patched_settings(settings):
        patterns = [path("api/", include("devicehub.api.urls"))]
        found: dict[str, Any] = SchemaGenerator(patterns=patterns).get_schema(request=None, public=True)
    for name, schema in found["components"]["schemas"].items():
        if name.startswith("Patched"):
            for member in schema["properties"].values():
                # A generated client would send it, and so change what its user did not name.
                member.pop("default", None)
    schemas = found["components"]["schemas"]
    _correct(found, schemas)
    for name in ("Blank", "Null"):
        schemas.pop(name, None)
    return found


def _correct(schema: Any, schemas: dict[str, Any]) -> None:
    """Correct each choice between parts that the library writes and generators, or JSON Schema, read otherwise.

    A choice between any value and null refuses null, because it fits both. Generators make a type of a name for an
    empty text or for null, and some do not import it.
    """
    if isinstance(schema, dict):
        parts = schema.get("oneOf", [])
        if {} in parts:
            del schema["oneOf"]
        elif BLANK in parts:
            [values] = [schemas[part["$ref"].rpartition("/")[2]]["enum"] for part in parts if part != BLANK]
            del schema["oneOf"]
            schema |= {"type": "string", "enum": [*values, ""]}
        elif NULL in parts:
            schema["oneOf"] = [{"type": "null"} if part == NULL else part for part in parts]
        for inner in schema.values():
            _correct(inner, schemas)
    elif isinstance(schema, list):
        for inner in schema:
            _correct(inner, schemas)


class SchemaView(ApiView):
    """The description of the API."""

    renderer_classes = (OpenApiJsonRenderer, OpenApiYamlRenderer)
    tag = "Index"

    @documented(exclude=True)
    def get(self, request: Request) -> Response:
        """Return OpenAPI 3.1 as JSON, or as YAML if it is accepted alone."""
        return Response(document())


class Docs(ApiView):
    """The description as a page, on which requests can be tried."""

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Return the renderer of problems: the page itself is one of Django's, for any `Accept`."""
        return JsonRenderer(), JsonRenderer.media_type

    @documented(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        """Return the page."""
        response = render(request._request, "devicehub/api_docs.html", {"schema_url": address("api_schema")})
        restrict(response)
        response["Cache-Control"] = "no-store, private"
        return response

    def handle_exception(self, exc: Exception) -> Any:
        """Lead a browser without a session to the sign-in; answer anything else as the rest of the API."""
        if isinstance(exc, NotAuthenticated) and "text/html" in self.request.headers.get("Accept", ""):
            return redirect_to_login(self.request.get_full_path())
        return super().handle_exception(exc)
