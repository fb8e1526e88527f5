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
    description="A text of your choice, 1-255 characters. A repetition with it within 24 hours makes nothing new.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    str,
    OpenApiParameter.HEADER,
    description="The `ETag` of the object as you read it; it is refused if somebody changed it since.",
)


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

    def _get_response_bodies(self, direction: Any = "response") -> Any:
        found = super()._get_response_bodies(direction)
        codes = {"400", "401", "403", "429"}
        if "{" in self.path:
            codes.add("404")
        problem = self._get_response_for_code(
            OpenApiResponse(ProblemSerializer), "default", ["application/problem+json"], direction
        )
        for code in sorted(codes - set(found)):
            found[code] = {**problem, "description": DESCRIPTIONS[code]}
        found["default"] = {**problem, "description": "Another problem."}
        return found


DESCRIPTIONS = {
    "400": "A value, a parameter or the body is not valid.",
    "401": "No valid key or session.",
    "403": "The key lacks a scope, or its user a permission.",
    "404": "There is no such object, or the caller may not see it.",
    "429": "Too many requests; `Retry-After` says when to go on.",
}


def refused(code: int, text: str) -> dict[tuple[int, str], OpenApiResponse]:
    """Return an entry of `responses` for a refusal with the status *code*, which *text* explains."""
    return {(code, "application/problem+json"): OpenApiResponse(ProblemSerializer, text)}


def documented(**options: Any) -> Callable[[View], View]:
    """Decorate a method of an ApiView with what extend_schema() takes.

    The decorator of the library alone would use the class that the settings of the project name.
    """

    def decorate(method: View) -> View:
        method.schema = Schema()  # type: ignore[attr-defined]
        return extend_schema(**options)(method)

    return decorate
