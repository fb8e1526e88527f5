"""Hooks and signals of presence come after the commit, and a failing receiver does not stop the others."""

import pytest
from django.utils import timezone

from devicehub import provisioning, signals
from devicehub.ingest.pipeline import pipeline
from devicehub.models import DeviceCommand
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice, WeatherStationReading
from rig.messages import NOW
from rig.presence import HOUR, OFFLINE, READING, Clock, said, send, silent
from rig.threads import in_a_thread

HOOKS = ("on_data", "on_status_change", "on_connect", "on_disconnect", "on_command_response")
PRESENCE = ("data_received", "status_changed", "connected", "disconnected", "command_sent", "provisioned")


# --- Hooks and signals


@pytest.fixture
def witnessed(transactional_db, monkeypatch):
    """Yield the calls of hooks and receivers, each with the row that another connection read at that moment."""
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
    """Each of them reads it through another connection."""
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


def test_the_watch_notifies_after_its_commit(witnessed):
    silent()
    one = Clock()
    one.watch._heard_for = lambda: 1e9
    one.run()

    assert witnessed == [
        (name, [(False, "offline")], 0, 0)
        for name in ("on_disconnect", "disconnected", "on_status_change", "status_changed")
    ]


def test_a_receiver_that_fails_does_not_stop_the_others(transactional_db, monkeypatch, published):
    """The signal may come from ingest, the watch for silent devices, a command or provisioning."""
    notifications = []

    def broken(**_):
        raise ZeroDivisionError

    receivers = []
    for name in PRESENCE:
        signal = getattr(signals, f"device_{name}")
        receivers += [(signal, broken), (signal, lambda name=name, **_: notifications.append(name))]
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
        one.watch._heard_for = lambda: 1e9
        assert one.run() == 1
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)

    assert notifications == [
        *("provisioned", "command_sent", "data_received", "connected", "status_changed"),
        *("disconnected", "status_changed"),
    ]
    assert DeviceCommand.objects.get().answered_at is not None
