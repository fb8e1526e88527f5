"""Presence that is true: in any order, with two workers, with a wrong clock, and when a device just goes away."""

import itertools
import json
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from devicehub import provisioning, signals
from devicehub.db import clock
from devicehub.ingest import store
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message, Outcome
from devicehub.models import DeviceCommand, IngestWorker
from devicehub.mqtt import BrokerAddress, Delivery, Listener
from devicehub.worker import silence
from devicehub.worker.loop import Worker
from devicehub.worker.peers import Share
from devicehub.worker.periodic import Upkeep
from devicehub.worker.silence import Sweep
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig import servers
from rig.hub import ROOT, environment, eventually

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
YEARS = timedelta(days=3653)
WINDOW = timedelta(seconds=750)  # two and a half heartbeat intervals of a weather station
HOOKS = ("on_data", "on_status_change", "on_connect", "on_disconnect", "on_command_response")
PRESENCE = ("data_received", "status_changed", "connected", "disconnected", "command_sent", "provisioned")


def make(device_id="STATION-001", **fields):
    return WeatherStationDevice.objects.create(device_id=device_id, **fields)


@pytest.fixture
def station(db):
    """Ours."""
    return make()


def said(payload, about="status", *, at=NOW, device_id="STATION-001", **options):
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Message(f"things/weatherstation/{device_id}/{about}", body, at, **options)


def send(payload, about="status", **options):
    [outcome] = pipeline([said(payload, about, **options)])
    return outcome


def fresh(device):
    return type(device).objects.get(pk=device.pk)


@pytest.fixture
def told():
    """What receivers of the signals of presence were told, as (signal, device id, ...)."""
    heard, receivers = [], []
    for name in ("connected", "disconnected", "status_changed"):

        def receiver(sender, signal, device, name=name, **more):
            assert sender is type(device)._device_type_cls
            heard.append((name, device.device_id, *more.values()))

        signal = getattr(signals, f"device_{name}")
        signal.connect(receiver)
        receivers.append((signal, receiver))
    yield heard
    for signal, receiver in receivers:
        signal.disconnect(receiver)


# --- Four facts

READING, ONLINE, OFFLINE = {"temperature": 1}, {"status": "online"}, {"status": "offline"}


@pytest.mark.parametrize(
    ("payload", "about"),
    [
        (READING, "data"),
        (ONLINE, "status"),
        ({"status": "error"}, "status"),
        ({"battery_level": 50}, "status"),
        ({"id": "1"}, "reply"),
        (b"garbage", "data"),
        (b"garbage", "reply"),
        ({"temperature": 9999}, "data"),
    ],
)
def test_whatever_a_device_says_it_is_there(station, payload, about):
    send(payload, about)

    device = fresh(station)
    assert (device.connected, device.connected_changed_at) == (True, NOW)
    assert device.last_message_at == device.last_seen == NOW
    assert device.status == payload.get("status", "online") if isinstance(payload, dict) else "online"


def test_offline_is_a_message_and_no_sign_of_life(station):
    send(READING, "data")
    send(OFFLINE, at=NOW + HOUR)

    device = fresh(station)
    assert (device.last_message_at, device.last_seen) == (NOW + HOUR, NOW)
    assert (device.connected, device.connected_changed_at) == (False, NOW + HOUR)


@pytest.mark.parametrize(
    ("payload", "about", "reading_at"),
    [
        ({"temperature": 1, "timestamp": (NOW - HOUR).isoformat()}, "data", NOW - HOUR),
        ({"status": "online", "battery_level": 5, "timestamp": (NOW - HOUR).isoformat()}, "status", None),
        (READING, "data", None),
    ],
)
def test_a_retained_copy_says_nothing_of_now(station, told, payload, about, reading_at):
    """A reading in it was measured all the same."""
    send(payload, about, retain=True)

    device = fresh(station)
    assert (device.last_message_at, device.last_seen, device.connected) == (None, None, False)
    assert (device.status, device.reported_status, device.battery_level) == ("offline", "", None)
    assert device.last_reading_at == reading_at
    assert told == []


def test_a_device_that_is_disabled_says_nothing(station):
    WeatherStationDevice.objects.update(is_active=False)

    send(READING, "data")

    assert (fresh(station).last_message_at, fresh(station).connected) == (None, False)


def test_a_reading_from_the_future_was_measured_when_it_came(station):
    send({"temperature": 1, "timestamp": (NOW + 6 * MINUTE).isoformat()}, "data")

    assert fresh(station).last_reading_at == NOW


