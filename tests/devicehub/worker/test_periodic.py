"""Periodic tasks of a worker: their intervals, their failures, and how they stop."""

import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from django.db import OperationalError, connection
from structlog.testing import capture_logs

from devicehub.worker.periodic import PeriodicWork
from fleet.models import WeatherStationDevice
from rig.hub import eventually

# --- PeriodicWork


@pytest.fixture
def periodic():
    one = PeriodicWork()
    yield one
    one.stop()


def test_tasks_run_at_their_intervals_and_a_failing_one_goes_on(periodic):
    ran = Counter()

    def fail():
        ran["failing"] += 1
        raise OperationalError("the database is away")

    periodic.add("failing", 0.01, fail)
    periodic.add("quick", 0.01, lambda: ran.update(["quick"]))
    periodic.add("slow", 60, lambda: ran.update(["slow"]))
    periodic.start()

    assert eventually(lambda: min(ran["failing"], ran["quick"]) > 5)
    assert ran["slow"] == 1


def test_a_task_that_goes_on_failing_is_reported_once(periodic):
    """It may run every second, and a database may be away for hours."""
    ran, works = Counter(), threading.Event()

    def fail():
        ran[works.is_set()] += 1
        if not works.is_set():
            raise OperationalError("the database is away")

    def reported():
        return [(entry["task"], entry["error"], bool(entry["exc_info"])) for entry in logged]

    periodic.add("failing", 0.001, fail)
    once = [("failing", "OperationalError: the database is away", False)]
    with capture_logs() as logged:
        periodic.start()
        assert eventually(lambda: ran[False] > 5)
        assert reported() == once
        works.set()
        assert eventually(lambda: ran[True] > 1)
        works.clear()
        assert eventually(lambda: len(logged) > 1)
        periodic.stop()
    assert reported() == once * 2


def test_a_bug_in_a_task_is_logged_with_a_traceback(periodic):
    periodic.add("buggy", 60, lambda: {}["missing"])
    with capture_logs() as logged:
        periodic.start()
        assert eventually(lambda: logged)

    assert logged[0]["exc_info"]


@pytest.mark.parametrize("tasks", [[], [60], [0.001]])
def test_periodic_work_stops_at_once(periodic, tasks):
    for seconds in tasks:
        periodic.add("task", seconds, lambda: None)
    periodic.start()

    began = time.monotonic()
    periodic.stop()

    assert time.monotonic() - began < 1
    assert not any(thread.is_alive() for thread in periodic._threads)


def test_periodic_work_that_never_started_stops(periodic):
    periodic.stop()

    assert periodic.stopping


def test_a_stop_waits_for_the_running_task_and_begins_it_no_more(periodic):
    ended, running, end = [], threading.Event(), threading.Event()

    def task():
        running.set()
        end.wait(10)
        ended.append(True)

    periodic.add("task", 0.001, task)
    periodic.start()
    running.wait(10)
    threading.Timer(0.2, end.set).start()
    periodic.stop()

    assert ended == [True]


def test_a_receiver_that_would_end_the_thread_does_not_end_its_task(periodic):
    ran = []

    def leave():
        ran.append(True)
        raise SystemExit(1)

    periodic.add("leaves", 0.001, leave)
    periodic.start()

    assert eventually(lambda: len(ran) > 2)


def test_a_task_that_waits_does_not_hold_up_the_others(periodic):
    end, others = threading.Event(), []
    periodic.add("waits", 1, lambda: end.wait(10))
    periodic.add("other", 0.01, lambda: others.append(True))
    periodic.start()

    assert eventually(lambda: len(others) > 3)
    end.set()


@pytest.mark.parametrize("seconds", [60, 0.01])
def test_periodic_work_has_a_connection_of_its_own_and_closes_it(transactional_db, periodic, seconds):
    """It closes the connection at the end, and if nothing is due for a while."""
    used = []

    def look():
        WeatherStationDevice.objects.count()
        used.append(connection.connection)

    periodic.add("look", seconds, look)
    periodic.start()
    assert eventually(lambda: used)
    if seconds < 1:
        assert eventually(lambda: len(used) > 3)
        assert len(set(map(id, used[:3]))) == 1
        periodic.stop()

    assert used[0] is not connection.connection
    assert eventually(lambda: is_closed(used[-1]))


def is_closed(raw):
    if connection.vendor == "postgresql":
        return raw.closed
    with suppress(Exception):
        raw.in_transaction  # noqa: B018 - raises in no version
        raw.total_changes  # noqa: B018 - raises when it is closed
        return False
    return True
