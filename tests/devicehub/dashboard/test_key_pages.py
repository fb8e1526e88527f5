"""API keys on the account page: made in a browser, shown once, listed and deleted."""

from __future__ import annotations

import html
import re
import subprocess
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone
from structlog.testing import capture_logs

from authsvc.models import AuditEntry
from devicehub import api_keys, roles
from devicehub.models import ApiKey
from rig.axe import problems, problems_in_every_look
from rig.browser import complaints, in_browser, settled
from rig.people import person
from rig.programs import Program

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
PASSWORD = "grows-tomatoes-9"
ADD = "/account/keys/add/"


@pytest.fixture
def operator() -> User:
    return person("operator", roles.OPERATOR, password=PASSWORD)


def signed_in(user: User) -> Client:
    client = Client(headers={"Accept": "text/html"})
    client.force_login(user)
    return client


def nonce_of(client: Client) -> str:
    (nonce,) = re.findall(r'name="nonce" value="([^"]+)"', client.get(ADD).content.decode())
    return nonce


def fields(client: Client, **more: object) -> dict[str, object]:
    """Return the fields of a form that makes a key."""
    given = {"name": "forecast", "scopes": ["devices:read", "telemetry:read"], "password": PASSWORD}
    return {"nonce": nonce_of(client), **given, **more}


def key_in(page: str) -> str:
    (key,) = re.findall(r'id="value-key">(dh_[A-Za-z0-9]+)<', page)
    return key


class TestMaking:
    def test_a_key_is_shown_once_and_works(self, operator):
        client = signed_in(operator)
        with capture_logs() as logs:
            response = client.post(ADD, fields(client, reason="for the forecast"))

        page = response.content.decode()
        key = key_in(page)
        assert "no-store" in response["Cache-Control"]
        assert page.count(key) == 2, "beside its name, and in the lines for curl"
        assert 'curl -H "Authorization: Api-Key $HUB_KEY" http://testserver/api/' in html.unescape(page)
        assert Program(key).get("/api/").status_code == 200
        row = ApiKey.objects.get()
        assert (row.owner, row.scopes, row.expires_at) == (
            operator,
            ["devices:read", "telemetry:read"],
            None,
        )
        entry = AuditEntry.objects.get(action="program_key_created")
        assert (entry.actor, entry.actor_kind, entry.reason) == ("operator", "user", "for the forecast")
        kept = str(logs) + str(list(AuditEntry.objects.values())) + str(list(ApiKey.objects.values()))
        kept += str([session.get_decoded() for session in Session.objects.all()])
        kept += client.get("/account/").content.decode()
        assert key not in kept

    def test_a_form_that_is_submitted_again_makes_no_second_key(self, operator):
        client = signed_in(operator)
        given = fields(client)
        key = key_in(client.post(ADD, given).content.decode())

        again = client.post(ADD, given)

        assert again.status_code == 409
        assert "delete it and make another one" in again.content.decode()
        assert key not in again.content.decode()
        assert ApiKey.objects.count() == 1

    def test_a_form_without_its_number_makes_no_key(self, operator):
        client = signed_in(operator)

        assert client.post(ADD, fields(client, nonce="x")).status_code == 409
        assert not ApiKey.objects.exists()

    def test_it_needs_the_password_with_the_limits_of_a_sign_in(self, operator):
        client = signed_in(operator)
        given = fields(client, password="wrong")

        assert "This is not your password" in client.post(ADD, given).content.decode()
        statuses = [client.post(ADD, given).status_code for _ in range(6)]
        assert statuses[-1] == 429
        assert not ApiKey.objects.exists()

    def test_a_user_without_a_password_of_this_site_needs_none(self, operator):
        operator.set_unusable_password()
        operator.save()
        client = signed_in(operator)

        assert 'type="password"' not in client.get(ADD).content.decode()
        assert key_in(client.post(ADD, fields(client)).content.decode())

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"scopes": []}, "Choose at least one."),
            ({"scopes": ["root"]}, "not one of the available choices"),
            ({"name": " "}, "This field is required."),
            ({"expires_at": "2020-01-01T00:00"}, "Choose a time in the future."),
            ({"expires_at": "9999-01-01T00:00"}, "Write a year from 2 to 9998."),
            ({"name": "a\x00b"}, "Null characters are not allowed."),
        ],
    )
    def test_a_wrong_value_is_said_at_its_field(self, operator, change, error):
        client = signed_in(operator)

        page = client.post(ADD, fields(client, **change)).content.decode()

        assert error in page
        assert PASSWORD not in page
        assert not ApiKey.objects.exists()

    def test_the_number_of_keys_is_bounded(self, operator, monkeypatch):
        monkeypatch.setattr(api_keys, "MOST", 1)
        api_keys.create(operator, "first", ["devices:read"])
        client = signed_in(operator)

        assert "delete one first" in client.post(ADD, fields(client)).content.decode()

    def test_a_limited_user_chooses_of_their_sites(self):
        limited = person("mara", roles.VIEWER, sites=["north", "south"], password=PASSWORD)
        client = signed_in(limited)
        page = client.get(ADD).content.decode()
        assert re.findall(r'<option value="([^"]*)"', page) == ["", "north", "south"]

        assert "Choose one of your sites." in client.post(ADD, fields(client, site="west")).content.decode()
        client.post(ADD, fields(client, site="south"))
        assert ApiKey.objects.get().site == "south"

    def test_no_site_is_asked_where_there_are_none(self, operator):
        assert 'name="site"' not in signed_in(operator).get(ADD).content.decode()