# --- In any order

LIVES = {
    "offline after data": [(OFFLINE, "status"), (READING, "data")],
    "an error before data": [({"status": "error"}, "status"), (READING, "data")],
    "offline after an error": [({"status": "error"}, "status"), (OFFLINE, "status"), (READING, "data")],
    "what only the older said": [({"firmware_version": "1"}, "status"), ({"battery_level": 5}, "status")],
    "what both said": [({"battery_level": 90}, "status"), ({"battery_level": 5}, "status")],
}
STATES = (
    *("status", "connected", "last_seen", "last_message_at", "last_reading_at"),
    *("reported_status", "battery_level", "firmware_version"),
)


def life(messages, batches):
    """How a new station is after *messages*, a second apart, were stored in *batches* of their numbers."""
    sent = [said(*one, at=NOW + n * SECOND) for n, one in enumerate(messages)]
    with transaction.atomic():
        pk = make("LIFE").pk
        for batch in batches:
            pipeline([sent[n]._replace(topic=sent[n].topic.replace("STATION-001", "LIFE")) for n in batch])
        state = WeatherStationDevice.objects.values(*STATES).get(pk=pk)
        transaction.set_rollback(True)
    return state


@pytest.mark.parametrize("messages", LIVES.values(), ids=LIVES)
def test_what_is_stored_later_is_not_newer(db, messages):
    """As when one worker holds a message longer than another one holds the next."""
    in_order = [[n] for n in range(len(messages))]

    for batches in itertools.permutations(in_order):
        assert life(messages, batches) == life(messages, in_order)


one_thing = st.one_of(
    st.just((READING, "data")),
    st.just(({"id": "1"}, "reply")),
    st.just((b"garbage", "data")),
    st.tuples(
        st.fixed_dictionaries(
            {},
            optional={
                "status": st.sampled_from(["online", "offline", "error", "low_battery"]),
                "battery_level": st.integers(0, 100),
                "firmware_version": st.sampled_from(["1", "2"]),
            },
        ).filter(bool),
        st.just("status"),
    ),
)


@settings(deadline=None, database=None, max_examples=80, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_presence_depends_on_what_was_said_and_not_on_the_order_of_storing(db, data):
    messages = data.draw(st.lists(one_thing, min_size=2, max_size=6))
    order = data.draw(st.permutations(range(len(messages))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(messages) - 1))))
    batches = [order[a:b] for a, b in itertools.pairwise([0, *cuts, len(messages)])]

    assert life(messages, batches) == life(messages, [range(len(messages))])


def test_the_older_offline_is_recorded_and_told_to_nobody(station, told):
    send(READING, "data", at=NOW + SECOND)
    told.clear()

    send(OFFLINE)

    assert (fresh(station).connected, fresh(station).status) == (True, "online")
    assert fresh(station).reported_status == "offline"
    assert told == []


def test_a_report_is_no_older_for_a_row_that_somebody_damaged(station):
    for damage in ("nonsense", {"battery_level": 5}, {"battery_level": "soon"}, []):
        WeatherStationDevice.objects.update(reported_times=damage, battery_level=None)

        assert send({"battery_level": 50}) is Outcome.STORED
        assert fresh(station).battery_level == 50


# --- Clocks

TIMES = ("last_seen", "last_message_at", "last_reading_at", "connected_changed_at")


def test_what_a_worker_ten_years_ahead_wrote_freezes_nothing(station):
    future = timezone.now() + YEARS
    WeatherStationDevice.objects.update(
        **dict.fromkeys(TIMES, future),
        connected=True,
        status="error",
        reported_status="error",
        battery_level=1,
        reported_times={"battery_level": future.isoformat(), "reported_status": future.isoformat()},
    )

    send({"status": "online", "battery_level": 90})
    send(READING, "data")
    device = fresh(station)
    assert (device.status, device.battery_level) == ("online", 90)
    assert device.last_seen == device.last_message_at == device.last_reading_at == NOW
    send(OFFLINE, at=NOW + SECOND)
    assert (fresh(station).connected, fresh(station).connected_changed_at) == (False, NOW + SECOND)


def test_a_clock_may_be_a_little_ahead(station):
    soon = timezone.now() + 4 * MINUTE
    WeatherStationDevice.objects.update(last_seen=soon, last_message_at=soon, connected=True, status="online")

    send(OFFLINE, at=timezone.now())

    assert (fresh(station).connected, fresh(station).last_message_at) == (True, soon)


