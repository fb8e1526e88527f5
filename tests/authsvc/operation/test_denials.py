"""Denials: each is recorded once with its reason, bounded, and not shown on the wire."""

from __future__ import annotations

import sqlite3
import threading
from datetime import timedelta

import pytest
from django.db import DatabaseError, InterfaceError, connections
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authsvc import background
from authsvc.core.access import Action, Client, Principal, Reason, TopicQuestion, deny
from authsvc.models import Account, Denial
from authsvc.operation import denials
from fleet.models import WeatherStationDevice
from rig.asking import DENIED, reasons, sql
from rig.entrances import WAKE
from rig.examples import examples
from rig.hub import eventually

pytestmark = pytest.mark.usefixtures("nothing_pending")


# ---------------------------------------------------------------- denials


def refused(username="stranger", topic="a/b", reason=Reason.NO_GRANT, client_id="c", principal=None):
    question = TopicQuestion(Client(username, client_id), Action.PUBLISH, [topic])
    return deny(reason, principal, question)


class TestDenials:
    def test_each_is_recorded_with_its_reason_and_none_shows(self, ask, station):
        Account.objects.create(username="old", is_active=False)
        WeatherStationDevice.objects.create(device_id="TWIN", mqtt_username="twin")
        Account.objects.create(username="twin")
        good = {"username": station.username, "clientid": station.username}
        questions = {
            Reason.WRONG_PASSWORD: ("go-auth/user", good | {"password": "wrong"}),
            Reason.CLIENT_ID: ("go-auth/user", good | {"password": station.password, "clientid": "x"}),
            Reason.UNKNOWN_USERNAME: ("go-auth/user", good | {"password": "x", "username": "stranger"}),
            Reason.INVALID_USERNAME: ("go-auth/user", good | {"password": "x", "username": "a/b"}),
            Reason.DISABLED: ("go-auth/user", {"username": "old", "clientid": "old", "password": "x"}),
            Reason.PASSWORD_TOO_LONG: ("go-auth/user", good | {"password": "x" * 5_000}),
            Reason.MALFORMED: ("go-auth/user", good),
            Reason.AMBIGUOUS_IDENTITY: ("go-auth/superuser", {"username": "twin"}),
            Reason.NO_GRANT: ("go-auth/acl", good | {"acc": 2, "topic": "a"}),
            Reason.WILDCARD_PUBLISH: ("go-auth/acl", good | {"acc": 2, "topic": "a/+"}),
            Reason.MALFORMED_TOPIC: ("go-auth/acl", good | {"acc": 4, "topic": "a/#/b"}),
            Reason.RESERVED_TOPIC: ("go-auth/acl", good | {"acc": 2, "topic": "$CONTROL/x"}),
        }

        replies = {
            (reply.status_code, reply.content) for path, f in questions.values() for reply in [ask(path, **f)]
        }

        assert replies == {(403, b'{"ok":false,"error":"denied"}')}
        assert reasons() == set(questions)
        row = Denial.objects.get(reason=Reason.NO_GRANT)
        assert (row.dialect, row.username, row.client_id, row.action, row.topic, row.principal) == (
            "go-auth",
            station.username,
            station.username,
            "publish",
            "a",
            "weatherstation/STATION-001",
        )

    def test_the_same_ones_are_counted(self, ask, station):
        good = {"username": station.username, "clientid": station.username, "acc": 2}
        before = timezone.now()
        for _ in range(3):
            ask("go-auth/acl", **good, topic="a")
        denials.flush()
        middle = timezone.now()
        for _ in range(4):
            ask("go-auth/acl", **good, topic="a")
        ask("go-auth/acl", **good, topic="b")
        denials.flush()

        row = Denial.objects.get(topic="a")
        assert row.count == 7
        assert before <= row.first_at <= middle <= row.last_at <= timezone.now()
        assert Denial.objects.get(topic="b").count == 1

    def test_the_broker_that_asked_last_is_named(self, ask, station):
        """Also in an answer from memory; a stranger without a token has no name."""
        good = {"username": station.username, "clientid": station.username, "acc": 2}
        for _ in range(2):
            ask("go-auth/acl", **good, topic="a")
        ask("go-auth/acl", **good, topic="b", proof="wrong")
        denials.flush()

        assert dict(Denial.objects.values_list("reason", "broker")) == {
            "no_grant": "mosquitto-1",
            "unknown_caller": "",
        }

    def test_a_dismissed_one_comes_back_when_it_happens_again(self, ask, station):
        good = {"username": station.username, "clientid": station.username, "acc": 2}
        for topic in ("a", "b"):
            ask("go-auth/acl", **good, topic=topic)
        denials.flush()
        Denial.objects.update(dismissed_at=timezone.now())

        ask("go-auth/acl", **good, topic="a")
        denials.flush()

        dismissed = Denial.objects.filter(dismissed_at__isnull=False)
        assert set(dismissed.values_list("topic", flat=True)) == {"b"}

    def test_the_answer_not_a_superuser_is_not_a_denial(self, ask, station):
        """go-auth asks it before every topic question. For an unknown name it is a denial."""
        assert ask("go-auth/superuser", username=station.username).status_code == DENIED
        assert reasons() == set()
        assert ask("go-auth/superuser", username="stranger").status_code == DENIED
        assert reasons() == {Reason.UNKNOWN_USERNAME}

    def test_an_allow_is_not_counted(self, ask, station):
        ask("go-auth/user", username=station.username, clientid=station.username, password=station.password)
        denials.flush()

        assert not Denial.objects.exists()

    def test_the_writer_writes_by_itself(self, ask, monkeypatch):
        monkeypatch.setattr(background, "SECONDS", 0.02)
        monkeypatch.setattr(background, "wake", WAKE)
        ask("go-auth/user", username="stranger", clientid="c", password="x")

        assert eventually(Denial.objects.filter(username="stranger").exists, 5)

    def test_a_flood_of_random_names_is_bounded_in_memory(self, monkeypatch):
        monkeypatch.setattr(denials, "dropped", 0)
        monkeypatch.setattr(background, "wake", lambda: None)
        monkeypatch.setattr(denials, "MAX_PENDING", 100)
        for number in range(150):
            principal = Principal(f"account/name-{number}", f"name-{number}")
            denials.note("go-auth", "acl", refused(f"name-{number}", principal=principal))
        for _ in range(10):
            denials.note("go-auth", "acl", refused("name-0"))

        assert len(denials._pending) == 100
        assert denials.dropped == 50
        assert denials.flush() == 100
        assert Denial.objects.count() == 100
        assert Denial.objects.get(username="name-0").count == 11

    def test_the_table_is_bounded_and_keeps_the_latest(self, monkeypatch):
        monkeypatch.setattr(denials, "MAX_ROWS", 50)
        monkeypatch.setattr(background, "wake", lambda: None)
        for part in range(4):
            for number in range(30):
                denials.note("go-auth", "acl", refused(f"name-{part}-{number}"))
            denials.flush()
            assert Denial.objects.count() <= 50

        assert Denial.objects.filter(username__startswith="name-3-").count() == 30
        assert not Denial.objects.filter(username__startswith="name-0-").exists()

    @pytest.mark.parametrize(
        "text",
        [
            "a\x00b",
            "\x00" * 10_000,
            "x" * 10_000,
            "\U0001f4a3" * 10_000,
            "\u202egnissap\u202c",
            "<script>alert(1)</script>",
            "'; DROP TABLE authsvc_denial; --",
            "\ud800",
            "%s %d {0}",
            "\r\nSet-Cookie: x",
            "",
            "\uffff\ufdd0",
        ],
        ids=lambda text: ascii(text)[:20],
    )
    def test_hostile_text_is_stored(self, text):
        """Any text is cut to its column, without characters that a database refuses. Other rows are stored too."""
        denials.note("go-auth", "acl", refused(text, topic=text, client_id=text))
        denials.note("go-auth", "acl", refused("somebody"))

        assert denials.flush() == 2

        row = Denial.objects.exclude(username="somebody").get()
        assert len(row.username) <= 128
        assert len(row.client_id) <= 128
        assert len(row.topic) <= 256
        assert "\x00" not in row.username + row.client_id + row.topic
        row.full_clean(exclude=["username", "client_id", "topic"])
        assert Denial.objects.filter(username="somebody").exists()

    @settings(
        deadline=None,
        database=None,
        max_examples=examples(40),
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        texts=st.lists(st.text(st.characters(exclude_categories=()), max_size=300), min_size=3, max_size=3)
    )
    def test_any_text_is_stored(self, texts):
        username, topic, client_id = texts
        denials.note("go-auth", "acl", refused(username, topic=topic, client_id=client_id))

        assert denials.flush() == 1

    def test_a_missing_table_loses_nothing(self):
        """As with a locked or full database, denials stay pending, are counted on, and are written later."""
        table = Denial._meta.db_table
        denials.note("go-auth", "acl", refused("one"))
        first = next(iter(denials._pending.values())).first_at
        sql(f"ALTER TABLE {table} RENAME TO {table}_away")
        try:
            for _ in range(3):
                with pytest.raises(DatabaseError):
                    denials.flush()
                denials.note("go-auth", "acl", refused("one"))
                denials.note("go-auth", "acl", refused("two"))
        finally:
            sql(f"ALTER TABLE {table}_away RENAME TO {table}")

        denials.flush()

        assert dict(Denial.objects.values_list("username", "count")) == {"one": 4, "two": 3}
        assert abs(Denial.objects.get(username="one").first_at - first) < timedelta(milliseconds=1)

    def test_what_is_put_back_stays_bounded(self, monkeypatch):
        monkeypatch.setattr(denials, "MAX_PENDING", 10)
        monkeypatch.setattr(denials, "dropped", 0)
        monkeypatch.setattr(background, "wake", lambda: None)

        def away(_items):
            for number in range(10):  # Denials during the write.
                denials.note("go-auth", "acl", refused(f"new-{number}"))
            raise DatabaseError("provoked")

        for number in range(10):
            denials.note("go-auth", "acl", refused(f"old-{number}"))
        monkeypatch.setattr(denials, "_write", away)
        with pytest.raises(DatabaseError):
            denials.flush()

        assert len(denials._pending) == 10
        assert denials.dropped == 10

    def test_a_broken_connection_loses_nothing(self, monkeypatch):
        """A driver raises InterfaceError for a closed connection, which is not a DatabaseError in Django."""

        def away(_items):
            raise InterfaceError("connection already closed")

        denials.note("go-auth", "acl", refused("one"))
        with monkeypatch.context() as patch:
            patch.setattr(denials, "_write", away)
            with pytest.raises((DatabaseError, InterfaceError)):
                denials.flush()

        denials.flush()
        assert Denial.objects.filter(username="one").exists()

    @pytest.mark.sqlite_only
    def test_the_writer_survives_a_locked_database(self, ask, monkeypatch, caplog):
        """Questions are answered meanwhile, and every denial is stored afterwards."""
        monkeypatch.setattr(background, "SECONDS", 0.02)
        monkeypatch.setattr(background, "wake", WAKE)
        config = connections["default"].settings_dict
        monkeypatch.setitem(config["OPTIONS"], "timeout", 0.05)
        lock = sqlite3.connect(config["NAME"], isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        try:
            for number in range(20):
                reply = ask("go-auth/user", username=f"name-{number % 4}", clientid="c", password="x")
                assert reply.status_code == DENIED
            assert eventually(lambda: "background.not_written" in caplog.text, 5)
        finally:
            lock.execute("ROLLBACK")
            lock.close()

        rows = Denial.objects.filter(username__startswith="name-")
        assert eventually(lambda: sum(rows.values_list("count", flat=True)) == 20, 5)
        assert background._thread.is_alive()

    def test_threads_lose_nothing_among_them(self, monkeypatch):
        monkeypatch.setattr(background, "wake", lambda: None)
        done = threading.Event()

        def work():
            for number in range(200):
                denials.note("go-auth", "acl", refused(f"name-{number % 7}"))

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        while not done.is_set():
            denials.flush()
            if not any(worker.is_alive() for worker in workers):
                done.set()
        denials.flush()

        assert sum(Denial.objects.values_list("count", flat=True)) == 800
