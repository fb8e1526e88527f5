"""`send_command()`: its parameters, and its call of the sender."""

import json
import re

import pytest

from devicehub import Command, DeviceType, signals
from devicehub.models import BaseDevice
from fleet.devices import WeatherStation

# Commands


@pytest.fixture
def robot(declared, sent):
    """Return a device with a command for every type of parameter; its commands are recorded in `sent`."""

    class Robot(DeviceType):
        stop = Command(description="Stop now")
        count = Command(payload={"value": int})
        turn = Command(payload={"value": float}, qos=2)
        say = Command(payload={"value": str})
        light = Command(payload={"value": bool})
        plan = Command(payload={"value": dict})
        visit = Command(payload={"value": list})
        move = Command(payload={"x": int, "y": int})

    device, _, _ = declared(Robot)
    return device(device_id="ROBOT-1")


GOOD_VALUES = [
    ("count", 60),
    ("count", -1),
    ("count", 0),
    ("turn", 1.5),
    ("turn", 2),
    ("say", "hello"),
    ("say", ""),
    ("light", True),
    ("light", False),
    ("plan", {"a": 1}),
    ("plan", {}),
    ("visit", [1, 2]),
    ("visit", []),
]
BAD_VALUES = [
    ("count", True),
    ("count", False),
    ("count", "60"),
    ("count", 60.0),
    ("count", None),
    ("count", [60]),
    ("turn", True),
    ("turn", "1.5"),
    ("turn", None),
    ("say", 5),
    ("say", b"hello"),
    ("say", None),
    ("say", ["hello"]),
    ("light", 1),
    ("light", 0),
    ("light", "true"),
    ("light", None),
    ("plan", []),
    ("plan", "{}"),
    ("visit", {}),
    ("visit", "abc"),
]


@pytest.mark.parametrize(("name", "value"), GOOD_VALUES, ids=repr)
def test_a_fitting_parameter_is_sent(robot, sent, name, value):
    robot.send_command(name, {"value": value})

    assert sent == [(robot, name, {"value": value}, "default")]


@pytest.mark.parametrize(("name", "value"), BAD_VALUES, ids=repr)
def test_a_parameter_of_a_wrong_type_is_a_type_error(robot, sent, name, value):
    with pytest.raises(TypeError, match="value"):
        robot.send_command(name, {"value": value})
    assert not sent


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("count", None),
        ("count", {}),
        ("move", {"x": 1}),
        ("count", {"value": 1, "unit": "s"}),
        ("count", {"Value": 1}),
        ("move", {"x": 1, "y": 2, "z": 3}),
        ("stop", {"now": True}),
    ],
)
def test_a_missing_or_unknown_parameter_is_a_value_error(robot, sent, name, payload):
    with pytest.raises(ValueError):
        robot.send_command(name, payload)
    assert not sent


@pytest.mark.parametrize(("name", "parameter"), [("y", {"x": 1}), ("z", {"x": 1, "y": 2, "z": 3})])
def test_the_error_names_the_parameter(robot, name, parameter):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        robot.send_command("move", parameter)


@pytest.mark.parametrize("payload", [[], "x", 5, [("value", 1)]])
def test_a_payload_that_is_no_mapping_is_refused(robot, sent, payload):
    with pytest.raises((TypeError, ValueError)):
        robot.send_command("count", payload)
    assert not sent


@pytest.mark.parametrize("name", ["explode", "", "Stop", "STOP", "__init__", "on_data"])
def test_an_unknown_command_is_a_value_error(robot, sent, name):
    with pytest.raises(ValueError):
        robot.send_command(name)
    assert not sent


def test_a_reading_is_no_command(station, sent):
    with pytest.raises(ValueError):
        station.send_command("temperature")
    assert not sent


@pytest.mark.parametrize("payload", [None, {}])
def test_a_command_without_parameters_needs_no_payload(robot, sent, payload):
    robot.send_command("stop", payload)

    assert [call[1] for call in sent] == ["stop"]


def test_a_broker_can_be_named(robot, sent):
    robot.send_command("stop", broker_name="default")

    assert sent[0][3] == "default"


def test_a_device_without_device_type_has_no_commands(declared, sent):
    class HandMadeDevice(BaseDevice):
        class Meta(BaseDevice.Meta):
            app_label = "fleet"

    with pytest.raises(ValueError):
        HandMadeDevice(device_id="HAND-1").send_command("reboot")
    assert not sent


@pytest.mark.parametrize("kind", [bytes, None, "int", object, set])
def test_a_parameter_type_that_json_has_not_is_refused(kind):
    with pytest.raises((TypeError, ValueError)):
        Command(payload={"value": kind})


@pytest.mark.django_db(transaction=True)
def test_a_command_goes_to_the_devices_own_topic(stored, published):
    stored.send_command("set_interval", {"interval": 60})

    assert [m.topic for m in published] == ["things/weatherstation/STATION-001/cmd"]


@pytest.mark.django_db(transaction=True)
def test_a_command_on_the_wire_is_json_with_an_id(stored, published):
    stored.send_command("set_interval", {"interval": 60})
    document = json.loads(published[0].payload)

    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", document.pop("id"))
    assert document == {"command": "set_interval", "payload": {"interval": 60}}


@pytest.mark.django_db(transaction=True)
def test_a_command_follows_the_topic_prefix(settings, stored, published):
    settings.DEVICEHUB_TOPIC_PREFIX = "plant"
    stored.send_command("reboot")

    assert published[0].topic == "plant/weatherstation/STATION-001/cmd"


@pytest.mark.django_db(transaction=True)
def test_a_sent_command_is_signalled_without_credentials(stored, published):
    received = []
    stored.generate_credentials()

    def listener(sender, **arguments):
        received.append((sender, arguments))

    signals.device_command_sent.connect(listener)
    try:
        stored.send_command("set_interval", {"interval": 60})
    finally:
        signals.device_command_sent.disconnect(listener)
    ((sender, arguments),) = received
    arguments.pop("signal")

    assert sender is WeatherStation
    assert arguments == {"device": stored, "command": "set_interval", "payload": {"interval": 60}}


def test_a_refused_command_is_not_signalled(stored, published):
    received = []

    def listener(**arguments):
        received.append(arguments)

    signals.device_command_sent.connect(listener)
    try:
        with pytest.raises(ValueError):
            stored.send_command("explode")
    finally:
        signals.device_command_sent.disconnect(listener)

    assert not received
    assert not published