def test_a_time_in_the_future_is_unknown_to_everybody(station, admin_client):
    WeatherStationDevice.objects.update(last_seen=timezone.now() + YEARS, status="online")

    assert fresh(station).is_heartbeat_overdue()
    page = admin_client.get("/").content.decode()
    assert "overdue" in page
    assert "never" in page


# --- Operators


def test_an_operator_who_comes_between_wins_and_nothing_is_told(station, told, monkeypatch):
    load = store.load_devices

    def load_then_edit(wanted):
        devices = load(wanted)
        WeatherStationDevice.objects.update(status="maintenance")
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_edit)

    send({"status": "error"})

    assert (fresh(station).status, fresh(station).reported_status) == ("maintenance", "error")
    assert told == [("connected", "STATION-001")]


def test_what_is_told_is_what_the_row_says(station, monkeypatch):
    """Also what somebody else wrote since the batch was read."""
    load, seen = store.load_devices, []

    def load_then_edit(wanted):
        devices = load(wanted)
        WeatherStationDevice.objects.update(name="North", status="error", connected=True)
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_edit)
    monkeypatch.setattr(WeatherStation, "on_data", lambda self, device, readings: seen.append(device))

    send(READING, "data")

    [device] = seen
    assert (device.name, device.status, device.last_seen) == ("North", "error", NOW)


# --- Once per change


def in_a_thread(work, *arguments):
    """The result of *work*, done over a connection of its own."""

    def one():
        try:
            return work(*arguments)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(one).result(30)


def side_by_side(*works):
    """Do *works* at the same time, each over a connection of its own; their results."""
    ready = threading.Barrier(len(works))

    def one(work):
        try:
            ready.wait(10)
            return work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(works)) as threads:
        return [future.result(60) for future in [threads.submit(one, work) for work in works]]


def test_a_change_that_another_worker_stored_meanwhile_is_told_by_it_alone(station, told, monkeypatch):
    """Both read the device before either wrote."""
    load = store.load_devices

    def load_then_lose_the_race(wanted):
        devices = load(wanted)
        monkeypatch.setattr(store, "load_devices", load)
        send(ONLINE, at=NOW + SECOND)
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_lose_the_race)

    send(READING, "data", at=NOW + 2 * SECOND)

    assert Counter(told) == {
        ("connected", "STATION-001"): 1,
        ("status_changed", "STATION-001", "offline", "online"): 1,
    }


def test_two_workers_tell_each_change_once(transactional_db, told):
    devices = [make(f"STATION-{n:03}").device_id for n in range(20)]

    def worker(payload, about, at):
        return lambda: pipeline([said(payload, about, at=at, device_id=d) for d in devices])

    for turn in range(4):
        at = NOW + turn * MINUTE
        side_by_side(worker(READING, "data", at), worker(ONLINE, "status", at + SECOND))
        side_by_side(*[worker(OFFLINE, "status", at + n * SECOND) for n in (2, 3)])

    assert set(Counter(told).values()) == {4}
    assert len(told) == 4 * 20 * 4  # connected, disconnected, and a change of status with each


# --- The sweep


class Clock:
    """A worker that has listened for *listened*, and a sweep of it that is due whenever it runs.

    It was at rest for *rest* seconds before, and heard the broker *quiet* seconds ago, then and now.
    """

    def __init__(self, listened=2 * WINDOW, **options):
        self.since = time.monotonic() - listened.total_seconds()
        self.quiet = 0
        self.sweep = Sweep(lambda: self.since, heard_until=lambda: time.monotonic() - self.quiet, **options)

    def run(self, *, rest=silence.EVERY):
        self.sweep._due.clear()
        self.sweep._rested_since = time.monotonic() - rest
        self.sweep._until = time.monotonic() - self.quiet
        return self.sweep.run()


@pytest.fixture
def worker(monkeypatch):
    # The machine may just have booted.
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 1e6)
    return Clock()


def silent(device_id="STATION-001", *, for_=WINDOW + SECOND, **fields):
    """A device that is there and was last heard that long ago."""
    there = {"connected": True, "status": "online", "last_seen": timezone.now() - for_}
    return make(device_id, **{**there, **fields})


def test_a_device_that_went_away_without_a_word_is_told_once(db, worker, told):
    station = silent()
    seen = station.last_seen

    assert [worker.run() for _ in range(3)] == [1, 0, 0]

    device = fresh(station)
    assert (device.connected, device.status, device.last_seen) == (False, "offline", seen)
    assert timezone.now() - device.connected_changed_at < MINUTE
    assert told == [("disconnected", "STATION-001"), ("status_changed", "STATION-001", "online", "offline")]


