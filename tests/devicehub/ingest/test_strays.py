"""Messages without a device, of a disabled one, or on foreign topics, and the device that a message belongs to."""

import uuid

import pytest

from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice
from rig.messages import FAILED, NOW, PARTIAL, fresh, message_row, readings, send
from rig.payloads import UNKNOWN_TOPICS

pytestmark = pytest.mark.sqlite_first


@pytest.mark.parametrize("topic", UNKNOWN_TOPICS, ids=lambda topic: ascii(topic)[:50])
def test_a_message_on_no_topic_of_ours_is_quarantined(station, topic):
    assert pipeline([Message(topic, b'{"temperature": 1}', NOW)]) == [FAILED]

    row = QuarantinedMessage.objects.get()
    assert (row.reason, row.device_key, bytes(row.payload)) == ("unknown_topic", "", b'{"temperature": 1}')
    assert readings(station) == []
    assert not station.messages.exists()


def test_a_message_of_an_unknown_device_is_quarantined(station):
    topic = "things/weatherstation/STRANGER/data"

    assert pipeline([Message(topic, b"\x00\xff", NOW, content_type="x/y")]) == [FAILED]

    row = QuarantinedMessage.objects.get()
    assert (row.reason, row.device_key, row.topic) == ("unknown_device", "weatherstation/STRANGER", topic)
    assert (bytes(row.payload), row.content_type, row.received_at) == (b"\x00\xff", "x/y", NOW)
    assert row.detail
    assert row.replayed_at is None


def test_a_device_id_is_exact_and_belongs_to_its_kind(station, valve):
    topics = [
        "things/weatherstation/station-001/data",
        "things/weatherstation/VALVE-001/data",
        "things/irrigationvalve/STATION-001/data",
    ]

    assert pipeline([Message(topic, b'{"temperature": 1}', NOW) for topic in topics]) == [FAILED] * 3

    assert {row.reason for row in QuarantinedMessage.objects.all()} == {"unknown_device"}


@pytest.mark.parametrize("about", ["data", "status", "reply", "cmd"])
def test_what_a_disabled_device_sends_is_kept_but_not_stored(station, heard, about):
    WeatherStationDevice.objects.update(is_active=False)

    assert send(station, {"temperature": 1, "status": "online", "id": "1"}, about) is FAILED

    assert readings(station) == []
    assert QuarantinedMessage.objects.get().reason == "disabled_device"
    assert message_row(station).outcome == "failed"
    assert (fresh(station).last_seen, fresh(station).status) == (None, "offline")
    assert heard == []


@pytest.mark.parametrize(
    "payload", [{"id": str(uuid.uuid4()), "command": "reboot", "payload": {}}, b"reboot"]
)
def test_a_message_on_a_command_topic_is_nothing_that_a_device_says(station, payload):
    assert send(station, payload, "cmd") is FAILED

    assert QuarantinedMessage.objects.get().reason == "unknown_topic"
    assert message_row(station).outcome == "failed"


def test_the_topic_alone_identifies_the_device(station, neighbour):
    assert send(station, {"temperature": 1, "device_id": "STATION-002", "device": neighbour.pk}) is PARTIAL

    assert len(readings(station)) == 1
    assert readings(neighbour) == []
