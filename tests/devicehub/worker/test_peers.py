"""Workers that share a subscription: messages that another has not stored yet were not heard."""

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from structlog.testing import capture_logs

from devicehub.models import IngestWorker
from devicehub.worker.peers import Peers
from rig.presence import HOUR, MINUTE, SECOND, WINDOW, Clock, silent

# --- The shares of other workers


@pytest.fixture
def other(db):
    """Create another worker of the group, which has heard its devices for long and until now."""
    now = timezone.now()
    return IngestWorker.objects.create(
        client_id="ingest-2", group="devicehub", heard_since=now - 9 * HOUR, heard_until=now
    )


@pytest.fixture
def sharing(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 1e6)
    return Clock(listened=3 * HOUR, peers=Peers("devicehub", "ingest-1"))


def test_another_worker_that_is_here_changes_nothing(sharing, other, notifications):
    silent()

    assert sharing.run() == 1


def test_what_another_worker_has_not_stored_was_not_heard(sharing, other, notifications):
    """It went away half an hour ago; a device that was silent for long before that is disconnected."""
    IngestWorker.objects.update(heard_until=timezone.now() - HOUR / 2)
    silent("STATION-001", for_=HOUR / 2 + WINDOW - MINUTE)
    silent("STATION-002", for_=HOUR / 2 + WINDOW + MINUTE)

    assert sharing.run() == 1

    assert notifications[0] == ("disconnected", "STATION-002")


def test_another_worker_that_is_back_gets_a_window_to_hear_in(sharing, other, notifications):
    IngestWorker.objects.update(heard_since=timezone.now() - WINDOW + MINUTE)
    silent(for_=2 * HOUR)

    assert sharing.run() == 0

    IngestWorker.objects.update(heard_since=timezone.now() - WINDOW - MINUTE)
    sharing.watch._hearing._peers._look_at = 0
    assert sharing.run() == 1


def test_another_worker_is_waited_for_an_hour_and_that_is_said_once(sharing, other, notifications):
    silent()
    IngestWorker.objects.update(heard_until=timezone.now() - HOUR + MINUTE)
    with capture_logs() as logs:
        for _ in range(2):
            assert sharing.run() == 0
            sharing.watch._hearing._peers._look_at = 0
        IngestWorker.objects.update(heard_until=timezone.now() - HOUR - MINUTE)
        assert sharing.run() == 1

    assert [(line["event"], line["worker"]) for line in logs] == [("worker.peer_is_away", "ingest-2")] * 2


@pytest.mark.parametrize(
    ("group", "client_id"), [("", "ingest-1"), ("another", "ingest-1"), ("devicehub", "ingest-2")]
)
def test_only_others_of_the_same_group_are_waited_for(sharing, other, notifications, group, client_id):
    IngestWorker.objects.update(heard_until=timezone.now() - HOUR / 2)
    silent()

    assert Clock(peers=Peers(group, client_id)).run() == 1


def test_a_worker_writes_until_when_it_heard(sharing, db, notifications):
    sharing.quiet = 5
    before = timezone.now()

    sharing.run()

    written = IngestWorker.objects.get()
    assert (written.client_id, written.group) == ("ingest-1", "devicehub")
    assert abs(before - written.heard_until - 5 * SECOND) < SECOND
    assert abs(before - written.heard_since - 3 * HOUR) < SECOND


def test_a_worker_without_a_group_writes_its_row_too(db, notifications):
    Clock(peers=Peers("", "ingest-1")).run()

    assert list(IngestWorker.objects.values_list("client_id", "group")) == [("ingest-1", "")]


def test_a_worker_that_hears_nothing_keeps_its_row(sharing, db, notifications):
    sharing.run()
    [said] = IngestWorker.objects.values_list("heard_until", flat=True)
    sharing.since = None
    sharing.watch._hearing._peers._look_at = sharing.watch._hearing._peers._write_at = 0

    sharing.run()

    assert IngestWorker.objects.get().heard_until == said


def test_a_worker_that_is_alone_writes_once_a_minute(sharing, db, notifications):
    sharing.run()
    sharing.watch._hearing._peers._look_at = 0

    with CaptureQueriesContext(connection) as queries:
        sharing.run()

    assert not [query for query in queries if "UPDATE" in query["sql"] or "INSERT" in query["sql"]]


def test_the_row_of_a_worker_whose_clock_was_years_ahead_is_ignored(sharing, other, notifications):
    """Otherwise no device would be overdue for years."""
    then = timezone.now() + timedelta(days=3650)
    IngestWorker.objects.update(heard_since=then, heard_until=then)
    silent()

    assert sharing.run() == 1

    assert list(IngestWorker.objects.values_list("client_id", flat=True)) == ["ingest-1"]


def test_the_row_of_a_worker_that_never_came_back_is_deleted(sharing, other, notifications):
    IngestWorker.objects.update(heard_until=timezone.now() - timedelta(days=9))

    sharing.run()

    assert list(IngestWorker.objects.values_list("client_id", flat=True)) == ["ingest-1"]
