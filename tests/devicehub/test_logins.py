"""Guesses at the sign-in pages: locks and whom they concern, stored and logged data, and the cost for others."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from datetime import timedelta
from io import StringIO

import httpx
import pytest
from asgiref.sync import sync_to_async
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.auth import aauthenticate, authenticate
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections
from django.test import Client, RequestFactory
from django.utils import timezone

from devicehub import logins
from devicehub.dashboard.policy import POLICY
from rig.entrances import ENTRANCES

PAGES = ["/login/", "/admin/login/"]
PASSWORD = "looks-around-7"
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.1"


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create_superuser("operator", password=PASSWORD)


@pytest.fixture
def other(db: None) -> User:
    return User.objects.create_user("other", password=PASSWORD)


def sign_in(username="operator", password="wrong", address=HOME, page="/login/", **headers):
    return Client(**headers).post(page, {"username": username, "password": password}, REMOTE_ADDR=address)


def fail(times, **options):
    return [sign_in(**options).status_code for _ in range(times)]


class TestLocks:
    @pytest.mark.parametrize("page", PAGES)
    def test_the_name_is_locked_at_the_address_that_guessed(self, operator, page):
        assert fail(4, page=page) == [200] * 4
        assert sign_in(page=page).status_code == 429

        refused = sign_in(password=PASSWORD, page=page)
        assert refused.status_code == 429
        assert refused["Retry-After"] == "900"
        assert refused["Cache-Control"] == "no-store"
        assert refused["Content-Security-Policy"] == POLICY
        assert b"Too many failed sign-ins" in refused.content
        assert "Try again in 15 minutes, or contact an administrator" in refused.content.decode()
        assert f'href="{page}">Back to sign in</a>' in refused.content.decode()

    @pytest.mark.parametrize("page", PAGES)
    def test_all_sign_in_pages_count_together(self, operator, page):
        fail(5, page=page)

        assert [sign_in(password=PASSWORD, page=page).status_code for page in PAGES] == [429, 429]

    def test_failures_elsewhere_do_not_lock_the_operator_out(self, operator):
        for number in range(3):
            fail(5, address=f"203.0.113.{number}")

        assert sign_in(password=PASSWORD, address=HOME).status_code == 302

    def test_another_name_at_the_address_is_not_locked(self, operator, other):
        fail(6)

        assert sign_in("other", PASSWORD).status_code == 302

    def test_an_address_is_locked_after_many_names(self, operator, monkeypatch):
        monkeypatch.setattr(logins, "MANY_NAMES", 7)
        answers = [sign_in(f"name-{number}").status_code for number in range(10)]

        assert answers == [200] * 6 + [429] * 4
        assert sign_in(password=PASSWORD).status_code == 429
        assert sign_in(password=PASSWORD, address=ELSEWHERE).status_code == 302

    def test_an_address_of_ipv6_is_a_whole_subnet(self, operator):
        """One subscriber has 2^64 addresses."""
        answers = [sign_in(address=f"2001:db8:1:2::{number:x}").status_code for number in range(6)]

        assert answers == [200] * 4 + [429] * 2
        assert sign_in(password=PASSWORD, address="2001:db8:1:3::1").status_code == 302

    def test_a_success_clears_its_own_failures_and_no_others(self, operator, other):
        fail(4)
        fail(4, username="other")
        assert sign_in("other", PASSWORD).status_code == 302

        assert sign_in("operator").status_code == 429
        assert fail(4, username="other") == [200] * 4

    def test_it_ends_after_the_cool_off_and_not_later_for_further_attempts(self, operator):
        fail(8)
        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=14))
        assert sign_in(password=PASSWORD).status_code == 429

        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
        assert sign_in(password=PASSWORD).status_code == 302

    def test_a_header_of_the_client_changes_no_address(self, operator):
        spoofed = [
            sign_in(headers={"x-forwarded-for": f"203.0.113.{number}"}).status_code for number in range(6)
        ]

        assert spoofed == [200] * 4 + [429] * 2

    def test_clients_behind_a_trusted_proxy_are_distinguished(self, operator, settings):
        settings.TRUSTED_PROXIES = ["127.0.0.1"]
        behind = {"address": "127.0.0.1"}
        for _ in range(5):
            sign_in(**behind, headers={"x-forwarded-for": HOME})

        assert sign_in(**behind, password=PASSWORD, headers={"x-forwarded-for": HOME}).status_code == 429
        away = {"x-forwarded-for": f"{HOME}, {ELSEWHERE}"}
        assert sign_in(**behind, password=PASSWORD, headers=away).status_code == 302

    def test_a_client_without_an_address_is_one_address(self, operator):
        """A unix socket that is not trusted."""
        assert fail(6, address="") == [200] * 4 + [429] * 2

    @pytest.mark.parametrize("options", [["operator"], []])
    def test_an_operator_unlocks(self, operator, options):
        fail(6)
        command = "axes_reset_username" if options else "axes_reset"
        call_command(command, *options, stdout=StringIO())

        assert sign_in(password=PASSWORD).status_code == 302

    def test_an_operator_unlocks_an_address(self, operator, monkeypatch):
        monkeypatch.setattr(logins, "MANY_NAMES", 3)
        for number in range(3):
            sign_in(f"name-{number}")
        call_command("axes_reset_ip", HOME, stdout=StringIO())

        assert sign_in(password=PASSWORD).status_code == 302

    def test_code_that_authenticates_is_limited_too(self, operator):
        """Also through Django's asynchronous function, whose default would bypass the lock."""
        request = RequestFactory().post("/", REMOTE_ADDR=HOME)
        for _ in range(5):
            authenticate(request, username="operator", password="wrong")

        assert authenticate(request, username="operator", password=PASSWORD) is None
        assert authenticate(None, username="operator", password=PASSWORD) == operator

    def test_asynchronous_code_is_limited_too(self, transactional_db, loop):
        User.objects.create_user("operator", password=PASSWORD)

        async def attempt(password):
            request = RequestFactory().post("/", REMOTE_ADDR=HOME)
            return await aauthenticate(request, username="operator", password=password)

        assert loop.run(attempt(PASSWORD)) is not None
        for _ in range(5):
            assert loop.run(attempt("wrong")) is None
        assert loop.run(attempt(PASSWORD)) is None

        loop.run(
            sync_to_async(connections.close_all)()
        )  # These are the connections of the thread that did the work.


