"""The description of every operation in the schema, beside that of its view: parameters, errors, rights and tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

View = TypeVar("View", bound=Callable[..., Any])


IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    str,
    OpenApiParameter.HEADER,
    description="A text of your choice, 1-255 characters. A repetition with it within 24 hours makes nothing new: it "
    "gets the first answer again, or 409 with `Location` if that had a secret. Another request with it is 422.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    description="The `ETag` of the object as you read it; it is refused if somebody changed it since.",
)

# The headers of answers, as components of the description.
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {
        "description": "The tag of the values as they are now. Send it as `If-Match` with a change.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Location": {
        "description": "The address of what this request made, or of what it is about.",
        "required": True,
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "AlreadyMade": {
        "description": "With the problem `already-made`: the address of what the first request made.",
        "schema": {"type": "string", "format": "uri-reference"},
    },
    "Retry-After": {
        "description": "The seconds after which to send the request again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {
        "description": "The scheme of `Authorization`.",
        "required": True,
        "schema": {"type": "string"},
    },
}


class ProblemErrorSerializer(serializers.Serializer):
    """One value at fault; an empty `field` is the request as a whole."""

    field = serializers.CharField(allow_blank=True)
    detail = serializers.CharField()


class ProblemSerializer(serializers.Serializer):
    """Problem details, RFC 9457."""

    type = serializers.CharField(help_text="The kind of problem, such as `/problems/not-found`.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(help_text="The remedy, in one sentence or two.")
    errors = ProblemErrorSerializer(many=True, required=False)
    location = serializers.CharField(required=False, help_text="The address of what the first request made.")


class Schema(AutoSchema):
    """The schema of an operation of ApiView."""

    def get_tags(self) -> list[str]:
        """Return the tag of the view."""
        return [self.view.tag] if getattr(self.view, "tag", "") else super().get_tags()

    def get_override_parameters(self) -> list[Any]:
        """Return the parameters that the view declares."""
        found: list[Any] = super().get_override_parameters()
        if self.method == "GET" and getattr(self.view, "query", None) is not None:
            found = [*found, self.view.query]
        return found

    def get_description(self) -> str:
        """Return the docstring of the method, and the scope that a key needs."""
        scope = self.view.scope_of(self.method) if hasattr(self.view, "scope_of") else ""
        needed = f"Scope of an API key: `{scope}`." if scope else ""
        devices = getattr(self.view, "open_to_devices", ())
        open_to = "A device may call it with its own key." if self.method in devices else ""
        return "\n\n".join(filter(None, (super().get_description(), needed, open_to)))

    def get_auth(self) -> list[dict[str, Any]]:
        """Return the ways to authenticate: a key or a session."""
        return [{"apiKey": []}, {"session": []}]

    def _get_format_parameters(self) -> list[Any]:
        """Return nothing: `Accept` alone chooses the form of an answer."""
        return []

    def _get_parameters(self) -> Any:
        """Return the parameters, without empty defaults: generated clients send them, and an empty text is refused."""
        found = super()._get_parameters()
        for parameter in found:
            if parameter["schema"].get("default") == "":
                del parameter["schema"]["default"]
        return found

    def _get_request_body(self, direction: Any = "request") -> Any:
        """Return the body, which is required for a change, and for readings: generators then put it before headers."""
        found = super()._get_request_body(direction)
        if found and (self.method == "PATCH" or self.method in getattr(self.view, "of_devices_only", ())):
            found["required"] = True
        return found

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        found = super()._get_response_bodies(direction)
        parameters = self.get_override_parameters()
        codes = {"400", "401", "403", "429", "503"}
        if "{" in self.path:
            codes.add("404")
        if IDEMPOTENCY_KEY in parameters:
            codes |= {"409", "422"}
        if IF_MATCH in parameters:
            codes.add("412")
        problem = self._get_response_for_code(
            OpenApiResponse(ProblemSerializer), "default", ["application/problem+json"], direction
        )
        for code in sorted(codes - set(found)):
            found[code] = {**problem, "description": DESCRIPTIONS[code]}
        found["default"] = {**problem, "description": "Another problem."}
        return {code: _with_headers(response, self._headers(code)) for code, response in found.items()}

    def _headers(self, code: str) -> dict[str, str]:
        """Return the headers of an answer with the status *code*, each with its name in HEADERS."""
        parameters, headers = self.get_override_parameters(), OF_STATUS.get(code, {})
        if IDEMPOTENCY_KEY in parameters:
            headers |= {"Location": "Location"} if code[0] == "2" else {}
            headers |= {"Location": "AlreadyMade"} if code == "409" else {}
        if code == "200" and getattr(getattr(self.view, self.method.lower(), None), "has_etag", False):
            headers |= {"ETag": "ETag"}
        return headers


def _with_headers(response: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    named = {name: {"$ref": f"#/components/headers/{component}"} for name, component in headers.items()}
    return {"headers": named, **response} if named else response


OF_STATUS: dict[str, dict[str, str]] = {
    "401": {"WWW-Authenticate": "WWW-Authenticate"},
    "429": {"Retry-After": "Retry-After"},
    "503": {"Retry-After": "Retry-After"},
}


DESCRIPTIONS = {
    "400": "A value, a parameter or the body is not valid.",
    "401": "No valid key or session.",
    "403": "The key lacks a scope, or its user a permission.",
    "404": "There is no such object, or the caller may not see it.",
    "409": "Taken, against the present state, or made already by a request with the same `Idempotency-Key`.",
    "412": "The object was changed since you read it.",
    "422": "Another request had this `Idempotency-Key`.",
    "429": "Too many requests; `Retry-After` says when to go on.",
    "503": "The service cannot do it now; `Retry-After` says when to try again.",
}


def refused(code: int, text: str) -> dict[tuple[int, str], OpenApiResponse]:
    """Return an entry of `responses` for a refusal with the status *code*, which *text* explains."""
    return {(code, "application/problem+json"): OpenApiResponse(ProblemSerializer, text)}


def documented(*, has_etag: bool = False, **options: Any) -> Callable[[View], View]:
    """Decorate a method of an ApiView with what extend_schema() takes, and whether its answer has an `ETag`.

    The decorator of the library alone would use the class that the settings of the project name.
    """

    def decorate(method: View) -> View:
        method.schema = Schema()  # type: ignore[attr-defined]
        method.has_etag = has_etag  # type: ignore[attr-defined]
        return extend_schema(**options)(method)

    return decorate
