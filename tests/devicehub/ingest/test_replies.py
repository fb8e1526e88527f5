"""Replies to commands: the hook is called once for the right one, and no device answers for another."""

import uuid

import pytest

from devicehub.ingest.pipeline import pipeline
from devicehub.models import DeviceCommand, QuarantinedMessage
from fleet.models import WeatherStationDevice
from rig.messages import FAILED, NOW, STORED, fresh, message, message_row, send

pytestmark = pytest.mark.sqlite_first

# --- Replies


@pytest.fixture
def command(station):
    return DeviceCommand.objects.create(device_key="weatherstation/STATION-001", name="reboot")


def replies(heard):
    return [entry[2:] for entry in heard if entry[1] == "on_command_response"]


@pytest.mark.parametrize(
    "more", [{"ok": True, "result": [1]}, {"ok": False, "error": "jammed"}, {"ok": True}]
)
def test_a_reply_reaches_the_hook_once(station, command, heard, more):
    reply = {"id": str(command.id), **more}

    assert send(station, reply, "reply") is STORED
    assert send(station, reply, "reply") is STORED

    assert replies(heard) == [("STATION-001", "reboot", reply)]
    command.refresh_from_db()
    assert command.response == reply
    assert command.answered_at is not None


def test_of_two_replies_in_one_batch_the_first_counts(station, command, heard):
    first, second = ({"id": str(command.id), "ok": True, "result": n} for n in (1, 2))

    pipeline([message(station, first, "reply"), message(station, second, "reply")])

    assert replies(heard) == [("STATION-001", "reboot", first)]
    command.refresh_from_db()
    assert command.response == first


def test_nobody_answers_for_another_device(station, neighbour, command, heard):
    assert send(neighbour, {"id": str(command.id), "ok": True}, "reply") is STORED

    assert replies(heard) == []
    command.refresh_from_db()
    assert command.answered_at is None


@pytest.mark.parametrize(
    "command_id", ["", "x", 5, None, [1], {}, True, str(uuid.UUID(int=0)), "\0", "x" * 10_000], ids=repr
)
def test_a_reply_to_no_command_is_kept_and_notifies_no_listener(station, command, heard, command_id):
    assert send(station, {"id": command_id, "ok": True}, "reply") is STORED

    assert replies(heard) == []
    assert message_row(station).outcome == "stored"
    assert fresh(station).last_seen == NOW


@pytest.mark.parametrize("payload", [b"ok", b"", [], "ok", 5, None, {}, {"ok": True}, {"id": "1"}], ids=repr)
def test_a_payload_that_is_not_a_reply_is_quarantined(station, heard, payload):
    assert send(station, payload, "reply") is FAILED
    assert replies(heard) == []
    assert QuarantinedMessage.objects.get().reason in ("not_json", "not_a_reading")


def test_a_reply_with_a_nul_answers_its_command(transactional_db, heard):
    """PostgreSQL cannot store a NUL in JSON; the command is answered all the same."""
    station = WeatherStationDevice.objects.create(device_id="STATION-001")
    command = DeviceCommand.objects.create(device_key="weatherstation/STATION-001", name="reboot")

    assert send(station, {"id": str(command.id), "ok": True, "result": "a\0b"}, "reply") is STORED

    command.refresh_from_db()
    assert command.answered_at is not None
    assert len(replies(heard)) == 1
