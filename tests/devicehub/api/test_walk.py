"""A walk over every route of the API with every identity: none fails, and none reads or writes what it must not.

The device of the southern site and all its rows carry a mark in each text. The routes are those of the URL patterns, so
a new one is walked too; one with a part of a new name needs a line in ROWS.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.urls import URLPattern, get_resolver
from django.utils import timezone

from authsvc.models import Account, AuditEntry, Broker, Denial, Grant
from devicehub import api_keys, provisioning, roles
from devicehub.api import callers, documentation
from devicehub.api.base import ApiView
from devicehub.conf import settings as options
from devicehub.kinds.registry import registry
from devicehub.lwm2m.models import Event
from devicehub.models import ApiKey, DeviceCommand, QuarantinedMessage, SiteScope
from rig import southern
from rig.programs import Program, person, program
from rig.southern import KEY, MARK, SOUTH, VALUE

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

# Streams read by connections of their own, which do not see the rows of a test; they have walks of their own.
NOT_WALKED = {("events",), ("readings", "export")}
METHODS = ("get", "post", "put", "patch", "delete")
# The row of a route with a number or a name, by its first level. A route below devices names the southern device.
ROWS: dict[str, Callable[[], Any]] = {
    "accounts": lambda: Account.objects.get(username=MARK).username,
    "audit": lambda: AuditEntry.objects.filter(object_key=KEY).values_list("pk", flat=True)[0],
    "brokers": lambda: Broker.objects.get(name=MARK).pk,
    "commands": lambda: DeviceCommand.objects.get(device_key=KEY).pk,
    "denials": lambda: Denial.objects.get(principal=KEY).pk,
    "endpoints": lambda: SOUTH,
    "events": lambda: Event.objects.get().pk,
    "grants": lambda: Grant.objects.get(note=MARK).pk,
    "keys": lambda: ApiKey.objects.get(name=MARK).pk,
    "objects": lambda: 33001,
    "quarantine": lambda: QuarantinedMessage.objects.get(device_key=KEY).pk,
}
# Routes with a part that show nothing of a site: declarations and definitions, the same for everybody.
OF_NO_SITE = {"types", "objects"}
# Parameters of GET that would select the southern rows, for the routes that take them.
QUERIES: dict[str, str] = {
    "action": "publish",
    "topic": f"things/weatherstation/{SOUTH}/data",
    "device": KEY,
    "site": f"{MARK}-site",
    "tag": MARK,
    "prefix": SOUTH[:3],
    "principal": KEY,
    "path": "33001/0/1",
    "type": "weatherstation",
}
NEEDED = {
    "action",
    "topic",
    "path",
}  # Those that are sent alone too, since their route does nothing without them.
# Values of bodies by name; others are made from the schema.
VALUES: dict[str, Any] = {
    "type": "weatherstation",
    "device_id": SOUTH,
    "site": "north",
    "what": "password",
    "overlap": "now",
    "subject": f"key:{KEY}",
    "filter": "x/#",
    "actions": ["publish"],
    "scopes": ["devices:read"],
    "payload": {},
    "tags": [],
    "metadata": {},
    "is_active": False,
}
OF_COMMANDS = {"name": "reboot"}


@dataclass(frozen=True)
class Route:
    """One route with the southern row in its path."""

    path: str
    view: type[ApiView]
    levels: tuple[str, ...] = field(default=())

    @property
    def noun(self) -> str:
        """The last level of the route before a part with the name of a row, such as `commands`."""
        return next((level for level in reversed(self.levels) if not level.startswith("<")), "")

    @property
    def is_southern(self) -> bool:
        """Whether its path names a row of the southern site."""
        return any(level.startswith("<") for level in self.levels) and OF_NO_SITE.isdisjoint(self.levels)

    def allows(self, method: str) -> bool:
        return hasattr(self.view, method)


def routes() -> list[Route]:
    """Return every route below `/api/` whose view is one of the API."""
    return [route for prefix, patterns in _below_api() for route in _routes(patterns, prefix)]


def _below_api() -> Iterator[tuple[tuple[str, ...], Any]]:
    for entry in get_resolver().url_patterns:
        yield from _api(entry, "")


def _api(entry: Any, before: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    text = before + str(entry.pattern)
    if text == "api/":
        yield (), entry.url_patterns
    elif "api/".startswith(text) and hasattr(entry, "url_patterns"):
        for inner in entry.url_patterns:
            yield from _api(inner, text)


def _routes(patterns: Any, before: tuple[str, ...]) -> Iterator[Route]:
    for entry in patterns:
        levels = (*before, *str(entry.pattern).strip("/").split("/"))
        if not isinstance(entry, URLPattern):
            yield from _routes(entry.url_patterns, tuple(filter(None, levels)))
        elif (view := getattr(entry.callback, "cls", None)) and entry.name not in ("api_unknown", "api_docs"):
            levels = tuple(filter(None, levels))
            if levels in NOT_WALKED:
                continue
            yield Route("/".join(("", "api", *_filled(levels), "")), view, levels)


def _filled(levels: tuple[str, ...]) -> Iterator[str]:
    """Yield the levels of a path, with the southern row for each part."""
    fixed = ""
    for level in levels:
        if not level.startswith("<"):
            fixed = level
            yield level
        elif level == "<str:type>":
            yield "weatherstation"
        elif level == "<str:device_id>":
            yield SOUTH
        else:
            yield str(ROWS[fixed]())


@functools.cache
def described() -> dict[str, Any]:
    """Return the description of the API; each call of document() copies it."""
    return documentation.document()


def bodies(route: Route, method: str) -> Any:
    """Return a body that fits the description of the operation."""
    item = next(
        (
            item
            for path, item in described()["paths"].items()
            if [level if level[:1] != "{" else "*" for level in path.strip("/").split("/")]
            == ["api", *(level if level[:1] != "<" else "*" for level in route.levels)]
        ),
        {},
    )
    content = item.get(method, {}).get("requestBody", {}).get("content", {}).get("application/json", {})
    if not content:
        return None
    named = VALUES | (OF_COMMANDS if route.noun == "commands" else {})
    made = _made(content["schema"], named)
    return [made] if isinstance(made, str | int) else made


def _made(schema: dict[str, Any], named: dict[str, Any]) -> Any:
    components = described()["components"]["schemas"]
    while "$ref" in schema or "oneOf" in schema or "anyOf" in schema or "allOf" in schema:
        parts = schema.get("oneOf") or schema.get("anyOf") or schema.get("allOf")
        schema = components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else parts[0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("examples"):
        return schema["examples"][0]
    kinds = schema.get("type", "object")
    kind = kinds if isinstance(kinds, str) else kinds[0]
    if kind == "object":
        members = schema.get("properties", {})
        return {
            name: named[name] if name in named else _made(inner, named)
            for name, inner in members.items()
            if name in named or name in schema.get("required", ())
        }
    made = {"array": [], "boolean": False, "integer": 1, "number": 1, "string": "walked", "null": None}[kind]
    return "2040-01-01T00:00:00Z" if schema.get("format") == "date-time" else made


def calls(route: Route) -> Iterator[tuple[str, dict[str, str], Any]]:
    """Yield the requests that *route* has methods for: the method, the parameters and the body."""
    for method in METHODS[1:]:
        if route.allows(method):
            yield method, {}, bodies(route, method)
    if not route.allows("get"):
        return
    taken = set(route.view.parameters())
    needed = {name: text for name, text in QUERIES.items() if name in taken & NEEDED}
    yield "get", needed, None
    for name, text in QUERIES.items():
        if name in taken - NEEDED:
            yield "get", needed | {name: text}, None


class Answer:
    """An answer: its status, its text, and the southern rows after it; None if nothing was written."""

    def __init__(self, answer: Any, said: str, after: Any) -> None:
        self.status_code, self.said, self.after = answer.status_code, said, after


def send(caller: Program, route: Route, method: str, query: dict[str, str], body: Any) -> Answer:
    """Return the answer to a request, whose changes are undone."""
    written: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        if not sql.startswith(("SELECT", "SAVEPOINT", "RELEASE", "ROLLBACK")) and "last_used_at" not in sql:
            written.append(sql)
        return execute(sql, *rest)

    with transaction.atomic():
        with connection.execute_wrapper(note):
            answer = (
                caller.get(route.path, **query)
                if method == "get"
                else caller._send(method, route.path, body, {})
            )
            said = _text(answer, route, query)
        found = Answer(answer, said, southern.rows() if written else None)
        transaction.set_rollback(True)
    return found


def _text(answer: Any, route: Route, query: dict[str, str]) -> str:
    """Return the body and the headers without what the request itself holds."""
    if answer.get("Content-Type", "").startswith("text/event-stream"):
        answer.close()  # It would not end.
        return ""
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    said = f"{body.decode('utf-8', 'replace')} {dict(answer.headers)}".replace(route.path, "")
    for text in query.values():
        said = said.replace(json.dumps(text)[1:-1], "")
    return said


@pytest.fixture(autouse=True)
def south(monkeypatch):
    """Create the southern device and one at the north; failures of the walk lock nobody out."""
    monkeypatch.setattr(type(options), "api_rate", None)
    monkeypatch.setattr(callers, "MAX_OF_ONE", 10**9)
    provisioning.create(registry.get("weatherstation"), "NORTH-1", site="north")
    return southern.device()


def session(role: str, sites: list[str] | None = None) -> Program:
    return Program(user=person("walker", role, sites))


def of_device(device_id: str) -> Program:
    kind = registry.get("weatherstation")
    return Program(provisioning.rotate_api_key(provisioning.find(kind, device_id)))


def superuser(site: str = "") -> Program:
    return program(User.objects.create(username="root", is_superuser=True), site=site)


def expired() -> Program:
    made = api_keys.create(person("late"), "expired", list(api_keys.SCOPES))
    ApiKey.objects.filter(pk=made.row.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    return Program(made.secret)


def key_of_the_limited() -> Program:
    """Return a program with a key for the south, whose owner was limited to the north after they made it."""
    owner = person("ada")
    made = program(owner, site=f"{MARK}-site")
    SiteScope.objects.create(user=owner, sites=["north"])
    return made


UNKNOWN = {"nobody": Program, "expired key": expired}
# Callers who must not reach the southern site.
FOREIGN: dict[str, Callable[[], Program]] = {
    "administrator of the north": lambda: session(roles.ADMINISTRATOR, ["north"]),
    "operator of the north": lambda: session(roles.OPERATOR, ["north"]),
    "viewer of the north": lambda: session(roles.VIEWER, ["north"]),
    "operator without a site": lambda: session(roles.OPERATOR, []),
    "nobody's role": lambda: session(""),
    "another device": lambda: of_device("NORTH-1"),
    "key for the north": lambda: program(person("ada"), site="north"),
    "superuser's key for the north": lambda: superuser("north"),
    "key of an administrator of the north": lambda: program(person("ada", sites=["north"])),
    "key for the south of an administrator of the north": key_of_the_limited,
    **{
        f"key for the north with {scope}": lambda scope=scope: program(person("ada"), [scope], site="north")
        for scope in api_keys.SCOPES
    },
}
OFTEN = ("administrator of the north", "another device", "superuser's key for the north")
# Callers who reach every site.
FREE: dict[str, Callable[[], Program]] = {
    "superuser": superuser,
    "administrator": lambda: session(roles.ADMINISTRATOR),
    "operator": lambda: session(roles.OPERATOR),
    "viewer": lambda: session(roles.VIEWER),
    "the device itself": lambda: of_device(SOUTH),
    **{f"key with {scope}": lambda scope=scope: program(person("ada"), [scope]) for scope in api_keys.SCOPES},
}


def chosen(identities: dict[str, Any], often: tuple[str, ...]) -> list[Any]:
    """Return the names of *identities* as parameters; those that are not among *often* run with --long."""
    return [pytest.param(name, marks=() if name in often else pytest.mark.long) for name in identities]


@pytest.mark.parametrize("name", UNKNOWN)
def test_without_a_valid_key_every_route_is_closed(name):
    """Each method is 401, also one that the route does not have."""
    caller = UNKNOWN[name]()
    wrong = [
        f"{method} {route.path}: {answer.status_code}"
        for route in routes()
        for method in METHODS
        if (answer := send(caller, route, method, {}, None)).status_code != 401
    ]
    assert wrong == []


@pytest.mark.parametrize("name", chosen(FOREIGN, OFTEN))
def test_nothing_of_another_site_is_read_or_written(name):
    """A row of it is 404, or 403 for a caller who may not do this at all; lists do not show it."""
    caller = FOREIGN[name]()
    before = southern.rows()
    wrong = []
    for route in routes():
        for method, query, body in calls(route):
            answer = send(caller, route, method, query, body)
            own = f"{MARK}-site" if name.startswith("key for the south") else "-"  # The site of its own key.
            is_hidden = MARK not in answer.said.replace(own, "") and VALUE not in answer.said
            is_kept = answer.after is None or answer.after == before
            refused = (400, 403, 404, 405, 415) if method != "get" else (403, 404)
            is_refused = answer.status_code in refused if route.is_southern else answer.status_code < 500
            if not (is_hidden and is_kept and is_refused):
                wrong.append(f"{method} {route.path} {query}: {answer.status_code} {answer.said[:200]}")
    assert "\n".join(wrong) == ""


@pytest.mark.parametrize("name", chosen(FREE, ("viewer",)))
def test_no_route_fails(name):
    """A scope or a permission that is missing is 403, and such a caller changes nothing."""
    caller = FREE[name]()
    before = southern.rows()
    wrong = []
    for route in routes():
        for method, query, body in calls(route):
            answer = send(caller, route, method, query, body)
            is_right = answer.status_code < 500 and (answer.after in (None, before) or name != "viewer")
            is_right = is_right and _may(name, route, method, answer.status_code)
            if not is_right:
                wrong.append(f"{method} {route.path} {query}: {answer.status_code} {answer.said[:200]}")
    assert "\n".join(wrong) == ""


def _may(name: str, route: Route, method: str, status: int) -> bool:
    """Return whether *status* follows the scopes of the caller, and the routes that are open to devices."""
    scope = route.view.scope_of(method.upper())
    if name.startswith("key with "):
        return status == 403 or name == f"key with {scope}" or not scope
    if name == "the device itself":
        return status == 403 or method.upper() in route.view.open_to_devices
    return True


def test_the_same_walk_shows_the_southern_rows_to_a_superuser():
    """So the walk reaches the answers that show them, and sends what they need."""
    caller = superuser()
    missing = [
        f"{route.path} {query}: {answer.status_code} {answer.said[:300]}"
        for route in routes()
        if route.is_southern
        for method, query, body in calls(route)
        if method == "get" and not any(name in query for name in ("type", "site"))
        if (answer := send(caller, route, method, query, body)).status_code != 200
    ]
    assert "\n".join(missing) == ""


# Operations with which a superuser changes no southern row, and the status that says why.
UNCHANGED = {
    "post devices": 409,  # The id is that of the southern device, so that others try to take it.
    "post devices/*/*/readings": 403,  # Of the device alone.
    "post quarantine/*/replay": 200,  # The message fails again.
}


def shape(levels: Iterable[str]) -> str:
    """Return the levels of a path below `/api/` with a star for each part."""
    return "/".join("*" if level[:1] in ("<", "{") else level for level in levels)


def writing() -> set[str]:
    """Return the operations of the description that change something."""
    return {
        f"{method} {shape(path.strip('/').split('/')[1:])}"
        for path, item in described()["paths"].items()
        for method in METHODS[1:]
        if method in item
    }


def test_the_same_bodies_change_the_southern_rows_for_a_superuser():
    """So the walk is refused because of the caller, and not because a value is missing.

    Each writing operation of the description is tried; one that makes something of its own answers 201.
    """
    caller, before = superuser(), southern.rows()
    tried, unchanged = set(), {}
    for route in routes():
        for method, query, body in calls(route):
            if method == "get":
                continue
            answer, name = send(caller, route, method, query, body), f"{method} {shape(route.levels)}"
            tried.add(name)
            is_made = answer.status_code == 201 and not route.is_southern
            if answer.after in (None, before) and not is_made:
                unchanged[name] = answer.status_code
    assert tried == writing()
    assert unchanged == UNCHANGED


def test_the_device_itself_changes_its_rows_by_a_post_of_readings():
    """So the posts of others are refused because of the caller."""
    before, caller = southern.rows(), of_device(SOUTH)
    [route] = [route for route in routes() if shape(route.levels) == "devices/*/*/readings"]
    answer = send(caller, route, "post", {}, bodies(route, "post"))
    assert answer.status_code == 202
    assert answer.after not in (None, before)
