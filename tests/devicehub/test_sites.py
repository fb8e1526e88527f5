"""A walk over every URL of pages and admin, as people who must not see or change the devices of another site.

The devices of the southern site and all their rows carry a mark in each text that no URL of the walk holds.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import models, transaction
from django.test import Client, RequestFactory
from django.urls import URLPattern, URLResolver, get_resolver

from authsvc.models import Denial
from devicehub import nonces, roles
from devicehub.credentials import changes
from devicehub.dashboard import rotations
from devicehub.lwm2m.models import (
    Event,
)
from devicehub.models import (
    SiteScope,
)
from fleet.models import WeatherStationDevice
from rig import southern
from rig.southern import KEY, MARK, SOUTH, VALUE

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_only, pytest.mark.pages]

# They answer everybody alike, hold no rows of devices, or end the session of the walk.
NOT_WALKED = ("mqtt/", "healthz", "readyz", "metrics", "api/token", "logout", "jsi18n", "static/")


@pytest.fixture
def south() -> WeatherStationDevice:
    """Return a device of the southern site, with rows in every table that knows devices."""
    return southern.device()


@pytest.fixture
def north() -> WeatherStationDevice:
    return WeatherStationDevice.objects.create(device_id="NORTH-1", name="at the north", site="north")


def person(role: str | None, sites: list[str] | None) -> Client:
    user = User.objects.create_user(uuid.uuid4().hex[:20], is_staff=True)
    if role is not None:
        user.groups.add(Group.objects.get(name=role))
    if sites is not None:
        SiteScope.objects.create(user=user, sites=sites)
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def urls(patterns: Any = None, prefix: str = "") -> Iterator[str]:
    """Yield every URL of the project, with the southern device or row wherever a URL names one."""
    for entry in patterns if patterns is not None else get_resolver().url_patterns:
        text = str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from urls(entry.url_patterns, prefix + text)
        elif isinstance(entry, URLPattern) and not (prefix + text).startswith(NOT_WALKED):
            yield from filled(prefix + text)


def filled(route: str) -> Iterator[str]:
    """Yield *route* with its parameters filled."""
    route = route.replace("^", "").replace("$", "").replace("\\Z", "")
    if "(?P<" in route:  # The admin's pages of one app, and its last pattern.
        yield from ("admin/fleet/", "admin/devicehub/", "admin/authsvc/", "admin/auth/", "admin/lwm2m/")
        return
    parts = route.split("/")
    row = pk_of(parts) if parts[0] == "admin" and len(parts) > 3 else None
    shown = []
    for part in parts:
        name = part.strip("<>").partition(":")[2] or part.strip("<>")
        if not part.startswith("<"):
            shown.append(part)
        elif name in ("type", "slug", "kind"):
            shown.append("weatherstation")
        elif name in ("id", "device_id"):
            shown.append(SOUTH)
        elif name == "key":
            shown.append(KEY)
        else:
            shown.append(str(row if row is not None else number_of(route)))
    yield "/".join(shown)


def pk_of(parts: list[str]) -> Any:
    """Return the key of the southern row of the model in the path of an admin page, or None."""
    try:
        model = apps.get_model(parts[1], parts[2])
    except LookupError:
        return None
    found = model._base_manager.order_by("pk").values_list("pk", flat=True).first()
    return 1 if found is None else str(found).replace("/", "_2F")


def number_of(route: str) -> Any:
    """Return the key of the row that a page with a number shows."""
    places = (
        ("denial", Denial),
        ("rotation", "rotation"),
        ("import", "deviceimport"),
        ("lwm2m/events", Event),
    )
    for name, model in places:
        if name in route:
            found = apps.get_model("devicehub", model) if isinstance(model, str) else model
            return found._base_manager.values_list("pk", flat=True).first() or 1
    return 1


def bodies(url: str) -> Iterator[dict[str, Any]]:
    """Yield forms that would change the southern device if the page at *url* took them."""
    change = {
        "site": "north",
        "name": "taken",
        "device_id": SOUTH,
        "type": "weatherstation",
        "kind": "weatherstation",
        "key": KEY,
        "keys": KEY,
        "who": KEY,
        "is_active": "",
        "nonce": "any",
        "confirmed": "yes",
        "count": "1",
        "ends": "now",
        "command": "reboot",
        "file_format": "json",
        "post": "yes",
        "subject": f"key:{KEY}",
        "effect": "allow",
        "actions": "publish",
        "filter": "x/#",
    }
    yield change
    if any(name in url for name in ("credentials", "rotation", "import")):
        yield from (change | {"do": act} for act in (*changes.ACTS, *rotations.ACTS, "create", "discard"))
    parts = url.strip("/").split("/")
    if parts[0] == "admin" and len(parts) == 3 and (row := pk_of(parts)) is not None:
        model = apps.get_model(parts[1], parts[2])
        for name in actions_of(model):
            for every in ("0", "1"):
                yield change | {"action": name, "_selected_action": [row], "select_across": every}


def actions_of(model: type[models.Model]) -> list[str]:
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True, is_active=True, is_staff=True)
    return list(admin.site._registry[model].get_actions(request)) if model in admin.site._registry else []


def text_of(response: Any) -> str:
    body = b"".join(response.streaming_content) if response.streaming else response.content
    return f"{body.decode('utf-8', 'replace')} {dict(response.headers)}"


@pytest.fixture
def walked(south: WeatherStationDevice, north: WeatherStationDevice) -> list[str]:
    return sorted({f"/{url}" for url in urls()})


def test_a_superuser_sees_the_marked_rows_on_the_same_walk(walked):
    """So the walk reaches the pages that show them."""
    user = User.objects.create_superuser("root", password=None)
    client = Client(raise_request_exception=False)
    client.force_login(user)

    showing = {url for url in walked if MARK in text_of(client.get(url, headers={"accept": "text/html"}))}

    for page in (
        "/",
        "/denials/",
        f"/devices/weatherstation/{SOUTH}/credentials/",
        "/rotations/",
        "/lwm2m/",
        "/lwm2m/events/",
        f"/lwm2m/events/{number_of('lwm2m/events')}/",
        f"/devices/lwm2m/{SOUTH}/objects/",
        "/admin/lwm2m/endpoint/",
        "/admin/lwm2m/endpointmessage/",
        "/admin/lwm2m/resource/",
        "/admin/lwm2m/resourcevalue/",
        "/admin/lwm2m/event/",
        "/admin/lwm2m/eventresource/",
        "/admin/",
        "/admin/fleet/weatherstationdevice/",
        "/admin/fleet/weatherstationmessage/",
        "/admin/devicehub/devicecommand/",
        "/admin/devicehub/quarantinedmessage/",
        "/admin/devicehub/devicegroup/",
        "/admin/authsvc/denial/",
        "/admin/authsvc/auditentry/",
        "/admin/authsvc/grant/",
        "/admin/authsvc/account/",
        "/admin/authsvc/broker/",
    ):
        assert page in showing


@pytest.mark.parametrize(
    ("role", "sites"),
    [
        (roles.ADMINISTRATOR, ["north"]),
        pytest.param(roles.VIEWER, ["north"], marks=pytest.mark.long),
        pytest.param(roles.OPERATOR, ["north"], marks=pytest.mark.long),
        pytest.param(roles.OPERATOR, [], marks=pytest.mark.long),
        pytest.param(None, None, marks=pytest.mark.long),
    ],
    ids=["administrator", "viewer", "operator", "operator without a site", "without permissions"],
)
def test_no_page_shows_a_device_of_another_site(walked, role, sites):
    client = person(role, sites)

    shown = [
        f"{url} {query} {accept}: {response.status_code}"
        for url in walked
        for query, accept in ways(url)
        if not is_silent(response := client.get(url, query, headers={"accept": accept}), url)
    ]

    assert "\n".join(shown) == ""


def ways(url: str) -> Iterator[tuple[dict[str, str], str]]:
    """Yield queries and accepted types with which a page at *url* may answer differently."""
    yield {}, "text/html"
    if not url.startswith("/admin/"):
        yield {}, "application/json"
    if url.rstrip("/").rpartition("/")[2].isalpha():  # A list, or a search.
        yield {"q": MARK[:-1], "who": KEY, "all": ""}, "text/html"


def is_silent(response: Any, url: str) -> bool:
    """Return whether *response* to *url* has no error, and tells nothing of the southern device."""
    said = text_of(response).replace(url, "")
    return response.status_code < 500 and MARK not in said and VALUE not in said


@pytest.mark.parametrize(
    ("role", "sites"),
    [(roles.VIEWER, None), (roles.OPERATOR, ["north"]), (roles.ADMINISTRATOR, ["north"]), (None, None)],
    ids=["viewer of all", "operator", "administrator", "without permissions"],
)
@pytest.mark.long
def test_no_form_changes_a_device_of_another_site(walked, role, sites, monkeypatch):
    monkeypatch.setattr(nonces, "use", lambda *_: None)  # The nonce must not be the only thing that refuses.
    client = person(role, sites)
    before = southern.rows()

    wrong = []
    for url in walked:
        for body in bodies(url):
            response = client.post(url, body)
            is_hidden = role == roles.VIEWER or is_silent(response, url)
            if response.status_code >= 500 or not is_hidden or southern.rows() != before:
                wrong.append(f"{url} {body.get('action')}: {response.status_code}")
            before = southern.rows() if wrong else before

    assert "\n".join(wrong) == ""


ON_CREDENTIALS = {"rotate", "rotate_key", "end_overlap", "expiry", "move", "disable", "revoke"}
IN_THE_LIST = {f"{act}_many" for act in ("rotate", "revoke", "disable", "move", "send")} | {"delete_selected"}


@pytest.mark.parametrize(
    ("url", "acts"),
    [
        (f"/devices/weatherstation/{SOUTH}/credentials/", ON_CREDENTIALS),
        (f"/admin/fleet/weatherstationdevice/credentials/{SOUTH}/", ON_CREDENTIALS),
        ("/admin/fleet/weatherstationdevice/", IN_THE_LIST),
        ("/rotations/{}/", {"again", "finish", "roll_back"}),
    ],
)
def test_the_forms_of_the_walk_change_the_device_only_for_people_who_may(south, url, acts, monkeypatch):
    """So the walk is refused because of the person, and not because a field is missing."""
    monkeypatch.setattr(nonces, "use", lambda *_: None)
    url = url.format(number_of("rotation"))

    assert changing(person(roles.OPERATOR, None), url) >= acts
    assert changing(person(roles.OPERATOR, ["north"]), url) == set()
    assert changing(person(roles.VIEWER, None), url) == set()


def changing(client: Client, url: str) -> set[str]:
    """Return the acts of the walk at *url* that change the southern device; each is rolled back."""
    found: set[str] = set()
    before = southern.rows()
    for body in bodies(url):
        with transaction.atomic():
            text_of(client.post(url, body))
            if southern.rows() != before:
                found.add(str(body.get("do") or body.get("action")))
            transaction.set_rollback(True)
    return found
