"""Service accounts by the API: created, changed, rotated, revoked and deleted; a password is shown once."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.core import passwords
from authsvc.credentials import UNTIL_USED
from authsvc.models import Account, AuditEntry, Grant, LastLogin
from devicehub import provisioning, roles
from devicehub.kinds.registry import registry
from rig.programs import PROBLEM, Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

ONE = "/api/accounts/backend/"


@pytest.fixture
def caller():
    """Return a program of an operator."""
    return program(person("ops", roles.OPERATOR))


@pytest.fixture
def account():
    """Return an account."""
    return provisioning.create_account("backend", client_ids=["backend-*"])[0]


def recorded(key="account/backend"):
    """Return the actions on *key* in the audit, with the kinds of their actors."""
    return list(AuditEntry.objects.filter(object_key=key).order_by("pk").values_list("action", "actor_kind"))


def is_password(account, text):
    """Return whether *text* is the current password of *account*."""
    account.refresh_from_db()
    return passwords.verify(text, account.password_hash)


def test_an_account_is_created_with_a_password_that_is_shown_once(caller):
    """The answer is not cached, no later one has the password, and the audit has one entry, by the key."""
    made = caller.post("/api/accounts/", {"username": "backend", "client_ids": ["backend-*"]})
    assert (made.status_code, made["Location"], made["Cache-Control"]) == (201, ONE, "no-store")
    found = made.json()
    assert is_password(Account.objects.get(), found["password"])
    later = caller.get(ONE)
    assert later.json() == {name: value for name, value in found.items() if name != "password"}
    assert later.json() == {
        "username": "backend",
        "client_ids": ["backend-*"],
        "is_active": True,
        "is_superuser": False,
        "has_password": True,
        "password_expires_at": None,
        "has_previous_password": False,
        "previous_valid_until": None,
        "last_login_at": None,
        "created_at": found["created_at"],
    }
    assert recorded() == [("account_created", "key")]
    assert found["password"] not in str(list(AuditEntry.objects.values()))


def test_an_ingest_account_gets_its_grants_and_client_ids(caller):
    """They are those of `create_account --ingest`; clear_retained alone is refused."""
    made = caller.post("/api/accounts/", {"username": "ingest", "ingest": True, "clear_retained": True})
    assert made.json()["client_ids"] == ["ingest-*"]
    rules = len(provisioning.ingest_rules(clear_retained=True))
    assert Grant.objects.filter(subject="key:account/ingest").count() == rules
    alone = caller.post("/api/accounts/", {"username": "other", "clear_retained": True})
    assert [error["field"] for error in alone.json()["errors"]] == ["clear_retained"]
    assert not Account.objects.filter(username="other").exists()


@pytest.mark.parametrize("right", ["ingest", "is_superuser"])
def test_rights_to_topics_need_the_permission_to_add_grants(account, right):
    """A person who may add and change accounts alone cannot add grants, or what is more than all grants."""
    user = person("accountant", "")
    codenames = ["add_account", "change_account", "view_account"]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    answers = [program(user).post("/api/accounts/", {"username": "other", right: True})]
    if right == "is_superuser":
        answers.append(program(user).patch(f"/api/accounts/{account.username}/", {right: True}))
        Account.objects.filter(pk=account.pk).update(is_superuser=True)
        unchanged = program(user).patch(f"/api/accounts/{account.username}/", {right: True})
        assert unchanged.status_code == 200
    for answer in answers:
        assert (answer.status_code, answer.json()["detail"]) == (
            403,
            "The user lacks the permission authsvc.add_grant.",
        )


def test_an_account_is_changed(caller, account):
    """The audit has one entry for a change, and none for one that changes nothing."""
    body = {"is_active": False, "client_ids": [], "password_expires_at": "2030-01-01T00:00:00Z"}
    assert caller.patch(ONE, body).json().items() >= body.items()
    assert caller.patch(ONE, body).status_code == 200
    assert caller.patch(ONE, {}).status_code == 200
    assert recorded()[1:] == [("account_changed", "key")]
    entry = AuditEntry.objects.get(action="account_changed")
    assert entry.before == {"is_active": True, "client_ids": ["backend-*"], "password_expires_at": None}
    assert not is_password(account, "x")


def test_an_account_is_deleted_with_its_grants(caller, account):
    """Its grants leave an entry each."""
    Grant.objects.create(subject="key:account/backend", actions="receive", filter="a")
    assert caller.delete(ONE).status_code == 204
    assert not Grant.objects.exists()
    assert recorded()[1:] == [("account_deleted", "key")]
    assert AuditEntry.objects.filter(action="grant_deleted").count() == 1
    assert caller.get(ONE).status_code == 404


@pytest.mark.parametrize(
    ("body", "until"),
    [
        (None, UNTIL_USED),
        ({"overlap": "until_used"}, UNTIL_USED),
        ({"overlap": "now"}, None),
        ({"overlap": "24h"}, timedelta(days=1)),
    ],
)
def test_a_rotation_keeps_the_old_password_for_the_overlap(caller, account, body, until):
    """Without a body the old one ends with the first use of the new one."""
    answer = caller.post(f"{ONE}rotate/", body)
    assert (answer.status_code, answer["Location"], answer["Cache-Control"]) == (200, ONE, "no-store")
    assert is_password(account, answer.json()["password"])
    if isinstance(until, timedelta):
        assert abs(account.previous_valid_until - timezone.now() - until) < timedelta(minutes=1)
        assert answer.json()["previous_valid_until"] is not None
    else:
        assert account.previous_valid_until == until
        assert answer.json()["previous_valid_until"] is None
    assert answer.json()["has_previous_password"] is (until is not None)
    assert recorded()[1:] == [("password_rotated", "key")]


def test_a_repeated_rotation_shows_nothing_and_changes_nothing(caller, account):
    """It is 409 with the address of the account, so that a client that lost the answer rotates again on purpose."""
    first = caller.post(f"{ONE}rotate/", {}, Idempotency_Key="one").json()["password"]
    again = caller.post(f"{ONE}rotate/", {}, Idempotency_Key="one")
    assert (again.status_code, again["Location"], again.json()["location"]) == (409, ONE, ONE)
    assert "password" not in again.json()
    assert is_password(account, first)


def test_a_revoked_account_has_no_password_until_it_is_rotated(caller, account):
    """The state is in the answer."""
    assert caller.post(f"{ONE}revoke/").json()["has_password"] is False
    assert recorded()[1:] == [("credentials_revoked", "key")]
    assert caller.post(f"{ONE}rotate/").json()["has_password"] is True


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"username": "guest"}, 400, "username"),
        ({"username": "a b"}, 400, "username"),
        ({"username": "a\x00"}, 400, ""),
        ({"username": "n" * 129}, 400, "username"),
        ({"username": True}, 400, "username"),
        ({"username": ["x"]}, 400, "username"),
        ({"username": "new", "client_ids": ["*"]}, 400, "client_ids"),
        ({"username": "new", "client_ids": [""]}, 400, "client_ids.0"),
        ({"username": "new", "client_ids": "new-*"}, 400, "client_ids"),
        ({"username": "new", "client_ids": ["c"] * 101}, 400, "client_ids"),
        ({"username": "new", "client_ids": ["STATION-*"]}, 400, "client_ids"),
        ({"username": "new", "is_superuser": 2**63}, 400, "is_superuser"),
        ({"username": "new", "password_expires_at": "9999-12-31T23:59:59Z"}, 400, "password_expires_at"),
        ({"username": "new", "password": "mine"}, 400, "password"),
        ({"username": "backend"}, 409, ""),
        ({"username": "STATION-001"}, 409, ""),
    ],
)
def test_a_wrong_value_is_named(caller, account, body, status, field):
    """A name of another identity is 409; nothing is created."""
    provisioning.create(registry.get("weatherstation"), "STATION-001")
    answer = caller.post("/api/accounts/", body)
    assert (answer.status_code, answer["Content-Type"]) == (status, PROBLEM), answer.content
    assert field in [error["field"] for error in answer.json().get("errors", [{"field": ""}])]
    assert Account.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"client_ids": ["*"]}, "client_ids"),
        ({"client_ids": ["STATION-*"]}, "client_ids"),
        ({"client_ids": None}, "client_ids"),
        ({"is_active": None}, "is_active"),
        ({"username": "other"}, "username"),
    ],
)
def test_a_wrong_change_is_named(caller, account, body, field):
    """The username is no longer changed: tokens and logs name it."""
    provisioning.create(registry.get("weatherstation"), "STATION-001")
    answer = caller.patch(ONE, body)
    assert answer.status_code == 400, answer.content
    assert field in [error["field"] for error in answer.json()["errors"]]


@pytest.mark.parametrize("overlap", ["1y", "", "400d", "9999999d", 5, None, "NOW"])
def test_a_wrong_overlap_is_named(caller, account, overlap):
    """The password stays."""
    answer = caller.post(f"{ONE}rotate/", {"overlap": overlap})
    assert [error["field"] for error in answer.json()["errors"]] == ["overlap"]
    assert recorded()[1:] == []


def test_a_change_of_an_account_that_another_editor_changed_is_refused(caller, account):
    """Change and deletion with the old tag are 412."""
    tag = caller.get(ONE)["ETag"]
    assert caller.patch(ONE, {"is_active": False}, If_Match=tag).status_code == 200
    assert caller.patch(ONE, {"is_active": True}, If_Match=tag).status_code == 412
    assert caller.delete(ONE, If_Match=tag).status_code == 412
    assert caller.delete(ONE, If_Match=caller.get(ONE)["ETag"]).status_code == 204


@pytest.mark.parametrize(
    ("role", "sites", "scopes", "read"),
    [
        (roles.VIEWER, None, ["access:read", "access:write"], 200),
        (roles.OPERATOR, None, ["access:read", "credentials:write"], 200),
        (roles.OPERATOR, ["north"], ["access:read", "access:write"], 403),
    ],
    ids=["viewer", "other-scope", "limited"],
)
def test_a_caller_without_the_right_is_refused(account, role, sites, scopes, read):
    """It is 403, with nothing changed."""
    before = Account.objects.values().get()
    caller = program(person("somebody", role, sites), scopes)
    assert [caller.get(path).status_code for path in ("/api/accounts/", ONE)] == [read, read]
    statuses = [caller.post(path, {}).status_code for path in (f"{ONE}rotate/", f"{ONE}revoke/")]
    statuses.append(caller.post("/api/accounts/", {"username": "new"}).status_code)
    statuses += [caller.patch(ONE, {"is_active": False}).status_code, caller.delete(ONE).status_code]
    assert set(statuses) == {403}
    assert Account.objects.values().get() == before


def test_a_device_reads_no_accounts(account):
    """Its own key reaches its own device alone."""
    _, credentials = provisioning.create(registry.get("weatherstation"), "STATION-001")
    device = Program(credentials["api_key"])
    assert device.get("/api/accounts/").status_code == 403
    assert device.post(f"{ONE}rotate/").status_code == 403


@pytest.mark.parametrize("name", ["nobody", "a%00b", "n" * 500, "%F0%9F%A6%86"])
def test_an_unknown_name_is_not_found(caller, name):
    """Also one that no username can be."""
    for answer in (
        caller.get(f"/api/accounts/{name}/"),
        caller.delete(f"/api/accounts/{name}/"),
        caller.post(f"/api/accounts/{name}/rotate/"),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/not-found")


def test_the_list_comes_in_pages_with_few_queries(caller):
    """It is by username, with the last logins and no hash; a page of 100 takes no more queries than one of 10."""
    Account.objects.bulk_create(
        Account(username=f"service-{number:03}", password_hash="$x") for number in range(120)
    )
    now = timezone.now()
    LastLogin.objects.create(key="account/service-000", first_at=now, at=now)
    counts = []
    caller.get("/api/")  # The first use of a key is noted.
    for limit in (10, 100):
        with CaptureQueriesContext(connection) as captured:
            page = caller.get("/api/accounts/", limit=limit)
        counts.append(len(captured))
    assert counts[0] == counts[1] <= 12
    assert "$x" not in page.content.decode()
    found = page.json()["results"]
    assert [found[0]["username"], found[-1]["username"]] == ["service-000", "service-099"]
    assert found[0]["last_login_at"] is not None
    rest = caller.get(page.json()["next"]).json()["results"]
    assert [row["username"] for row in rest] == [f"service-{number:03}" for number in range(100, 120)]
