"""The list of a worker's periodic tasks, to which another app adds a task of its own."""

import threading
from collections import Counter

import pytest
from django.db import connection
from structlog.testing import capture_logs

from devicehub.db.batches import Stopped
from devicehub.worker import tasks
from devicehub.worker.peers import Peers
from devicehub.worker.periodic import PeriodicWork
from devicehub.worker.tasks import Context, DuplicateTask
from rig.hub import eventually

pytestmark = pytest.mark.sqlite_first

OURS = ["silence", "commands", "rollups", "retained", "removal", "partitions", "groups", "imports"]


@pytest.fixture
def register(monkeypatch):
    """Return the function that registers tasks for the time of a test, instead of the tasks of a worker."""
    monkeypatch.setattr(tasks, "_tasks", {})
    return tasks.register


@pytest.fixture
def context():
    return Context(
        heard_since=lambda: None,
        heard_until=lambda: 0.0,
        stored=lambda: 7,
        peers=Peers("", "ingest-1"),
        notify=lambda _: None,
        stopped=threading.Event(),
    )


@pytest.fixture
def start(context):
    """Return the function that starts the registered tasks."""
    started = []

    def begin():
        started.append(PeriodicWork.of(context))
        started[-1].start()

    yield begin
    for one in started:
        one.stop()


def test_a_task_of_another_app_runs_and_fails_without_harm_to_others(register, start):
    ran = Counter()

    def fail():
        ran["failing"] += 1
        raise ConnectionError("the receiver is away")

    register("failing", 0.01, fail)
    register("quick", 0.01, lambda: ran.update(["quick"]))
    with capture_logs() as logged:
        start()
        assert eventually(lambda: min(ran["failing"], ran["quick"]) > 5)

    assert [(line["event"], line["task"]) for line in logged] == [("worker.task_failed", "failing")]


def test_a_task_gets_what_it_needs_made_once_for_the_worker(register, start):
    made, got = [], []

    def needs(context):
        made.append(context.stored())
        return {"stored": context.stored()}

    register("task", 0.001, got.append, needs=needs)
    start()

    assert eventually(lambda: len(got) > 2)
    assert made == [7]
    assert got[0] is got[1]


def test_a_task_is_left_out_where_its_worker_has_no_use_for_it(register, start):
    ran = []
    register("useless", 0.001, ran.append, needs=lambda _: None)
    register("useful", 0.001, lambda: ran.append("useful"))
    start()

    assert eventually(lambda: len(ran) > 2)
    assert set(ran) == {"useful"}


def test_a_long_task_is_stopped_by_its_pace_and_has_not_failed(register, context):
    ended = []

    def long(pace):
        pace.stop.wait(10)
        try:
            pace.check()
        except Stopped:
            ended.append(True)
            raise

    register("long", 60, long, needs=tasks.pace)
    with capture_logs() as logged:
        periodic = PeriodicWork.of(context)
        periodic.start()
        periodic.stop()

    assert (ended, logged) == ([True], [])


def test_two_tasks_of_one_name_are_refused(register):
    register("webhooks", 1.0, lambda: None)

    with pytest.raises(DuplicateTask, match="webhooks"):
        register("webhooks", 2.0, lambda: None)


@pytest.mark.django_db  # A test without it runs on SQLite only.
def test_a_worker_has_the_tasks_of_its_database(context):
    bound = [task.name for task in tasks.registered() if task.bind(context) is not None]

    of_sqlite = ["wal_checkpoints"] * (connection.vendor == "sqlite")
    assert bound == [*OURS, *of_sqlite, "lwm2m_expiry"]
