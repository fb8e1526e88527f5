"""Last logins and uses of brokers: noted with each answer, written in the background, bounded."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc import background, gateway
from authsvc.core.access import Client, Decision, LoginQuestion, Principal, Reason, Secret, Verdict
from authsvc.credentials import UNTIL_USED, mark_of
from authsvc.dialects import BY_NAME
from authsvc.dialects.base import Request
from authsvc.models import Broker, BrokerUse, LastLogin
from authsvc.operation import broker_uses, last_logins, metrics, notes
from authsvc.policy import Caller
from devicehub import provisioning
from rig.asking import OK

KEY = "weatherstation/STATION-001"  # of the station

pytestmark = pytest.mark.usefixtures("nothing_pending")


@pytest.fixture
def in_a_minute(monkeypatch):
    """Return a function after which repeated logins are due."""
    return lambda: monkeypatch.setattr(notes, "_written_at", time.monotonic() - notes.WRITE_SECONDS)


@pytest.fixture
def ask_again(loop, token, station):
    """Return a function that sends the same login again, so that it is answered from the cache where there is one."""
    headers = ((b"content-type", b"application/json"), (b"authorization", f"Bearer {token}".encode()))

    def one(question="user", peer="192.0.2.7", **fields):
        body = {"username": station.username, "clientid": station.username, "password": station.password}
        request = Request("POST", "", headers, json.dumps(body | fields).encode(), question, peer)
        return loop.run(gateway.answer(request, BY_NAME["go-auth"])).status

    return one


def row(station):
    return LastLogin.objects.get(key=KEY)


class TestLastLogins:
    def test_a_login_is_noted_with_its_broker_client_id_and_address(self, ask_again, station):
        before = timezone.now()
        assert ask_again() == OK
        notes.flush()

        found = row(station)
        assert (found.broker, found.client_id, found.address) == (
            "mosquitto-1",
            station.username,
            "192.0.2.7",
        )
        assert before <= found.at <= timezone.now()
        assert found.first_at == found.at == found.current_at
        assert found.previous_at is None
        assert found.used_password_of(station.device)

    def test_a_login_from_the_cache_is_noted_too(self, ask_again, station, in_a_minute):
        for _ in range(3):
            ask_again()
        notes.flush()
        first = row(station)
        ask_again()
        assert notes.flush() == 0
        assert row(station).at == first.at

        in_a_minute()
        notes.flush()

        again = row(station)
        assert again.at > first.at
        assert again.first_at == first.first_at

    def test_repeated_logins_of_a_minute_are_one_commit(self, ask_again, station, in_a_minute):
        ask_again()
        notes.flush()
        with CaptureQueriesContext(connection) as found:
            for _ in range(50):
                ask_again()
                notes.flush()
        assert len(found) == 0

    def test_only_allowed_logins_count(self, ask_again, station):
        ask_again(password="wrong")
        ask_again("acl", topic="a", acc=2)
        notes.flush_all()

        assert not LastLogin.objects.exists()

    def test_both_passwords_of_an_overlap_are_noted_apart(self, ask_again, station):
        ask_again()
        notes.flush()
        old = station.password
        new = provisioning.rotate_password(station.device, valid_until=timezone.now() + timedelta(hours=1))
        assert not row(station).used_password_of(station.device)

        ask_again(password=old)
        notes.flush()
        assert row(station).previous_at is not None
        assert not row(station).used_password_of(station.device)

        ask_again(password=new)
        notes.flush()
        assert row(station).used_password_of(station.device)
        assert row(station).current_at > row(station).previous_at

    def test_a_login_judged_before_a_rotation_does_not_confirm_it(self, station):
        """The transaction of a large rotation takes seconds, and logins meanwhile have the old password."""
        device = station.device
        old = Secret(device.mqtt_password_hash)
        provisioning.rotate_password(device, valid_until=UNTIL_USED)
        note(login(KEY, old), at=time.time() + 5)
        notes.flush()

        assert row(station).current_at > device.credentials_changed_at
        assert not row(station).used_password_of(device)

    def test_a_changed_api_key_does_not_undo_the_use_of_the_password(self, ask_again, station):
        ask_again()
        notes.flush()
        provisioning.rotate_api_key(station.device)

        assert row(station).used_password_of(station.device)

    def test_a_token_is_neither_password(self, station):
        note(login(KEY, None))
        notes.flush()

        found = row(station)
        assert (found.current_at, found.previous_at, found.current_mark) == (None, None, "")

    def test_the_later_login_wins_between_processes(self, station):
        key, now = KEY, time.time()
        note(login(key, Secret("b"), client_id="later"), at=now)
        notes.flush()
        last_logins.clear()
        note(login(key, Secret("a"), client_id="earlier"), at=now - 30)
        notes.flush()

        found = row(station)
        assert (found.client_id, found.current_mark) == ("later", mark_of("b"))
        assert found.at == datetime.fromtimestamp(now, UTC).replace(microsecond=found.at.microsecond)

    def test_texts_that_a_database_cannot_hold(self, station):
        note(login(KEY, Secret("a"), client_id="c\x00\ud800" + "x" * 300), address="x" * 99)
        notes.flush()

        assert row(station).client_id.startswith("c\ufffd?x")
        assert len(row(station).address) == 45

    def test_a_failed_write_stays_pending(self, ask_again, station, monkeypatch):
        ask_again()
        with monkeypatch.context() as patch:
            patch.setattr(last_logins, "write", fail)
            with pytest.raises(DatabaseError):
                notes.flush()
        assert not LastLogin.objects.exists()

        notes.flush()

        assert row(station).broker == "mosquitto-1"
        assert BrokerUse.objects.get().count == 1

    def test_the_end_of_a_process_writes_all(self, ask_again, station):
        ask_again()
        notes.flush()
        ask_again()
        background.stop()

        assert row(station).at > row(station).first_at

    def test_an_error_does_not_change_the_answer(self, ask_again, monkeypatch):
        monkeypatch.setattr(notes, "of", fail)
        assert ask_again() == OK
        monkeypatch.undo()
        monkeypatch.setattr(notes, "queue", fail)
        assert ask_again(peer="192.0.2.8") == OK

    def test_a_storm_of_5000_logins(self, transactional_db):
        for number in range(5_000):
            note(login(f"weatherstation/S-{number:05}", Secret(f"h{number}")))
        notes.flush()

        assert LastLogin.objects.count() == 5_000

    def test_the_bounds_drop_the_surplus(self, monkeypatch, transactional_db, tmp_path):
        monkeypatch.setattr(last_logins, "MAX_PENDING", 10)
        monkeypatch.setattr(last_logins, "dropped", 0)
        monkeypatch.setattr(notes, "MAX_QUEUED", 12)
        monkeypatch.setattr(notes, "dropped", 0)
        for number in range(15):
            note(login(f"weatherstation/S-{number}", Secret("h")))
        notes.flush()

        assert (notes.dropped, last_logins.dropped, LastLogin.objects.count()) == (3, 2, 10)
        monkeypatch.setenv(metrics.FOLDER, str(tmp_path))
        earlier = {name: value for name, value in metrics._numbers().items() if name != "notes_dropped"}
        (tmp_path / "999999999.json").write_text(json.dumps(earlier))  # Of a process of an earlier version.
        assert b"\ndevicehub_auth_notes_dropped_total 5.0\n" in async_to_sync(metrics.report)().body

    def test_a_client_that_changes_its_client_id_is_one_write_a_minute(self, station):
        for number in range(20):
            note(login(KEY, Secret("h"), client_id=f"c-{number}"))
            assert notes.flush() == (
                2 if number == 0 else 0
            )  # The row of the broker's use is the second one.


class TestUses:
    def test_answers_are_counted_by_address(self, ask_again):
        for peer in ("192.0.2.7", "192.0.2.7", "192.0.2.8"):
            ask_again(peer=peer)
        ask_again("acl", "192.0.2.8", topic="a", acc=2)
        background.stop()

        assert dict(BrokerUse.objects.values_list("address", "count")) == {"192.0.2.7": 2, "192.0.2.8": 2}

    def test_a_broker_has_at_most_20_addresses(self, token):
        broker = Broker.objects.get()
        for number in range(60):
            note(None, caller=Caller(pk=broker.pk, token_digest="d"), address=f"192.0.2.{number}")
            if number % 15 == 14:
                notes.flush()
        notes.flush_all()

        uses = BrokerUse.objects.all()
        assert sum(use.count for use in uses) == 60
        assert len(uses) <= broker_uses.MAX_ADDRESSES + 1
        assert uses.filter(address="192.0.2.59").exists()
        assert uses.get(address="").count >= 39

    def test_a_deleted_broker_leaves_nothing(self, ask_again):
        ask_again()
        Broker.objects.all().delete()
        notes.flush()

        assert not BrokerUse.objects.exists()

    def test_a_stranger_is_not_counted(self, loop):
        request = Request("POST", "", ((b"authorization", b"Bearer x"),), b"{}", "user", "192.0.2.7")
        loop.run(gateway.answer(request, BY_NAME["go-auth"]))
        notes.flush_all()

        assert not BrokerUse.objects.exists()


def test_the_tables_do_not_change_the_policy_or_a_principal(token, station):
    """A write to them raises no revision and sends no notification."""
    from authsvc.models import PolicyRevision

    before = PolicyRevision.objects.get().revision
    note(login(KEY, Secret("h")), caller=Caller(pk=Broker.objects.get().pk, token_digest="d"))
    notes.flush_all()

    assert LastLogin.objects.exists()
    assert BrokerUse.objects.exists()
    assert PolicyRevision.objects.get().revision == before


def test_a_note_counts_each_answer_once_beside_the_thread_that_takes_it():
    counted, stop = notes.Note(Caller(), "", None), threading.Event()
    taken = []

    def take():
        while not stop.is_set():
            taken.append(counted.take())

    thread = threading.Thread(target=take)
    thread.start()
    for _ in range(20_000):
        counted.count += 1
        counted.is_queued = True
    stop.set()
    thread.join()

    assert sum(taken) + counted.take() == 20_000


def login(key, secret, client_id="c"):
    """Return the verdict on an allowed login of *key*."""
    principal = Principal(key, "u", (secret,) if secret else ())
    question = LoginQuestion(Client("u", client_id), "p")
    return Verdict((Decision(True, Reason.CREDENTIALS),), principal, question, None, secret)


def note(verdict, caller=None, address="192.0.2.7", at=None):
    """Note the answer of *verdict* as the gateway does."""
    verdict = verdict or Verdict((Decision(True, Reason.GRANT),))
    found = notes.of(caller or Caller(pk=0, name="b"), address, verdict, is_login=True)
    found.count += 1
    found.at = time.perf_counter() + ((at or time.time()) - time.time())
    if not found.is_queued:
        notes.queue(found)


def fail(*_arguments, **_options):
    raise DatabaseError("provoked")
