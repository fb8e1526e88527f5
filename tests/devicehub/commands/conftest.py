"""Brokers that commands go to, devices that receive them, and a record of what was signalled."""

from contextlib import ExitStack

import pytest

from devicehub import commands, mqtt, signals
from rig import servers
from rig.command_queue import Device, running_mosquitto
from rig.memory_broker import MemoryBroker


@pytest.fixture(autouse=True)
def nobody_is_away():
    yield
    commands.close()


@pytest.fixture
def broker(tmp_path, needs_real, settings):
    """The port of a mosquitto that commands go to."""
    with running_mosquitto(tmp_path / "mosquitto", needs_real) as port:
        settings.MQTT_URL = f"mqtt://hub@127.0.0.1:{port}"
        yield port


@pytest.fixture
def no_broker(settings):
    settings.MQTT_URL = f"mqtt://hub:s3cret@127.0.0.1:{servers.free_port()}"


@pytest.fixture
def arrive():
    """Let a device connect and subscribe to its commands."""
    with ExitStack() as stack:

        def one(port, who, session=""):
            device = Device(port, who, session)
            stack.callback(device.close)
            return device

        yield one


@pytest.fixture
def memory_broker(monkeypatch):
    """The broker that commands go to, in this process."""
    broker = MemoryBroker()
    monkeypatch.setattr(mqtt, "Connection", broker.connect)
    return broker


@pytest.fixture
def said(memory_broker):
    """Set what the broker says: `said(Ack(0x10, ...))`."""

    def say(answer):
        memory_broker.reply = answer

    return say


@pytest.fixture
def told():
    """The commands of which device_command_sent was sent."""
    names = []

    def listen(command, **_):
        names.append(command)

    signals.device_command_sent.connect(listen)
    yield names
    signals.device_command_sent.disconnect(listen)


@pytest.fixture
def url(broker, monkeypatch):
    """For processes of their own."""
    monkeypatch.setenv("MQTT_URL", f"mqtt://hub@127.0.0.1:{broker}")
    monkeypatch.setenv("DEVICEHUB_MQTT_VERSION", "5")
