"""Presence that is true: in any order, with two workers, and with a wrong clock."""

import itertools
from collections import Counter

import pytest
from django.db import transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devicehub.ingest import store
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Outcome
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice
from rig.examples import examples
from rig.messages import NOW, fresh
from rig.presence import HOUR, MINUTE, OFFLINE, ONLINE, READING, SECOND, YEARS, make, said, send
from rig.threads import side_by_side


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
def test_a_retained_copy_says_nothing_of_now(station, notifications, payload, about, reading_at):
    """Its reading still counts as measured."""
    send(payload, about, retain=True)

    device = fresh(station)
    assert (device.last_message_at, device.last_seen, device.connected) == (None, None, False)
    assert (device.status, device.reported_status, device.battery_level) == ("offline", "", None)
    assert device.last_reading_at == reading_at
    assert notifications == []


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
    "a column of the older report only": [
        ({"firmware_version": "1"}, "status"),
        ({"battery_level": 5}, "status"),
    ],
    "a column of both reports": [({"battery_level": 90}, "status"), ({"battery_level": 5}, "status")],
}
STATES = (
    *("status", "connected", "last_seen", "last_message_at", "last_reading_at"),
    *("reported_status", "battery_level", "firmware_version"),
)


def life(messages, batches):
    """Return the state of a new station after *messages*, a second apart, were stored in *batches* of their numbers."""
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
    """This happens if one worker holds a message longer than another worker holds the next one."""
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


@settings(deadline=None, database=None, max_examples=examples(30), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_presence_depends_on_what_was_said_and_not_on_the_order_of_storing(db, data):
    messages = data.draw(st.lists(one_thing, min_size=2, max_size=6))
    order = data.draw(st.permutations(range(len(messages))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(messages) - 1))))
    batches = [order[a:b] for a, b in itertools.pairwise([0, *cuts, len(messages)])]

    assert life(messages, batches) == life(messages, [range(len(messages))])


def test_the_older_offline_is_recorded_without_a_notification(station, notifications):
    send(READING, "data", at=NOW + SECOND)
    notifications.clear()

    send(OFFLINE)

    assert (fresh(station).connected, fresh(station).status) == (True, "online")
    assert fresh(station).reported_status == "offline"
    assert notifications == []


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


def test_a_time_in_the_future_is_shown_as_unknown(station, admin_client):
    WeatherStationDevice.objects.update(last_seen=timezone.now() + YEARS, status="online")

    assert fresh(station).is_heartbeat_overdue()
    page = admin_client.get("/").content.decode()
    row = page.partition('data-key="weatherstation/STATION-001"')[2].partition("</tr>")[0]
    assert "Silent" in row
    assert "never" in row


# --- Operators


def test_a_concurrent_change_by_an_operator_wins_without_a_notification(station, notifications, monkeypatch):
    load = store.load_devices

    def load_then_edit(wanted):
        devices = load(wanted)
        WeatherStationDevice.objects.update(status="maintenance")
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_edit)

    send({"status": "error"})

    assert (fresh(station).status, fresh(station).reported_status) == ("maintenance", "error")
    assert notifications == [("connected", "STATION-001")]


def test_listeners_get_the_device_as_its_row_is(station, monkeypatch):
    """This includes changes by others since the batch was read."""
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


def test_a_change_that_another_worker_stored_meanwhile_is_notified_by_it_alone(
    station, notifications, monkeypatch
):
    """Both read the device before either wrote."""
    load = store.load_devices

    def load_then_lose_the_race(wanted):
        devices = load(wanted)
        monkeypatch.setattr(store, "load_devices", load)
        send(ONLINE, at=NOW + SECOND)
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_lose_the_race)

    send(READING, "data", at=NOW + 2 * SECOND)

    assert Counter(notifications) == {
        ("connected", "STATION-001"): 1,
        ("status_changed", "STATION-001", "offline", "online"): 1,
    }


def test_two_workers_notify_of_each_change_once(transactional_db, notifications):
    devices = [make(f"STATION-{n:03}").device_id for n in range(20)]

    def worker(payload, about, at):
        return lambda: pipeline([said(payload, about, at=at, device_id=d) for d in devices])

    for turn in range(4):
        at = NOW + turn * MINUTE
        side_by_side(worker(READING, "data", at), worker(ONLINE, "status", at + SECOND))
        side_by_side(*[worker(OFFLINE, "status", at + n * SECOND) for n in (2, 3)])

    assert set(Counter(notifications).values()) == {4}
    assert len(notifications) == 4 * 20 * 4  # Connected and disconnected, each with a change of status.
