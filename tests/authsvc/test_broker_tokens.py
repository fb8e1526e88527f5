"""Tokens of brokers: two at once during an overlap, and not one second longer."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from authsvc import audit, background, broker_tokens
from authsvc.credentials import UNTIL_USED
from authsvc.models import AuditEntry, Broker, BrokerUse, digest
from rig.asking import DENIED, OK, sql
from rig.entrances import both_entrances

pytestmark = pytest.mark.usefixtures("nothing_pending")


@pytest.fixture
def broker(token):
    return Broker.objects.get()


@pytest.fixture
def call(send, entrance, station):
    """Return a function that logs in with a token of a broker, and returns the status."""

    def one(token, *, dialect="go-auth/user", **options):
        fields = {"username": station.username, "password": station.password, "clientid": station.username}
        headers = [("content-type", "application/json"), ("authorization", f"Bearer {token}")]
        return send(
            entrance, "POST", f"/mqtt/{dialect}", headers=headers, content=json.dumps(fields).encode()
        ).status_code

    return one


def rotate(broker, until=None):
    return broker_tokens.rotate_token(broker, valid_until=until)


def in_an_hour():
    return timezone.now() + timedelta(hours=1)


class TestOverlap:
    @both_entrances
    def test_a_rotation_ends_the_old_token_at_once(self, call, token, broker):
        assert call(token) == OK

        new = rotate(broker)

        assert (call(token), call(new)) == (DENIED, OK)

    @both_entrances
    def test_both_tokens_are_valid_until_a_time_and_not_one_second_longer(
        self, call, token, broker, monkeypatch
    ):
        """Also for an admitted caller and for a cached answer, without a change of the database."""
        end = in_an_hour()
        new = rotate(broker, end)
        assert [(call(token), call(new)) for _ in range(3)] == [(OK, OK)] * 3

        monkeypatch.setattr(time, "time", lambda: end.timestamp() - 0.001)
        assert (call(token), call(new)) == (OK, OK)
        monkeypatch.setattr(time, "time", lambda: end.timestamp())
        assert (call(token), call(new)) == (DENIED, OK)

    @both_entrances
    def test_the_old_token_ends_when_the_new_one_is_used(self, call, token, broker):
        new = rotate(broker, UNTIL_USED)
        assert call(token) == OK
        background.stop()
        assert call(token) == OK

        assert call(new) == OK
        background.stop()

        assert (call(token), call(new)) == (DENIED, OK)
        broker.refresh_from_db()
        assert (broker.previous_token_digest, broker.previous_token_until) == (None, None)
        entry = AuditEntry.objects.first()
        assert (entry.action, entry.object_key, entry.actor_kind) == (
            "previous_token_ended",
            "broker/mosquitto-1",
            "system",
        )

    def test_a_refused_use_of_the_new_token_does_not_end_the_old_one(self, call, token, broker):
        """From outside the networks, and in another dialect."""
        new = rotate(broker, UNTIL_USED)
        Broker.objects.update(networks=["192.0.2.0/24"])
        assert call(new) == DENIED
        Broker.objects.update(networks=[], dialects=["emqx"])
        assert call(new) == DENIED
        background.stop()

        Broker.objects.update(dialects=[])
        assert call(token) == OK

    def test_the_use_of_an_older_token_ends_nothing(self, call, token, broker):
        """The note of a token may be taken after the next rotation."""
        second = rotate(broker, UNTIL_USED)
        assert call(second) == OK
        third = rotate(broker, UNTIL_USED)

        background.stop()

        assert (call(token), call(second), call(third)) == (DENIED, OK, OK)

    @pytest.mark.parametrize("until", [UNTIL_USED, in_an_hour()], ids=["used", "date"])
    def test_a_second_rotation_keeps_the_token_that_the_broker_has(self, call, token, broker, until):
        lost = rotate(broker, UNTIL_USED)
        new = rotate(broker, until)

        assert (call(token), call(lost), call(new)) == (OK, DENIED, OK)

    def test_a_late_note_revives_no_token_that_ended(self, call, token, broker):
        second = rotate(broker, UNTIL_USED)
        assert call(second) == OK
        third = rotate(broker)
        fourth = rotate(broker, UNTIL_USED)

        background.stop()

        assert (call(second), call(third), call(fourth)) == (DENIED, OK, OK)

    def test_a_time_is_not_ended_by_a_use(self, call, token, broker):
        new = rotate(broker, in_an_hour())
        assert call(new) == OK
        background.stop()

        assert call(token) == OK

    def test_a_second_rotation_ends_the_oldest_token(self, call, token, broker):
        second = rotate(broker, in_an_hour())
        third = rotate(broker, in_an_hour())

        assert (call(token), call(second), call(third)) == (DENIED, OK, OK)

    @both_entrances
    def test_the_old_token_has_the_limits_of_its_broker(self, call, token, broker):
        rotate(broker, in_an_hour())

        for change, undo in (
            ({"is_active": False}, {"is_active": True}),
            ({"networks": ["192.0.2.0/24"]}, {"networks": []}),
            ({"dialects": ["emqx"]}, {"dialects": []}),
        ):
            assert call(token) == OK
            Broker.objects.update(**change)
            assert call(token) == DENIED, change
            Broker.objects.update(**undo)

    @both_entrances
    def test_a_revocation_ends_both(self, call, token, broker):
        new = rotate(broker, in_an_hour())
        assert (call(token), call(new)) == (OK, OK)

        broker_tokens.revoke_tokens(broker)

        assert (call(token), call(new)) == (DENIED, DENIED)
        assert broker.is_revoked
        assert call(broker.token_digest) == DENIED
        assert call(rotate(broker, in_an_hour())) == OK
        assert not broker.has_overlap()

    def test_the_end_of_the_overlap(self, call, token, broker):
        new = rotate(broker, in_an_hour())
        broker_tokens.end_previous_token(broker)

        assert (call(token), call(new)) == (DENIED, OK)

    @pytest.mark.parametrize("until", [timedelta(0), timedelta(hours=-1)], ids=["now", "past"])
    def test_an_end_that_has_passed_keeps_nothing(self, call, token, broker, until):
        rotate(broker, timezone.now() + until)

        assert call(token) == DENIED
        assert broker.previous_token_digest is None

    def test_a_digest_is_not_a_token(self, call, token, broker):
        rotate(broker, in_an_hour())

        assert call(broker.previous_token_digest) == DENIED

    def test_a_previous_token_without_an_end_is_refused(self, call, token, broker):
        """Only SQL can write such a row."""
        new = rotate(broker, in_an_hour())
        sql("UPDATE authsvc_broker SET previous_token_until = NULL")

        assert (call(token), call(new)) == (DENIED, OK)

    @pytest.mark.sqlite_only
    def test_an_unreadable_end_refuses_that_broker_only(self, call, token, broker):
        """The column of SQLite holds any text or number."""
        other = Broker(name="other")
        others = other.issue_token()
        other.save()
        new = rotate(broker, in_an_hour())

        for until in ("never", 7):
            sql("UPDATE authsvc_broker SET previous_token_until = %s WHERE name = 'mosquitto-1'", until)
            assert (call(token), call(new), call(others)) == (DENIED, DENIED, OK)

    def test_the_token_of_one_broker_as_the_previous_one_of_another_is_the_first_ones(
        self, call, token, broker
    ):
        """Only SQL can write such a row. The owner keeps its limits."""
        Broker.objects.update(dialects=["emqx"])
        thief = Broker(name="thief", token_digest="x", previous_token_digest=digest(token))
        thief.previous_token_until = in_an_hour()
        thief.save()

        assert call(token) == DENIED

    def test_a_slow_hash_does_not_prolong_the_overlap(self, call, token, broker, station, monkeypatch):
        """The login began before the end, and its password was verified after it."""
        from authsvc.core import passwords

        station.device.set_hash(passwords.hash_chosen(station.password))
        station.device.save()
        end = in_an_hour()
        rotate(broker, end)
        verify = passwords.verify

        def late(password, stored):
            right = verify(password, stored)
            monkeypatch.setattr(time, "time", lambda: end.timestamp())
            return right

        monkeypatch.setattr(passwords, "verify", late)
        assert call(token) == DENIED


class TestAudit:
    def test_each_action_leaves_its_row(self, transactional_db):
        with audit.acting(audit.system("test")):
            broker, _ = broker_tokens.create_broker("mosquitto-1", ["go-auth"], ["10.0.0.0/8"])
            rotate(broker, UNTIL_USED)
            broker_tokens.end_previous_token(broker)
            broker_tokens.revoke_tokens(broker)

        found = list(AuditEntry.objects.order_by("pk").values_list("action", "object_key", "after"))
        assert found == [
            ("broker_created", "broker/mosquitto-1", {"dialects": ["go-auth"], "networks": ["10.0.0.0/8"]}),
            ("token_rotated", "broker/mosquitto-1", {"previous_token_until": "until used"}),
            ("previous_token_ended", "broker/mosquitto-1", None),
            ("token_revoked", "broker/mosquitto-1", None),
        ]


class TestCommand:
    @pytest.fixture
    def run(self, transactional_db):
        def called(*arguments):
            out = StringIO()
            call_command("create_broker", *arguments, stdout=out, stderr=StringIO())
            return out.getvalue()

        return called

    def test_an_overlap(self, run):
        token = json.loads(run("mosquitto-1", "go-auth", "--json"))["token"]

        text = run("mosquitto-1", "go-auth", "--rotate", "--overlap", "1h")

        broker = Broker.objects.get()
        assert broker.previous_token_digest == digest(token)
        assert broker.has_overlap()
        assert f"valid until {broker.previous_token_until:%Y-%m-%d %H:%M:%S} UTC" in text.splitlines()[1]

    def test_until_used(self, run):
        run("mosquitto-1", "go-auth")

        assert "old one ends when this one is first" in run(
            "mosquitto-1", "go-auth", "--rotate", "--until-used"
        )
        assert "one in use ends when this one" in run("mosquitto-1", "go-auth", "--rotate", "--until-used")
        assert Broker.objects.get().previous_token_until == UNTIL_USED

    @pytest.mark.parametrize("option", [["--overlap", "1h"], ["--until-used"]])
    def test_a_new_broker_has_no_overlap(self, run, option):
        with pytest.raises(CommandError, match="need --rotate"):
            run("mosquitto-1", "go-auth", *option)
        assert not Broker.objects.exists()

    def test_the_setting_is_the_address(self, run, settings):
        settings.AUTHSVC_URL = "https://hub.example.org/sub"

        assert "/sub/mqtt/go-auth/user" in run("mosquitto-1", "go-auth")


class TestUse:
    def test_the_previous_token_is_noted_apart(self, call, token, broker):
        call(token)
        background.stop()
        use = BrokerUse.objects.get()
        assert (use.broker, use.address, use.count, use.previous_at) == (broker, "10.1.2.3", 1, None)
        assert abs((datetime.now(UTC) - use.current_at).total_seconds()) < 5

        new = rotate(broker, in_an_hour())
        call(token)
        call(new)
        background.stop()

        after = BrokerUse.objects.get()
        assert (after.count, after.first_at) == (3, use.first_at)
        assert after.current_at >= after.previous_at > use.current_at
