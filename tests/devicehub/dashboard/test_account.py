"""The account page: sessions that a user ends, the password, and the second factor at every sign-in."""

from __future__ import annotations

import io
import re
import time
from datetime import timedelta
from unittest import mock

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import AsyncClient, Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django_otp.oath import TOTP
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from structlog.testing import capture_logs

from authsvc.models import AuditEntry
from devicehub import roles, second_factor, sessions
from devicehub.dashboard import live
from devicehub.models import SignIn
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]
PASSWORD = "grows-tomatoes-9"
HTML = {"Accept": "text/html"}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def operator() -> User:
    return person("operator", roles.OPERATOR, password=PASSWORD, is_staff=True)


def browser(**headers: str) -> Client:
    return Client(headers={**HTML, **headers})


def signed_in(page: str = "/login/", follow_to: str = "/", **headers: str) -> Client:
    """Return a browser that signed in with the password."""
    client = browser(**headers)
    response = client.post(page, {"username": "operator", "password": PASSWORD, "next": follow_to})
    assert response.status_code == 302
    return client


def admits(client: Client, url: str = "/") -> bool:
    """Return whether *client* sees the page at *url*, and not the sign-in or the question for a code."""
    response = client.get(url)
    return response.status_code == 200 and "code-title" not in response.content.decode()


class TestSessions:
    def test_a_session_is_listed_with_its_browser_and_address(self, operator):
        mine = signed_in(**{"User-Agent": FIREFOX})
        signed_in(**{"User-Agent": "curl/8"})

        page = mine.get("/account/").content.decode()

        assert "Firefox on Linux" in page
        assert "curl/8" in page
        assert "127.0.0.1" in page
        assert "End the other session<" in page

    def test_the_button_counts_several_others(self, operator):
        mine = signed_in()
        signed_in()
        signed_in()

        assert "End the 2 other sessions<" in mine.get("/account/").content.decode()

    def test_the_others_end_at_once_and_this_one_goes_on(self, operator):
        mine, other = signed_in(), signed_in()
        stranger = browser()
        stranger.force_login(person("viewer"))

        response = mine.post("/account/sessions/end/")

        assert response["Location"] == "/account/"
        assert (admits(mine), admits(other), admits(stranger)) == (True, False, True)
        assert other.get("/")["Location"] == "/login/?next=/"
        entry = AuditEntry.objects.get(action="sessions_ended")
        assert (entry.object_key, entry.actor, entry.after) == ("user/operator", "operator", {"sessions": 1})

    def test_an_ended_session_cannot_be_used_again_by_signing_in_elsewhere(self, operator):
        mine, other = signed_in(), signed_in()
        mine.post("/account/sessions/end/")
        signed_in()

        assert not admits(other)
        assert not admits(other, "/admin/")

    def test_a_sign_out_removes_its_row(self, operator):
        signed_in().post("/logout/")

        assert not SignIn.objects.exists()

    def test_a_second_sign_in_in_the_same_browser_is_one_session(self, operator):
        client = signed_in()
        client.force_login(operator)

        assert SignIn.objects.count() == 1

    def test_a_session_that_no_signal_announced_gets_its_row(self, operator):
        client = signed_in()
        session = client.session
        del session[sessions.NUMBER]
        session.save()
        SignIn.objects.all().delete()

        assert admits(client)
        assert SignIn.objects.count() == 1

    def test_their_number_is_bounded_and_expired_ones_go(self, operator, monkeypatch):
        monkeypatch.setattr(sessions, "MOST", 2)
        old = SignIn.objects.create(
            user=operator, signed_in_at=timezone.now(), last_seen=timezone.now() - timedelta(days=99)
        )
        first, second, third = signed_in(), signed_in(), signed_in()

        assert [admits(client) for client in (first, second, third)] == [False, True, True]
        assert not SignIn.objects.filter(pk=old.pk).exists()

    def test_a_sign_in_at_the_same_time_stays(self, operator):
        """It adds its row between the statements of the other one."""
        now, added = timezone.now(), []

        def add(execute, statement, *args):
            found = execute(statement, *args)
            if not added and statement.endswith(f" {sessions.MOST}"):
                added.append(SignIn.objects.create(user=operator, signed_in_at=now, last_seen=now))
            return found

        with connection.execute_wrapper(add):
            signed_in()

        assert len(added) == 1
        assert SignIn.objects.count() == 2

    def test_the_last_use_is_noted_every_few_minutes(self, operator):
        client = signed_in()
        noted = SignIn.objects.get().last_seen
        client.get("/")
        assert SignIn.objects.get().last_seen == noted

        SignIn.objects.update(last_seen=noted - timedelta(minutes=6))
        client.get("/")
        assert SignIn.objects.get().last_seen >= noted

    def test_the_table_holds_no_key_of_a_session(self, operator):
        client = signed_in()
        key = client.cookies[django_settings.SESSION_COOKIE_NAME].value

        assert key not in str(SignIn.objects.values())

    def test_a_request_without_a_session_costs_nothing(self, client: Client):
        with CaptureQueriesContext(connection) as captured:
            client.get("/login/")

        assert len(captured) == 0

    def test_a_stream_ends_with_its_session(self, operator, rf):
        client = signed_in()
        request = rf.get("/stream/")
        request.session = client.session
        login = live.Login(request, operator)
        assert login.counts()

        SignIn.objects.all().delete()
        assert not login.counts()

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.sqlite_only
    def test_an_ended_session_gets_no_stream(self, operator, loop):
        async def status() -> int:
            client = AsyncClient(headers={"Accept": "application/json"})
            await client.aforce_login(operator)
            assert (await client.get("/stream/")).status_code == 200
            await SignIn.objects.all().adelete()
            return int((await client.get("/stream/")).status_code)

        assert loop.run(status()) == 403


