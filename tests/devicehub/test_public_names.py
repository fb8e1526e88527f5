"""The documented names: the package, the bases, the enumerations, the signals and the hooks."""

import inspect

import pytest
from django.dispatch import Signal

import devicehub
from devicehub import DeviceType, Reading, reading_types, signals
from devicehub.models import (
    BaseDevice,
    BaseMessage,
    BaseReading,
    DeviceStatus,
    ProcessingStatus,
)
from fleet.devices import WeatherStation
from rig.fields import names

# The public names


def test_public_names_can_be_imported_from_the_package():
    assert {"DeviceType", "Reading", "Command", "StateField", "reading_types"} <= set(vars(devicehub))


@pytest.mark.parametrize("name", ["float", "integer", "boolean", "string", "json", "binary"])
def test_a_reading_type_is_a_constant_equal_to_its_name(name):
    assert getattr(reading_types, name.upper()) == name


@pytest.mark.parametrize("base", [BaseDevice, BaseReading, BaseMessage])
def test_bases_are_abstract(base):
    assert base._meta.abstract


def test_device_states():
    assert set(DeviceStatus.values) == {
        "online",
        "offline",
        "error",
        "maintenance",
        "low_battery",
        "provisioning",
    }


def test_processing_states():
    assert set(ProcessingStatus.values) == {"pending", "processing", "completed", "failed"}


# Signals and hooks


@pytest.mark.parametrize(
    "name",
    [
        "device_data_received",
        "device_status_changed",
        "device_connected",
        "device_disconnected",
        "device_command_sent",
        "device_provisioned",
    ],
)
def test_signal_exists(name):
    assert isinstance(getattr(signals, name), Signal)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("on_data", ["device", "readings"]),
        ("on_status_change", ["device", "old_status", "new_status"]),
        ("on_connect", ["device"]),
        ("on_disconnect", ["device"]),
        ("on_command_response", ["device", "command", "response"]),
    ],
)
def test_hook_exists_and_does_nothing(name, arguments):
    hook = getattr(WeatherStation(), name)

    assert list(inspect.signature(hook).parameters) == arguments
    assert hook(*arguments) is None


def test_a_hook_is_no_declaration(declared):
    class Chatty(DeviceType):
        value = Reading(type=reading_types.FLOAT)

        def on_data(self, device, readings):
            return readings

    _, reading, _ = declared(Chatty)

    assert names(reading) == {"value"}
