"""`manage.py replay_quarantine`: failed messages are stored with their time once the cause is gone, and only once."""

import json
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, transaction

from devicehub import signals
from devicehub.ingest import replay, store
from devicehub.ingest.limits import limiter
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message, Outcome
from devicehub.models import DeviceCommand, QuarantinedMessage
from fleet.models import WeatherStationDevice, WeatherStationReading

pytestmark = pytest.mark.django_db(transaction=True)
RECEIVED = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
TOPIC = "things/weatherstation/STATION-001/data"


def run(*arguments):
    out = StringIO()
    call_command("replay_quarantine", *arguments, stdout=out)
    return out.getvalue().strip()


def quarantined(payload=b'{"temperature": 5}', topic=TOPIC, content_type="application/json"):
    """Quarantine a message whose device does not exist yet."""
    pipeline([Message(topic, payload, RECEIVED, content_type=content_type)])
    return QuarantinedMessage.objects.latest("pk")


@pytest.fixture
def station(db):
    return lambda: WeatherStationDevice.objects.create(device_id="STATION-001")


def test_what_came_before_its_device_is_stored_at_its_time(station):
    row = quarantined()
    device = station()

    assert run() == "Replayed: 1 stored, 0 partial, 0 failed, 0 duplicate, 0 retained"

    reading = device.readings.get()
    assert (reading.temperature, reading.timestamp) == (5.0, RECEIVED)
    row.refresh_from_db()
    assert row.replayed_at is not None


def test_it_has_all_that_came_with_it(station):
    reset = DeviceCommand(device_key="weatherstation/STATION-001", name="reset")
    topic = "things/weatherstation/STATION-001/reply"
    came = Message(topic, b'{"ok": true}', RECEIVED, False, "", str(reset.pk), (("trace", "7"),))
    assert pipeline([came]) == [Outcome.FAILED]
    device = station()
    reset.save()  # A new device deletes older commands.

    assert run() == "Replayed: 1 stored, 0 partial, 0 failed, 0 duplicate, 0 retained"

    reset.refresh_from_db()
    assert reset.response["ok"] is True
    kept = device.messages.get()
    assert (kept.correlation_id, kept.user_properties) == (str(reset.pk), {"trace": "7"})


def test_what_the_broker_retained_is_replayed_as_its_copy(station, settings):
    settings.DEVICEHUB_RATE_LIMIT = "1/h"
    device = station()
    limiter.clear()
    news = b'{"status": "error"}'
    copy = b'{"status": "online", "timestamp": "%s"}' % RECEIVED.isoformat().encode()
    topic = "things/weatherstation/STATION-001/status"
    came = [
        Message(topic, news, RECEIVED),
        Message(topic, copy, RECEIVED + timedelta(seconds=1), retain=True),
    ]
    assert pipeline(came) == [Outcome.STORED, Outcome.FAILED]

    assert run() == "Replayed: 1 stored, 0 partial, 0 failed, 0 duplicate, 0 retained"

    device.refresh_from_db()
    assert (device.status, device.reported_status) == ("error", "error")


def test_once_replayed_it_is_never_replayed_again(station):
    quarantined()
    device = station()
    run()

    assert json.loads(run("--json"))["stored"] == 0
    assert device.readings.count() == 1


def test_what_fails_again_stays_and_is_not_doubled(station):
    quarantined(b"no JSON")
    device = station()

    assert json.loads(run("--json"))["failed"] == 1

    assert QuarantinedMessage.objects.filter(replayed_at=None).count() == 1
    assert QuarantinedMessage.objects.count() == 1
    assert device.messages.count() == 0


def test_what_the_device_sent_again_meanwhile_is_a_duplicate(station):
    payload = json.dumps({"temperature": 5, "timestamp": RECEIVED.isoformat()}).encode()
    quarantined(payload)
    device = station()
    pipeline([Message(TOPIC, payload, datetime.now(UTC))])

    assert json.loads(run("--json"))["duplicate"] == 1
    assert device.readings.count() == 1
    assert not replay.waiting().exists()


def test_one_bad_message_does_not_keep_the_others(station):
    for payload in (b'{"temperature": 1}', b"no JSON", b'{"temperature": 2}'):
        quarantined(payload)
    device = station()

    run()

    assert sorted(device.readings.values_list("temperature", flat=True)) == [1.0, 2.0]


def test_the_rate_limit_is_no_hindrance(station, settings):
    settings.DEVICEHUB_RATE_LIMIT = "1/h"
    for _ in range(3):
        quarantined()
    device = station()

    run()

    assert device.readings.count() == 3


def test_no_row_has_the_number_0(station):
    quarantined()
    station()

    assert json.loads(run("--id", "0", "--json"))["stored"] == 0


def test_a_selection(station):
    quarantined()
    other = quarantined(topic="things/weatherstation/STATION-002/data")
    station()

    assert run("--reason", "unknown_device", "--device", "weatherstation/STATION-001", "--dry-run") == (
        "1 message would be replayed"
    )
    assert json.loads(run("--id", str(other.pk), "--json"))["failed"] == 1
    assert WeatherStationReading.objects.count() == 0


def test_listeners_are_notified_after_the_commit(station):
    quarantined()
    station()
    seen = []

    def look(**arguments):
        seen.append((arguments["readings"], transaction.get_connection().in_atomic_block))

    signals.device_data_received.connect(look)
    try:
        run()
    finally:
        signals.device_data_received.disconnect(look)

    assert seen == [({"temperature": 5.0}, False)]


def test_somebody_else_may_replay_at_the_same_time(station):
    row = quarantined()
    station()
    rows = replay.waiting()

    def also():
        QuarantinedMessage.objects.filter(pk=row.pk).update(replayed_at=datetime.now(UTC))
        return True

    assert replay.replay(rows, goes_on=also).outcomes == {}
    assert WeatherStationReading.objects.count() == 0


def test_it_stops_between_two_messages(station):
    for _ in range(3):
        quarantined()
    device = station()
    turns = iter([True, False])

    report = replay.replay(replay.waiting(), goes_on=lambda: next(turns))

    assert report.outcomes == {Outcome.STORED: 1}
    assert device.readings.count() == 1


def test_a_database_that_cannot_store_is_one_line(station, monkeypatch):
    quarantined()
    station()

    def full(batch, *begin):
        raise OperationalError("disk is full")

    monkeypatch.setattr(store, "write", full)

    with pytest.raises(
        CommandError, match=r"^The database failed: disk is full; .* run this again when it works$"
    ):
        run()
    assert replay.waiting().count() == 1


def test_the_report_names_what_failed_again_and_why(station, monkeypatch):
    station()
    monkeypatch.setattr(replay, "SHOWN", 1)
    first, second = quarantined(payload=b'{"temperature": 999}'), quarantined(payload=b"no json")

    lines = run().splitlines()

    assert lines[0] == "Replayed: 0 stored, 0 partial, 2 failed, 0 duplicate, 0 retained"
    assert lines[1].startswith(f"Failed again: {first.pk}, ")
    assert "temperature" in lines[1]
    assert lines[2] == "and 1 more"
    assert [failure["row"] for failure in json.loads(run("--json"))["failures"]] == [first.pk]
    assert QuarantinedMessage.objects.filter(replayed_at=None).count() == 2
    assert second.pk > first.pk
