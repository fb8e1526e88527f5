"""Registrations whose lifetime passed without an update."""

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import transaction
from django.utils import timezone

from devicehub import signals
from devicehub.db import clock
from devicehub.lwm2m import expiry
from devicehub.lwm2m.expiry import ExpiryWatch
from devicehub.lwm2m.kind import KIND
from devicehub.lwm2m.models import Endpoint, Event
from devicehub.lwm2m.signals import event_recorded
from devicehub.worker import silence, tasks
from devicehub.worker.hearing import Hearing
from devicehub.worker.peers import Peers
from rig.messages import fresh, send
from rig.threads import in_a_thread

HOUR = 3600.0


class Worker:
    """A worker that has listened for *listened* seconds, and whose watch is due whenever it runs."""

    def __init__(self, listened=2 * HOUR):
        self.transitions = []
        self.since, self.quiet = time.monotonic() - listened, 0.0
        hearing = Hearing(lambda: self.since, lambda: time.monotonic() - self.quiet, Peers("", ""))
        self.watch = ExpiryWatch(hearing, self.transitions.extend)

    def run(self):
        self.watch._due = float("-inf")
        self.watch._hearing._until = time.monotonic() - self.quiet
        return self.watch.run()


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 1e6)
    return Worker()


def registered(name="urn:imei:1", *, ago, lifetime=60, **fields):
    """Create an endpoint whose last registration is *ago* seconds old."""
    there = {"registered": True, "connected": True, "status": "online", "lifetime": lifetime}
    at = timezone.now() - timedelta(seconds=ago)
    return Endpoint.objects.create(device_id=name, last_registration=at, **{**there, **fields})


def is_registered(endpoint):
    return fresh(endpoint).registered


def test_an_expired_registration_ends_once(db, worker):
    endpoint = registered(ago=75, sleeping=True)
    changed_at = timezone.now()

    assert [worker.run(), worker.run()] == [1, 0]

    now = fresh(endpoint)
    assert (now.registered, now.sleeping, now.connected, now.status) == (False, False, False, "offline")
    assert now.connected_changed_at >= changed_at
    event = Event.objects.get()
    assert (event.type, event.detail, event.device_id) == ("registration", "expired", endpoint.pk)


@pytest.mark.parametrize(
    "fields",
    [
        {"ago": 65},
        {"ago": 650, "registration_id": "aB3"},
        {"ago": 10**6, "lifetime": None},
        {"ago": 10**6, "lifetime": 2**63 - 1},
    ],
    ids=["within the grace", "kept by a server", "without a lifetime", "with the longest lifetime"],
)
def test_a_registration_that_lasts_does_not_end(db, worker, fields):
    endpoint = registered(**fields)

    assert worker.run() == 0
    assert is_registered(endpoint)


def test_a_registration_that_its_server_forgot_ends_later(db, worker):
    registered(ago=670, registration_id="aB3")

    assert worker.run() == 1


def test_a_silent_endpoint_without_a_lifetime_is_offline_and_stays_registered(db):
    """The bridge of flownexus tells no lifetime, and sends nothing twice."""
    limit = timezone.now()
    endpoint = registered(ago=HOUR, lifetime=None, last_seen=limit - timedelta(seconds=1))

    assert sum(map(len, silence.mark_silent(KIND, limit))) == 1
    assert (fresh(endpoint).registered, fresh(endpoint).status) == (True, "offline")


def test_an_endpoint_that_no_longer_is_registered_is_left_alone(db, worker):
    registered(ago=HOUR, registered=False)

    assert worker.run() == 0


def test_the_state_of_an_operator_stays(db, worker):
    endpoint = registered(ago=HOUR, status="maintenance")
    worker.run()

    assert (fresh(endpoint).status, fresh(endpoint).connected) == ("maintenance", False)


