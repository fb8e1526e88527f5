"""Periodic tasks of a worker: their intervals, their failures, and how they stop."""

import threading
import time
from collections import Counter
from contextlib import suppress

import pytest
from django.db import OperationalError, connection
from structlog.testing import capture_logs

from devicehub.worker.periodic import Upkeep
from fleet.models import WeatherStationDevice
from rig.hub import eventually

# --- Upkeep


@pytest.fixture
def upkeep():
    one = Upkeep()
    yield one
    one.stop()


def test_tasks_run_at_their_intervals_and_a_failing_one_goes_on(upkeep):
    ran = Counter()

    def fail():
        ran["failing"] += 1
        raise OperationalError("the database is away")

    upkeep.add("failing", 0.01, fail)
    upkeep.add("quick", 0.01, lambda: ran.update(["quick"]))
    upkeep.add("slow", 60, lambda: ran.update(["slow"]))
    upkeep.start()

    assert eventually(lambda: min(ran["failing"], ran["quick"]) > 5)
    assert ran["slow"] == 1


def test_a_task_that_goes_on_failing_is_told_once(upkeep):
    """It may run every second, and a database may be away for hours."""
    ran, works = Counter(), threading.Event()

    def fail():
        ran[works.is_set()] += 1
        if not works.is_set():
            raise OperationalError("the database is away")

    def told():
        return [(entry["task"], entry["error"], bool(entry["exc_info"])) for entry in logged]

    upkeep.add("failing", 0.001, fail)
    once = [("failing", "OperationalError: the database is away", False)]
    with capture_logs() as logged:
        upkeep.start()
        assert eventually(lambda: ran[False] > 5)
        assert told() == once
        works.set()
        assert eventually(lambda: ran[True] > 1)
        works.clear()
        assert eventually(lambda: len(logged) > 1)
        upkeep.stop()
    assert told() == once * 2


def test_a_bug_in_a_task_is_told_with_its_place(upkeep):
    upkeep.add("buggy", 60, lambda: {}["missing"])
    with capture_logs() as logged:
        upkeep.start()
        assert eventually(lambda: logged)

    assert logged[0]["exc_info"]


@pytest.mark.parametrize("tasks", [[], [60], [0.001]])
def test_upkeep_stops_at_once(upkeep, tasks):
    for seconds in tasks:
        upkeep.add("task", seconds, lambda: None)
    upkeep.start()

    began = time.monotonic()
    upkeep.stop()

    assert time.monotonic() - began < 1
    assert not any(thread.is_alive() for thread in upkeep._threads)


def test_upkeep_that_never_started_stops(upkeep):
    upkeep.stop()

    assert upkeep.stopping


def test_a_stop_waits_for_the_running_task_and_begins_it_no_more(upkeep):
    ended, running, end = [], threading.Event(), threading.Event()

    def task():
        running.set()
        end.wait(10)
        ended.append(True)

    upkeep.add("task", 0.001, task)
    upkeep.start()
    running.wait(10)
    threading.Timer(0.2, end.set).start()
    upkeep.stop()

    assert ended == [True]


def test_a_receiver_that_would_end_the_thread_does_not_end_its_task(upkeep):
    ran = []

    def leave():
        ran.append(True)
        raise SystemExit(1)

    upkeep.add("leaves", 0.001, leave)
    upkeep.start()

    assert eventually(lambda: len(ran) > 2)


def test_a_task_that_waits_does_not_hold_up_the_others(upkeep):
    end, others = threading.Event(), []
    upkeep.add("waits", 1, lambda: end.wait(10))
    upkeep.add("other", 0.01, lambda: others.append(True))
    upkeep.start()

    assert eventually(lambda: len(others) > 3)
    end.set()


@pytest.mark.parametrize("seconds", [60, 0.01])
def test_upkeep_has_a_connection_of_its_own_and_closes_it(transactional_db, upkeep, seconds):
    """At the end, and when nothing is due for a while."""
    used = []

    def look():
        WeatherStationDevice.objects.count()
        used.append(connection.connection)

    upkeep.add("look", seconds, look)
    upkeep.start()
    assert eventually(lambda: used)
    if seconds < 1:
        assert eventually(lambda: len(used) > 3)
        assert len(set(map(id, used[:3]))) == 1
        upkeep.stop()

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