def test_hooks_are_told_of_a_device_that_went_away(db, worker, monkeypatch):
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


def test_a_device_that_comes_back_is_told_again(db, worker, told):
    station = silent()
    worker.run()
    told.clear()

    send({"battery_level": 5}, at=timezone.now())

    assert (fresh(station).connected, fresh(station).status) == (True, "online")
    assert told == [("connected", "STATION-001"), ("status_changed", "STATION-001", "offline", "online")]


def test_an_error_that_was_not_taken_back_is_still_one_when_the_device_is_back(db, worker):
    station = silent(status="error", reported_status="error")
    worker.run()
    assert fresh(station).status == "offline"

    send(READING, "data", at=timezone.now())

    assert fresh(station).status == "error"


@pytest.mark.parametrize("state", ["maintenance", "provisioning"])
def test_the_sweep_leaves_the_state_of_an_operator(db, worker, told, state):
    station = silent(status=state)

    assert [worker.run(), worker.run()] == [1, 0]

    assert (fresh(station).connected, fresh(station).status) == (False, state)
    assert told == [("disconnected", "STATION-001")]


NOT_OVERDUE = {
    "heard in time": {"for_": WINDOW - MINUTE},
    "offline": {"connected": False, "status": "offline"},
    "not connected, in maintenance": {"connected": False, "status": "maintenance"},
    "never heard, just set online": {"connected": False, "last_seen": None},
}


@pytest.mark.parametrize("fields", NOT_OVERDUE.values(), ids=NOT_OVERDUE)
def test_who_is_not_overdue(db, worker, told, fields):
    before = vars(fresh(silent(**fields)))

    assert worker.run() == 0

    after = vars(WeatherStationDevice.objects.get())
    assert {n: v for n, v in after.items() if n != "_state"} == {
        n: v for n, v in before.items() if n != "_state"
    }
    assert told == []


def test_a_status_that_only_somebody_set_ends_too(db, worker, told):
    """By hand, or by mark_online(): no message said so."""
    silent("STATION-001", connected=False)
    silent("STATION-002", connected=False, last_seen=None)
    WeatherStationDevice.objects.update(updated_at=timezone.now() - HOUR)

    assert worker.run() == 2

    assert set(told) == {("status_changed", f"STATION-00{n}", "online", "offline") for n in (1, 2)}


def test_each_kind_has_its_own_heartbeat(db, worker):
    valve, _ = provisioning.create(provisioning.kind_of("irrigationvalve"), "VALVE-001")
    model = type(valve)
    model.objects.update(connected=True, last_seen=timezone.now() - WINDOW - SECOND)

    assert worker.run() == 0
    model.objects.update(last_seen=timezone.now() - 3 * WINDOW - SECOND)
    worker.since -= 10 * WINDOW.total_seconds()
    assert worker.run() == 1


# --- The shares of other workers


@pytest.fixture
def other(db):
    """Another worker of the group, which has heard for long and until now."""
    now = timezone.now()
    return IngestWorker.objects.create(
        client_id="ingest-2", group="devicehub", heard_since=now - 9 * HOUR, heard_until=now
    )


@pytest.fixture
def sharing(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda real=time.monotonic: real() + 1e6)
    return Clock(listened=3 * HOUR, share=Share("devicehub", "ingest-1"))


def test_another_worker_that_is_here_changes_nothing(sharing, other, told):
    silent()

    assert sharing.run() == 1


def test_what_another_worker_has_not_stored_was_not_heard(sharing, other, told):
    """It went away half an hour ago; who was silent for long before that is gone."""
    IngestWorker.objects.update(heard_until=timezone.now() - HOUR / 2)
    silent("STATION-001", for_=HOUR / 2 + WINDOW - MINUTE)
    silent("STATION-002", for_=HOUR / 2 + WINDOW + MINUTE)

    assert sharing.run() == 1

    assert told[0] == ("disconnected", "STATION-002")


def test_another_worker_that_is_back_gets_a_window_to_hear_in(sharing, other, told):
    IngestWorker.objects.update(heard_since=timezone.now() - WINDOW + MINUTE)
    silent(for_=2 * HOUR)

    assert sharing.run() == 0

    IngestWorker.objects.update(heard_since=timezone.now() - WINDOW - MINUTE)
    sharing.sweep._share._look_at = 0
    assert sharing.run() == 1