class TestPassword:
    def test_a_new_password_ends_the_other_sessions(self, operator):
        mine, other = signed_in(), signed_in()
        fields = {
            "old_password": PASSWORD,
            "new_password1": "plants-9-trees",
            "new_password2": "plants-9-trees",
        }

        assert mine.post("/account/password/", fields)["Location"] == "/account/"
        assert (admits(mine), admits(other)) == (True, False)
        assert SignIn.objects.count() == 1
        assert AuditEntry.objects.filter(action="user_password_changed", object_key="user/operator").exists()

    def test_a_wrong_old_password_is_said_at_its_field(self, operator):
        fields = {
            "old_password": "wrong",
            "new_password1": "plants-9-trees",
            "new_password2": "plants-9-trees",
        }

        page = signed_in().post("/account/password/", fields).content.decode()

        assert 'id="id_old_password_error"' in page
        assert 'value="operator" autocomplete="username"' in page  # For the password manager of the browser.
        assert "plants-9-trees" not in page


def code_of(device: TOTPDevice, ahead: int = 0) -> str:
    """Return the code that the app of *device* shows, or the one *ahead* of it."""
    totp = TOTP(device.bin_key, device.step, device.t0, device.digits)
    totp.time = time.time() + ahead * device.step
    return f"{totp.token():06d}"


def nonce_of(client: Client) -> str:
    (nonce,) = re.findall(
        r'name="nonce" value="([^"]+)"', client.get("/account/second-factor/").content.decode()
    )
    return nonce


def begin(client: Client, **fields: str) -> str:
    posted = {"act": "begin", "password": PASSWORD, "nonce": nonce_of(client), **fields}
    response = client.post("/account/second-factor/", posted)
    assert "no-store" in response["Cache-Control"]
    return response.content.decode()


def backup_codes(page: str) -> list[str]:
    """Return the backup codes that *page* shows."""
    assert "Your backup codes" in page
    codes = re.findall(r"\b[0-9a-f]{10}x\b", page)
    assert len(codes) == second_factor.BACKUP_CODES
    return codes


@pytest.fixture
def backup(operator: User) -> list[str]:
    """Give the operator a second factor, and return the backup codes."""
    device = second_factor.prepare(operator)
    codes = second_factor.confirm(operator, code_of(device, ahead=-1))
    assert codes is not None
    return codes