class TestWhatIsKept:
    def test_a_failure_keeps_neither_password_nor_form(self, operator):
        secret = "a-secret-to-look-for"
        client = Client(headers={"user-agent": secret, "accept": secret})
        for typed in ("operator", secret):
            client.post(f"/login/?next={secret}", {"username": typed, "password": secret, "more": secret})

        assert AccessAttempt.objects.count() == 2
        assert secret not in repr(list(AccessAttempt.objects.values()))

    def test_a_failure_and_a_lock_are_logged_once_each_and_without_secrets(self, operator, caplog):
        secret = "My-Password-7"
        with caplog.at_level(logging.DEBUG):
            fail(8, password=secret)
            sign_in(secret, password="operator")

        lines = [record.getMessage() for record in caplog.records if "login." in record.getMessage()]
        assert sum("login.failed" in line for line in lines) == 6
        assert sum("login.locked" in line for line in lines) == 1
        assert all(HOME in line for line in lines)
        assert "'username': 'operator'" in lines[0]
        assert "unknown-" in lines[-1]
        assert secret not in caplog.text
        assert "Too Many Requests" not in caplog.text  # Django would log this for each answer with 429.

    def test_a_million_attempts_are_a_few_rows(self, operator, monkeypatch):
        """Few for one address, a bounded number for all, and none after the time."""
        monkeypatch.setattr(logins, "MANY_NAMES", 4)
        monkeypatch.setattr(logins, "MAX_ROWS", 6)
        for number in range(8):
            sign_in(f"name-{number}")
        assert AccessAttempt.objects.count() == 4

        for number in range(8):
            sign_in(address=f"203.0.113.{number}")
        assert AccessAttempt.objects.count() == 6

        AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
        sign_in()
        assert AccessAttempt.objects.count() == 1

    def test_a_success_keeps_nothing(self, operator):
        client = Client()
        client.post("/login/", {"username": "operator", "password": PASSWORD})
        client.post("/logout/")

        for model in (AccessAttempt, AccessLog, AccessFailureLog):
            assert not model.objects.exists()

    @pytest.mark.parametrize(
        "text", ["a\x00b", "x" * 5_000, "\ud800", "\U0001f4a3", "' OR 1=1 --"], ids=ascii
    )
    def test_any_text_can_be_typed(self, operator, text):
        request = RequestFactory().post("/", REMOTE_ADDR=HOME)

        typed = text.encode("utf-8", "replace").decode()
        assert authenticate(request, username=typed.replace("\x00", ""), password=typed) is None
        assert sign_in(typed, typed).status_code == 200


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUTHENTICATION_BACKENDS", ["django.contrib.auth.backends.ModelBackend"]),
        ("AXES_HANDLER", "axes.handlers.database.AxesDatabaseHandler"),
        ("MIDDLEWARE", ["django.contrib.sessions.middleware.SessionMiddleware"]),
    ],
)
def test_a_project_without_the_protection_is_warned(settings, name, value):
    assert "devicehub.W018" not in [found.id for found in run_checks()]

    setattr(settings, name, value)
    assert "devicehub.W018" in [found.id for found in run_checks()]