def test_listeners_are_notified(db, worker, monkeypatch):
    heard = []

    def receive(signal, **arguments):
        heard.append(arguments["event"].detail)

    event_recorded.connect(receive)
    signals.device_disconnected.connect(receive_nothing := lambda **_: None)
    try:
        endpoint = registered(ago=HOUR)
        worker.run()
    finally:
        event_recorded.disconnect(receive)
        signals.device_disconnected.disconnect(receive_nothing)

    assert heard == ["expired"]
    [change] = worker.transitions
    assert (change.device, change.old_status, change.new_status) == (endpoint, "online", "offline")
    assert (change.was_connected, change.connected) == (True, False)


def test_no_registration_ends_while_the_worker_is_away(db, worker):
    endpoint = registered(ago=HOUR)
    worker.since = None

    assert worker.run() == 0
    worker.since, worker.quiet = time.monotonic() - 2 * HOUR, HOUR
    assert worker.run() == 0
    assert is_registered(endpoint)


@pytest.mark.parametrize(
    ("listened", "lifetime", "ends"),
    [(59.0, 60, False), (61.0, 60, True), (290.0, 3600, False), (310.0, 3600, True)],
)
def test_after_an_outage_an_update_gets_time_to_arrive(db, worker, listened, lifetime, ends):
    endpoint = registered(ago=10 * HOUR, lifetime=lifetime)
    worker.since = time.monotonic() - listened
    worker.run()

    assert is_registered(endpoint) is not ends


def test_many_expire_in_several_batches(db, worker, monkeypatch):
    monkeypatch.setattr(expiry, "BATCH", 4)
    for number in range(11):
        registered(f"urn:imei:{number}", ago=HOUR)

    assert worker.run() == 11
    assert not Endpoint.objects.filter(registered=True).exists()


def test_a_scan_is_repeated_after_many_times_its_own_time(db, worker, monkeypatch):
    monkeypatch.setattr(expiry, "REST", 10**9)
    worker.run()
    registered(ago=HOUR)

    assert worker.watch.run() == 0


def test_nothing_ends_while_the_clock_is_wrong(db, worker, monkeypatch):
    registered(ago=HOUR)
    monkeypatch.setattr(clock, "is_right", lambda: False)

    assert worker.run() == 0


def test_a_worker_that_stops_ends_after_a_batch(db, worker, monkeypatch):
    monkeypatch.setattr(expiry, "BATCH", 2)
    for number in range(5):
        registered(f"urn:imei:{number}", ago=HOUR)
    worker.watch._stopping = lambda: True

    assert worker.run() == 2


def test_a_watch_that_ran_a_moment_ago_was_not_away(db, worker):
    """A process that was stopped for longer than between two runs heard nothing meanwhile."""
    worker.run()
    registered(ago=HOUR)
    worker.watch._hearing._rested_since -= worker.watch._hearing._away + 1
    assert worker.run() == 0

    worker.watch._hearing._anew = float("-inf")
    assert worker.run() == 1


@pytest.mark.django_db(transaction=True)
def test_an_update_that_arrives_meanwhile_wins(worker, monkeypatch):
    endpoint = registered(ago=HOUR)
    end_batch = expiry._end_batch

    def late(keys, limit):
        in_a_thread(lambda: send(endpoint, {"update": True}, "status", at=timezone.now()))
        return end_batch(keys, limit)

    monkeypatch.setattr(expiry, "_end_batch", late)
    assert worker.run() == 0
    assert is_registered(endpoint)


@pytest.mark.postgresql_only  # SQLite does not lock rows.
@pytest.mark.django_db(transaction=True)
def test_an_endpoint_that_is_being_stored_is_left_out(worker):
    endpoint = registered(ago=HOUR)
    with transaction.atomic():
        list(Endpoint.objects.select_for_update().filter(pk=endpoint.pk))

        assert in_a_thread(worker.run) == 0


def test_each_worker_has_the_task():
    task = next(task for task in tasks.registered() if task.name == "lwm2m_expiry")
    context = SimpleNamespace(
        heard_since=lambda: None,
        heard_until=lambda: 0.0,
        peers=Peers("", ""),
        notify=print,
        stopped=SimpleNamespace(is_set=lambda: False),
    )

    assert callable(task.bind(context))