class TestAddingASecondFactor:
    def test_the_key_is_shown_once_and_counts_after_its_first_code(self, operator):
        client, other = signed_in(), signed_in()

        shown = begin(client)
        device = TOTPDevice.objects.get()
        (key,) = re.findall(r'<code id="key">([A-Z2-7 ]+)</code>', shown)
        assert f"secret={key.replace(' ', '')}" in device.config_url
        assert "<svg" in shown and 'class="qr"' in shown  # noqa: PT018
        assert not second_factor.is_on(operator)

        wrong = client.post("/account/second-factor/", {"act": "confirm", "code": "000000"}).content.decode()
        assert "This code does not fit" in wrong
        assert key not in wrong
        device.throttle_reset()
        right = client.post(
            "/account/second-factor/", {"act": "confirm", "code": code_of(device)}
        ).content.decode()
        codes = backup_codes(right)
        assert second_factor.is_on(operator)
        assert (admits(client), admits(other)) == (True, False)
        for page in ("/account/", "/account/second-factor/"):
            later = client.get(page).content.decode()
            assert key not in later
            assert not [code for code in codes if code in later]

    def test_a_reload_makes_no_second_key(self, operator):
        client = signed_in()
        nonce = nonce_of(client)
        begin(client, nonce=nonce)
        key = TOTPDevice.objects.get().key

        again = begin(client, nonce=nonce)

        assert "was submitted already" in again
        assert 'id="key"' not in again
        assert TOTPDevice.objects.get().key == key

    def test_it_needs_the_password_with_the_limits_of_a_sign_in(self, operator):
        client = signed_in()

        assert "This is not your password" in begin(client, password="wrong")
        assert not TOTPDevice.objects.exists()
        for _ in range(5):
            response = client.post(
                "/account/second-factor/", {"act": "begin", "password": "wrong", "nonce": "x"}
            )
        assert response.status_code == 429

    def test_no_secret_is_left_in_the_session_the_log_or_the_audit(self, operator):
        client = signed_in()
        with capture_logs() as logs:
            begin(client)
            device = TOTPDevice.objects.get()
            shown = client.post("/account/second-factor/", {"act": "confirm", "code": code_of(device)})
        codes = backup_codes(shown.content.decode())
        secrets = [device.key, *codes]

        kept = (
            str(logs)
            + str(list(AuditEntry.objects.values()))
            + str([s.get_decoded() for s in Session.objects.all()])
        )

        assert not [secret for secret in secrets if secret in kept]
        assert not set(codes) & set(StaticToken.objects.values_list("token", flat=True))
        assert AuditEntry.objects.filter(action="second_factor_added", object_key="user/operator").exists()


