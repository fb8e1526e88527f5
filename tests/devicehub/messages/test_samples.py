"""The limit of samples in a message, DEVICEHUB_MAX_SAMPLES, in every form of a payload."""

import json
from datetime import UTC, datetime

import cbor2
import pytest
from django.core.checks import run_checks
from django.core.management import call_command

from devicehub.ingest.pipeline import pipeline
from devicehub.messages import decode
from devicehub.messages.message import Message, Notes, Outcome
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice

NOW = datetime.now(UTC)
START = int(NOW.timestamp()) - 100_000
MOST = 20

pytestmark = pytest.mark.sqlite_only


@pytest.fixture
def device(db, settings):
    settings.DEVICEHUB_MAX_SAMPLES = MOST
    return WeatherStationDevice.objects.create(device_id="STATION-001")


def send(body, content_type="", about="data"):
    topic = f"things/weatherstation/STATION-001/{about}"
    [outcome] = pipeline([Message(topic, body, NOW, content_type=content_type)])
    return outcome


def flat(count):
    return [{"temperature": 1, "timestamp": START + number} for number in range(count)]


def listed(count):
    items = [{"type": "temperature", "value": 1, "timestamp": START + n} for n in range(count)]
    return {"readings": items}


def lists(count):
    return [listed(count // 2), listed(count - count // 2)]


def pack(count):
    """Return a SenML pack of a base record and *records*."""
    return [{"bn": "urn:x:", "bt": START}, *({"n": "temperature", "v": 1, "t": n} for n in range(count))]


def labelled(count):
    return [{-2: "urn:x:", -3: START}, *({0: "temperature", 2: 1, 6: n} for n in range(count))]


def junk(count):
    return [{"x": 1}] * (count - 1) + [{"temperature": 1}, 0, "no object"]


def of_one_time(count):
    return [{"temperature": 1}] * count


def as_json(content):
    return json.dumps(content).encode()


FORMS = {
    "flat": (flat, as_json, ""),
    "list": (listed, as_json, ""),
    "array of lists": (lists, as_json, "application/json"),
    "SenML": (pack, as_json, ""),
    "SenML by its type": (pack, as_json, "application/senml+json"),
    "flat in CBOR": (flat, cbor2.dumps, ""),
    "list in CBOR": (listed, cbor2.dumps, "application/cbor"),
    "SenML in CBOR": (labelled, cbor2.dumps, "application/senml+cbor"),
    "entries that cannot be used": (junk, as_json, ""),
    "entries of one time": (of_one_time, as_json, ""),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_message_has_no_more_samples_than_it_may(device, form):
    make, dump, content_type = form

    assert send(dump(make(MOST)), content_type) in (Outcome.STORED, Outcome.PARTIAL)
    stored = device.readings.count()
    assert 0 < stored <= MOST

    assert send(dump(make(MOST + 1)), content_type) is Outcome.FAILED
    row = QuarantinedMessage.objects.get()
    assert (row.reason, row.detail[:10]) == ("too_many_samples", "21 samples")
    assert bytes(row.payload) == dump(make(MOST + 1))
    assert device.readings.count() == stored


def test_it_can_be_replayed_once_the_bound_is_higher(device, settings, capsys):
    send(as_json(flat(MOST + 1)))

    call_command("replay_quarantine")
    assert device.readings.count() == 0

    settings.DEVICEHUB_MAX_SAMPLES = MOST + 1
    call_command("replay_quarantine", "--reason", "too_many_samples")
    assert device.readings.count() == MOST + 1


def test_by_default_ten_thousand_are_stored(device, settings):
    del settings.DEVICEHUB_MAX_SAMPLES

    assert send(as_json(flat(10_001))) is Outcome.FAILED
    assert QuarantinedMessage.objects.get().reason == "too_many_samples"
    assert send(as_json(flat(10_000))) is Outcome.STORED
    assert device.readings.count() == 10_000


@pytest.mark.parametrize("dump", [as_json, cbor2.dumps])
def test_of_entries_that_are_no_objects_few_are_looked_at(device, monkeypatch, dump):
    """A megabyte holds a million of them, and each cost as much as a stored message."""
    looked_at, entries = [], decode._entries
    monkeypatch.setattr(
        decode, "_entries", lambda entry, *more: looked_at.append(entry) or entries(entry, *more)
    )

    assert send(dump([0] * 5000)) is Outcome.FAILED
    assert send(dump([{"temperature": 1}, *[0] * 5000, {"humidity": 2}])) is Outcome.PARTIAL

    assert len(looked_at) == Notes.MOST * 2 + 2
    assert QuarantinedMessage.objects.get().detail == "entry 0: is a number or something else, not an object"
    row = device.messages.latest("pk")
    assert row.notes[-1] == f"and {5000 - Notes.MOST} more"
    assert (device.readings.get().temperature, device.readings.get().humidity) == (1, 2)


def test_it_is_a_sign_of_life(device):
    send(as_json(flat(MOST + 1)))

    device.refresh_from_db()
    assert device.last_seen == NOW


@pytest.mark.parametrize("value", [0, -1, "many", None])
def test_an_invalid_bound_is_a_system_check(settings, value):
    settings.DEVICEHUB_MAX_SAMPLES = value

    [found] = [check for check in run_checks() if check.id == "devicehub.E021"]

    assert "DEVICEHUB_MAX_SAMPLES" in found.msg
