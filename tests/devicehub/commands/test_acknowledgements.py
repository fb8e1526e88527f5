"""The broker's acks of commands, and their consequences."""

import json

import pytest

from devicehub import commands, signals
from devicehub.messages.message import Outcome
from devicehub.models import DeviceCommand
from devicehub.mqtt import Ack, Unacknowledged
from fleet.devices import WeatherStation
from rig.command_queue import (
    ACKNOWLEDGED,
    ANSWERED,
    FAILED,
    QUEUED,
    SENT,
    make_due,
    queue,
    reply,
    the_command,
)

pytestmark = pytest.mark.sqlite_first


@pytest.mark.parametrize(
    ("code", "words", "state"),
    [
        (0x80, "Unspecified error", QUEUED),
        (0x83, "Implementation specific error", QUEUED),
        (0x87, "Not authorized", QUEUED),
        (0x90, "Topic name invalid", FAILED),
        (0x97, "Quota exceeded", QUEUED),
        (0x99, "Payload format invalid", FAILED),
    ],
)
def test_a_refusal_is_in_words_and_never_sent(said, station, notified, code, words, state):
    said(Ack(code, words))

    station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.sent_at, command.acknowledged_at, notified) == (state, None, None, [])
    assert f"{words} (0x{code:02x})" in command.error
    assert (command.due_at is None) == (state == FAILED) == (command.ended_at is not None)


def test_a_command_outlives_a_restart_of_the_authorization_service(said, station, notified):
    said(Ack(0x87, "Not authorized"))
    station.device.send_command("reboot")

    said(Ack())
    make_due()
    assert commands.send_due() == 1
    assert (the_command().state, the_command().error, notified) == (ACKNOWLEDGED, "", ["reboot"])


def test_without_an_ack_it_may_have_arrived_and_is_sent_again(said, station, notified):
    said(Unacknowledged("no ack"))
    station.device.send_command("reboot")
    command = the_command()
    assert (command.state, command.acknowledged_at, notified) == (SENT, None, [])
    assert command.error == "no ack; check that the account may publish there, at this size"
    assert command.sent_at is not None
    assert not commands.cancel(command)

    said(Ack())
    commands.close()
    make_due()
    assert commands.send_due() == 1
    assert (the_command().state, notified) == (ACKNOWLEDGED, ["reboot"])


def test_the_answer_to_what_was_not_acknowledged_counts(said, station):
    said(Unacknowledged("no ack"))
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": command_id, "ok": True}) is Outcome.STORED

    assert the_command().state == ANSWERED
    make_due()
    assert commands.send_due() == 0


def test_a_reply_may_be_quicker_than_the_ack(said, station, notified):
    def answered_first(message):
        reply(station, {"id": json.loads(message.payload)["id"], "ok": True, "result": 5})
        return Ack()

    said(answered_first)
    station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.result, command.due_at, notified) == (ANSWERED, 5, None, ["reboot"])
    assert command.acknowledged_at is not None


def test_a_command_of_qos_0_is_sent_and_never_acknowledged(said, station, notified, monkeypatch):
    monkeypatch.setattr(WeatherStation._commands["reboot"], "qos", 0)
    said(Ack())

    station.device.send_command("reboot")

    command = the_command()
    assert (command.state, command.acknowledged_at, notified) == (SENT, None, ["reboot"])
    assert command.due_at == command.deadline


def test_a_receiver_that_fails_changes_nothing(said, station):
    def broken(**_):
        raise ZeroDivisionError

    said(Ack())
    signals.device_command_sent.connect(broken)
    try:
        station.device.send_command("reboot")
    finally:
        signals.device_command_sent.disconnect(broken)

    assert the_command().state == ACKNOWLEDGED


def test_a_receiver_may_send_the_next_command(said, station):
    def go_on(device, command, **_):
        if command == "reboot":
            device.send_command("set_interval", {"interval": 5})

    said(Ack())
    signals.device_command_sent.connect(go_on)
    try:
        station.device.send_command("reboot")
        assert {command.state for command in DeviceCommand.objects.all()} == {ACKNOWLEDGED}
        queue(station)
        assert commands.send_due() == 1
    finally:
        signals.device_command_sent.disconnect(go_on)

    assert DeviceCommand.objects.filter(state=ACKNOWLEDGED).count() == 4


def test_an_enqueued_command_is_left_to_the_worker(memory_broker, station):
    command = commands.enqueue(station.device, "reboot")

    assert (memory_broker.messages, the_command()) == ([], command)
    assert commands.send_due() == 1
    assert the_command().state == ACKNOWLEDGED