class TestFlood:
    """Hashes that do not end, as a substitute for a flood of sign-ins."""

    @pytest.fixture
    def hashing(self, monkeypatch):
        """Hold each hash until `go`; `running` is the number of hashes at the same time."""

        class Hashing:
            go, begun = threading.Event(), threading.Semaphore(0)
            running = most = 0

        def slow(*_arguments, **_options):
            Hashing.running += 1
            Hashing.most = max(Hashing.most, Hashing.running)
            Hashing.begun.release()
            Hashing.go.wait(20)
            Hashing.running -= 1

        monkeypatch.setattr("django.contrib.auth.backends.ModelBackend.authenticate", slow)
        yield Hashing
        Hashing.go.set()

    def test_beyond_the_bound_it_is_refused_and_not_queued(
        self, hashing, transactional_db, loop, token, caplog, monkeypatch
    ):
        """Pages, and the requests of brokers, are answered meanwhile."""

        async def flood():
            transport = httpx.ASGITransport(ENTRANCES["asgi"], client=(HOME, 40000))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                await client.get("/login/")
                form = {"password": "wrong", "csrfmiddlewaretoken": client.cookies["csrftoken"]}
                tasks = [
                    asyncio.create_task(client.post("/login/", data={**form, "username": f"n{number}"}))
                    for number in range(logins.MAX_WAITING + 4)
                ]
                waiting = set(tasks)
                refused = []
                while len(refused) < 4:
                    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                    refused += [task.result() for task in done]
                page = await client.get("/login/")
                question = await client.post(f"/mqtt/go-auth/user?k={token}", json={})
                hashing.go.set()
                rest = [task.result().status_code for task in (await asyncio.wait(waiting))[0]]
                return refused, page, question, rest

        monkeypatch.setattr(logins, "_logged_at", float("-inf"))
        with caplog.at_level(logging.DEBUG):
            refused, page, question, rest = loop.run(flood())

        assert {reply.status_code for reply in refused} == {429}
        assert "Too many sign-ins at once" in refused[0].text
        assert refused[0].headers["retry-after"] == "1"
        assert (page.status_code, question.status_code) == (200, 403)
        assert rest == [200] * logins.MAX_WAITING
        assert hashing.most == 1
        assert caplog.text.count("login.too_many_at_once") == 1
        assert "Too Many Requests: /login/" not in caplog.text
        assert (
            AccessAttempt.objects.count() == logins.MAX_WAITING
        )  # A sign-in that was not tried is not a failure.


class TestPages:
    def test_both_have_one_form_in_the_same_words(self, db):
        shown = [Client().get(page).content.decode() for page in PAGES]
        of_dashboard, of_admin = (
            re.sub(
                r'(name="(?:next|csrfmiddlewaretoken)" value=)"[^"]*"',
                r"\1",
                re.findall(r"<form.*?</form>", page, re.DOTALL)[0],
            )
            for page in shown
        )

        assert of_dashboard == of_admin
        for page in shown:
            assert '<h1 id="login-title">Sign in</h1>' in page
            assert "Log in" not in page
        assert 'name="next" value="/admin/"' in shown[1]

    def test_the_admin_says_why_it_lets_nobody_in(self, operator, other):
        """One sentence for a wrong password and for a user without the right: it tells a guesser nothing."""
        wrong = sign_in(page="/admin/login/").content.decode()
        not_staff = sign_in("other", PASSWORD, page="/admin/login/").content.decode()
        client = Client()
        client.force_login(other)
        signed_in = client.get("/admin/login/?next=/admin/").content.decode()

        for page in (wrong, not_staff):
            assert (
                "The username or the password is wrong, or this user may not open the administration." in page
            )
        assert "You are signed in as other, who may not open this page." in signed_in

    def test_a_sign_in_leads_to_the_page_that_was_asked_for(self, operator):
        answer = Client().post(
            "/admin/login/?next=/admin/authsvc/grant/",
            {"username": "operator", "password": PASSWORD, "next": "/admin/authsvc/grant/"},
        )

        assert answer["Location"] == "/admin/authsvc/grant/"

    def test_the_admin_has_the_same_word_for_the_way_out(self, admin_client):
        page = admin_client.get("/admin/").content.decode()

        assert re.search(r"Sign out\s*<", page)
        assert "Log out" not in page
