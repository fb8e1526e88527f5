"""Commands through a real broker: acknowledged, in order, and sent when an absent device is back."""

import json
from datetime import timedelta

import pytest
from django.utils import timezone as clock

from devicehub import commands, mqtt
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import DeviceCommand
from devicehub.mqtt import Ack, Connection
from rig import servers
from rig.command_queue import ACKNOWLEDGED, MINUTE, QUEUED, queue, running_mosquitto, the_command
from rig.hub import eventually

pytestmark = pytest.mark.servers

# --- With a broker


def test_the_brokers_ack_makes_it_acknowledged(broker, station, arrive, notified):
    device = arrive(broker, station)

    command_id = station.device.send_command("set_interval", {"interval": 60})

    command = the_command()
    assert (str(command.id), command.state, command.attempts, command.error) == (
        command_id,
        ACKNOWLEDGED,
        1,
        "",
    )
    assert (
        command.queued_at <= command.sent_at <= command.acknowledged_at < command.deadline == command.due_at
    )
    assert eventually(lambda: device.ids() == [command_id])
    assert notified == ["set_interval"]
    commands.send_due()
    assert notified == ["set_interval"]


def test_mqtt_5_says_whose_answer_it_wants_where_and_until_when(broker, station, arrive):
    device = arrive(broker, station)

    command_id = commands.send(station.device, "reboot", deadline=timedelta(minutes=2))

    assert eventually(lambda: device.received)
    properties = device.received[0].properties
    assert properties.CorrelationData == command_id.encode()
    assert properties.ResponseTopic == station.topic("reply")
    assert 110 <= properties.MessageExpiryInterval <= 120


def test_a_device_that_is_away_gets_its_command_when_it_is_back(broker, station, neighbour, arrive, notified):
    """Mosquitto acknowledges the message with "no matching subscribers", so it is not delivered."""
    arrive(broker, neighbour)
    command_id = station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, notified) == (QUEUED, None, [])
    assert (
        command.error == "there is no subscriber to things/weatherstation/STATION-001/cmd: the device is away"
    )
    device = arrive(broker, station)
    assert eventually(commands.send_due) == 1

    assert eventually(lambda: device.ids() == [command_id])
    assert the_command().state == ACKNOWLEDGED
    assert (the_command().attempts, the_command().error, notified) == (2, "", ["reboot"])


def test_a_status_of_the_device_brings_the_next_attempt_forward(broker, station, neighbour, arrive):
    for who in (station, neighbour):
        who.device.send_command("reboot")
    DeviceCommand.objects.update(due_at=clock.now() + MINUTE)
    arrive(broker, station)

    pipeline([Message(station.topic("status"), b'{"status": "online"}', clock.now())])

    assert commands.send_due() == 1
    key = "weatherstation/STATION-001"
    assert DeviceCommand.objects.get(state=ACKNOWLEDGED).device_key == key


def test_what_waited_for_the_device_is_sent_in_the_order_in_which_it_was_queued(said, station):
    sent = []
    said(lambda message: sent.append(json.loads(message.payload)["payload"]["interval"]) or Ack())
    now, later = clock.now(), clock.now() + MINUTE
    for place in (3, 1, 4, 2, 5):
        at = now + timedelta(milliseconds=place)
        queue(station, "set_interval", payload={"interval": place}, queued_at=at, due_at=later)

    pipeline([Message(station.topic("status"), b'{"status": "online"}', clock.now())])
    commands.send_due()

    assert sent == [1, 2, 3, 4, 5]


def test_the_connection_stays_open_while_there_is_work(broker, station, arrive, monkeypatch):
    opened = []
    monkeypatch.setattr(mqtt, "Connection", lambda *a, **k: opened.append(Connection(*a, **k)) or opened[-1])
    arrive(broker, station)
    for _ in range(3):
        queue(station)

    assert commands.send_due() == 3
    queue(station)
    assert commands.send_due() == 1
    station.device.send_command("reboot")

    assert (len(opened), opened[0].connected) == (1, True)
    monkeypatch.setattr("devicehub.commands.sender.IDLE", 0)
    commands.send_due()
    assert not opened[0].connected


def test_a_broker_that_goes_away_between_two_commands_is_noticed(
    station, arrive, tmp_path, needs_real, settings
):
    with running_mosquitto(tmp_path / "mosquitto", needs_real) as port:
        settings.MQTT_URL = f"mqtt://127.0.0.1:{port}"
        arrive(port, station)
        queue(station)
        assert commands.send_due() == 1
    second = queue(station)

    assert eventually(lambda: not servers.accepts(port))
    assert commands.send_due() == 0

    second.refresh_from_db()
    assert (second.state, second.acknowledged_at) == (QUEUED, None)
    assert second.error


def test_the_broker_drops_what_an_absent_device_would_get_too_late(broker, station, arrive):
    """The device has a session, so the broker keeps the command for it: until the deadline (MQTT 5.0, 3.3.2.3.3)."""
    arrive(broker, station, session="station").close()
    commands.send(station.device, "reboot", deadline=timedelta(seconds=1))
    commands.send(station.device, "set_interval", {"interval": 5})
    assert {command.state for command in DeviceCommand.objects.all()} == {ACKNOWLEDGED}
    dropped = DeviceCommand.objects.get(name="reboot").deadline + timedelta(seconds=1)
    assert eventually(lambda: clock.now() > dropped)

    device = arrive(broker, station, session="station")

    assert eventually(lambda: device.received)
    assert [json.loads(message.payload)["command"] for message in device.received] == ["set_interval"]


def test_a_caller_leaves_no_connection_behind(broker, station, arrive, monkeypatch):
    opened = []
    monkeypatch.setattr(mqtt, "Connection", lambda *a, **k: opened.append(Connection(*a, **k)) or opened[-1])
    arrive(broker, station)

    station.device.send_command("reboot")

    assert [one.connected for one in opened] == [False]
