"""Brokers in the browser: created with a token that is shown once, rotated with an overlap, revoked, and their use."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from authsvc import broker_tokens
from authsvc.brokers import BROKERS
from authsvc.credentials import UNTIL_USED
from authsvc.models import AuditEntry, Broker, BrokerUse, digest
from devicehub import roles
from rig.credential_pages import nonce_of, signed_in
from rig.people import person

pytestmark = [pytest.mark.django_db, pytest.mark.pages]

ADD = "/admin/authsvc/broker/add/"
LIST = "/admin/authsvc/broker/"


@pytest.fixture
def boss():
    return signed_in(person("ada", roles.ADMINISTRATOR, is_staff=True))


@pytest.fixture
def broker():
    found = Broker(name="orchard-main", dialects=["go-auth"])
    found.issue_token()
    found.save()
    return found


def secret_url(broker):
    return reverse("admin:authsvc_broker_secret", args=[broker.pk])


def add(client, **fields):
    nonce = nonce_of(client.get(ADD).content.decode())
    given = {"name": "orchard-main", "is_active": "on", "address": "http://hub:8000", "nonce": nonce}
    return client.post(ADD, given | {"dialects": ["go-auth"]} | fields)


def change(client, broker, do, **fields):
    page = client.get(secret_url(broker)).content.decode()
    nonce = {"nonce": nonce_of(page, do)} if do == "rotate" else {}
    given = {"address": "http://hub:8000"} if do == "rotate" else {}
    return client.post(secret_url(broker), {"do": do, **nonce, **given, **fields})


def token_of(answer):
    return unescape(re.search(r'id="value-token">([^<]+)<', answer.content.decode()).group(1))


class TestAdding:
    def test_the_answer_shows_the_token_and_the_configuration_once(self, boss):
        answer = add(boss, networks="10.0.0.0/8\n 2001:db8::/32 \n\n")

        assert answer.status_code == 200
        assert "no-store" in answer.headers["Cache-Control"]
        broker = Broker.objects.get()
        token = token_of(answer)
        assert broker.token_digest == digest(token)
        assert (broker.dialects, broker.networks) == (["go-auth"], ["10.0.0.0/8", "2001:db8::/32"])
        text = answer.content.decode()
        assert f"auth_opt_http_host devicehub:{token}@hub" in text
        assert 'data-name="orchard-main-mosquitto.conf"' in text
        assert token not in boss.get(LIST).content.decode()
        assert token not in boss.get(secret_url(broker)).content.decode()

    def test_a_second_click_makes_no_second_broker_and_shows_nothing(self, boss):
        nonce = nonce_of(boss.get(ADD).content.decode())
        given = {"name": "one", "is_active": "on", "address": "http://hub:8000", "nonce": nonce}
        token = token_of(boss.post(ADD, given))

        again = boss.post(ADD, given | {"name": "two"})

        assert again.status_code == 409
        assert token not in again.content.decode()
        assert Broker.objects.count() == 1

    @pytest.mark.parametrize(
        "wrong",
        [
            {"networks": "10.1.2.3/8"},
            {"networks": "office"},
            {"dialects": ["telepathy"]},
            {"address": "http://hub:8000/?x"},
            {"address": "javascript:alert(1)"},
            {"name": ""},
        ],
        ids=str,
    )
    def test_mistakes_come_back_with_the_form_and_its_number(self, boss, wrong):
        nonce = nonce_of(boss.get(ADD).content.decode())
        given = {"name": "one", "is_active": "on", "address": "http://hub:8000", "nonce": nonce}

        answer = boss.post(ADD, given | wrong)

        assert answer.status_code == 200
        assert not Broker.objects.exists()
        assert nonce_of(answer.content.decode()) == nonce
        assert boss.post(ADD, given).status_code == 200
        assert Broker.objects.count() == 1

    def test_each_software_has_a_check_box_with_its_name(self, boss):
        text = unescape(boss.get(ADD).content.decode())

        for software in BROKERS:
            assert f'value="{software.dialect}"' in text
            assert software.name in text

    def test_a_broker_of_any_software_gets_each_configuration(self, boss):
        text = add(boss, dialects=[]).content.decode()

        assert all(f'id="file-{software.dialect}"' in text for software in BROKERS)

    def test_the_address_is_that_of_the_setting_or_of_the_page(self, boss, settings):
        assert 'value="http://testserver"' in boss.get(ADD).content.decode()
        settings.AUTHSVC_URL = "https://hub.example.org"
        assert 'value="https://hub.example.org"' in boss.get(ADD).content.decode()

    def test_the_audit_has_the_author_and_no_secret(self, boss):
        token = token_of(add(boss))

        rows = list(AuditEntry.objects.filter(object_key="broker/orchard-main").order_by("pk"))
        assert [(row.action, row.actor) for row in rows] == [
            ("broker_created", "ada"),
            ("credentials_shown", "ada"),
        ]
        assert token not in str([vars(row) for row in rows])
        assert token not in str(list(LogEntry.objects.values()))


class TestTokens:
    def test_a_rotation_until_the_new_one_is_used(self, boss, broker):
        old = broker.token_digest
        answer = change(boss, broker, "rotate", ends="used", reason="yearly")

        broker.refresh_from_db()
        assert broker.token_digest == digest(token_of(answer))
        assert (broker.previous_token_digest, broker.previous_token_until) == (old, UNTIL_USED)
        assert "ends when this one is first used" in answer.content.decode()
        assert AuditEntry.objects.get(action="token_rotated").reason == "yearly"
        page = boss.get(secret_url(broker)).content.decode()
        assert "The new token has not been used yet." in page

    def test_a_rotation_until_a_date(self, boss, broker):
        until = (timezone.now() + timedelta(hours=2)).replace(second=0, microsecond=0)
        change(boss, broker, "rotate", ends="date", until=f"{until:%Y-%m-%dT%H:%M}")

        broker.refresh_from_db()
        assert broker.previous_token_until == until

    def test_a_rotation_at_once_and_its_repetition(self, boss, broker):
        page = boss.get(secret_url(broker)).content.decode()
        given = {"do": "rotate", "nonce": nonce_of(page, "rotate"), "ends": "now", "address": "http://hub"}
        token = token_of(boss.post(secret_url(broker), given))

        again = boss.post(secret_url(broker), given)

        assert again.status_code == 409
        assert token not in again.content.decode()
        broker.refresh_from_db()
        assert (broker.token_digest, broker.previous_token_digest) == (digest(token), None)

    def test_the_end_of_an_overlap_and_a_revocation(self, boss, broker):
        broker_tokens.rotate_token(broker, valid_until=UNTIL_USED)
        assert change(boss, broker, "end_overlap").status_code == 302
        broker.refresh_from_db()
        assert not broker.has_overlap()

        assert change(boss, broker, "revoke", reason="stolen").status_code == 302

        broker.refresh_from_db()
        assert broker.is_revoked
        assert "Revoked" in boss.get(LIST).content.decode()
        assert AuditEntry.objects.get(action="token_revoked").reason == "stolen"
        page = boss.get(secret_url(broker)).content.decode()
        assert page.count("Make a token") == 2, "as title and as button"
        assert "Rotate" not in page
        assert "Make a token</a>" in boss.get(f"{LIST}{broker.pk}/change/").content.decode()

    def test_the_number_of_one_broker_does_not_rotate_another(self, boss, broker):
        other = Broker.objects.create(name="other", token_digest="x")
        nonce = nonce_of(boss.get(secret_url(broker)).content.decode(), "rotate")

        answer = boss.post(
            secret_url(other), {"do": "rotate", "nonce": nonce, "ends": "now", "address": "http://hub"}
        )

        assert answer.status_code == 409
        other.refresh_from_db()
        assert other.token_digest == "x"

    def test_an_unknown_act_and_an_unknown_broker(self, boss, broker):
        assert boss.post(secret_url(broker), {"do": "steal"}).status_code == 404
        assert (
            "Token of orchard-main</h1>"
            in boss.get(f"/admin/authsvc/broker/{broker.pk}/secret/").content.decode()
        )
        assert boss.get("/admin/authsvc/broker/999/secret/").status_code == 404
        assert boss.put(secret_url(broker)).status_code == 405

    def test_a_change_of_limits_is_recorded_and_keeps_the_token(self, boss, broker):
        url = reverse("admin:authsvc_broker_change", args=[broker.pk])
        boss.post(url, {"name": "orchard-main", "dialects": ["emqx"], "networks": "10.0.0.0/8"})

        after = Broker.objects.get()
        assert (after.dialects, after.networks, after.is_active) == (["emqx"], ["10.0.0.0/8"], False)
        assert after.token_digest == broker.token_digest
        assert AuditEntry.objects.filter(action="broker_changed", object_key="broker/orchard-main").exists()


class TestUse:
    def test_the_list_and_the_page_say_when_how_often_and_from_where(self, boss, broker):
        now = timezone.now()
        BrokerUse.objects.create(
            broker=broker, address="10.4.2.77", count=1284, first_at=now, last_at=now, current_at=now
        )
        assert "Asking" in boss.get(LIST).content.decode()
        for url in (secret_url(broker), reverse("admin:authsvc_broker_change", args=[broker.pk])):
            text = boss.get(url).content.decode()
            assert "10.4.2.77" in text
            assert "1,284" in text

        BrokerUse.objects.update(last_at=now - timedelta(hours=1))
        assert "Stopped asking" in boss.get(LIST).content.decode()
        BrokerUse.objects.all().delete()
        assert "Never asked" in boss.get(LIST).content.decode()

    def test_the_use_of_both_tokens(self, boss, broker):
        broker_tokens.rotate_token(broker, valid_until=timezone.now() + timedelta(hours=1))
        now = timezone.now()
        use = BrokerUse.objects.create(
            broker=broker, address="10.4.2.77", count=1, first_at=now, last_at=now, previous_at=now
        )
        assert "The new token has not been used yet." in boss.get(secret_url(broker)).content.decode()

        use.current_at = now
        use.save()
        text = boss.get(secret_url(broker)).content.decode()
        assert "The new token has been used" in text
        assert "it was last used" in text


class TestRights:
    @pytest.mark.parametrize(
        "who",
        [
            ("vera", roles.VIEWER, None),
            ("mara", roles.OPERATOR, None),
            ("nora", roles.ADMINISTRATOR, ["north"]),
        ],
        ids=lambda who: who[0],
    )
    def test_others_change_nothing_and_see_no_token(self, who, broker):
        client, before = signed_in(person(*who, is_staff=True)), Broker.objects.values().get()
        pk = broker.pk
        for url in (ADD, secret_url(broker), f"{LIST}{pk}/change/", f"{LIST}{pk}/delete/"):
            for do in ("rotate", "end_overlap", "revoke"):
                answer = client.post(url, {"do": do, "nonce": "x", "ends": "now", "name": "x", "post": "yes"})
                assert answer.status_code in (302, 403, 404), url
                assert broker.token_digest not in answer.content.decode()
        assert client.get(secret_url(broker)).status_code in (403, 404)
        assert client.get(ADD).status_code == 403
        assert Broker.objects.values().get() == before

    def test_a_limited_administrator_does_not_see_brokers(self, broker):
        client = signed_in(person("nora", roles.ADMINISTRATOR, ["north"], is_staff=True))

        assert client.get(LIST).status_code == 403
        assert broker.name not in client.get("/admin/").content.decode()

    def test_a_viewer_sees_the_use_without_buttons(self, broker):
        url = reverse("admin:authsvc_broker_change", args=[broker.pk])
        text = signed_in(person("vera", roles.VIEWER, is_staff=True)).get(url).content.decode()

        assert "Token and use" in text
        assert "Rotate token" not in text

    def test_a_stranger_is_sent_to_the_login(self, broker):
        for url in (ADD, secret_url(broker)):
            assert Client().post(url, {"do": "revoke"}).status_code == 302
        broker.refresh_from_db()
        assert not broker.is_revoked

    def test_a_post_needs_the_token_of_csrf(self, broker):
        client = Client(enforce_csrf_checks=True)
        client.force_login(person("ada", roles.ADMINISTRATOR, is_staff=True))

        assert client.post(secret_url(broker), {"do": "revoke"}).status_code == 403
