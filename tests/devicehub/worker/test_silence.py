"""Silent devices: each is reported once, and only if the worker would have heard it."""

import time
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from devicehub import provisioning
from devicehub.db import clock
from devicehub.kinds.registry import registry
from devicehub.worker import silence
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice
from rig.messages import fresh
from rig.presence import HOUR, MINUTE, READING, SECOND, WINDOW, YEARS, Clock, send, silent
from rig.threads import in_a_thread, side_by_side


def test_a_silent_device_is_reported_once(db, worker, notifications):
    station = silent()
    seen = station.last_seen

    assert [worker.run() for _ in range(3)] == [1, 0, 0]

    device = fresh(station)
    assert (device.connected, device.status, device.last_seen) == (False, "offline", seen)
    assert timezone.now() - device.connected_changed_at < MINUTE
    assert notifications == [
        ("disconnected", "STATION-001"),
        ("status_changed", "STATION-001", "online", "offline"),
    ]


def test_a_device_with_a_heartbeat_of_its_own_is_silent_by_that(db, worker, notifications):
    silent("FAST", for_=5 * SECOND)
    silent("SLOW", for_=2 * WINDOW)
    silent("PLAIN", for_=2 * WINDOW)
    provisioning.set_options("weatherstation/FAST", expected_heartbeat=1)
    provisioning.set_options("weatherstation/SLOW", expected_heartbeat=86_400)

    assert worker.run() == 2
    assert {device for _, device, *_ in notifications} == {"FAST", "PLAIN"}


def test_hooks_are_notified_of_a_silent_device(db, worker, monkeypatch):
    heard = []
    for name in ("on_disconnect", "on_status_change"):

        def hook(self, device, *more, name=name):
            heard.append((name, device.device_id, device.connected, *more))

        monkeypatch.setattr(WeatherStation, name, hook)
    silent()

    worker.run()

    assert heard == [
        ("on_disconnect", "STATION-001", False),
        ("on_status_change", "STATION-001", False, "online", "offline"),
    ]


def test_a_device_that_comes_back_is_reported_again(db, worker, notifications):
    station = silent()
    worker.run()
    notifications.clear()

    send({"battery_level": 5}, at=timezone.now())

    assert (fresh(station).connected, fresh(station).status) == (True, "online")
    assert notifications == [
        ("connected", "STATION-001"),
        ("status_changed", "STATION-001", "offline", "online"),
    ]


def test_an_error_that_was_not_taken_back_is_still_one_when_the_device_is_back(db, worker):
    station = silent(status="error", reported_status="error")
    worker.run()
    assert fresh(station).status == "offline"

    send(READING, "data", at=timezone.now())

    assert fresh(station).status == "error"


@pytest.mark.parametrize("state", ["maintenance", "provisioning"])
def test_the_watch_leaves_the_state_of_an_operator(db, worker, notifications, state):
    station = silent(status=state)

    assert [worker.run(), worker.run()] == [1, 0]

    assert (fresh(station).connected, fresh(station).status) == (False, state)
    assert notifications == [("disconnected", "STATION-001")]


NOT_OVERDUE = {
    "heard in time": {"for_": WINDOW - MINUTE},
    "offline": {"connected": False, "status": "offline"},
    "not connected, in maintenance": {"connected": False, "status": "maintenance"},
    "never heard, just set online": {"connected": False, "last_seen": None},
}


@pytest.mark.parametrize("fields", NOT_OVERDUE.values(), ids=NOT_OVERDUE)
def test_a_device_that_is_not_overdue(db, worker, notifications, fields):
    before = vars(fresh(silent(**fields)))

    assert worker.run() == 0

    after = vars(WeatherStationDevice.objects.get())
    assert {n: v for n, v in after.items() if n != "_state"} == {
        n: v for n, v in before.items() if n != "_state"
    }
    assert notifications == []


def test_a_status_that_only_somebody_set_ends_too(db, worker, notifications):
    """It was set by hand, or by mark_online(), without a message."""
    silent("STATION-001", connected=False)
    silent("STATION-002", connected=False, last_seen=None)
    WeatherStationDevice.objects.update(updated_at=timezone.now() - HOUR)

    assert worker.run() == 2

    assert set(notifications) == {("status_changed", f"STATION-00{n}", "online", "offline") for n in (1, 2)}


def test_each_kind_has_its_own_heartbeat(db, worker):
    valve, _ = provisioning.create(provisioning.kind_of("irrigationvalve"), "VALVE-001")
    model = type(valve)
    model.objects.update(connected=True, last_seen=timezone.now() - WINDOW - SECOND)

    assert worker.run() == 0
    model.objects.update(last_seen=timezone.now() - 3 * WINDOW - SECOND)
    worker.since -= 10 * WINDOW.total_seconds()
    assert worker.run() == 1


# --- Times in which this worker heard devices


@pytest.mark.parametrize("listened", [None, timedelta(0), WINDOW - SECOND])
def test_no_device_is_overdue_that_this_worker_could_not_hear(db, worker, notifications, listened):
    station = silent(for_=10 * HOUR)
    worker.since = None if listened is None else time.monotonic() - listened.total_seconds()

    assert worker.run() == 0

    assert fresh(station).connected
    assert notifications == []


