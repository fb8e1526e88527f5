"""Devices that send, one of them with a reading of each type, and a record of the calls of hooks and receivers."""

import pytest

from devicehub import DeviceType, Reading, StateField, reading_types, signals
from devicehub.kinds.registry import registry
from fleet.devices import IrrigationValve, WeatherStation
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.kinds import tables_of
from rig.presence import notifications as notifications
from rig.presence import station as station


@pytest.fixture
def neighbour(db):
    """Return a device that messages of `station` must not change."""
    return WeatherStationDevice.objects.create(device_id="STATION-002")


@pytest.fixture
def valve(db):
    return IrrigationValveDevice.objects.create(device_id="VALVE-001")


@pytest.fixture(scope="module")
def probe_kind(module_database):
    """Yield a kind with a reading of each type, in tables of its own."""

    class Probe(DeviceType):
        other = Reading(type=reading_types.FLOAT)
        amount = Reading(type=reading_types.FLOAT)
        count = Reading(type=reading_types.INTEGER)
        wet = Reading(type=reading_types.BOOLEAN)
        label = Reading(type=reading_types.STRING)
        extra = Reading(type=reading_types.JSON)
        raw = Reading(type=reading_types.BINARY)
        low = Reading(type=reading_types.INTEGER, range=(None, 10))

        layout = StateField(type="json", default={})
        depth = StateField(type="float")

    with tables_of(Probe, module_database) as kind:
        yield kind


@pytest.fixture
def probe(probe_kind, db):
    return probe_kind.device_model.objects.create(device_id="PROBE-001")


@pytest.fixture
def heard(monkeypatch):
    """Yield the calls of hooks and receivers in order, as ("hook" or "signal", name, device id, ...)."""
    notifications = []
    hooks = ("on_data", "on_status_change", "on_connect", "on_disconnect", "on_command_response")
    for device_type in (WeatherStation, IrrigationValve):
        for name in hooks:

            def hook(self, device, *arguments, name=name):
                notifications.append(("hook", name, device.device_id, *arguments))

            monkeypatch.setattr(device_type, name, hook)
    receivers = []
    for name in ("data_received", "status_changed", "connected", "disconnected"):

        def receiver(sender, signal, device, name=name, **arguments):
            assert sender is registry.of(device).device_type
            arguments.pop("message", None)
            notifications.append(("signal", name, device.device_id, *arguments.values()))

        signal = getattr(signals, f"device_{name}")
        signal.connect(receiver)
        receivers.append((signal, receiver))
    yield notifications
    for signal, receiver in receivers:
        signal.disconnect(receiver)
