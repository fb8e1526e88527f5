"""Storage of a batch: the same rows by COPY and by a prepared statement, and the notified receivers."""

import json
import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.db import transaction

from devicehub import signals
from devicehub.db import bulk
from devicehub.ingest import store
from devicehub.ingest.items import DeviceRow
from devicehub.ingest.pipeline import judge, pipeline
from devicehub.kinds import topics
from devicehub.messages.message import Message, Outcome
from fleet.devices import WeatherStation
from fleet.models import WeatherStationDevice, WeatherStationMessage, WeatherStationReading

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
# Texts with a meaning in COPY, JSON or SQL.
AWKWARD = [
    "\\",
    "\\N",
    "\\.",
    "\\t",
    "a\tb",
    "a\nb\r\n",
    "'; --",
    '"',
    "%s",
    "{}",
    "\u2028",
    "é\U0001f600",
    "NULL",
    " ",
]


@pytest.fixture
def station(db):
    return WeatherStationDevice.objects.create(device_id="STATION-001")


def message(number=1, **options):
    payload = {"temperature": number, "timestamp": (NOW - timedelta(hours=number)).isoformat()}
    return Message("things/weatherstation/STATION-001/data", json.dumps(payload).encode(), NOW, **options)


@pytest.fixture
def notifications():
    """Yield the arguments of each call of a receiver of data."""
    seen = []

    def receiver(**arguments):
        seen.append(arguments)

    signals.device_data_received.connect(receiver, sender=WeatherStation)
    yield seen
    signals.device_data_received.disconnect(receiver, sender=WeatherStation)


@pytest.mark.parametrize("text", AWKWARD)
def test_texts_come_back_as_they_were_sent(station, text):
    described = {"content_type": text, "correlation_id": text, "user_properties": ((text, text),)}
    payload = json.dumps({"temperature": 1, text: text, "timestamp": NOW.isoformat()}).encode()

    pipeline([message()._replace(payload=payload, **described)])

    row = WeatherStationMessage.objects.get()
    assert (row.content_type, row.correlation_id, row.user_properties) == (text, text, {text: text})
    assert row.payload_json == json.loads(payload)
    assert row.notes == [f"{text}: not declared"]


def test_every_column_of_a_message_is_written():
    columns = {field.attname for field in WeatherStationMessage._meta.concrete_fields}

    assert columns == {"id", *store.MESSAGE}


@pytest.mark.parametrize(
    "value",
    [None, {"a": None}, 2**70, {"a": [1.5, True, "\u2028"]}, {1: 2}, "\ud800", "null", 0.1, -0.0, 1e300],
)
def test_json_is_written_as_django_reads_it(value):
    assert json.loads(bulk.dump_json(value)) == json.loads(json.dumps(value))


@pytest.mark.parametrize("value", [{1, 2}, b"", NOW, {"a": NOW}])
def test_a_value_that_is_not_json_is_refused(value):
    with pytest.raises(TypeError):
        bulk.dump_json(value)


def test_a_value_that_is_not_a_number_never_becomes_null():
    """The database refuses it, so no value is stored that was not sent."""
    assert json.dumps(math.nan) == bulk.dump_json(math.nan)


def test_a_time_is_stored_in_utc(station):
    east = timezone(timedelta(hours=5, minutes=30))

    pipeline([message()._replace(payload=b'{"temperature": 1}', received_at=NOW.astimezone(east))])

    assert WeatherStationReading.objects.get(timestamp=NOW).temperature == 1
    assert WeatherStationDevice.objects.get().last_seen == NOW


def test_a_receiver_gets_device_and_row(station, notifications):
    pipeline([message(1), message(2, content_type="application/json")])

    rows = list(WeatherStationMessage.objects.order_by("id"))
    assert [arguments["message"].pk for arguments in notifications] == [row.pk for row in rows]
    for arguments, row in zip(notifications, rows, strict=True):
        for field in WeatherStationMessage._meta.concrete_fields:
            assert getattr(arguments["message"], field.attname) == getattr(row, field.attname), field
        assert arguments["device"] == station
        assert arguments["device"].connected is True


def test_no_model_is_made_without_a_listener(station):
    [device] = store.load_devices([(address().kind, "STATION-001")]).values()

    assert device == DeviceRow(station.pk, "STATION-001", True)


def test_a_receiver_that_comes_later_gets_what_comes_later(station, notifications):
    [device] = store.load_devices([(address().kind, "STATION-001")]).values()

    assert device == station


def address():
    return topics.parse("things/weatherstation/STATION-001/data")


def test_a_second_worker_stores_the_same_message_in_between(station, monkeypatch):
    """Neither sees the other's row until both write: the unique key prevents the duplicate."""
    pipeline([message(1)])
    existing, blind = bulk.existing, [True]

    def existing_too_late(*arguments):
        return set() if blind and blind.pop() else existing(*arguments)

    monkeypatch.setattr(bulk, "existing", existing_too_late)

    assert pipeline([message(1), message(2)]) == [Outcome.DUPLICATE, Outcome.STORED]

    assert WeatherStationMessage.objects.count() == WeatherStationReading.objects.count() == 2


def test_keys_of_messages_are_never_given_twice(station, notifications):
    """This holds after rows were deleted, and if others write rows."""
    pipeline([message(1)])
    first = notifications[-1]["message"].pk
    WeatherStationMessage.objects.all().delete()
    pipeline([message(2)])
    by_hand = WeatherStationMessage.objects.create(device=station, topic="t")
    pipeline([message(3)])

    assert first < notifications[1]["message"].pk < by_hand.pk < notifications[2]["message"].pk


def test_a_batch_that_fails_leaves_nothing(station, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr(store.presence, "write", fail)

    with pytest.raises(RuntimeError), transaction.atomic():
        store.write([judged()])

    assert not WeatherStationMessage.objects.exists()
    assert not WeatherStationReading.objects.exists()


def judged():
    where = address()
    return judge(message(), where, store.load_devices([(where.kind, where.device_id)]))