def test_no_device_is_overdue_because_the_worker_was_stopped(db, worker, notifications):
    """With SIGSTOP, a frozen container or swapping, time.monotonic() goes on, and the connection seems to be open."""
    station = silent(for_=10 * HOUR)

    assert worker.run(rest=HOUR.total_seconds()) == 0
    assert worker.run() == 0

    assert fresh(station).connected
    assert notifications == []


def test_silence_counts_only_while_the_broker_is_heard(db, worker, notifications):
    """A dead connection to the broker is found after 15 seconds; until then no device can be heard."""
    silent()
    worker.quiet = 15

    assert worker.run() == 0

    silent("STATION-002", for_=WINDOW + 20 * SECOND)
    assert worker.run() == 1
    assert {device_id for _, device_id, *_ in notifications} == {"STATION-002"}
    worker.quiet = 0
    assert worker.run() == 1


def test_what_the_broker_says_counts_a_run_later(db, worker):
    """By then the messages that came with these bytes are stored."""
    silent()
    worker.quiet = 15
    assert worker.run() == 0

    worker.quiet = 0
    worker.watch._due.clear()
    assert [worker.watch.run(), worker.run()] == [0, 1]


@pytest.mark.parametrize("by", [YEARS, -YEARS, HOUR, -HOUR, 5 * SECOND])
def test_no_device_is_overdue_because_a_clock_was_set(db, worker, monkeypatch, by):
    station = silent(for_=MINUTE)
    assert worker.run() == 0
    shifted = [timedelta(0)]
    wall, monotonic, now = time.time, time.monotonic, timezone.now
    passed = [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + shifted[0].total_seconds() + passed[0])
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed[0])
    monkeypatch.setattr(timezone, "now", lambda: now() + shifted[0])
    monkeypatch.setattr(clock, "is_right", lambda: True)

    shifted[0] = by
    assert worker.run() == 0
    passed[0] += WINDOW.total_seconds() - 10
    assert worker.run() == 0
    assert fresh(station).connected
    passed[0] += 20
    WeatherStationDevice.objects.update(last_seen=timezone.now() - HOUR)
    assert worker.run() == 1


@pytest.mark.postgresql_only  # SQLite uses the clock of the process.
def test_a_worker_whose_clock_is_not_the_databases_marks_no_device(db, worker, monkeypatch):
    station = silent(for_=MINUTE)
    now = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: now() + YEARS)

    assert worker.run() == 0

    assert fresh(station).connected


def test_a_last_sign_in_the_future_is_set_to_now_and_ends_a_window_later(db, worker, notifications):
    station = silent(for_=-YEARS)

    assert worker.run() == 0
    assert timezone.now() - fresh(station).last_seen < MINUTE
    WeatherStationDevice.objects.update(last_seen=timezone.now() - WINDOW - SECOND)
    assert worker.run() == 1
    assert [name for name, *_ in notifications] == ["disconnected", "status_changed"]


def test_many_are_marked_in_batches_and_a_run_has_a_budget(db, worker, notifications, monkeypatch):
    monkeypatch.setattr(silence, "BATCH", 2)
    monkeypatch.setattr(silence, "SCAN", 4)
    monkeypatch.setattr(silence, "BUDGET", -1)
    for n in range(10):
        silent(f"STATION-{n:03}")
    runs = [worker.watch.run() for _ in range(6)]

    assert runs == [2, 2, 2, 2, 2, 0]
    assert len(notifications) == len(set(notifications)) == 20


def test_a_watch_without_overdue_devices_writes_nothing(db, worker, django_assert_num_queries):
    silent(for_=MINUTE)
    queries = 1 if connection.vendor == "sqlite" else 2  # PostgreSQL is queried for its clock.
    worker.run()  # It reads the intervals of single devices.

    with django_assert_num_queries(queries * len(registry)):
        worker.since -= 1e6
        assert worker.run() == 0


def test_two_workers_report_an_overdue_device_once(transactional_db, notifications):
    for turn in range(3):
        for n in range(40):
            silent(f"STATION-{turn}-{n}")
        workers = [Clock(HOUR * 24), Clock(HOUR * 24)]
        for one in workers:
            one.watch._heard_for = lambda: 1e9
        assert sum(side_by_side(*[one.run for one in workers])) == 40

    assert len(notifications) == len(set(notifications)) == 3 * 40 * 2


@pytest.mark.postgresql_only  # SQLite does not lock rows.
def test_a_device_that_is_being_heard_is_not_waited_for(transactional_db):
    station, neighbour = silent(), silent("STATION-002")
    one = Clock()
    one.watch._heard_for = lambda: 1e9
    with transaction.atomic():
        WeatherStationDevice.objects.select_for_update().get(pk=station.pk)
        assert in_a_thread(one.run) == 1

    assert fresh(station).connected
    assert not fresh(neighbour).connected


def test_a_device_that_was_heard_since_it_looked_overdue_is_there(db, worker, notifications, monkeypatch):
    station, mark = silent(), silence._mark

    def heard_first(*arguments):
        WeatherStationDevice.objects.update(last_seen=timezone.now())
        return mark(*arguments)

    monkeypatch.setattr(silence, "_mark", heard_first)

    assert worker.run() == 0
    assert fresh(station).connected
    assert notifications == []
