"""A device type that extends another: what it inherits, adds, overrides and removes."""

import pytest
from django.core.exceptions import ValidationError

from devicehub import Command, DeviceType, Reading, StateField, reading_types
from rig.fields import clean_fields, column, names

# Inheritance


class Sensor(DeviceType):
    temperature = Reading(type=reading_types.FLOAT, range=(-40, 80))
    humidity = Reading(type=reading_types.FLOAT)
    mode = StateField(type="string", default="auto")
    reboot = Command()

    class Meta:
        heartbeat_interval = 900


def test_a_subtype_inherits_all_and_adds(declared):
    class GreenhouseSensor(Sensor):
        light = Reading(type=reading_types.INTEGER)

    device, reading, _ = declared(GreenhouseSensor)

    assert names(reading) == {"temperature", "humidity", "light"}
    assert device().mode == "auto"


def test_what_a_subtype_adds_its_base_does_not_get(declared):
    class GreenhouseSensor(Sensor):
        light = Reading(type=reading_types.INTEGER)
        shade = StateField(type="boolean", default=False)

    device, reading, _ = declared(Sensor)

    assert names(reading) == {"temperature", "humidity"}
    assert "shade" not in {f.name for f in device._meta.fields}


def test_a_subtype_overrides_a_reading(declared):
    class Oven(Sensor):
        temperature = Reading(type=reading_types.FLOAT, range=(0, 1200))

    _, base_reading, _ = declared(Sensor)
    _, reading, _ = declared(Oven)

    clean_fields(reading(temperature=1000), "temperature")
    with pytest.raises(ValidationError):
        clean_fields(base_reading(temperature=1000), "temperature")


def test_a_subtype_removes_a_reading(declared):
    class DrySensor(Sensor):
        humidity = None

    _, reading, _ = declared(DrySensor)

    assert names(reading) == {"temperature"}


def test_what_was_removed_stays_removed_further_down(declared):
    class DrySensor(Sensor):
        humidity = None

    class DrierSensor(DrySensor):
        pass

    _, reading, _ = declared(DrierSensor)

    assert names(reading) == {"temperature"}


def test_a_subtype_removes_a_command(declared, sent):
    class Stubborn(Sensor):
        reboot = None

    device, _, _ = declared(Stubborn)

    with pytest.raises(ValueError, match="reboot"):
        device(device_id="S-1").send_command("reboot")


def test_a_subtype_turns_a_reading_into_a_state(declared):
    class SlowSensor(Sensor):
        humidity = StateField(type="float", default=50.0)

    device, reading, _ = declared(SlowSensor)

    assert names(reading) == {"temperature"}
    assert device().humidity == 50.0


def test_a_subtype_has_the_commands_of_its_base(declared, sent):
    class GreenhouseSensor(Sensor):
        water = Command(payload={"seconds": int})

    device, _, _ = declared(GreenhouseSensor)
    device(device_id="S-1").send_command("reboot")
    device(device_id="S-1").send_command("water", {"seconds": 5})

    assert [call[1] for call in sent] == ["reboot", "water"]


def test_two_bases_are_joined(declared):
    class Lit(DeviceType):
        light = Reading(type=reading_types.INTEGER)

    class LitSensor(Sensor, Lit):
        pass

    _, reading, _ = declared(LitSensor)

    assert names(reading) == {"temperature", "humidity", "light"}


def test_the_first_base_wins(declared):
    class Other(DeviceType):
        temperature = Reading(type=reading_types.INTEGER)

    class Both(Sensor, Other):
        pass

    _, reading, _ = declared(Both)

    assert column(reading, "temperature").get_internal_type() == "FloatField"


def test_in_a_diamond_the_override_wins(declared):
    """As with Python's attributes: a base that only inherits does not undo what another one overrides."""

    class Plain(Sensor):
        pass

    class Counting(Sensor):
        temperature = Reading(type=reading_types.INTEGER)

    class Both(Plain, Counting):
        pass

    _, reading, _ = declared(Both)

    assert column(reading, "temperature").get_internal_type() == "BigIntegerField"


def test_meta_is_inherited():
    class Quiet(Sensor):
        pass

    assert Quiet.get_meta()["heartbeat_interval"] == 900


def test_meta_can_extend_the_base_meta():
    class Quiet(Sensor):
        class Meta(Sensor.Meta):
            client_id = "any"

    assert (Quiet.get_meta()["heartbeat_interval"], Quiet.get_meta()["client_id"]) == (900, "any")


def test_meta_of_a_subtype_leaves_the_base_alone():
    class Quiet(Sensor):
        class Meta:
            heartbeat_interval = 30

    assert (Quiet.get_meta()["heartbeat_interval"], Sensor.get_meta()["heartbeat_interval"]) == (30, 900)


def test_base_and_subtype_both_have_models(declared):
    class GreenhouseSensor(Sensor):
        pass

    base, _, _ = declared(Sensor)
    device, _, _ = declared(GreenhouseSensor)

    assert not issubclass(device, base)
    assert base._meta.db_table != device._meta.db_table
