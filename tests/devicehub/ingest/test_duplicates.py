"""A message that comes twice: replayed, retained, or the same by chance."""

import pytest

from devicehub.ingest.pipeline import pipeline
from devicehub.models import QuarantinedMessage
from rig.messages import (
    DUPLICATE,
    EARLIER,
    FAILED,
    HOUR,
    NOW,
    PARTIAL,
    RETAINED,
    STORED,
    fresh,
    iso,
    message,
    readings,
    row,
    send,
)

# --- Duplicates and retained messages


def test_a_message_with_a_device_time_is_stored_once(station, heard):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert [send(station, payload) for _ in range(3)] == [STORED, DUPLICATE, DUPLICATE]

    assert len(readings(station)) == 1
    assert station.messages.count() == 1
    assert not QuarantinedMessage.objects.exists()
    assert len([notified for notified in heard if notified[1] == "on_data"]) == 1


def test_a_message_with_a_device_time_is_stored_once_in_one_batch(station, heard):
    twice = message(station, {"temperature": 1, "timestamp": iso(EARLIER)})
    other = message(station, {"temperature": 2})

    assert pipeline([twice, other, twice, twice]) == [STORED, STORED, DUPLICATE, DUPLICATE]

    assert [reading["temperature"] for reading in readings(station)] == [1, 2]
    assert station.messages.count() == 2
    assert len([notified for notified in heard if notified[1] == "on_data"]) == 2


def test_equal_messages_without_a_usable_device_time_are_two(station):
    for payload in ({"temperature": 1}, {"temperature": 1, "timestamp": "garbage"}):
        twice = message(station, payload)
        assert DUPLICATE not in pipeline([twice, twice])
        assert DUPLICATE not in pipeline([twice])

    assert len(readings(station)) == 6


def test_the_key_of_a_message_belongs_to_its_device(station, neighbour):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert pipeline([message(station, payload), message(neighbour, payload)]) == [STORED, STORED]
    assert pipeline([message(station, payload), message(neighbour, payload)]) == [DUPLICATE, DUPLICATE]


def test_two_messages_of_one_time_are_two(station):
    assert send(station, {"temperature": 1, "timestamp": iso(EARLIER)}) is STORED
    assert send(station, {"temperature": 2, "timestamp": iso(EARLIER)}) is STORED


def test_a_status_of_the_same_bytes_as_data_is_news(station):
    """A device with a single document for all its values may publish it on both topics."""
    document = {"temperature": 1, "status": "error", "timestamp": iso(EARLIER)}
    data, status = message(station, document), message(station, document, "status")

    assert pipeline([data, status]) == [PARTIAL, PARTIAL]
    assert pipeline([data, status]) == [DUPLICATE, DUPLICATE]
    assert fresh(station).reported_status == "error"


def test_a_failed_message_is_no_duplicate_of_itself(station):
    """It had no content, so the second one is processed like the first."""
    bad = message(station, {"temperature": 999, "timestamp": iso(EARLIER)})

    assert pipeline([bad, bad]) == [FAILED, FAILED]
    assert pipeline([bad]) == [FAILED]
    assert QuarantinedMessage.objects.count() == 3


def test_a_replayed_status_changes_nothing(station, heard):
    old = {"status": "online", "battery_level": 90, "timestamp": iso(EARLIER)}
    send(station, old, "status")
    send(station, {"status": "offline", "battery_level": 5}, "status")
    before = fresh(station)
    heard.clear()

    assert send(station, old, "status", at=NOW + HOUR) is DUPLICATE

    after = fresh(station)
    assert (after.status, after.connected, after.battery_level) == ("offline", False, 5)
    assert after.last_seen == before.last_seen
    assert heard == []


def test_a_replayed_status_changes_nothing_together_with_a_new_message(station, heard):
    """The duplicate says online and the device is offline; data in the same batch sets it online."""
    old = {"status": "online", "timestamp": iso(EARLIER)}
    send(station, old, "status")
    send(station, {"status": "offline"}, "status")
    heard.clear()

    batch = [message(station, old, "status"), message(station, {"temperature": 1})]
    assert pipeline(batch) == [DUPLICATE, STORED]

    assert (fresh(station).connected, fresh(station).status) == (True, "online")
    assert [notified[1] for notified in heard].count("on_connect") == 1


def test_a_status_replayed_inside_a_batch_changes_nothing(station, heard):
    online = message(station, {"status": "online", "timestamp": iso(EARLIER)}, "status")
    offline = message(station, {"status": "offline", "timestamp": iso(EARLIER + HOUR / 2)}, "status")

    assert pipeline([online, offline, online]) == [STORED, STORED, DUPLICATE]

    assert (fresh(station).connected, fresh(station).status) == (False, "offline")
    assert "on_connect" not in [notified[1] for notified in heard]


@pytest.mark.parametrize(
    ("about", "payload"),
    [("data", {"temperature": 1}), ("status", {"status": "online"}), ("reply", {"id": "1", "ok": True})],
)
def test_a_retained_message_without_a_device_time_is_no_news(station, heard, about, payload):
    assert send(station, payload, about, retain=True) is RETAINED

    assert readings(station) == []
    assert not station.messages.exists()
    assert not QuarantinedMessage.objects.exists()
    assert (fresh(station).last_seen, fresh(station).status) == (None, "offline")
    assert heard == []


def test_a_retained_message_with_a_device_time_is_stored_unless_it_was_already(station):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert send(station, payload, retain=True) is STORED
    assert send(station, payload, retain=True) is DUPLICATE
    assert send(station, payload) is DUPLICATE
    assert readings(station) == [row(EARLIER, temperature=1.0)]


def test_a_retained_message_with_a_device_time_that_came_fresh_before_is_a_duplicate(station):
    payload = {"temperature": 1, "timestamp": iso(EARLIER)}

    assert send(station, payload) is STORED
    assert send(station, payload, retain=True) is DUPLICATE


def test_a_retained_message_that_cannot_be_used_is_no_duplicate_of_itself(station):
    """This holds for any division into batches."""
    copy = message(station, {"temperature": 999, "timestamp": iso(EARLIER)}, retain=True)

    assert pipeline([copy, copy]) == [RETAINED, RETAINED]
    assert pipeline([copy]) == [RETAINED]
