"""API keys of programs: made, shown once, limited by scope, site and date, and deleted."""

from datetime import timedelta

import pytest
from django.utils import timezone

from authsvc.models import AuditEntry
from devicehub import api_keys, roles
from devicehub.api import callers, keys
from devicehub.models import ApiKey, RepeatableRequest, SiteScope
from rig.programs import PROBLEM, Program, person, program

pytestmark = [pytest.mark.django_db, pytest.mark.sqlite_first]

ALL = list(api_keys.SCOPES)
PASSWORD = "grows-tomatoes-9"


@pytest.fixture
def admin():
    """Return an administrator with a password."""
    ada = person("ada")
    ada.set_password(PASSWORD)
    ada.save()
    return ada


def test_a_session_makes_a_key_that_works_and_is_shown_once(admin):
    """The answer with the key is not cached, and no later one holds it."""
    browser = Program(user=admin)
    made = browser.post("/api/keys/", {"name": "ci", "scopes": ["access:read"], "password": PASSWORD})
    assert made.status_code == 201
    secret = made.json()["key"]
    assert secret.startswith("dh_")
    assert made["Cache-Control"] == "no-store"
    later = Program(secret).get(made["Location"])
    assert later.json() | {"last_used_at": None} == {
        name: value for name, value in made.json().items() if name != "key"
    }
    assert later.json()["last_used_at"] is not None
    assert secret not in later.content.decode()
    assert secret not in str(list(ApiKey.objects.values()))


@pytest.mark.parametrize("password", [None, "", "wrong", f"{PASSWORD} "])
def test_a_session_alone_makes_no_key(admin, password):
    """The body needs the password of the user, as the page does; the answer names the member."""
    body = {"name": "ci", "scopes": ["access:read"]} | ({} if password is None else {"password": password})
    answer = Program(user=admin).post("/api/keys/", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "password")
    assert not ApiKey.objects.exists()


def test_guesses_of_the_password_are_limited_as_on_the_sign_in_page(admin):
    """They get a problem with Retry-After, and then the right one too, at that address."""
    browser, body = Program(user=admin), {"name": "ci", "scopes": ["access:read"]}
    statuses = [browser.post("/api/keys/", body | {"password": f"guess {n}"}).status_code for n in range(5)]
    answer = browser.post("/api/keys/", body | {"password": PASSWORD})
    assert statuses == [400] * 4 + [429]
    assert (answer.status_code, answer["Content-Type"]) == (429, PROBLEM)
    assert int(answer["Retry-After"]) > 60
    assert not ApiKey.objects.exists()


def test_a_user_without_a_password_and_a_program_are_not_asked(admin):
    """The password of the first is elsewhere; a program that sends one is told to leave it out."""
    body = {"name": "ci", "scopes": ["access:read"]}
    elsewhere = person("eve")
    elsewhere.set_unusable_password()
    elsewhere.save()
    assert Program(user=elsewhere).post("/api/keys/", body).status_code == 201
    answer = program(admin).post("/api/keys/", body | {"password": PASSWORD})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "password")


def test_a_repeatable_request_keeps_no_digest_of_the_password(admin):
    """It would help to guess it; the same request with another valid password is a repetition."""
    browser, body = Program(user=admin), {"name": "ci", "scopes": ["access:read"]}
    first = browser.post("/api/keys/", body | {"password": PASSWORD}, Idempotency_Key="one")
    admin.set_password("grows-melons-7")
    admin.save()
    again = Program(user=admin).post(
        "/api/keys/", body | {"password": "grows-melons-7"}, Idempotency_Key="one"
    )
    assert (first.status_code, again.status_code) == (201, 409)
    assert again["Location"] == first["Location"]


def test_the_audit_names_the_key_as_the_author(admin):
    """An entry made through a key has it, and not its owner alone, as the actor."""
    made = program(admin).post("/api/keys/", {"name": "second", "scopes": ["access:read"]})
    entry = AuditEntry.objects.get(action="program_key_created", object_key=f"api_key/{made.json()['id']}")
    own = ApiKey.objects.get(name="program")
    assert (entry.actor_kind, entry.actor) == ("key", f"ada, key {own.pk} (program)")


@pytest.mark.parametrize(
    "secret",
    ["dh_", "dh_" + "a" * 49, "x" * 64, "dh_" + "ä" * 49, "a" * 300, ""],
    ids=["start", "wrong-checksum", "no-device", "not-ascii", "long", "empty"],
)
def test_another_text_is_refused(secret):
    """Each is 401 with a challenge, and says nothing about why."""
    callers._failures._found.clear()
    answer = Program(secret or " ").get("/api/keys/")
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Api-Key"
    assert answer["Content-Type"] == PROBLEM
    assert answer.json()["type"] == "/problems/not-authenticated"


