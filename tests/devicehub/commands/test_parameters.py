"""Parameters of commands: refused alike everywhere, and kept exactly."""

import pytest

from devicehub import commands
from devicehub.kinds.declare import InvalidCommand
from devicehub.models import DeviceCommand
from fleet.devices import WeatherStation
from rig.command_queue import QUEUED, the_command

pytestmark = pytest.mark.sqlite_first

# --- Parameters


@pytest.mark.parametrize("text", ["a\x00b", "\x00"])
def test_a_nul_is_refused_alike_everywhere(station, text, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": dict})

    with pytest.raises(ValueError, match="NUL"):
        station.device.send_command("set_interval", {"interval": {"x": [text]}})
    with pytest.raises(TypeError):
        station.device.send_command("set_interval", {"interval": {"x": "\ud800"}})

    assert not DeviceCommand.objects.exists()


@pytest.mark.parametrize("value", [1e16, -1e16, 1.7e308])
def test_a_float_that_comes_back_as_an_integer_is_refused_alike_everywhere(station, value, monkeypatch):
    command = WeatherStation._commands["set_interval"]
    monkeypatch.setattr(command, "payload", {"interval": float})
    with pytest.raises(ValueError, match="of 1e16 and more, which not every database keeps unchanged"):
        station.device.send_command("set_interval", {"interval": value})

    monkeypatch.setattr(command, "payload", {"interval": list})
    with pytest.raises(ValueError, match="of 1e16 and more"):
        station.device.send_command("set_interval", {"interval": [{"x": value}]})

    assert not DeviceCommand.objects.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "wrapped", [lambda x: [x], lambda x: [{"a": [1, (x,)]}]], ids=["in a list", "deep inside"]
)
def test_what_is_not_finite_is_refused_however_deep_it_is(station, value, wrapped, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": list})

    with pytest.raises(ValueError, match="holds NaN or an infinite number"):
        station.device.send_command("set_interval", {"interval": wrapped(value)})

    assert not DeviceCommand.objects.exists()


def test_a_payload_has_at_most_256_kib(no_broker, station, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": str})
    frame = len('{"interval":""}')

    with pytest.raises(ValueError, match="The payload has 262145 bytes; at most 262144 are allowed"):
        station.device.send_command("set_interval", {"interval": "x" * (262_145 - frame)})
    assert not DeviceCommand.objects.exists()

    station.device.send_command("set_interval", {"interval": "x" * (262_144 - frame)})
    assert the_command().state == QUEUED


def test_parameters_are_kept_exactly(no_broker, station, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["set_interval"], "payload", {"interval": list})
    values = [9999999999999998.0, -0.5, 1.0, 5e-324, 2**64 - 1, -(2**63), True, None, "\ufffd", [], {}]

    station.device.send_command("set_interval", {"interval": values})

    kept = the_command().payload["interval"]
    assert [repr(value) for value in kept] == [repr(value) for value in values]


def test_send_checks_what_send_command_checks(station):
    with pytest.raises(ValueError, match="no command 'explode'"):
        commands.send(station.device, "explode")
    with pytest.raises(TypeError):
        commands.send(station.device, "set_interval", {"interval": "60"})
    with pytest.raises(ValueError, match="no broker 'other'"):
        commands.send(station.device, "reboot", None, "other")


@pytest.mark.parametrize(
    ("name", "payload", "field"),
    [
        ("fly", {}, "name"),
        ("set_interval", {}, "payload.interval"),
        ("set_interval", {"interval": 1, "unit": "s"}, "payload.unit"),
        ("set_interval", {"interval": "1"}, "payload.interval"),
        ("set_interval", [], "payload"),
    ],
)
def test_a_refusal_names_the_value_at_fault(station, name, payload, field):
    with pytest.raises(InvalidCommand) as refused:
        station.device.check_command(name, payload)

    assert refused.value.field == field