def test_another_worker_is_waited_for_an_hour_and_that_is_said_once(sharing, other, told):
    silent()
    IngestWorker.objects.update(heard_until=timezone.now() - HOUR + MINUTE)
    with capture_logs() as logs:
        for _ in range(2):
            assert sharing.run() == 0
            sharing.sweep._share._look_at = 0
        IngestWorker.objects.update(heard_until=timezone.now() - HOUR - MINUTE)
        assert sharing.run() == 1

    assert [(line["event"], line["worker"]) for line in logs] == [("sweep.worker_is_away", "ingest-2")] * 2


@pytest.mark.parametrize(
    ("group", "client_id"), [("", "ingest-1"), ("another", "ingest-1"), ("devicehub", "ingest-2")]
)
def test_only_others_of_the_same_group_are_waited_for(sharing, other, told, group, client_id):
    IngestWorker.objects.update(heard_until=timezone.now() - HOUR / 2)
    silent()

    assert Clock(share=Share(group, client_id)).run() == 1


def test_a_worker_says_until_when_it_heard(sharing, db, told):
    sharing.quiet = 5
    before = timezone.now()

    sharing.run()

    written = IngestWorker.objects.get()
    assert (written.client_id, written.group) == ("ingest-1", "devicehub")
    assert abs(before - written.heard_until - 5 * SECOND) < SECOND
    assert abs(before - written.heard_since - 3 * HOUR) < SECOND


def test_a_worker_that_hears_nothing_leaves_what_it_said(sharing, db, told):
    sharing.run()
    [said] = IngestWorker.objects.values_list("heard_until", flat=True)
    sharing.since = None
    sharing.sweep._share._look_at = sharing.sweep._share._write_at = 0

    sharing.run()

    assert IngestWorker.objects.get().heard_until == said


def test_a_worker_that_is_alone_writes_once_a_minute(sharing, db, told):
    sharing.run()
    sharing.sweep._share._look_at = 0

    with CaptureQueriesContext(connection) as queries:
        sharing.run()

    assert not [query for query in queries if "UPDATE" in query["sql"] or "INSERT" in query["sql"]]


def test_what_a_worker_wrote_whose_clock_was_years_ahead_says_nothing(sharing, other, told):
    """Nobody would be overdue for years."""
    then = timezone.now() + timedelta(days=3650)
    IngestWorker.objects.update(heard_since=then, heard_until=then)
    silent()

    assert sharing.run() == 1

    assert list(IngestWorker.objects.values_list("client_id", flat=True)) == ["ingest-1"]


def test_a_worker_that_never_came_back_is_forgotten(sharing, other, told):
    IngestWorker.objects.update(heard_until=timezone.now() - timedelta(days=9))

    sharing.run()

    assert list(IngestWorker.objects.values_list("client_id", flat=True)) == ["ingest-1"]


# --- What this worker could hear


@pytest.mark.parametrize("listened", [None, timedelta(0), WINDOW - SECOND])
def test_nobody_is_overdue_whom_this_worker_could_not_hear(db, worker, told, listened):
    station = silent(for_=10 * HOUR)
    worker.since = None if listened is None else time.monotonic() - listened.total_seconds()

    assert worker.run() == 0

    assert fresh(station).connected
    assert told == []


def test_nobody_is_overdue_because_the_worker_was_stopped_itself(db, worker, told):
    """SIGSTOP, a frozen container, swapping: time.monotonic() goes on, and the connection seems to."""
    station = silent(for_=10 * HOUR)

    assert worker.run(rest=HOUR.total_seconds()) == 0
    assert worker.run() == 0

    assert fresh(station).connected
    assert told == []


def test_silence_counts_only_while_the_broker_is_heard(db, worker, told):
    """A dead connection to it is found after 15 seconds; so long nothing is known of any device."""
    silent()
    worker.quiet = 15

    assert worker.run() == 0

    silent("STATION-002", for_=WINDOW + 20 * SECOND)
    assert worker.run() == 1
    assert {device_id for _, device_id, *_ in told} == {"STATION-002"}
    worker.quiet = 0
    assert worker.run() == 1


def test_what_the_broker_says_counts_a_run_later(db, worker):
    """By then the messages that came with it are stored."""
    silent()
    worker.quiet = 15
    assert worker.run() == 0

    worker.quiet = 0
    worker.sweep._due.clear()
    assert [worker.sweep.run(), worker.run()] == [0, 1]


@pytest.mark.parametrize("by", [YEARS, -YEARS, HOUR, -HOUR, 5 * SECOND])
def test_nobody_is_overdue_because_a_clock_was_set(db, worker, monkeypatch, by):
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