class TestSigningInWithASecondFactor:
    @pytest.mark.parametrize(("login", "page"), [("/login/", "/"), ("/admin/login/", "/admin/")])
    def test_every_sign_in_asks_for_the_code(self, operator, backup, login, page):
        client = signed_in(login, page)
        for url in (page, "/account/", "/admin/", "/login/"):
            assert "Enter your code" in client.get(url).content.decode()

        response = client.post(page, {"second_factor_code": code_of(TOTPDevice.objects.get())})

        assert response["Location"] == page
        assert admits(client, page)

    def test_until_then_nothing_has_a_user(self, operator, backup):
        client = signed_in()

        assert client.get("/stream/", headers={"Accept": "application/json"}).status_code == 403
        assert client.post("/account/sessions/end/", headers={"Accept": "*/*"}).status_code == 403
        assert "Enter your code" in client.post("/account/password/", {"old_password": "x"}).content.decode()
        assert SignIn.objects.count() == 1

    def test_a_wrong_code_is_refused_and_the_next_tries_have_to_wait(self, operator, backup):
        client = signed_in()
        with capture_logs() as logs:
            page = client.post("/", {"second_factor_code": "000000"}).content.decode()
        assert "This code does not fit" in page
        assert [line["username"] for line in logs if line["event"] == "second_factor.failed"] == ["operator"]

        client.post("/", {"second_factor_code": code_of(TOTPDevice.objects.get())})
        assert not admits(client)

    def test_a_backup_code_works_once(self, operator, backup):
        for admitted in (True, False):
            client = signed_in()
            client.post("/", {"second_factor_code": backup[0].upper()})
            assert admits(client) is admitted

    def test_a_code_of_another_user_does_not_fit(self, operator, backup):
        other = person("other")
        codes = second_factor.confirm(other, code_of(second_factor.prepare(other), ahead=-1))
        client = signed_in()

        client.post("/", {"second_factor_code": codes[0]})
        assert not admits(client)

    def test_leaving_signs_out(self, operator, backup):
        client = signed_in()

        assert client.post("/account/", {"second_factor_leave": "yes"})["Location"] == "/account/"
        assert "Enter your code" not in client.get("/login/").content.decode()

    def test_a_removal_leads_back_to_the_password(self, operator, backup):
        client = signed_in()
        second_factor.remove(operator)

        assert client.get("/account/")["Location"] == "/account/"
        assert not admits(client), "a session that only knew the password does not become one of the user"
        assert client.get("/account/")["Location"] == "/login/?next=/account/"
        assert admits(signed_in())

    def test_a_form_of_another_site_gets_no_code_checked(self, operator, backup):
        client = Client(enforce_csrf_checks=True, headers=HTML)
        client.force_login(operator)

        with mock.patch.object(second_factor, "verify") as verify:
            assert client.post("/", {"second_factor_code": "123456"}).status_code == 403
        assert not verify.called

    def test_removing_it_needs_the_password(self, operator, backup):
        client = signed_in()
        client.post("/", {"second_factor_code": backup[0]})

        client.post("/account/second-factor/", {"act": "remove", "password": "wrong"})
        assert second_factor.is_on(operator)
        client.post("/account/second-factor/", {"act": "remove", "password": PASSWORD})
        assert not second_factor.is_on(operator)
        assert not StaticToken.objects.exists()
        assert admits(signed_in())

    def test_a_removal_that_finds_none_is_not_recorded(self, operator, backup):
        """Of two removals at the same time, one finds the factor."""
        client = signed_in()
        client.post("/", {"second_factor_code": backup[0]})
        removal = {"act": "remove", "password": PASSWORD}

        said = [
            client.post("/account/second-factor/", removal, follow=True).content.decode() for _ in range(2)
        ]

        assert ["Your second factor is removed" in page for page in said] == [True, False]
        assert "You have no second factor" in said[1]
        assert AuditEntry.objects.filter(action="second_factor_removed").count() == 1

    def test_new_backup_codes_replace_the_old_ones(self, operator, backup):
        client = signed_in()
        client.post("/", {"second_factor_code": backup[0]})
        fields = {"act": "renew", "password": PASSWORD, "nonce": nonce_of(client)}

        page = client.post("/account/second-factor/", fields).content.decode()

        assert second_factor.verify(operator, backup_codes(page)[0])
        assert not second_factor.verify(operator, backup[1])


def test_without_the_middleware_no_second_factor_is_offered(operator):
    middleware = [name for name in django_settings.MIDDLEWARE if name != second_factor.MIDDLEWARE]
    with override_settings(MIDDLEWARE=middleware):
        client = signed_in()

        assert "Second factor" not in client.get("/account/").content.decode()
        assert client.get("/account/second-factor/")["Location"] == "/account/"


def test_a_user_without_permission_still_has_an_account():
    client = browser()
    client.force_login(person("newcomer", role=None))

    assert client.get("/account/").status_code == 200


def test_an_administrator_removes_the_second_factor_of_a_lost_telephone(operator, backup):
    with pytest.raises(CommandError, match="There is no user 'nemo'"):
        call_command("remove_second_factor", "nemo")
    call_command("remove_second_factor", "operator", "--reason", "telephone lost", stdout=io.StringIO())

    assert admits(signed_in())
    assert AuditEntry.objects.get(action="second_factor_removed").reason == "telephone lost"
    with pytest.raises(CommandError, match="operator has no second factor"):
        call_command("remove_second_factor", "operator")


def test_the_admin_has_no_page_of_keys(admin_client: Client):
    assert "otp_" not in admin_client.get("/admin/").content.decode()  # A token of the page may hold "otp".
    assert admin_client.get("/admin/otp_totp/totpdevice/").status_code == 404