class TestListAndDeletion:
    def test_own_keys_are_listed_and_no_others(self, operator):
        now = timezone.now()
        mine = api_keys.create(
            operator, "mine", ["devices:read"], site="north", expires_at=now + timedelta(1)
        ).row
        old = api_keys.create(operator, "old", ["devices:read"], expires_at=now + timedelta(1)).row
        ApiKey.objects.filter(pk=old.pk).update(expires_at=now, last_used_at=now)
        api_keys.create(person("other"), "hers", ["devices:read"])

        page = signed_in(operator).get("/account/").content.decode()

        assert f"{mine.start}…" in page
        assert "north" in page
        assert page.count("Expired") == 1
        assert "hers" not in page

    def test_a_deletion_is_confirmed_and_recorded_with_its_reason(self, operator):
        key = api_keys.create(operator, "mine", ["devices:read"])
        client, url = signed_in(operator), f"/account/keys/{key.row.pk}/delete/"

        assert "Delete the API key mine?" in client.get(url).content.decode()
        assert "Delete the API key mine?" in client.post(url).content.decode()
        assert ApiKey.objects.exists()
        answer = client.post(url, {"confirmed": "yes", "reason": "leaked"})
        assert answer["Location"] == "/account/"
        assert Program(key.secret).get("/api/").status_code == 401
        entry = AuditEntry.objects.get(action="program_key_deleted")
        assert (entry.actor, entry.reason, entry.object_key) == ("operator", "leaked", key.row.key)

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_the_key_of_another_user_is_not_found(self, operator, method):
        other = api_keys.create(person("other"), "hers", ["devices:read"]).row
        url = f"/account/keys/{other.pk}/delete/"

        assert getattr(signed_in(operator), method)(url, {"confirmed": "yes"}).status_code == 404
        assert ApiKey.objects.exists()

    def test_a_sign_in_is_needed(self):
        for url in (ADD, "/account/keys/1/delete/"):
            assert Client().get(url)["Location"] == f"/login/?next={url}"


@pytest.mark.servers
@pytest.mark.sqlite_only
@pytest.mark.django_db(transaction=True)
class TestInABrowser:
    def test_a_key_is_made_copied_used_and_deleted(self, browser, live_server):
        roles.install()
        user = person("mara", roles.OPERATOR, sites=["north", "south"], password=PASSWORD)
        clipboard = ["clipboard-read", "clipboard-write"]
        page = in_browser(browser, signed_in(user), live_server.url, permissions=clipboard).new_page()
        said = complaints(page)
        page.goto("/account/")
        assert problems_in_every_look(page) == []
        page.click("text=Make an API key")
        page.set_viewport_size({"width": 1280, "height": 900})
        page.click("text=Make and show the key")  # The browser asks for a name.
        page.fill("[name=name]", "forecast")
        page.fill("[name=password]", PASSWORD)
        page.click("text=Make and show the key")
        assert page.is_visible("text=Choose at least one.")
        assert problems_in_every_look(page) == []
        page.check("text=devices:read")
        page.select_option("[name=site]", "north")
        page.fill("[name=password]", PASSWORD)
        page.click("text=Make and show the key")

        key = page.inner_text("#value-key")
        page.click("[data-copy=value-key]")
        page.wait_for_function("navigator.clipboard.readText().then((text) => text.startsWith('dh_'))")
        assert page.evaluate("navigator.clipboard.readText()") == key
        assert problems_in_every_look(page) == []
        lines = page.text_content("#curl").replace("curl ", "curl --silent --fail ")
        done = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, timeout=30, check=False)
        assert "/api/keys/" in done.stdout, done.stderr
        page.reload()
        assert page.is_visible("text=This form was submitted already")
        assert key not in settled(page)

        assert "409 (Conflict)" in said.pop()  # The browser notes the status of the second submission.
        page.goto("/account/")
        assert problems_in_every_look(page) == []
        assert key not in settled(page)
        page.click("text=Delete the key forecast")
        assert problems(page) == []
        page.fill("[name=reason]", "a test")
        page.click("text=Delete the key")
        assert page.is_visible("text=You have no key")
        assert Program(key).get("/api/").status_code == 401
        assert said == []