@pytest.mark.postgresql_only  # SQLite has the clock of the process
def test_a_worker_whose_clock_is_not_the_databases_calls_nobody_overdue(db, worker, monkeypatch):
    station = silent(for_=MINUTE)
    now = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: now() + YEARS)

    assert worker.run() == 0

    assert fresh(station).connected


def test_a_last_sign_in_the_future_is_set_to_now_and_ends_a_window_later(db, worker, told):
    station = silent(for_=-YEARS)

    assert worker.run() == 0
    assert timezone.now() - fresh(station).last_seen < MINUTE
    WeatherStationDevice.objects.update(last_seen=timezone.now() - WINDOW - SECOND)
    assert worker.run() == 1
    assert [name for name, *_ in told] == ["disconnected", "status_changed"]


def test_many_are_marked_in_batches_and_a_run_has_a_budget(db, worker, told, monkeypatch):
    monkeypatch.setattr(silence, "BATCH", 2)
    monkeypatch.setattr(silence, "SCAN", 4)
    monkeypatch.setattr(silence, "BUDGET", -1)
    for n in range(10):
        silent(f"STATION-{n:03}")
    runs = [worker.sweep.run() for _ in range(6)]

    assert runs == [2, 2, 2, 2, 2, 0]
    assert len(told) == len(set(told)) == 20


def test_a_sweep_that_finds_nobody_writes_nothing(db, worker, django_assert_num_queries):
    silent(for_=MINUTE)
    asked = 1 if connection.vendor == "sqlite" else 2  # PostgreSQL is asked for its clock

    with django_assert_num_queries(asked * len(registry)):
        worker.since -= 1e6
        assert worker.run() == 0


def test_two_workers_tell_of_an_overdue_device_once(transactional_db, told):
    for turn in range(3):
        for n in range(40):
            silent(f"STATION-{turn}-{n}")
        workers = [Clock(HOUR * 24), Clock(HOUR * 24)]
        for one in workers:
            one.sweep._heard_for = lambda: 1e9
        assert sum(side_by_side(*[one.run for one in workers])) == 40

    assert len(told) == len(set(told)) == 3 * 40 * 2


@pytest.mark.postgresql_only  # SQLite locks no rows
def test_a_device_that_is_being_heard_is_not_waited_for(transactional_db):
    station, neighbour = silent(), silent("STATION-002")
    one = Clock()
    one.sweep._heard_for = lambda: 1e9
    with transaction.atomic():
        WeatherStationDevice.objects.select_for_update().get(pk=station.pk)
        assert in_a_thread(one.run) == 1

    assert fresh(station).connected
    assert not fresh(neighbour).connected


def test_a_device_that_was_heard_since_it_looked_overdue_is_there(db, worker, told, monkeypatch):
    station, mark = silent(), silence._mark

    def heard_first(*arguments):
        WeatherStationDevice.objects.update(last_seen=timezone.now())
        return mark(*arguments)

    monkeypatch.setattr(silence, "_mark", heard_first)

    assert worker.run() == 0
    assert fresh(station).connected
    assert told == []


# --- Hooks and signals


@pytest.fixture
def witnessed(transactional_db, monkeypatch):
    """What hooks and signals were told, each with what another connection found when it was."""
    seen = []

    def look(name):
        found = in_a_thread(
            lambda: (
                list(WeatherStationDevice.objects.values_list("connected", "status")),
                WeatherStationReading.objects.count(),
                DeviceCommand.objects.filter(answered_at=None).count(),
            )
        )
        seen.append((name, *found))

    receivers = []
    for name in HOOKS:
        monkeypatch.setattr(WeatherStation, name, lambda self, *_, name=name: look(name))
    for name in PRESENCE:

        def receiver(sender, name=name, **_):
            assert sender is WeatherStation
            look(name)

        signal = getattr(signals, f"device_{name}")
        signal.connect(receiver)
        receivers.append((signal, receiver))
    yield seen
    for signal, receiver in receivers:
        signal.disconnect(receiver)


def test_hooks_and_signals_see_what_is_stored(witnessed, published):
    """Each of them, through another connection."""
    device, _ = provisioning.create(provisioning.kind_of("weatherstation"), "STATION-001")
    command = device.send_command("reboot")
    pipeline([said(READING, "data"), said({"id": command, "ok": True}, "reply")])
    send(OFFLINE, at=NOW + HOUR)

    there, gone = [(True, "online")], [(False, "offline")]
    assert witnessed == [
        ("provisioned", gone, 0, 0),
        ("command_sent", gone, 0, 1),
        ("on_data", there, 1, 0),
        ("data_received", there, 1, 0),
        ("on_command_response", there, 1, 0),
        ("on_connect", there, 1, 0),
        ("connected", there, 1, 0),
        ("on_status_change", there, 1, 0),
        ("status_changed", there, 1, 0),
        ("on_disconnect", gone, 1, 0),
        ("disconnected", gone, 1, 0),
        ("on_status_change", gone, 1, 0),
        ("status_changed", gone, 1, 0),
    ]


