"""Hooks and signals: their arguments for a message, and that a failing one loses nothing."""

from collections import Counter

import pytest
from django.db import connection

from devicehub import signals
from devicehub.ingest.pipeline import pipeline
from devicehub.models import DeviceCommand
from devicehub.mqtt import Delivery
from devicehub.worker.loop import Worker
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.messages import EARLIER, HOUR, NOW, STORED, fresh, iso, message, message_row, readings, send

pytestmark = pytest.mark.sqlite_first

# --- Presence, hooks and signals


def test_data_of_a_device_that_was_not_connected_connects_it(station, heard):
    send(station, {"temperature": 1})

    device = fresh(station)
    assert (device.connected, device.connected_changed_at, device.status) == (True, NOW, "online")
    assert heard == [
        ("hook", "on_data", "STATION-001", {"temperature": 1.0}),
        ("signal", "data_received", "STATION-001", {"temperature": 1.0}),
        ("hook", "on_connect", "STATION-001"),
        ("signal", "connected", "STATION-001"),
        ("hook", "on_status_change", "STATION-001", "offline", "online"),
        ("signal", "status_changed", "STATION-001", "offline", "online"),
    ]


def test_listeners_are_not_notified_without_a_change(station, heard):
    send(station, {"temperature": 1})
    changed_at = fresh(station).connected_changed_at
    heard.clear()

    send(station, {"temperature": 2}, at=NOW + HOUR)
    send(station, {"status": "online"}, "status", at=NOW + HOUR)

    assert [notified[1] for notified in heard] == ["on_data", "data_received"]
    assert fresh(station).connected_changed_at == changed_at


def test_a_will_disconnects(station, heard):
    send(station, {"status": "online"}, "status")
    heard.clear()

    send(station, b'{"status":"offline"}', "status", at=NOW + HOUR)

    device = fresh(station)
    assert (device.connected, device.connected_changed_at, device.status) == (False, NOW + HOUR, "offline")
    assert heard == [
        ("hook", "on_disconnect", "STATION-001"),
        ("signal", "disconnected", "STATION-001"),
        ("hook", "on_status_change", "STATION-001", "online", "offline"),
        ("signal", "status_changed", "STATION-001", "online", "offline"),
    ]


def test_a_device_that_reports_an_error_and_then_data_is_still_in_error(station):
    send(station, {"status": "error"}, "status")
    send(station, {"temperature": 1})

    assert fresh(station).status == "error"
    assert fresh(station).connected


def test_listeners_are_notified_of_each_sample_of_a_buffer(station, heard):
    send(station, [{"temperature": n, "timestamp": iso(EARLIER + n * HOUR / 10)} for n in (1, 2, 3)])

    notified = [entry[3] for entry in heard if entry[1] == "on_data"]
    assert notified == [{"temperature": 1.0}, {"temperature": 2.0}, {"temperature": 3.0}]


def test_listeners_get_only_accepted_values(station, heard):
    send(station, {"temperature": 1, "humidity": 999, "wind": 3})
    send(station, {"temperature": 999})

    assert [entry[3] for entry in heard if entry[1] == "on_data"] == [{"temperature": 1.0}]


def test_a_message_of_one_device_notifies_of_no_other(station, neighbour, valve, heard):
    send(station, {"temperature": 1})

    assert {entry[2] for entry in heard} == {"STATION-001"}
    for other in (neighbour, valve):
        assert (fresh(other).last_seen, fresh(other).connected) == (None, False)


def test_the_signal_carries_the_stored_message_and_no_credential(station):
    WeatherStationDevice.objects.update(mqtt_password_hash="{SSHA256}secret")
    received = []

    def receiver(sender, **arguments):
        received.append((sender, arguments))

    signals.device_data_received.connect(receiver)
    try:
        send(station, {"temperature": 1})
    finally:
        signals.device_data_received.disconnect(receiver)

    [(sender, arguments)] = received
    assert sender is WeatherStation
    assert set(arguments) == {"signal", "device", "readings", "message"}
    assert arguments["message"] == message_row(station)
    assert "secret" not in str(arguments)


@pytest.mark.parametrize(
    "hook", ["on_data", "on_connect", "on_status_change", "on_disconnect", "on_command_response"]
)
def test_a_hook_that_raises_loses_nothing(station, neighbour, heard, monkeypatch, hook):
    def broken(self, *arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(WeatherStation, hook, broken)
    command = DeviceCommand.objects.create(device_key="weatherstation/STATION-001", name="reboot")
    batch = [
        message(station, {"temperature": 1}),
        message(station, {"id": str(command.id), "ok": True}, "reply"),
        message(neighbour, {"temperature": 2}),
    ]

    assert pipeline(batch) == [STORED] * 3
    assert send(station, {"status": "offline"}, "status") is STORED

    assert len(readings(station)) == len(readings(neighbour)) == 1
    assert station.messages.count() == 3
    notified = Counter((entry[0], entry[1]) for entry in heard)
    assert notified["signal", "data_received"] == notified["signal", "connected"] == 2
    assert notified["signal", "disconnected"] == 1
    command.refresh_from_db()
    assert command.answered_at is not None


def test_a_receiver_that_raises_loses_nothing(station, neighbour, heard):
    def broken(**arguments):
        raise ZeroDivisionError

    for signal in (signals.device_data_received, signals.device_connected, signals.device_status_changed):
        signal.connect(broken)
    try:
        assert pipeline([message(d, {"temperature": 1}) for d in (station, neighbour)]) == [STORED] * 2
    finally:
        for signal in (signals.device_data_received, signals.device_connected, signals.device_status_changed):
            signal.disconnect(broken)

    assert len(readings(station)) == len(readings(neighbour)) == 1
    assert [entry[1] for entry in heard].count("data_received") == 2
    assert [entry[1] for entry in heard].count("on_status_change") == 2


def test_hooks_and_signals_come_after_the_commit(transactional_db, monkeypatch):
    station = WeatherStationDevice.objects.create(device_id="STATION-001")
    seen = []

    def look(*_, **__):
        seen.append((connection.in_atomic_block, WeatherStationReading.objects.count()))

    monkeypatch.setattr(WeatherStation, "on_data", look)
    signals.device_connected.connect(look)
    try:
        send(station, {"temperature": 1})
    finally:
        signals.device_connected.disconnect(look)

    assert seen == [(False, 1), (False, 1)]


def delivery(device, payload, packet_id):
    one = message(device, payload)
    return Delivery(one.topic, one.payload, 1, False, False, NOW.timestamp(), "", b"", (), packet_id, 1)


def test_a_message_is_acknowledged_before_hooks_run(station, monkeypatch):
    """A slow hook must not delay acks: the order is store, ack, signals."""
    order = []

    class OneBatch:
        failure = ""

        def take(self, most, timeout):
            worker.stop()
            return [delivery(station, {"temperature": 1}, 7)]

        def acknowledge(self, deliveries):
            order.append(("acknowledged", [d.packet_id for d in deliveries], station.messages.count()))

    monkeypatch.setattr(WeatherStation, "on_data", lambda *_: order.append(("told",)))
    with Worker(OneBatch()) as worker:
        worker.run()

    assert order == [("acknowledged", [7], 1), ("told",)]
