"""Service accounts in the browser: created with a password that is shown once, rotated, chosen and revoked."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from authsvc.core import passwords
from authsvc.credentials import UNTIL_USED
from authsvc.models import Account, AuditEntry, Grant, LastLogin
from devicehub import provisioning, roles
from rig.credential_pages import nonce_of, signed_in
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]

ADD = "/admin/authsvc/account/add/"
LIST = "/admin/authsvc/account/"
CHOSEN = "correct horse battery"


@pytest.fixture
def operator():
    return signed_in(person("mara", roles.OPERATOR, is_staff=True))


@pytest.fixture
def account():
    return provisioning.create_account("backend")[0]


def secret_url(account):
    return reverse("admin:authsvc_account_secret", args=[account.pk])


def add(client, **fields):
    nonce = nonce_of(client.get(ADD).content.decode())
    return client.post(ADD, {"username": "backend", "is_active": "on", "nonce": nonce} | fields)


def change(client, account, do, **fields):
    page = client.get(secret_url(account)).content.decode()
    nonce = {"nonce": nonce_of(page, do)} if do == "rotate" else {}
    return client.post(secret_url(account), {"do": do, **nonce, **fields})


def hidden_end(page):
    """Return the end of an old password that a form for a first one sends."""
    return re.search(r'type="hidden" name="ends" value="([a-z]+)"', page).group(1)


def password_of(answer):
    return unescape(re.search(r'id="value-password">([^<]+)<', answer.content.decode()).group(1))


class TestAdding:
    def test_the_answer_shows_the_password_once(self, operator):
        expires = timezone.now().replace(microsecond=0) + timedelta(days=30)
        answer = add(
            operator,
            client_ids="backend-*\nreports",
            password_expires_at_0=f"{expires:%Y-%m-%d}",
            password_expires_at_1=f"{expires:%H:%M:%S}",
        )

        assert answer.status_code == 200
        assert "no-store" in answer.headers["Cache-Control"]
        account, password = Account.objects.get(), password_of(answer)
        assert passwords.verify(password, account.password_hash)
        assert account.client_ids == ["backend-*", "reports"]
        assert account.password_expires_at == expires
        page = unescape(answer.content.decode())
        assert f"MQTT_PASSWORD={password}" in page
        assert "MQTT_CLIENT_ID=backend" in page
        assert "MQTT_HOST=" in page
        assert "MQTT_PORT=" in page

    @pytest.mark.parametrize(
        "wrong",
        [
            {"username": "a/b"},
            {"username": "guest"},
            {"username": "taken"},
            {"username": "STATION-001"},
            {"client_ids": "*"},
            {"client_ids": "STATION-001"},
            {"client_ids": "taken"},
        ],
        ids=str,
    )
    def test_names_of_others_and_mistakes_are_refused(self, operator, station, wrong):
        provisioning.create_account("taken")

        answer = add(operator, **wrong)

        assert answer.status_code == 200
        assert Account.objects.count() == 1
        assert "MQTT_PASSWORD" not in answer.content.decode()

    def test_a_second_click_makes_no_second_account(self, operator):
        given = {"username": "backend", "is_active": "on"}
        given["nonce"] = nonce_of(operator.get(ADD).content.decode())
        password = password_of(operator.post(ADD, given))

        again = operator.post(ADD, given | {"username": "other"})

        assert again.status_code == 409
        assert password not in again.content.decode()
        assert Account.objects.count() == 1


class TestPasswords:
    def test_a_rotation_until_the_new_one_is_used(self, operator, account):
        old = account.password_hash
        answer = change(operator, account, "rotate", ends="used", reason="yearly")

        account.refresh_from_db()
        assert passwords.verify(password_of(answer), account.password_hash)
        assert (account.previous_password_hash, account.previous_valid_until) == (old, UNTIL_USED)
        assert AuditEntry.objects.get(action="password_rotated").reason == "yearly"
        page = operator.get(secret_url(account)).content.decode()
        assert "The new password has not been used yet." in page

        now = timezone.now()
        LastLogin.objects.create(
            key=account.key, first_at=now, at=now, current_at=now, current_mark=account.password_mark
        )
        assert "The new password has been used" in operator.get(secret_url(account)).content.decode()

        change(operator, account, "end_overlap")
        account.refresh_from_db()
        assert not account.has_overlap()

    def test_a_chosen_password(self, operator, account):
        page = operator.get(secret_url(account)).content.decode()
        # For the password manager of the browser, in the one form with a password.
        assert page.count('value="backend" autocomplete="username"') == 1
        answer = change(operator, account, "choose", password=CHOSEN, again=CHOSEN)

        assert answer.status_code == 302
        account.refresh_from_db()
        assert passwords.verify(CHOSEN, account.password_hash)
        assert AuditEntry.objects.filter(action="password_chosen").exists()

    @pytest.mark.parametrize(
        "pair", [("short", "short"), (CHOSEN, CHOSEN + "x"), ("x" * 1100, "x" * 1100), ("", "")]
    )
    def test_an_unusable_choice_is_refused_and_not_repeated(self, operator, account, pair):
        before = account.password_hash
        answer = change(operator, account, "choose", password=pair[0], again=pair[1])

        assert answer.status_code == 200
        assert 'class="error"' in answer.content.decode()
        assert not pair[0] or f'value="{pair[0]}' not in answer.content.decode()
        account.refresh_from_db()
        assert account.password_hash == before

    def test_a_revocation(self, operator, account):
        change(operator, account, "revoke", reason="stolen")

        account.refresh_from_db()
        assert account.password_hash == ""
        assert AuditEntry.objects.get(action="credentials_revoked").reason == "stolen"
        assert "No password" in operator.get(LIST).content.decode()
        page = operator.get(f"{LIST}{account.pk}/secret/").content.decode()
        assert page.count("Make a password") == 2, "as title and as button"
        assert "Rotate" not in page
        assert "The old password ends" not in page
        assert "Make a password</a>" in operator.get(f"{LIST}{account.pk}/change/").content.decode()
        answer = change(operator, account, "rotate", ends=hidden_end(page))
        account.refresh_from_db()
        assert account.password_hash
        assert account.previous_password_hash == ""
        assert "ends when this one is first used" not in answer.content.decode()

    def test_a_first_password_does_not_end_one_that_somebody_else_made_meanwhile(self, operator, account):
        provisioning.revoke_account(account)
        page = operator.get(secret_url(account)).content.decode()
        provisioning.rotate_account(account, valid_until=None)
        theirs = account.password_hash

        change(operator, account, "rotate", ends=hidden_end(page))

        account.refresh_from_db()
        assert account.previous_password_hash == theirs
        assert account.has_overlap()

    def test_a_secret_is_nowhere_afterwards(self, operator, caplog, capfd):
        caplog.set_level(logging.DEBUG)
        shown = [password_of(add(operator))]
        account = Account.objects.get()
        shown.append(password_of(change(operator, account, "rotate", ends="now")))
        change(operator, account, "choose", password=CHOSEN, again=CHOSEN)
        shown.append(CHOSEN)

        with connection.cursor() as cursor:
            rows = []
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                rows += map(repr, cursor.fetchall())
        pages = [
            operator.get(url) for url in (LIST, secret_url(account), "/admin/", f"{LIST}{account.pk}/change/")
        ]
        pages.append(operator.get(f"{LIST}{account.pk}/history/", follow=True))
        everywhere = "\n".join(
            [
                *rows,
                *(page.content.decode() for page in pages),
                *(str(session.get_decoded()) for session in Session.objects.all()),
                str([vars(cache) for cache in caches.all()]),
                caplog.text,
                *capfd.readouterr(),
            ]
        )
        assert [secret for secret in shown if secret in everywhere] == []


class TestPages:
    def test_the_last_login_and_the_grants_stand_beside(self, operator, account):
        now = timezone.now()
        LastLogin.objects.create(
            key=account.key, first_at=now, at=now, broker="orchard-main", client_id="backend-7"
        )
        Grant.objects.create(subject=f"key:{account.key}", actions="publish", filter="plant/#")
        for url in (secret_url(account), f"{LIST}{account.pk}/change/"):
            text = operator.get(url).content.decode()
            for found in ("orchard-main", "backend-7", "plant/#"):
                assert found in text, (url, found)
        assert "Logged in" in operator.get(LIST).content.decode()

    def test_the_username_cannot_be_changed(self, operator, account):
        operator.post(f"{LIST}{account.pk}/change/", {"username": "other", "client_ids": "a\nb"})

        account.refresh_from_db()
        assert (account.username, account.client_ids, account.is_active) == ("backend", ["a", "b"], False)

    def test_a_superuser_needs_the_permission_to_add_grants(self, operator, account):
        """A superuser may use all topics, which a person who may add and change accounts alone cannot allow."""
        user = User.objects.create_user("accountant", is_staff=True)
        wanted = ["add_account", "change_account", "view_account"]
        user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
        url = f"{LIST}{account.pk}/change/"
        for client, expected in ((signed_in(user), False), (operator, True)):
            client.post(url, {"client_ids": "", "is_active": "on", "is_superuser": "on"})
            add(client, username=f"new-{expected}", is_superuser="on")

            found = Account.objects.filter(username__in=("backend", f"new-{expected}"))
            assert [one.is_superuser for one in found] == [expected, expected]

    @pytest.mark.parametrize(
        "who",
        [("vera", roles.VIEWER, None), ("nora", roles.ADMINISTRATOR, ["north"])],
        ids=lambda who: who[0],
    )
    def test_others_change_nothing(self, who, account):
        client, before = signed_in(person(*who, is_staff=True)), Account.objects.values().get()
        for url in (ADD, secret_url(account), f"{LIST}{account.pk}/change/", f"{LIST}{account.pk}/delete/"):
            for do in ("rotate", "choose", "end_overlap", "revoke"):
                given = {"do": do, "nonce": "x", "ends": "now", "username": "x", "post": "yes"}
                answer = client.post(url, given | {"password": CHOSEN, "again": CHOSEN})
                assert answer.status_code in (302, 403, 404), url
        assert client.get(secret_url(account)).status_code in (403, 404)
        assert Account.objects.values().get() == before
