"""Devices that are disabled by code, by the ORM and by SQL: a worker notices each of them once."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub import provisioning, removal
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import DisabledDevice, RemovalRequest, RetainedTopic
from devicehub.removal import disabled, retained
from fleet.models import IrrigationValveDevice, WeatherStationDevice
from rig.telemetry import TOPICS, sql, topics_to_clear

TABLE = "fleet_weatherstationdevice"


def is_noticed(device):
    return DisabledDevice.objects.filter(kind="weatherstation", device_pk=device.pk).exists()


@pytest.mark.parametrize(
    ("off", "on"),
    [
        (provisioning.disable, provisioning.enable),
        (
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).update(is_active=False),
            lambda device: WeatherStationDevice.objects.filter(pk=device.pk).update(is_active=True),
        ),
        (
            lambda device: sql(f"UPDATE {TABLE} SET is_active = false WHERE id = {device.pk}"),
            lambda device: sql(f"UPDATE {TABLE} SET is_active = true WHERE id = {device.pk}"),
        ),
    ],
    ids=["action", "update", "SQL"],
)
def test_a_device_is_noticed_each_time_it_is_disabled(station, neighbour, off, on):
    for _ in range(2):
        off(station)
        assert [disabled.notice(), disabled.notice()] == [1, 0]
        assert topics_to_clear() == TOPICS
        on(station)
        assert disabled.notice() == 0
        assert not is_noticed(station)
        RetainedTopic.objects.all().delete()


def test_one_that_was_enabled_and_heard_between_two_runs_is_noticed_again(station):
    """Its retained messages of the time between are cleared too."""
    provisioning.disable(station)
    disabled.notice()
    RetainedTopic.objects.all().delete()
    WeatherStationDevice.objects.update(is_active=True)
    assert pipeline([Message(TOPICS[1], b'{"temperature": 1}', timezone.now())]) == ["stored"]
    WeatherStationDevice.objects.update(is_active=False)

    assert [disabled.notice(), disabled.notice()] == [1, 0]
    assert topics_to_clear() == TOPICS


def test_one_that_the_action_enabled_between_two_runs_is_noticed_again(station):
    provisioning.disable(station)
    disabled.notice()
    provisioning.enable(station)
    provisioning.disable(station)

    assert [disabled.notice(), disabled.notice()] == [1, 0]


def test_a_clock_that_was_ahead_has_it_noticed_once(station):
    ahead = timezone.now() + timedelta(days=1)
    WeatherStationDevice.objects.update(is_active=False, last_message_at=ahead)

    assert [disabled.notice(), disabled.notice()] == [1, 0]


def test_one_that_begins_disabled_is_like_the_others(db):
    """An inactive device has no retained messages at the broker, in whatever way it became inactive."""
    WeatherStationDevice.objects.create(device_id="STATION-001", is_active=False)

    assert [disabled.notice(), disabled.notice()] == [1, 0]
    assert topics_to_clear() == TOPICS


def test_devices_of_two_kinds_are_distinguished(station):
    """Their primary keys may be the same."""
    IrrigationValveDevice.objects.create(pk=station.pk, device_id="VALVE-1", is_active=False)
    assert disabled.notice() == 1
    assert not is_noticed(station)

    provisioning.disable(station)

    assert disabled.notice() == 1


def test_another_device_of_the_same_id_is_another_one(station):
    provisioning.disable(station)
    disabled.notice()
    sql(f"DELETE FROM {TABLE} WHERE id = {station.pk}")
    following = WeatherStationDevice.objects.create(device_id="STATION-001", is_active=False)

    assert disabled.notice() == 1
    assert is_noticed(following)
    assert not is_noticed(station)


def test_many_are_noticed_in_portions(db):
    WeatherStationDevice.objects.bulk_create(
        WeatherStationDevice(device_id=f"STATION-{n:03d}", is_active=False) for n in range(250)
    )

    assert [disabled.notice(most=200), disabled.notice(most=200), disabled.notice(most=200)] == [200, 50, 0]
    assert RetainedTopic.objects.count() == 1000


def test_one_that_was_disabled_last_does_not_wait_for_those_of_long_ago(station):
    WeatherStationDevice.objects.bulk_create(
        WeatherStationDevice(device_id=f"OLD-{n:03d}", is_active=False) for n in range(5)
    )
    provisioning.disable(station)

    assert disabled.notice(most=1) == 1
    assert topics_to_clear() == TOPICS


def test_a_run_enqueues_no_more_topics_than_it_clears():
    assert 0 < disabled.MOST * len(TOPICS) <= retained.AT_ONCE


def test_nothing_is_written_where_nothing_changed(station):
    """A worker checks every 15 seconds, and SQLite has only one writer."""
    provisioning.disable(station)
    disabled.notice()

    with CaptureQueriesContext(connection) as captured:
        disabled.notice()

    assert {query["sql"].split()[0] for query in captured} == {"SELECT"}


def test_nothing_of_a_disabled_device_is_stored_at_once(station):
    provisioning.disable(station)

    assert pipeline([Message(TOPICS[1], b'{"temperature": 1}', timezone.now())]) == ["failed"]


def test_enabling_ends_a_removal(station):
    """Also if the device is disabled again before a worker checks."""
    removal.request(station)

    provisioning.enable(station)

    assert not RemovalRequest.objects.exists()
    provisioning.disable(station)
    assert removal.work_off() == 0
    assert WeatherStationDevice.objects.get() == station
