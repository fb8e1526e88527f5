"""Commands that cannot be delivered: disabled and deleted devices, and types that changed."""

import pytest

from devicehub import commands
from devicehub.models import CommandState, DeviceCommand
from devicehub.mqtt import Ack
from fleet.models import WeatherStationDevice
from rig.command_queue import ANSWERED, CANCELLED, EXPIRED, FAILED, QUEUED, queue, the_command


def test_a_disabled_device_gets_no_command(said, station, notified):
    said(Ack())
    station.device.is_active = False

    with pytest.raises(commands.CommandNotSent, match="weatherstation/STATION-001 is disabled"):
        station.device.send_command("reboot")

    assert not DeviceCommand.objects.exists()


@pytest.mark.parametrize("key", ["weatherstation/STATION-001", "weatherstation/GONE", "gone/STATION-001"])
def test_a_command_without_a_device_to_receive_it_fails(said, station, notified, key):
    said(Ack())
    WeatherStationDevice.objects.update(is_active=False)
    DeviceCommand.objects.create(device_key=key, name="reboot")

    assert commands.send_due() == 0

    assert (the_command().state, notified) == (FAILED, [])
    assert the_command().error in (
        "weatherstation/STATION-001 is disabled",
        "there is no weatherstation/GONE any more",
        "there is no device type 'gone' any more",
    )


def test_a_command_that_its_type_lost_fails_and_harms_no_other(said, station):
    said(Ack())
    queue(station, "explode")
    queue(station)

    assert commands.send_due() == 1

    assert (
        DeviceCommand.objects.get(name="explode").error == "WeatherStation has no command 'explode' any more"
    )


def test_a_deleted_devices_open_commands_go_and_its_history_stays(station, neighbour):
    for state in CommandState:
        queue(station, state=state)
    queue(neighbour)

    WeatherStationDevice.objects.filter(device_id="STATION-001").delete()

    left = DeviceCommand.objects.values_list("device_key", "state")
    assert sorted(left) == [
        ("weatherstation/STATION-001", state) for state in sorted([ANSWERED, FAILED, EXPIRED, CANCELLED])
    ] + [("weatherstation/STATION-002", QUEUED)]
