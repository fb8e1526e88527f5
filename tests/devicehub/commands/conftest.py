"""Brokers that commands go to, devices that receive them, and a record of the sent signals."""

from contextlib import ExitStack

import pytest

from devicehub import mqtt, signals
from rig import servers
from rig.command_queue import Device, running_mosquitto
from rig.memory_broker import MemoryBroker


@pytest.fixture
def broker(tmp_path, needs_real, settings):
    """Run a mosquitto that commands go to; return its port."""
    with running_mosquitto(tmp_path / "mosquitto", needs_real) as port:
        settings.MQTT_URL = f"mqtt://hub@127.0.0.1:{port}"
        yield port


@pytest.fixture
def no_broker(settings):
    """Let MQTT_URL lead to a port on which no broker listens."""
    settings.MQTT_URL = f"mqtt://hub:s3cret@127.0.0.1:{servers.free_port()}"


@pytest.fixture
def arrive():
    """Return a function that lets a device connect and subscribe to its commands."""
    with ExitStack() as stack:

        def one(port, who, session=""):
            device = Device(port, who, session)
            stack.callback(device.close)
            return device

        yield one


@pytest.fixture
def memory_broker(monkeypatch):
    """Let commands go to a broker in this process; return it."""
    broker = MemoryBroker()
    monkeypatch.setattr(mqtt, "Connection", broker.connect)
    return broker


@pytest.fixture
def said(memory_broker):
    """Return a function that sets the ack of the broker: `said(Ack(0x10, ...))`."""

    def say(answer):
        memory_broker.reply = answer

    return say


@pytest.fixture
def notified():
    """Record the commands for which device_command_sent was sent; return the list of their names."""
    names = []

    def listen(command, **_):
        names.append(command)

    signals.device_command_sent.connect(listen)
    yield names
    signals.device_command_sent.disconnect(listen)


@pytest.fixture
def url(broker, monkeypatch):
    """Set the environment variables with which other processes reach the broker."""
    monkeypatch.setenv("MQTT_URL", f"mqtt://hub@127.0.0.1:{broker}")
    monkeypatch.setenv("DEVICEHUB_MQTT_VERSION", "5")
