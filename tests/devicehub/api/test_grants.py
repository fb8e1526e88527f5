"""Grants by the API: listed, created, changed and deleted as in the admin, each change with one entry of the audit."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from authsvc import granting
from authsvc.models import AuditEntry, Grant
from devicehub import provisioning, roles
from devicehub.kinds.registry import registry
from rig.programs import PROBLEM, Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

BODY = {"subject": "type:weatherstation", "actions": ["receive", "subscribe"], "filter": "news/+/{device_id}"}


@pytest.fixture
def caller():
    """Return a program of an operator."""
    return program(person("ops", roles.OPERATOR))


@pytest.fixture
def grant():
    """Return a grant for all weather stations."""
    return granting.create_grant("type:weatherstation", ["publish"], "notes/{device_id}")


def url(grant):
    return f"/api/grants/{grant.pk}/"


def test_a_grant_is_created_read_changed_and_deleted(caller):
    """Each change has one entry of the audit, whose actor is the key."""
    made = caller.post("/api/grants/", BODY | {"valid_until": "2030-01-01T02:00:00+02:00"})
    assert made.status_code == 201, made.content
    place = made["Location"]
    assert made.json() == {
        "id": Grant.objects.get().pk,
        "subject": "type:weatherstation",
        "effect": "allow",
        "actions": ["subscribe", "receive"],
        "filter": "news/+/{device_id}",
        "note": "",
        "valid_from": None,
        "valid_until": "2030-01-01T00:00:00Z",
        "created_at": made.json()["created_at"],
    }
    assert caller.get(place).json() == made.json()
    changed = caller.patch(place, {"effect": "deny", "actions": ["publish"], "valid_until": None})
    assert (changed.json()["effect"], changed.json()["valid_until"]) == ("deny", None)
    assert (
        caller.patch(place, {"effect": "deny"}).status_code == 200
    )  # It is so already, so nothing is recorded.
    assert caller.delete(place).status_code == 204
    assert caller.get(place).status_code == 404
    entries = AuditEntry.objects.filter(object_key__startswith="grant/").order_by("pk")
    assert [(entry.action, entry.actor_kind) for entry in entries] == [
        ("grant_created", "key"),
        ("grant_changed", "key"),
        ("grant_deleted", "key"),
    ]
    assert {entry.actor.partition(" (")[2] for entry in entries} == {"program)"}


def test_a_grant_that_exists_already_is_a_conflict(caller, grant):
    """The answer says so in words, for a new one and for a changed one."""
    body = {"subject": grant.subject, "actions": ["publish"], "filter": grant.filter}
    answer = caller.post("/api/grants/", body)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/conflict")
    other = granting.create_grant(grant.subject, ["receive"], grant.filter)
    assert caller.patch(url(other), {"actions": ["publish"]}).status_code == 409


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"subject": "key:weatherstation/NOBODY"}, "subject"),
        ({"subject": "everybody"}, "subject"),
        ({"subject": 7}, "subject"),
        ({"filter": "a/#/b"}, "filter"),
        ({"filter": "a\x00b"}, ""),
        ({"actions": []}, "actions"),
        ({"actions": ["all"]}, "actions.0"),
        ({"actions": "publish"}, "actions"),
        ({"effect": "maybe"}, "effect"),
        ({"note": "n" * 256}, "note"),
        ({"valid_from": "2030-01-01T00:00:00"}, "valid_from"),
        ({"valid_from": "9999-12-31T00:00:00Z"}, "valid_from"),
        ({"valid_from": 2**63}, "valid_from"),
        ({"valid_from": "2030-01-02T00:00:00Z", "valid_until": "2030-01-01T00:00:00Z"}, ""),
        ({"id": 7}, "id"),
    ],
)
def test_a_wrong_value_is_named(caller, grant, change, field):
    """Nothing is created or changed; both answers name the field at fault."""
    for answer in (caller.post("/api/grants/", BODY | change), caller.patch(url(grant), change)):
        assert (answer.status_code, answer["Content-Type"]) == (400, PROBLEM), answer.content
        assert field in [error["field"] for error in answer.json().get("errors", [{"field": ""}])]
    assert Grant.objects.get() == grant


def test_a_change_of_a_grant_that_another_editor_changed_is_refused(caller, grant):
    """Change and deletion with the old tag are 412; with the new one they succeed."""
    tag = caller.get(url(grant))["ETag"]
    newer = caller.patch(url(grant), {"note": "mine"}, If_Match=tag)["ETag"]
    assert caller.patch(url(grant), {"note": "yours"}, If_Match=tag).status_code == 412
    assert caller.delete(url(grant), If_Match=tag).status_code == 412
    assert caller.delete(url(grant), If_Match=f"W/{newer}").status_code == 204  # As behind a proxy.


def test_a_repetition_creates_one_grant(caller):
    """It gets the first answer again."""
    first, again = (caller.post("/api/grants/", BODY, Idempotency_Key="one") for _ in range(2))
    assert (again.status_code, again.json()) == (201, first.json())
    assert Grant.objects.count() == 1


def test_the_list_is_filtered_by_subject(caller, grant):
    """Another parameter is refused."""
    granting.create_grant("everyone", ["receive"], "news")
    found = caller.get("/api/grants/", subject="everyone", fields="filter").json()["results"]
    assert found == [{"filter": "news"}]
    assert caller.get("/api/grants/", note="x").json()["type"] == "/problems/unknown-parameter"


def test_the_queries_do_not_grow_with_the_rows(caller, grant):
    """A page of 10 and one of 100 take the same few."""
    Grant.objects.bulk_create(
        Grant(subject="everyone", actions="receive", filter=f"news/{number}") for number in range(120)
    )
    counts = []
    caller.get("/api/")  # The first use of a key is noted.
    for limit in (10, 100):
        with CaptureQueriesContext(connection) as captured:
            assert len(caller.get("/api/grants/", limit=limit).json()["results"]) == limit
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 12


@pytest.mark.parametrize(
    ("role", "sites", "scopes", "read", "write"),
    [
        (roles.VIEWER, None, ["access:read", "access:write"], 200, 403),
        (roles.OPERATOR, None, ["access:read"], 200, 403),
        (roles.OPERATOR, None, ["devices:read"], 403, 403),
        (roles.OPERATOR, ["north"], ["access:read", "access:write"], 403, 403),
        ("", None, ["access:read", "access:write"], 403, 403),
    ],
    ids=["viewer", "read-only", "other-scope", "limited", "no-role"],
)
def test_a_caller_without_the_right_is_refused(grant, role, sites, scopes, read, write):
    """It is 403, with nothing changed."""
    caller = program(person("somebody", role, sites), scopes)
    assert [caller.get(path).status_code for path in ("/api/grants/", url(grant))] == [read, read]
    assert caller.post("/api/grants/", BODY).status_code == write
    assert caller.patch(url(grant), {"note": "x"}).status_code == write
    assert caller.delete(url(grant)).status_code == write
    assert Grant.objects.get().note == ""


def test_a_device_reads_no_grants(grant):
    """Its own key reaches its own device alone."""
    _, credentials = provisioning.create(registry.get("weatherstation"), "STATION-001")
    device = Program(credentials["api_key"])
    assert device.get("/api/grants/").status_code == 403
    assert device.delete(url(grant)).status_code == 403


@pytest.mark.parametrize("number", ["0", "9" * 30])
def test_a_number_of_no_grant_is_not_found(caller, number):
    """A number beyond the column is none either."""
    for answer in (caller.get(f"/api/grants/{number}/"), caller.delete(f"/api/grants/{number}/")):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")
