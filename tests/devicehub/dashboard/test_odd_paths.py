"""Texts in addresses that no name can be: each page answers that it is not there, and none fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote, quote_from_bytes

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import RoutePattern

from fleet.models import WeatherStationDevice
from rig.people import person

pytestmark = pytest.mark.django_db
FREE = ("str", "slug", "path")  # The converters that take any text, or almost.
PART = re.compile(r"<(?:(\w+):)?(\w+)>")
VALUES = {
    "slug": "weatherstation",
    "kind": "weatherstation",
    "type": "weatherstation",
    "device_id": "STATION-001",
}
ODD = {
    "NUL": quote("STATION\0-001"),
    "a control character": quote("\x07"),
    "not UTF-8": quote_from_bytes(b"\xff\xfe"),
    "a surrogate": quote_from_bytes("\ud800".encode("utf-8", "surrogatepass")),
    "beyond the BMP": quote("\U0001f321"),
    "right to left": quote("\u202eSTATION"),
    "combining": quote("e\u0301" * 40),
    "a newline": quote("a\nb"),
    "quotes": quote("'\";--"),
    "percent": quote("%00%s%"),
    "very long": "x" * 3_000,
    "a large number": "9" * 40,
}


def routes(resolver: URLResolver | None = None, before: str = "") -> Iterator[str]:
    """Yield the routes of pages that hold a free text, from the root. Those by regular expression hold none.

    Views for brokers have a connection of their own event loop, which ends with a request of this client; the tests of
    `leshan_api` and of the dialects send them odd addresses.
    """
    for entry in (resolver or get_resolver()).url_patterns:
        if not isinstance(entry.pattern, RoutePattern):
            continue
        route = before + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from routes(entry, route)
        elif (
            isinstance(entry, URLPattern)
            and not getattr(entry.callback, "is_for_brokers", False)
            and any((kind or "str") in FREE for kind, _ in PART.findall(route))
        ):
            yield route


def addresses(route: str, odd: str) -> Iterator[str]:
    """Yield the addresses of *route* in which one free part is *odd*, and the others name something."""
    parts = PART.findall(route)
    for place, (kind, _) in enumerate(parts):
        if (kind or "str") in FREE:
            texts = iter(odd if n == place else _known(*part) for n, part in enumerate(parts))
            yield "/" + PART.sub(lambda _, texts=texts: next(texts), route)


def _known(kind: str, name: str) -> str:
    return "1" if kind == "int" else VALUES.get(name, "1")


def test_pages_with_free_texts_are_walked():
    found = set(routes())

    assert "devices/<slug:slug>/<str:device_id>/credentials/" in {
        re.sub(r"<str:slug>", "<slug:slug>", r) for r in found
    }
    assert len(found) > 60


@pytest.mark.parametrize(
    "odd",
    [
        # PostgreSQL alone cannot hold the first; the others are of a kind that Python and Django handle.
        pytest.param(odd, id=name, marks=pytest.mark.postgresql_only if name == "NUL" else pytest.mark.long)
        for name, odd in ODD.items()
    ],
)
def test_no_address_makes_a_page_fail(odd):
    WeatherStationDevice.objects.create(device_id="STATION-001")
    client = Client(raise_request_exception=False)
    client.force_login(person("olga", None, is_staff=True, is_superuser=True))

    failed = {}
    for route in routes():
        for address in addresses(route, odd):
            for ask in (client.get, client.post):
                status = ask(address).status_code
                if status >= 500:
                    failed[f"{ask.__name__} {address[:120]}"] = status

    assert failed == {}
