"""The sources of a stream: what they read, by which queries, and what they leave out."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub.kinds.registry import registry
from devicehub.lwm2m.models import Endpoint
from devicehub.models import DeviceCommand
from devicehub.stream import sources
from devicehub.stream.feed import Feed
from devicehub.stream.sources import Commands, Connections, Flood, Readings
from fleet.models import WeatherStationDevice, WeatherStationReading

pytestmark = pytest.mark.django_db


@pytest.fixture
def kind():
    return registry.get("weatherstation")


@pytest.fixture
def station():
    return WeatherStationDevice.objects.create(device_id="STATION-001", mqtt_username="s1", site="north")


def measure(station, count=1):
    rows = [
        WeatherStationReading(device=station, timestamp=timezone.now(), temperature=number)
        for number in range(count)
    ]
    return WeatherStationReading.objects.bulk_create(rows)


def read(source):
    """Return the rows of one look, noted."""
    rows = source.look()
    for row in rows:
        source.note(row)
    return rows


def test_a_look_needs_as_many_queries_for_many_rows(station):
    """For ten rows as for a thousand."""
    feed, numbers = Feed(), []
    feed.begin()
    for count in (10, 1000):
        measure(station, count)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert len(feed.look()) == count
        numbers.append(len(queries))
    assert numbers[0] == numbers[1]


def test_a_quiet_look_is_one_query_for_each_source(station):
    """Its queries read no rows that were read before."""
    feed = Feed()
    feed.begin()
    measure(station)
    feed.look()
    with CaptureQueriesContext(connection) as queries:
        assert feed.look() == []
    assert len(queries) <= 2 * len(feed._sources)


def test_an_old_row_is_not_looked_for(station, kind, monkeypatch):
    """After a while no row may appear late any more, and the window moves on."""
    source = Readings(kind)
    source.begin()
    monkeypatch.setattr(sources, "LATE", 0)
    [row] = measure(station)
    assert [key for key, _ in read(source)] == [row.pk]
    assert read(source) == []
    assert source.state == (row.pk, row.pk, 0)


def test_a_deleted_row_has_no_event(station, kind):
    """The stream goes on."""
    source = Readings(kind)
    source.begin()
    [row] = measure(station)
    rows = source.look()
    row.delete()
    assert source.events(rows) == {}


def test_values_are_those_that_a_row_has(station, kind):
    """Each with its unit; a value of no form in JSON as text."""
    source = Readings(kind)
    source.begin()
    WeatherStationReading.objects.create(
        device=station, timestamp=timezone.now(), temperature=float("inf"), humidity=40
    )
    [event] = source.events(source.look()).values()
    assert b'"values":{"temperature":{"value":null,"unit":"Cel"},"humidity":{"value":40.0,"unit":"%RH"}}' in (
        event.wire
    )
    assert b'"device":"weatherstation/STATION-001"' in event.wire


def test_many_devices_that_connect_at_once_are_a_flood(kind, monkeypatch):
    """And reading begins behind them."""
    source = Connections(kind)
    source.begin()
    monkeypatch.setattr(sources, "MOST_READ", 2)
    for number in range(3):
        WeatherStationDevice.objects.create(
            device_id=f"S-{number}", mqtt_username=f"s-{number}", connected_changed_at=timezone.now()
        )
    with pytest.raises(Flood):
        source.look()
    source.begin()
    assert source.floor == source.position
    assert source.seen == {}


def test_a_look_at_a_large_table_of_devices_rests(kind, monkeypatch):
    """It takes a twentieth of the time at most."""
    source = Connections(kind)
    source.begin()
    monkeypatch.setattr(sources, "EXPENSIVE", -1)
    source.look()
    WeatherStationDevice.objects.create(device_id="S", mqtt_username="s", connected_changed_at=timezone.now())
    monkeypatch.setattr(sources, "KEPT", 0)
    source._next_at = float("inf")
    assert source.look() == []
    source._next_at = 0.0
    assert len(source.look()) == 1


def test_a_command_is_read_once_for_each_step(station):
    """By the time of its last step, also if it was queued long ago."""
    source = Commands()
    row = DeviceCommand.objects.create(
        device_key="weatherstation/STATION-001", name="restart", queued_at=timezone.now() - timedelta(days=1)
    )
    source.begin()
    assert read(source) == []
    row.answered_at = timezone.now()
    row.save()
    assert [key for key, _ in read(source)] == [row.pk]
    assert read(source) == []


def test_a_place_beyond_all_keys_is_too_far(kind):
    """No range of keys is read that is as wide as a table."""
    source = Readings(kind)
    source.begin()
    source.position = sources.MOST_KEYS + 1
    with pytest.raises(Flood):
        source.history((0, 0, 0))


def test_values_of_endpoints_are_events_with_paths(kind):
    """One event for each value, with the unit of its definition."""
    lwm2m = registry.get("lwm2m")
    endpoint = Endpoint.objects.create(device_id="urn:1", site="north")
    source = Readings(lwm2m)
    source.begin()
    lwm2m.narrow.model.objects.create(
        device=endpoint, path="3303/0/5700", number=21.5, timestamp=timezone.now(), received_at=timezone.now(),
        event_id=1, type="float",
    )  # fmt: skip
    [event] = source.events(source.look()).values()
    assert b'"3303/0/5700":{"value":21.5,"unit":"' in event.wire