def test_the_sweep_tells_after_its_commit(witnessed):
    silent()
    one = Clock()
    one.sweep._heard_for = lambda: 1e9
    one.run()

    assert witnessed == [
        (name, [(False, "offline")], 0, 0)
        for name in ("on_disconnect", "disconnected", "on_status_change", "status_changed")
    ]


def test_a_receiver_that_fails_keeps_no_other_from_being_told(transactional_db, monkeypatch, published):
    """Whoever sends the signal: ingest, the sweep, a command or who made the device."""
    told = []

    def broken(**_):
        raise ZeroDivisionError

    receivers = []
    for name in PRESENCE:
        signal = getattr(signals, f"device_{name}")
        receivers += [(signal, broken), (signal, lambda name=name, **_: told.append(name))]
    for hook in HOOKS:
        monkeypatch.setattr(WeatherStation, hook, broken)
    for signal, receiver in receivers:
        signal.connect(receiver)
    try:
        device, _ = provisioning.create(provisioning.kind_of("weatherstation"), "STATION-001")
        command = device.send_command("reboot")
        pipeline([said(READING, "data"), said({"id": command, "ok": True}, "reply")])
        WeatherStationDevice.objects.update(last_seen=timezone.now() - HOUR)
        one = Clock()
        one.sweep._heard_for = lambda: 1e9
        assert one.run() == 1
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)

    assert told == [
        *("provisioned", "command_sent", "data_received", "connected", "status_changed"),
        *("disconnected", "status_changed"),
    ]
    assert DeviceCommand.objects.get().answered_at is not None


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


# --- Real processes

WORKER = """
import dataclasses, sys, threading
import django
django.setup()
from django.core.management import call_command
from devicehub import signals
from devicehub.kinds.registry import registry

kind = registry.get("weatherstation")
registry.unregister("weatherstation")
registry.register(dataclasses.replace(kind, heartbeat_interval=1))

def tell(name, device, **more):
    print(name, device.device_id, flush=True)

receivers = []
for name in ("connected", "disconnected", "status_changed"):
    receivers.append(lambda name=name, **more: tell(name, more["device"]))
    getattr(signals, "device_" + name).connect(receivers[-1])
print(call_command("listen_mqtt", "--worker", sys.argv[1]))
"""


@pytest.fixture
def broker(tmp_path, needs_real):
    """A mosquitto that can be left early: the context and its port."""
    with ExitStack() as stack:
        try:
            yield stack, stack.enter_context(servers.mosquitto(tmp_path / "mosquitto"))
        except servers.MissingServer as missing:
            needs_real(missing)


class Workers:
    """Those that think a weather station speaks every second; called, what they told of a device."""

    def __init__(self, tmp_path, port, stack):
        self._folder, self._port, self._stack = tmp_path, port, stack
        self._logs, self._running = [], {}

    def __call__(self, device_id):
        lines = [line.split() for log in self._logs for line in log.read_text().splitlines()]
        return Counter(line[0] for line in lines if line[1:] == [device_id])

    def start(self, number):
        self._logs.append(log := self._folder / f"worker-{number}-{len(self._logs)}.log")
        self._running[number] = self._stack.enter_context(
            servers.process(
                [sys.executable, "-c", WORKER, str(number)],
                env=environment(MQTT_URL=f"mqtt://127.0.0.1:{self._port}"),
                cwd=ROOT,
                log=log,
                ready=lambda: "connected to" in log.read_text(),
            )
        )

    def kill(self, number):
        self._running[number].kill()
        self._running[number].wait(10)


@contextmanager
def workers(tmp_path, port):
    """Two of them."""
    with ExitStack() as stack:
        told = Workers(tmp_path, port, stack)
        told.start(1)
        told.start(2)
        yield told


def text(body):
    raw = body.encode()
    return len(raw).to_bytes(2) + raw


