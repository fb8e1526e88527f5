"""The methods that mark a device or a message, and the texts of models."""

from datetime import timedelta

import pytest
from django.utils import timezone

from devicehub.models import DeviceStatus
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading

# Names


@pytest.mark.parametrize(("name", "text"), [("Roof", "Roof (online)"), ("", "STATION-001 (online)")])
def test_a_device_reads_as_its_name_or_id(name, text):
    assert str(WeatherStationDevice(device_id="STATION-001", name=name, status="online")) == text


def test_a_new_device_reads_as_offline(station):
    assert str(station) == "Roof (offline)"


def test_a_status_of_the_enumeration_reads_as_its_value(station):
    station.status = DeviceStatus.LOW_BATTERY

    assert str(station) == "Roof (low_battery)"


def test_a_reading_reads_as_its_time():
    now = timezone.now()

    assert str(WeatherStationReading(timestamp=now)) == f"Reading at {now}"


def test_a_message_reads_as_its_topic_and_state():
    message = WeatherStationMessage(topic="things/weatherstation/STATION-001/data")

    assert str(message) == "Message on things/weatherstation/STATION-001/data (pending)"


# Presence


def test_mark_online_is_stored(stored):
    before = timezone.now()
    stored.mark_online()
    stored.refresh_from_db()

    assert stored.status == "online"
    assert before <= stored.last_seen <= timezone.now()


def test_mark_offline_is_stored_and_keeps_when_it_was_seen(stored):
    stored.mark_online()
    seen = stored.last_seen
    stored.mark_offline()
    stored.refresh_from_db()

    assert (stored.status, stored.last_seen) == ("offline", seen)


@pytest.mark.parametrize("mark", ["mark_online", "mark_offline"])
def test_marking_leaves_other_columns_alone(stored, mark):
    """Saves name their fields: an operator may have renamed the device meanwhile."""
    WeatherStationDevice.objects.update(name="Cellar", is_active=False)
    getattr(stored, mark)()
    stored.refresh_from_db()

    assert (stored.name, stored.is_active) == ("Cellar", False)


@pytest.mark.parametrize("mark", ["mark_online", "mark_offline"])
def test_marking_moves_updated_at(stored, mark):
    before = stored.updated_at
    getattr(stored, mark)()
    stored.refresh_from_db()

    assert stored.updated_at > before


def test_a_device_never_seen_is_overdue(station):
    assert station.is_heartbeat_overdue() is True


@pytest.mark.parametrize(
    ("seconds", "arguments", "overdue"),
    [
        (0, {}, False),
        (740, {}, False),
        (760, {}, True),
        (20, {"heartbeat_interval": 10}, False),
        (30, {"heartbeat_interval": 10}, True),
        (590, {"multiplier": 2}, False),
        (610, {"multiplier": 2}, True),
        (-60, {}, False),
    ],
)
def test_a_device_is_overdue_after_some_heartbeats(station, seconds, arguments, overdue):
    """This is 300 seconds times 2.5 by default."""
    station.last_seen = timezone.now() - timedelta(seconds=seconds)

    assert station.is_heartbeat_overdue(**arguments) is overdue


def test_heartbeat_arguments_can_be_positional(station):
    station.last_seen = timezone.now() - timedelta(seconds=100)

    assert station.is_heartbeat_overdue(10, 2) is True


# Messages


def test_mark_completed_is_stored(message):
    before = timezone.now()
    message.mark_completed()
    message.refresh_from_db()

    assert message.processing_status == "completed"
    assert before <= message.processed_at <= timezone.now()


def test_mark_failed_is_stored_with_its_reason(message):
    message.mark_failed("no JSON")
    message.refresh_from_db()

    assert (message.processing_status, message.processing_error) == ("failed", "no JSON")
    assert message.processed_at


def test_mark_failed_needs_no_reason(message):
    message.mark_failed()
    message.refresh_from_db()

    assert (message.processing_status, message.processing_error) == ("failed", "")


def test_mark_failed_takes_the_reason_by_name(message):
    message.mark_failed(error="no JSON")

    assert message.processing_error == "no JSON"


@pytest.mark.parametrize("mark", ["mark_completed", "mark_failed"])
def test_marking_a_message_leaves_its_payload_alone(message, mark):
    WeatherStationMessage.objects.update(payload_json={"temperature": 20})
    getattr(message, mark)()
    message.refresh_from_db()

    assert message.payload_json == {"temperature": 20}