def test_guesses_are_refused_and_valid_keys_are_not(admin, monkeypatch):
    """Failures of one address get 429 with Retry-After; a valid key from there still works."""
    callers._failures._found.clear()
    monkeypatch.setattr(callers, "MAX_OF_ONE", 2)
    valid, guess = program(admin), Program("x" * 64)
    assert [guess.get("/api/").status_code for _ in range(4)] == [401, 401, 429, 429]
    assert int(guess.get("/api/")["Retry-After"]) > 0
    assert valid.get("/api/").status_code == 200
    callers._failures._found.clear()


def test_an_expired_key_and_one_of_a_deactivated_owner_are_refused(admin):
    """Both are 401, as if there were no such key."""
    callers._failures._found.clear()
    made = api_keys.create(admin, "short", ALL, expires_at=timezone.now() + timedelta(hours=1))
    assert Program(made.secret).get("/api/").status_code == 200
    ApiKey.objects.update(expires_at=timezone.now())
    assert Program(made.secret).get("/api/").status_code == 401
    other = program(admin)
    admin.is_active = False
    admin.save()
    assert other.get("/api/").status_code == 401


def test_a_missing_scope_is_named(admin):
    """It is 403 with the name of the scope."""
    answer = program(admin, ["devices:read"]).get("/api/keys/")
    assert answer.status_code == 403
    assert answer.json() == {
        "type": "/problems/not-allowed",
        "title": "Not allowed",
        "status": 403,
        "detail": "This key lacks the scope access:read.",
    }


def test_a_key_makes_no_key_that_may_do_more(admin):
    """Its scopes, its site and its expiry bound those of the new key."""
    narrow = program(admin, ["access:read", "access:write"], site="north")
    wide = {"name": "wide", "scopes": ["access:read"], "site": "north"}
    assert narrow.post("/api/keys/", wide).status_code == 201
    assert narrow.post("/api/keys/", wide | {"scopes": ["devices:read"]}).status_code == 403
    assert narrow.post("/api/keys/", wide | {"site": ""}).status_code == 403
    ends = timezone.now() + timedelta(days=1)
    short = Program(api_keys.create(admin, "short", ALL, expires_at=ends).secret)
    body = {"name": "x", "scopes": ["access:read"]}
    assert short.post("/api/keys/", body).status_code == 403
    assert short.post("/api/keys/", body | {"expires_at": ends.isoformat()}).status_code == 201


def test_others_keys_are_not_found_without_the_permission(admin):
    """A viewer sees and deletes their own keys alone; whoever may view all keys still needs delete to delete one."""
    other = api_keys.create(person("eve", roles.VIEWER), "hers", ALL)
    viewer = program(person("vera", roles.VIEWER), name="own")
    assert [key["name"] for key in viewer.get("/api/keys/").json()["results"]] == ["own"]
    assert viewer.get(f"/api/keys/{other.row.pk}/").status_code == 404
    assert viewer.delete(f"/api/keys/{other.row.pk}/").status_code == 404
    own = ApiKey.objects.get(name="own")
    assert viewer.delete(f"/api/keys/{own.pk}/").status_code == 204
    assert viewer.get("/api/keys/").status_code == 401
    callers._failures._found.clear()


def test_of_two_deletions_at_once_one_is_recorded(admin):
    """The second one finds no row, and raises nothing."""
    made = api_keys.create(admin, "ci", ALL)
    for _ in range(2):
        api_keys.delete(ApiKey(pk=made.row.pk))
    assert AuditEntry.objects.filter(action="program_key_deleted").count() == 1


def test_a_repetition_makes_no_second_key_and_shows_no_secret(admin):
    """It is 409 with the address of the key; another body under the same text is refused."""
    body = {"name": "ci", "scopes": ["access:read"]}
    caller = program(admin)
    first = caller.post("/api/keys/", body, Idempotency_Key="one")
    again = caller.post("/api/keys/", body, Idempotency_Key="one")
    assert (first.status_code, again.status_code) == (201, 409)
    assert again["Location"] == first["Location"] == again.json()["location"]
    assert first.json()["key"] not in again.content.decode()
    assert ApiKey.objects.filter(name="ci").count() == 1
    other = caller.post("/api/keys/", body | {"name": "other"}, Idempotency_Key="one")
    assert (other.status_code, other.json()["type"]) == (422, "/problems/key-reused")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "", "scopes": ["access:read"]}, "name"),
        ({"name": "n", "scopes": []}, "scopes"),
        ({"name": "n", "scopes": ["root"]}, "scopes.0"),
        ({"name": "n", "scopes": ["access:read"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "n", "scopes": ["access:read"], "expires_at": "2040-01-01T00:00:00"}, "expires_at"),
        ({"name": "n", "scopes": ["access:read"], "expires_at": "9999-12-31T23:59:59Z"}, "expires_at"),
        ({"name": "n", "scopes": ["access:read"], "scope": 1}, "scope"),
        ([], ""),
    ],
)
def test_a_wrong_value_is_named(admin, body, field):
    """Each answer lists the field at fault, and nothing is made."""
    sent = body and {"password": PASSWORD, **body}
    answer = Program(user=admin).post("/api/keys/", sent)
    assert answer.status_code == 400
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert not ApiKey.objects.exists()