class Plug:
    """A device on a bare socket (MQTT 3.1.1), so that it can be torn out of the wall."""

    def __init__(self, port, device_id, will=""):
        self._status = f"things/weatherstation/{device_id}/status"
        self._data = f"things/weatherstation/{device_id}/data"
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        flags = b"\x0e" if will else b"\x02"  # a clean session; a will with QoS 1
        last = text(self._status) + text(will) if will else b""
        self._ask(0x10, text("MQTT") + b"\x04" + flags + b"\x00\x3c" + text(device_id) + last)

    def measure(self):
        self._ask(0x32, text(self._data) + b"\x00\x01" + b'{"temperature": 1}')

    def _ask(self, kind, body):
        self._socket.sendall(bytes([kind, len(body)]) + body)
        assert len(self._socket.recv(64)) == 4  # CONNACK or PUBACK

    def tear_out(self):
        self._socket.close()


def test_a_device_that_vanishes_without_a_word_and_one_with_a_will(transactional_db, broker, tmp_path):
    _, port = broker
    quiet, station = make("QUIET"), make("STATION-001")
    with workers(tmp_path, port) as told:
        vanishing, willing = Plug(port, "QUIET"), Plug(port, "STATION-001", will='{"status": "offline"}')
        vanishing.measure()
        willing.measure()
        assert eventually(lambda: told("QUIET")["connected"] and told("STATION-001")["connected"])
        willing.tear_out()
        assert eventually(lambda: vanishing.measure() or told("STATION-001")["disconnected"])
        assert fresh(station).reported_status == "offline"  # so it was the will, and not the silence
        assert not told("QUIET")["disconnected"]
        vanishing.tear_out()
        assert not fresh(station).connected
        assert eventually(lambda: told("QUIET")["disconnected"], 30)
        assert (fresh(quiet).connected, fresh(quiet).status) == (False, "offline")

        back = Plug(port, "QUIET")
        back.measure()
        assert eventually(lambda: told("QUIET")["connected"] == 2)
        assert eventually(lambda: told("QUIET")["disconnected"] == 2, 30)
        back.tear_out()

        assert told("QUIET") == {"connected": 2, "disconnected": 2, "status_changed": 4}
        assert told("STATION-001") == {"connected": 1, "disconnected": 1, "status_changed": 2}


def test_nobody_is_gone_whose_messages_wait_for_a_worker_that_was_killed(transactional_db, broker, tmp_path):
    """Mosquitto goes on giving it its share, and what was heard until then is all that is known."""
    _, port = broker
    ids = [make(f"STATION-00{number}").device_id for number in range(1, 5)]
    with workers(tmp_path, port) as told:
        plugs = [Plug(port, device_id) for device_id in ids]

        def measure(seconds):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                for plug in plugs:
                    plug.measure()
                time.sleep(0.3)

        measure(3)
        told.kill(2)
        measure(7)
        told.start(2)
        measure(7)

        assert [told(device_id)["disconnected"] for device_id in ids] == [0, 0, 0, 0]
        for plug in plugs:
            plug.tear_out()
        assert eventually(lambda: all(told(device_id)["disconnected"] == 1 for device_id in ids), 30)


class Deaf:
    """A listener whose broker has one message for a worker that cannot store it for a while."""

    failure = ""
    listening_since = 1000.0

    def take(self, most, timeout):
        self.worker.stop()
        return [Delivery("nowhere", b"", 1, False, False, 0.0, "", b"", (), 1, 1)]


def test_what_waits_for_a_slow_database_was_not_heard(monkeypatch):
    """Every device would look overdue as soon as the database is back, before its messages are stored."""
    now, heard, listener = [2000.0], [], Deaf()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    listener.worker = one = Worker(listener)

    def stall(messages, acknowledge, tell):
        for seconds in (0, 5, 6, 1000):
            now[0] += seconds
            heard.append(one.heard_since)
        return []

    monkeypatch.setattr("devicehub.worker.loop.pipeline", stall)
    assert one.heard_since == 1000
    one.run()

    assert heard == [1000, 1000, None, None]
    assert one.heard_since == now[0] == 3011
    listener.listening_since = None
    assert one.heard_since is None


def test_a_listener_knows_since_when_it_listens(broker):
    stack, port = broker
    before = time.monotonic()
    listener = Listener(BrokerAddress("127.0.0.1", port), "listener-1", ["things/#"])
    assert listener.listening_since is None
    listener.start()
    try:
        first = listener.listening_since
        assert before < first < time.monotonic()
        listener.redeliver()
        assert eventually(lambda: (listener.listening_since or 0) > first)
        stack.close()
        assert eventually(lambda: listener.listening_since is None)
    finally:
        listener.stop()
