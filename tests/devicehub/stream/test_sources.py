"""The sources of a stream: what they read, by which queries, and what they leave out."""

import json
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devicehub.db.statements import execute, query
from devicehub.db.writers import open_writers
from devicehub.ingest.pipeline import pipeline
from devicehub.kinds import topics
from devicehub.kinds.registry import registry
from devicehub.lwm2m.models import Endpoint
from devicehub.messages.message import Message
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


def send(station, message_type, body):
    """Ingest a message of *station*."""
    topic = topics.build(registry.get("weatherstation"), station.device_id, message_type)
    pipeline([Message(topic, json.dumps(body).encode(), timezone.now())])


def plan(statement):
    """Return the plan of *statement*."""
    word = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    return "\n".join(str(row[-1]) for row in query(f"{word} {statement}".replace("%", "%%"), []))


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


def test_an_old_row_is_not_looked_for(station, kind):
    """Once no transaction is open, no row may appear late any more, and the window moves on."""
    source = Readings(kind)
    source.begin()
    [row] = measure(station)
    assert [key for key, _ in read(source)] == [row.pk]
    assert read(source) == read(source) == []
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


def test_every_query_of_a_look_uses_an_index(station):
    """No look reads a whole table, however many devices, messages, commands and denials there are."""
    feed = Feed()
    feed.begin()
    send(station, "status", {"status": "error"})
    with CaptureQueriesContext(connection) as queries:
        assert feed.look()
    statements = [query["sql"] for query in queries if "pg_locks" not in query["sql"]]
    assert len(statements) > len(feed._sources)
    if connection.vendor == "postgresql":  # Its tables are small here, and a scan would be cheaper.
        execute("SET LOCAL enable_seqscan = off")
    plans = "\n".join(plan(statement) for statement in statements)
    assert not [line for line in plans.splitlines() if "SCAN" in line.split() and "INDEX" not in line]
    assert "Seq Scan" not in plans


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


OPEN = {"began/1"}


def add(station, pk):
    """Add a reading with this key, as a transaction does that commits now."""
    WeatherStationReading.objects.create(pk=pk, device=station, timestamp=timezone.now(), temperature=pk)


def test_a_row_appears_however_late_its_transaction_commits(station, kind):
    """The floor stays before its keys until it is over, and the row comes once."""
    source = Readings(kind)
    source.begin()
    add(station, 102)
    for _ in range(5):
        source.look(OPEN)
        source.note((102, 102))
    add(station, 101)
    assert read(source) == [(101, 101)]
    assert read(source) == read(source) == []
    assert source.floor == 102


def test_a_transaction_that_is_open_at_the_beginning_is_waited_for(station, kind):
    """Its rows are new; those beside them that were committed before are not."""
    add(station, 102)
    source = Readings(kind)
    source.begin(OPEN)
    assert source.look(OPEN) == source.look(OPEN) == []
    add(station, 101)
    assert source.look() == [(101, 101)]


def test_a_new_transaction_holds_the_rows_before_it_no_more(station, kind):
    """While transactions follow each other without a pause, the floor follows them."""
    source = Readings(kind)
    source.begin()
    for number in range(1, 5):
        add(station, number)
        source.look({f"began/{number}"})
        source.note((number, number))
    assert source.floor == 1


def test_a_place_knows_which_rows_were_sent(station, kind):
    """Not their number only: one that appeared late beside one that is gone is sent."""
    source = Readings(kind)
    source.begin(OPEN)
    add(station, 102)
    for row in source.look(OPEN):
        source.note(row)
    place = source.state
    assert source.history(place) == []
    WeatherStationReading.objects.all().delete()
    add(station, 101)
    source.begin(OPEN)
    assert source.history((*place[:1], 101, place[2])) == [(101, 101)]


def test_a_place_between_changes_of_one_time_has_those_after_it(kind):
    """A client that was cut off between them gets the others."""
    now = timezone.now()
    for number in range(3):
        WeatherStationDevice.objects.create(
            device_id=f"S-{number}", mqtt_username=f"s-{number}", connected_changed_at=now
        )
    source = Connections(kind)
    source.begin()
    rows = source.history((source.floor, source.floor, 0))
    assert len(rows) == 3
    assert source.states(rows)[-1][2] == source.state[2]
    for state in source.states(rows)[:2]:
        assert rows[-1] in source.history(state)


def test_a_place_of_another_database_is_a_flood(station, kind):
    """A backup that was restored has lower keys, which would be taken for sent."""
    source = Readings(kind)
    source.begin()
    with pytest.raises(Flood):
        source.history((7, 7, 0))


@pytest.mark.postgresql_only
@pytest.mark.django_db(transaction=True)
def test_postgresql_names_the_transactions_that_are_open(station):
    """A key that was drawn counts, also without a row; a table that changed counts, a sequence of another not."""
    readings, devices = WeatherStationReading._meta.db_table, WeatherStationDevice._meta.db_table
    tables = {readings: "id", devices: None}
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            assert open_writers(tables) == {}
            cursor.execute(f"SELECT nextval(pg_get_serial_sequence('{readings}', 'id'))")
            assert list(open_writers(tables)) == [readings]
            cursor.execute(f"UPDATE {devices} SET name = 'x'")
            assert len(set.union(*open_writers(tables).values())) == 1
            assert len(open_writers(tables)) == 2
        other.rollback()
        assert open_writers(tables) == {}
    finally:
        other.close()