def test_the_list_comes_in_pages(admin):
    """Next and previous lead through all rows; `fields` selects members; the rest of the query stays."""
    for number in range(5):
        api_keys.create(admin, f"key {number}", ALL)
    browser = Program(user=admin)
    first = browser.get("/api/keys/", limit=2, fields="name", owner="ada").json()
    assert (first["previous"], first["results"]) == (None, [{"name": "key 4"}, {"name": "key 3"}])
    second = browser.get(first["next"]).json()
    assert second["results"] == [{"name": "key 2"}, {"name": "key 1"}]
    assert browser.get(second["previous"]).json()["results"] == first["results"]
    third = browser.get(second["next"]).json()
    assert (third["next"], third["results"]) == (None, [{"name": "key 0"}])


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"pagesize": 3}, "unknown-parameter"),
        ({"limit": 0}, "invalid"),
        ({"limit": 1001}, "invalid"),
        ({"fields": "digest"}, "invalid"),
        ({"cursor": "x"}, "invalid-cursor"),
        ({"cursor": "WzAsMV0"}, ""),
        ({"cursor": "WzAsOTk5OTk5OTk5OTk5OTk5OTk5OTld"}, "invalid-cursor"),
        ({"owner": ["a", "b"]}, "invalid"),
        ({"owner": "a\x00b"}, "invalid"),
    ],
)
def test_a_wrong_parameter_is_400(admin, params, problem):
    """The answer is a problem with a stable type; a cursor of a row that is gone is none."""
    answer = Program(user=admin).get("/api/keys/", **params)
    assert (answer.status_code, answer.json().get("type", "")) == (
        (400, f"/problems/{problem}") if problem else (200, "")
    )


def test_a_key_of_a_site_is_limited_also_for_a_superuser(django_user_model):
    """Such a key sees its own keys only."""
    root = django_user_model.objects.create(username="root", is_superuser=True)
    api_keys.create(person("ada"), "hers", ALL)
    assert len(program(root).get("/api/keys/").json()["results"]) == 2
    assert {key["owner"] for key in program(root, site="north").get("/api/keys/").json()["results"]} == {
        "root"
    }


def test_a_key_of_a_site_does_not_see_the_keys_of_its_owner_for_others(admin):
    """Nor does it delete them."""
    others = [api_keys.create(admin, "other", ALL, site=site).row for site in ("", "south")]
    caller = program(admin, site="north")
    assert [key["name"] for key in caller.get("/api/keys/").json()["results"]] == ["program"]
    for other in others:
        assert caller.get(f"/api/keys/{other.pk}/").status_code == 404
        assert caller.delete(f"/api/keys/{other.pk}/").status_code == 404
    assert ApiKey.objects.count() == 3


def test_a_person_with_a_limit_makes_no_key_for_another_site(admin):
    """It is 403."""
    SiteScope.objects.create(user=admin, sites=["north"])
    body = {"name": "n", "scopes": ["access:read"], "site": "south", "password": PASSWORD}
    assert Program(user=admin).post("/api/keys/", body).status_code == 403


def test_a_session_needs_the_csrf_token(admin):
    """Without it a change is refused; a key needs none."""
    browser = Program(user=admin)
    browser.client.handler.enforce_csrf_checks = True
    answer = browser.post("/api/keys/", {"name": "n", "scopes": ["access:read"]})
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/csrf")


def test_the_number_of_keys_is_bounded(admin, monkeypatch):
    """One more than allowed is refused with what to do."""
    monkeypatch.setattr(api_keys, "MOST", 1)
    api_keys.create(admin, "first", ALL)
    body = {"name": "n", "scopes": ["access:read"], "password": PASSWORD}
    answer = Program(user=admin).post("/api/keys/", body)
    assert answer.status_code == 400
    assert "delete one first" in answer.json()["detail"]


def test_the_scopes_of_the_schema_are_those_of_the_keys():
    """A scope is listed once, in the order of the documentation."""
    assert keys.NewKeySerializer().fields["scopes"].child.choices == {scope: scope for scope in ALL}


def test_expired_requests_are_forgotten(admin):
    """Their keys may be used again, and their rows go with later requests."""
    body = {"name": "ci", "scopes": ["access:read"]}
    caller = program(admin)
    for key in ("one", "two"):
        assert caller.post("/api/keys/", body, Idempotency_Key=key).status_code == 201
    RepeatableRequest.objects.update(created_at=timezone.now() - timedelta(hours=25))
    assert caller.post("/api/keys/", body, Idempotency_Key="one").status_code == 201
    assert RepeatableRequest.objects.count() == 1
