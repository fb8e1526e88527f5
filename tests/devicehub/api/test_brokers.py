"""Brokers by the API: registered, changed, rotated, revoked and deleted; a token is shown once."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc import broker_tokens
from authsvc.credentials import UNTIL_USED
from authsvc.models import AuditEntry, Broker, BrokerUse, digest
from devicehub import provisioning, roles
from devicehub.kinds.registry import registry
from rig.programs import PROBLEM, Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]


@pytest.fixture
def caller():
    """Return a program of an administrator."""
    return program(person("ada", roles.ADMINISTRATOR))


@pytest.fixture
def broker():
    """Return a broker."""
    return broker_tokens.create_broker("orchard", ["go-auth"], ["10.0.0.0/8"])[0]


def url(broker):
    return f"/api/brokers/{broker.pk}/"


def recorded():
    """Return the actions on brokers in the audit, with the kinds of their actors."""
    rows = AuditEntry.objects.filter(object_key__startswith="broker/").order_by("pk")
    return list(rows.values_list("action", "actor_kind"))


def is_token(broker, text):
    """Return whether *text* is the current token of *broker*."""
    broker.refresh_from_db()
    return broker.token_digest == digest(text)


def test_a_broker_is_registered_with_a_token_that_is_shown_once(caller):
    """The answer is not cached, no later one has the token, and the audit has one entry, by the key."""
    made = caller.post("/api/brokers/", {"name": "orchard", "dialects": ["go-auth"], "networks": ["::/0"]})
    broker = Broker.objects.get()
    assert (made.status_code, made["Location"], made["Cache-Control"]) == (201, url(broker), "no-store")
    found = made.json()
    assert is_token(broker, found["token"])
    later = caller.get(url(broker))
    assert later.json() == {name: value for name, value in found.items() if name != "token"}
    assert later.json() == {
        "id": broker.pk,
        "name": "orchard",
        "dialects": ["go-auth"],
        "networks": ["::/0"],
        "is_active": True,
        "is_revoked": False,
        "has_previous_token": False,
        "previous_valid_until": None,
        "last_asked_at": None,
        "questions": 0,
        "created_at": found["created_at"],
    }
    assert recorded() == [("broker_created", "key")]
    assert found["token"] not in str(list(AuditEntry.objects.values()))
    assert broker.token_digest not in later.content.decode()


def test_a_broker_is_changed_and_deleted(caller, broker):
    """The audit has one entry for each, and none for a change that changes nothing."""
    body = {"name": "meadow", "dialects": [], "networks": ["192.168.0.0/16"], "is_active": False}
    assert caller.patch(url(broker), body).json().items() >= body.items()
    assert caller.patch(url(broker), body).status_code == 200
    assert caller.delete(url(broker)).status_code == 204
    assert recorded()[1:] == [("broker_changed", "key"), ("broker_deleted", "key")]
    assert AuditEntry.objects.get(action="broker_changed").before["name"] == "orchard"
    assert not Broker.objects.exists()


@pytest.mark.parametrize(
    ("body", "until"),
    [
        (None, UNTIL_USED),
        ({"overlap": "now"}, None),
        ({"overlap": "90m"}, timedelta(minutes=90)),
    ],
)
def test_a_rotation_keeps_the_old_token_for_the_overlap(caller, broker, body, until):
    """Without a body the old one ends with the first use of the new one."""
    answer = caller.post(f"{url(broker)}rotate/", body)
    assert (answer.status_code, answer["Cache-Control"]) == (200, "no-store")
    assert is_token(broker, answer.json()["token"])
    if isinstance(until, timedelta):
        assert abs(broker.previous_token_until - timezone.now() - until) < timedelta(minutes=1)
        assert answer.json()["previous_valid_until"] is not None
    else:
        assert broker.previous_token_until == until
        assert answer.json()["previous_valid_until"] is None
    assert answer.json()["has_previous_token"] is (until is not None)
    assert recorded()[1:] == [("token_rotated", "key")]


def test_a_repetition_shows_no_token(caller):
    """It is 409 with the address of the broker, for a registration and for a rotation."""
    for path in ("/api/brokers/", "/api/brokers/{}/rotate/"):
        path = path.format(getattr(Broker.objects.first(), "pk", ""))
        body = {} if "rotate" in path else {"name": "orchard"}
        first = caller.post(path, body, Idempotency_Key=path)
        again = caller.post(path, body, Idempotency_Key=path)
        assert (again.status_code, again["Location"]) == (409, url(Broker.objects.get()))
        assert first.json()["token"] not in again.content.decode()
        assert is_token(Broker.objects.get(), first.json()["token"])


def test_a_revoked_broker_has_no_token_until_it_is_rotated(caller, broker):
    """The state is in the answer."""
    assert caller.post(f"{url(broker)}revoke/").json()["is_revoked"] is True
    assert recorded()[1:] == [("token_revoked", "key")]
    assert caller.post(f"{url(broker)}rotate/").json()["is_revoked"] is False


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"name": ""}, 400, "name"),
        ({"name": "n" * 101}, 400, "name"),
        ({"name": "a\x00"}, 400, ""),
        ({"dialects": ["mosquitto"]}, 400, "dialects"),
        ({"dialects": "go-auth"}, 400, "dialects"),
        ({"dialects": None}, 400, "dialects"),
        ({"networks": ["10.0.0.1/8"]}, 400, "networks"),
        ({"networks": [""]}, 400, "networks.0"),
        ({"networks": [2**63]}, 400, "networks.0"),
        ({"token": "mine"}, 400, "token"),
        ({"name": "taken"}, 409, ""),
    ],
)
def test_a_wrong_value_is_named(caller, broker, change, status, field):
    """Nothing is created or changed."""
    broker_tokens.create_broker("taken", [])
    before = list(Broker.objects.values())
    for answer in (
        caller.post("/api/brokers/", {"name": "new"} | change),
        caller.patch(url(broker), change),
    ):
        assert (answer.status_code, answer["Content-Type"]) == (status, PROBLEM), answer.content
        assert field in [error["field"] for error in answer.json().get("errors", [{"field": ""}])]
    assert list(Broker.objects.values()) == before


def test_a_change_of_a_broker_that_another_editor_changed_is_refused(caller, broker):
    """Change and deletion with the old tag are 412."""
    tag = caller.get(url(broker))["ETag"]
    assert caller.patch(url(broker), {"is_active": False}, If_Match=tag).status_code == 200
    assert caller.patch(url(broker), {"is_active": True}, If_Match=tag).status_code == 412
    assert caller.delete(url(broker), If_Match=tag).status_code == 412


@pytest.mark.parametrize(
    ("role", "sites", "scopes", "read"),
    [
        (roles.VIEWER, None, ["access:read", "access:write"], 200),
        (roles.OPERATOR, None, ["access:read", "access:write"], 200),
        (roles.ADMINISTRATOR, None, ["access:read"], 200),
        (roles.ADMINISTRATOR, ["north"], ["access:read", "access:write"], 403),
    ],
    ids=["viewer", "operator", "read-only", "limited"],
)
def test_a_caller_without_the_right_is_refused(broker, role, sites, scopes, read):
    """It is 403, with nothing changed."""
    before = Broker.objects.values().get()
    caller = program(person("somebody", role, sites), scopes)
    assert [caller.get(path).status_code for path in ("/api/brokers/", url(broker))] == [read, read]
    statuses = [caller.post(f"{url(broker)}{act}/", {}).status_code for act in ("rotate", "revoke")]
    statuses.append(caller.post("/api/brokers/", {"name": "new"}).status_code)
    statuses += [caller.patch(url(broker), {"name": "x"}).status_code, caller.delete(url(broker)).status_code]
    assert set(statuses) == {403}
    assert Broker.objects.values().get() == before


def test_a_device_reads_no_brokers(broker):
    """Its own key reaches its own device alone."""
    _, credentials = provisioning.create(registry.get("weatherstation"), "STATION-001")
    device = Program(credentials["api_key"])
    assert device.get(url(broker)).status_code == 403
    assert device.post(f"{url(broker)}rotate/").status_code == 403


@pytest.mark.parametrize("number", ["0", "9" * 30])
def test_a_number_of_no_broker_is_not_found(caller, number):
    """A number beyond the column is none either."""
    for answer in (
        caller.get(f"/api/brokers/{number}/"),
        caller.post(f"/api/brokers/{number}/rotate/"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_the_list_comes_with_the_uses_and_few_queries(caller):
    """A page of 100 takes no more queries than one of 10."""
    Broker.objects.bulk_create(
        Broker(name=f"broker {number:03}", token_digest=digest(str(number))) for number in range(120)
    )
    now = timezone.now()
    BrokerUse.objects.bulk_create(
        BrokerUse(broker=Broker.objects.first(), address=address, count=3, first_at=now, last_at=now)
        for address in ("10.0.0.1", "10.0.0.2")
    )
    counts = []
    caller.get("/api/")  # The first use of a key is noted.
    for limit in (10, 100):
        with CaptureQueriesContext(connection) as captured:
            found = caller.get("/api/brokers/", limit=limit).json()["results"]
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 12
    assert (len(found), found[0]["questions"], found[1]["questions"]) == (100, 6, 0)
    assert found[0]["last_asked_at"] is not None
