"""The changes of a status message on its device, and the time when a device was heard."""

import pytest

from devicehub.ingest import store
from devicehub.ingest.pipeline import pipeline
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice
from rig.messages import EARLIER, FAILED, HOUR, NOW, PARTIAL, STORED, fresh, iso, message, message_row, send

pytestmark = pytest.mark.sqlite_first

# --- Status

LONG_AGO = "0001-01-01T00:00:00+14:00"
STATUS = {
    "online": ({"status": "online"}, STORED, {"status": "online"}),
    "error": ({"status": "error"}, STORED, {"status": "error"}),
    "low battery": ({"status": "low_battery"}, STORED, {"status": "low_battery"}),
    "still offline": ({"status": "offline"}, STORED, {"reported_status": "offline"}),
    "maintenance": ({"status": "maintenance"}, FAILED, {}),
    "provisioning": ({"status": "provisioning"}, FAILED, {}),
    "maintenance beside": ({"status": "maintenance", "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "capitals": ({"status": "Online"}, STORED, {"status": "online"}),
    "unknown": ({"status": "sleeping", "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "empty status": ({"status": ""}, FAILED, {}),
    "long status": ({"status": "o" * 10_000}, FAILED, {}),
    "status with NUL": ({"status": "online\0"}, FAILED, {}),
    "a number": ({"status": 1}, FAILED, {}),
    "true": ({"status": True}, FAILED, {}),
    "a list": ({"status": ["online"]}, FAILED, {}),
    "battery 0": ({"battery_level": 0}, STORED, {"battery_level": 0}),
    "battery 100": ({"battery_level": 100}, STORED, {"battery_level": 100}),
    "battery 55.5": ({"battery_level": 55.5}, STORED, {"battery_level": 55.5}),
    "battery 101": ({"battery_level": 101}, FAILED, {}),
    "battery 100.0001": ({"battery_level": 100.0001}, FAILED, {}),
    "battery -1": ({"battery_level": -1}, FAILED, {}),
    "battery in text": ({"battery_level": "50"}, FAILED, {}),
    "battery true": ({"battery_level": True}, FAILED, {}),
    "battery 1e308": ({"battery_level": 1e308}, FAILED, {}),
    "battery text beside": ({"battery_level": "x", "status": "online"}, PARTIAL, {"status": "online"}),
    "firmware": ({"firmware_version": "1.2.3-ä"}, STORED, {"firmware_version": "1.2.3-ä"}),
    "firmware of 50": ({"firmware_version": "x" * 50}, STORED, {"firmware_version": "x" * 50}),
    "firmware of 51": ({"firmware_version": "x" * 51}, FAILED, {}),
    "firmware with NUL": ({"firmware_version": "1\0", "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "firmware number": ({"firmware_version": 1.2}, FAILED, {}),
    "a state with a choice": ({"mode": "manual"}, STORED, {"mode": "manual"}),
    "none of the choices": ({"mode": "open"}, FAILED, {}),
    "choice in capitals": ({"mode": "Manual"}, FAILED, {}),
    "choice with a NUL": ({"mode": "manual\0"}, FAILED, {}),
    "choice of a number": ({"opening": 75}, STORED, {"opening": 75}),
    "no such number": ({"opening": 30}, FAILED, {}),
    "number in text": ({"opening": "75"}, FAILED, {}),
    "number as float": ({"opening": 75.0}, FAILED, {}),
    "false is not 0": ({"opening": False}, FAILED, {}),
    "beyond 64 bits": ({"opening": 2**70}, FAILED, {}),
    "a date": ({"serviced_at": iso(EARLIER)}, STORED, {"serviced_at": EARLIER}),
    "a naive date is UTC": ({"serviced_at": "2026-03-01T11:00:00"}, STORED, {"serviced_at": EARLIER}),
    "an offset": ({"serviced_at": "2026-03-01T12:00:00+01:00"}, STORED, {"serviced_at": EARLIER}),
    "no date": ({"serviced_at": "soon"}, FAILED, {}),
    "no date of UTC": ({"serviced_at": LONG_AGO}, FAILED, {}),
    "a date as number": ({"serviced_at": 5}, FAILED, {}),
    "one bad of many": (
        {"mode": "manual", "opening": 30, "battery_level": 5, "status": "online"},
        PARTIAL,
        {"mode": "manual", "battery_level": 5, "status": "online"},
    ),
    "unknown field": ({"foo": 1, "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "unknown name with a NUL": ({"a\0b": 1, "battery_level": 5}, PARTIAL, {"battery_level": 5}),
    "only unknown": ({"foo": 1}, FAILED, {}),
    "only unknown with a NUL": ({"f\0o": 1}, FAILED, {}),
    "a reading": ({"flow": 1}, FAILED, {}),
    "columns that are not a device's to set": (
        {
            "battery_level": 5,
            "device_id": "X",
            "is_active": False,
            "mqtt_username": "x",
            "mqtt_password_hash": "x",
            "api_key": "x",
            "name": "x",
            "connected": True,
            "last_seen": iso(NOW + HOUR),
            "reported_status": "online",
            "metadata": {},
            "site": "x",
            "id": 99,
            "pk": 99,
        },
        PARTIAL,
        {"battery_level": 5},
    ),
    "an array": ([{"status": "online"}], FAILED, {}),
    "a text": ("online", STORED, {"status": "online"}),
    "null": (None, FAILED, {}),
    "bare text": (b"online", STORED, {"status": "online"}),
    "nothing": ({}, FAILED, {}),
    "only a time": ({"timestamp": iso(EARLIER)}, FAILED, {}),
}
SEEN = {"last_seen": NOW, "connected": True, "connected_changed_at": NOW, "status": "online"}
UNCLEAR = {"maintenance", "sleeping"}  # These are not read.


@pytest.mark.parametrize(("sent", "outcome", "changes"), STATUS.values(), ids=STATUS)
def test_each_status_has_its_outcome(valve, sent, outcome, changes):
    """It changes only the expected columns. An unreadable status may be a will, so it is not a sign of life."""
    before = vars(fresh(valve))

    assert send(valve, sent, "status") is outcome

    after = vars(fresh(valve))
    changed = {name: after[name] for name in after if after[name] != before[name] and name != "_state"}
    for name in ("updated_at", "reported_times"):
        changed.pop(name, None)
    if "status" in changes:
        changes = changes | {"reported_status": changes["status"]}
    is_unclear = outcome is FAILED or (isinstance(sent, dict) and sent.get("status") in UNCLEAR)
    if not is_unclear:
        alive = {} if changes.get("reported_status") == "offline" else SEEN
        changes = alive | changes | {"last_message_at": NOW}
    assert changed == changes
    row = message_row(valve)
    assert row.outcome == outcome
    assert bool(row.notes) is (outcome is PARTIAL) or outcome is FAILED
    assert QuarantinedMessage.objects.count() == (outcome is FAILED)


@pytest.mark.parametrize("state", ["maintenance", "provisioning"])
@pytest.mark.parametrize(
    ("about", "payload", "connected"),
    [
        ("status", {"status": "online"}, True),
        ("status", {"status": "error"}, True),
        ("status", {"status": "offline"}, False),
        ("data", {"temperature": 1}, True),
    ],
)
def test_a_device_does_not_end_what_an_operator_set(station, heard, state, about, payload, connected):
    WeatherStationDevice.objects.update(status=state, connected=not connected)

    assert send(station, payload, about) is STORED

    device = fresh(station)
    assert device.status == state
    assert device.connected is connected
    assert device.reported_status == payload.get("status", "")
    assert "on_status_change" not in [notified[1] for notified in heard]


def test_a_state_that_an_operator_sets_while_a_batch_is_judged_stays(station, monkeypatch):
    """The device was read before, and the batch must not write the old state back."""
    load = store.load_devices

    def load_then_edit(wanted):
        devices = load(wanted)
        WeatherStationDevice.objects.update(status="maintenance")
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_edit)

    send(station, {"temperature": 1})

    assert fresh(station).status == "maintenance"


# --- When a device was heard


def test_when_a_device_was_heard_never_goes_back(station):
    send(station, {"temperature": 1, "timestamp": iso(NOW - HOUR)}, at=NOW)
    send(station, {"temperature": 2, "timestamp": iso(NOW - 5 * HOUR)}, at=NOW - 2 * HOUR)

    device = fresh(station)
    assert (device.last_seen, device.last_message_at, device.last_reading_at) == (NOW, NOW, NOW - HOUR)

    send(station, {"status": "online"}, "status", at=NOW - HOUR)
    send(station, {"id": "1", "ok": True}, "reply", at=NOW - HOUR)
    device = fresh(station)
    assert (device.last_seen, device.last_message_at, device.last_reading_at) == (NOW, NOW, NOW - HOUR)


def test_when_a_device_was_heard_never_goes_back_inside_a_batch(station):
    ages = [5, 1, 9, 3]
    pipeline(
        [
            message(station, {"temperature": 1, "timestamp": iso(NOW - age * HOUR)}, at=NOW - age * HOUR / 10)
            for age in ages
        ]
    )

    device = fresh(station)
    assert (device.last_seen, device.last_reading_at) == (NOW - HOUR / 10, NOW - HOUR)


def test_of_a_buffer_the_newest_sample_counts(station):
    send(
        station,
        [{"temperature": age, "timestamp": iso(NOW - age * HOUR)} for age in (3, 1, 2)],
    )

    assert fresh(station).last_reading_at == NOW - HOUR
    assert fresh(station).last_seen == NOW


def test_a_sample_without_a_device_time_counts_as_received(station):
    send(station, {"temperature": 1})

    assert fresh(station).last_reading_at == NOW


def test_a_status_without_a_time_that_can_be_used_says_so(station):
    assert send(station, {"status": "online", "timestamp": None}, "status") is PARTIAL
    assert station.messages.get().notes == ["timestamp: cannot be read, the time of receipt was used"]


def test_a_status_is_no_reading(station):
    send(station, {"status": "online"}, "status")

    assert fresh(station).last_reading_at is None


def test_a_second_worker_never_takes_back_when_a_device_was_heard(station, monkeypatch):
    """It stored a newer message after we read the device and before we wrote."""
    load = store.load_devices
    newer = NOW + HOUR

    def load_then_lose_the_race(wanted):
        devices = load(wanted)
        WeatherStationDevice.objects.update(last_seen=newer, last_message_at=newer, last_reading_at=newer)
        return devices

    monkeypatch.setattr(store, "load_devices", load_then_lose_the_race)

    send(station, {"temperature": 1})

    device = fresh(station)
    assert (device.last_seen, device.last_message_at, device.last_reading_at) == (newer, newer, newer)
