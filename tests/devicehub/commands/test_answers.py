"""Answers of devices to their commands."""

import uuid

import pytest

from devicehub.messages.message import Outcome
from devicehub.models import DeviceCommand
from devicehub.mqtt import Ack
from rig.command_queue import ACKNOWLEDGED, ANSWERED, reply, the_command

# --- Answers


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"ok": True, "result": {"a": [1]}}, ""),
        ({"ok": False, "error": "jammed"}, "jammed"),
        ({"ok": False, "error": {"code": 7}}, '{"code": 7}'),
        ({"ok": False, "error": [2**70]}, "[1180591620717411303424]"),
        ({"ok": False}, ""),
        ({"ok": False, "error": "x" * 1000}, "x" * 500),
    ],
)
def test_an_answer_is_kept_whole_with_its_error_in_words(said, station, document, error):
    said(Ack())
    document = {"id": station.device.send_command("reboot"), **document}

    assert reply(station, document) is Outcome.STORED

    command = the_command()
    assert (command.state, command.response, command.error) == (ANSWERED, document, error)
    assert (command.succeeded, command.due_at) == (document["ok"], None)


def test_a_second_answer_changes_nothing(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")
    reply(station, {"id": command_id, "ok": True, "result": 1})
    before = DeviceCommand.objects.values().get()

    reply(station, {"id": command_id, "ok": False, "error": "no"})

    assert DeviceCommand.objects.values().get() == before


def test_nobody_answers_another_devices_command(said, station, neighbour):
    said(Ack())
    command_id = station.device.send_command("reboot")
    before = DeviceCommand.objects.values().get()

    assert reply(neighbour, {"id": command_id, "ok": True}) is Outcome.STORED
    assert reply(neighbour, {"ok": True}, correlation_id=command_id) is Outcome.STORED

    assert DeviceCommand.objects.values().get() == before


def test_the_correlation_data_stands_for_a_missing_id(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"ok": True}, correlation_id=command_id) is Outcome.STORED

    assert the_command().state == ANSWERED
    assert the_command().response == {"ok": True, "id": command_id}


@pytest.mark.parametrize("own", [17, "17", "", True, {"n": 1}, "x" * 40])
def test_the_correlation_data_stands_for_an_id_that_is_no_commands(said, station, own):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": own, "ok": True}, correlation_id=command_id) is Outcome.STORED

    assert the_command().state == ANSWERED
    assert the_command().response == {"ok": True, "id": command_id}


def test_correlation_data_that_is_no_commands_changes_no_id(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": 17, "ok": True}, correlation_id="mine") is Outcome.STORED
    assert the_command().state == ACKNOWLEDGED
    reply(station, {"id": command_id, "ok": True}, correlation_id="mine")

    assert the_command().state == ANSWERED


def test_the_id_in_the_payload_goes_before_the_correlation_data(said, station):
    said(Ack())
    command_id = station.device.send_command("reboot")

    reply(station, {"id": str(uuid.UUID(int=1)), "ok": True}, correlation_id=command_id)

    assert the_command().state == ACKNOWLEDGED


@pytest.mark.parametrize(
    "document", [{}, {"ok": 1}, {"ok": "true"}, {"ok": None}, {"ok": True, "result": "x" * 70_000}]
)
def test_what_is_no_answer_answers_nothing(said, station, document):
    said(Ack())
    command_id = station.device.send_command("reboot")

    assert reply(station, {"id": command_id, **document}) is Outcome.FAILED

    assert the_command().state == ACKNOWLEDGED
