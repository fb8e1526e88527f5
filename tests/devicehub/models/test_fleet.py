"""The device types of this project's own fleet."""

import pytest

from devicehub.kinds.registry import registry
from devicehub.models import BaseDevice
from fleet.models import WeatherStationReading
from rig.fields import column

# The project's own fleet


@pytest.mark.parametrize(
    ("name", "unit", "bounds"),
    [("temperature", "Cel", (-40, 80)), ("humidity", "%RH", (0, 100)), ("rainfall", "mm", None)],
)
def test_the_weather_station_measures(name, unit, bounds):
    field = column(WeatherStationReading, name)
    limits = tuple(v.limit_value for v in field.validators) or None

    assert field.get_internal_type() == "FloatField"
    assert field.help_text == unit
    assert limits == bounds


@pytest.mark.parametrize(
    ("name", "payload"), [("reboot", None), ("reboot", {}), ("set_interval", {"interval": 60})]
)
def test_the_weather_station_understands(station, sent, name, payload):
    station.send_command(name, payload)

    assert [call[1] for call in sent] == [name]


@pytest.mark.parametrize("interval", ["60", True, 60.0])
def test_the_interval_is_an_integer(station, sent, interval):
    with pytest.raises(TypeError):
        station.send_command("set_interval", {"interval": interval})


def test_another_type_has_state_fields_with_choices():
    documented = {f.name for f in BaseDevice._meta.get_fields()}
    states = [
        field
        for kind in registry
        if kind.device_model._meta.app_label == "fleet"
        for field in kind.device_model._meta.local_concrete_fields
        if field.choices and field.name not in documented
    ]

    assert states
