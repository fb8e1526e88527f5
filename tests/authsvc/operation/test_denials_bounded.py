"""Denials of one client, and of random names, leave room for those of all others."""

from __future__ import annotations

import threading

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client

from authsvc.core.access import Action, Principal, Reason, TopicQuestion, deny
from authsvc.core.access import Client as Caller
from authsvc.models import Denial
from authsvc.operation import denials
from devicehub.dashboard import live, overview

HOSTILE = Principal("weatherstation/HOSTILE", "hostile")
STATION = Principal("weatherstation/STATION-001", "station")


@pytest.fixture(autouse=True)
def small(monkeypatch, db):
    """Set small bounds, so that a flood is a few rows."""
    for name, value in (
        ("MAX_PENDING", 60), ("MAX_ROWS", 40), ("MAX_OF_ONE", 5), ("MAX_UNKNOWN", 10), ("MAX_UNKNOWN_PENDING", 8),
    ):  # fmt: skip
        monkeypatch.setattr(denials, name, value)
    monkeypatch.setattr(denials, "dropped", 0)


def refuse(topic, principal=HOSTILE, username=None, client_id="c", address="192.0.2.1"):
    name = username or principal.username
    question = TopicQuestion(Caller(name, client_id), Action.PUBLISH, [topic])
    denials.note("go-auth", "acl", deny(Reason.NO_GRANT, principal, question), address)


def total(**fields):
    return sum(Denial.objects.filter(**fields).values_list("count", flat=True))


def rest(principal=HOSTILE):
    return Denial.objects.get(principal=principal.key if principal else "", reason=Denial.REST)


def test_a_flood_of_topics_leaves_the_denials_of_others():
    refuse("first/of/all", STATION)
    for number in range(500):
        refuse(f"flood/{number}")
        if number % 50 == 49:
            denials.flush()

    assert Denial.objects.filter(principal=STATION.key).count() == 1
    assert Denial.objects.filter(principal=HOSTILE.key).exclude(reason=Denial.REST).count() == 5
    assert rest().count == 495
    assert str(rest()) == "hostile: and 495 more topics or names"
    assert total() == 501
    assert denials.dropped == 0


def test_the_latest_topics_keep_their_rows_and_are_counted_on():
    for number in range(20):
        refuse(f"old/{number}")
        denials.flush()
    for _ in range(3):
        refuse("new")
        denials.flush()

    assert Denial.objects.get(topic="new").count == 3
    assert not Denial.objects.filter(topic="old/0").exists()
    assert total() == 23
    assert rest().first_at < Denial.objects.get(topic="new").first_at


def test_a_flood_of_client_ids_is_bounded_too():
    for number in range(50):
        refuse("a", client_id=f"client-{number}")
    denials.flush()

    assert Denial.objects.count() == 6
    assert total() == 50


def test_all_unknown_names_together_are_one_principal():
    refuse("a", STATION)
    for number in range(200):
        refuse("a", None, username=f"invented-{number}")
        if number % 20 == 19:
            denials.flush()

    assert Denial.objects.filter(principal="").exclude(reason=Denial.REST).count() == 10
    assert rest(None).count == 190
    assert str(rest(None)) == "unknown names: and 190 more topics or names"
    assert Denial.objects.filter(principal=STATION.key).exists()


def test_random_names_leave_room_in_memory():
    for number in range(500):
        refuse("a", None, username=f"invented-{number}")
    refuse("a", STATION)

    assert len(denials._pending) == 8 + 1 + 1
    assert denials.dropped == 0


def test_a_failure_to_write_keeps_the_bounds_and_loses_no_count(monkeypatch):
    for number in range(10):
        refuse(f"a/{number}")
    with monkeypatch.context() as patch:
        patch.setattr(denials, "_write", lambda _items: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            denials.flush()
    for number in range(10):
        refuse(f"b/{number}")

    assert len(denials._pending) == 6
    denials.flush()
    assert total() == 20


def test_an_earlier_table_is_folded_once():
    """Rows of a flood that an earlier version had stored."""
    refuse("a")
    denials.flush()
    row = Denial.objects.get()
    Denial.objects.bulk_create(
        Denial(
            **{
                **{f.attname: getattr(row, f.attname) for f in Denial._meta.fields},
                "id": None,
                "topic": f"{n}",
            }
        )
        for n in range(30)
    )
    refuse("b")
    denials.flush()

    assert Denial.objects.count() == 6
    assert total() == 32


def test_the_address_of_the_broker_is_stored(station, ask):
    ask("go-auth/acl", username=station.username, clientid=station.username, acc=2, topic="elsewhere")
    denials.flush()

    assert Denial.objects.get().address == "10.1.2.3"


@pytest.mark.postgresql_only
def test_processes_that_write_together_lose_no_count(transactional_db):
    """Each thread has its own tallies and connection, as a process has."""

    def process(name):
        def item(number):
            tally = denials._Tally(HOSTILE.key, "", denials.timezone.now())
            tally.count = 1
            return denials.Refusal("go-auth", "hostile", name, "publish", f"{number}", "no_grant"), tally

        for number in range(40):
            with denials.transaction.atomic():
                denials._write([item(number)])
        connections.close_all()

    threads = [threading.Thread(target=process, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refuse("last")
    denials.flush()

    assert total() == 121
    assert Denial.objects.exclude(reason=Denial.REST).count() == 5


class TestDisplay:
    @pytest.fixture
    def flooded(self, monkeypatch):
        monkeypatch.setattr(denials, "MAX_OF_ONE", 50)
        monkeypatch.setattr(denials, "MAX_ROWS", 200)
        monkeypatch.setattr(denials, "MAX_PENDING", 200)
        for number in range(3):
            refuse(f"mine/{number}", STATION)
        denials.flush()
        for number in range(70):
            refuse(f"flood/{number}")
        for number in range(30):
            refuse("a", None, username=f"invented-{number}")
        denials.flush()

    def test_the_list_has_places_for_others(self, flooded):
        shown = overview.denials(User(is_superuser=True))

        assert len(shown) == overview.DENIALS
        assert sum(entry.who == STATION.key for entry in shown) == 3
        assert shown == sorted(shown, key=lambda entry: entry.last_at, reverse=True)

    def test_a_client_alone_gets_the_whole_list(self, monkeypatch):
        monkeypatch.setattr(denials, "MAX_OF_ONE", 30)
        for number in range(30):
            refuse(f"flood/{number}")
        denials.flush()

        assert len(overview.denials(User(is_superuser=True))) == overview.DENIALS

    def test_the_page_and_the_admin_show_the_rest_in_words(self, flooded, client: Client):
        Denial.objects.exclude(reason=Denial.REST).delete()
        client.force_login(User.objects.create_superuser("operator"))

        page = client.get("/").content.decode()
        listed = client.get("/admin/authsvc/denial/").content.decode()

        for text in (page, listed):
            assert "and 20 more topics or names" in text
            assert "and 22 more topics or names" in text
        assert "unknown names" in page
        assert 'asked through "' not in page
        assert "and 2" in live._spoken(overview.denials(User(is_superuser=True)))
