"""`/api/`: the addresses of the API; and the answer to an address that does not exist."""

from __future__ import annotations

from typing import Any

from django.urls import NoReverseMatch
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from devicehub.api import clear_text
from devicehub.api.addresses import address
from devicehub.api.base import ApiView
from devicehub.api.operations import documented
from devicehub.api.problems import Problem

# The lists, by the names under which the index shows them, with the names of their routes. Other apps add theirs.
_lists: dict[str, str] = {}


def show(name: str, route: str) -> None:
    """Have the index show the route *route*, one without parts, as *name*."""
    _lists[name] = route


for _name in (
    "schema",
    "docs",
    "accounts",
    "audit",
    "brokers",
    "denials",
    "events",
    "grants",
    "keys",
    "quarantine",
):
    show(_name, f"api_{_name}")


class IndexSerializer(serializers.Serializer):
    """The addresses by name."""

    def to_representation(self, instance: Any) -> Any:
        """Return *instance* as it is."""
        return instance


class Index(ApiView):
    """The addresses of the API."""

    tag = "Index"

    @documented(
        operation_id="get_index",
        summary="List the addresses",
        responses={200: {"type": "object", "additionalProperties": {"type": "string", "format": "uri"}}},
    )
    def get(self, request: Request) -> Response:
        """Return the address of each list by its name."""
        found = {}
        for name, route in _lists.items():
            try:
                found[name] = request.build_absolute_uri(address(route))
            except NoReverseMatch:  # pragma: no cover - a route of an app that a project left out
                continue
        return Response(found)


class Unknown(ApiView):
    """Any other address below `/api/`."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Raise Problem `not-found` to everybody, and `https-required` before it."""
        clear_text.refuse(request._request)
        path = request.path
        hint = "" if path.endswith("/") else f" Perhaps you mean {path}/, with a slash at its end."
        raise Problem("not-found", f"There is no such address.{hint}")
