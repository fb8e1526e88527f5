"""The spelling of statuses: in upper or lower case, as plain text; and which of them show a connected device."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import cbor2
import pytest

from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import FailureReason, Message, Outcome
from devicehub.models import QuarantinedMessage
from fleet.models import WeatherStationDevice

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PRESENCE = ("connected", "connected_changed_at", "last_seen", "last_message_at", "status", "reported_status")
BOM = b"\xef\xbb\xbf"

FORMS = {
    "plain": lambda word: word.encode(),
    "JSON text": lambda word: json.dumps(word).encode(),
    "an object": lambda word: json.dumps({"status": word}).encode(),
    "plain, with white space": lambda word: b" \t" + word.encode() + b"\r\n",
    "plain, with a byte order mark": lambda word: BOM + word.encode(),
    "plain, with both": lambda word: b" " + BOM + b"\n" + word.encode() + b" ",
    "JSON text, with a byte order mark": lambda word: BOM + b' "' + word.encode() + b'" ',
    "white space inside": lambda word: json.dumps({"status": f" {word}\n"}).encode(),
    "JSON text, escaped": lambda word: b'"\\u%04x' % ord(word[0]) + word[1:].encode() + b'"',
}
UNREADABLE = {
    "another word": (b"dead", FailureReason.NOT_JSON),
    "more than a word": (b"offline now", FailureReason.NOT_JSON),
    "a word cut off": (b'"offline', FailureReason.NOT_JSON),
    "a word and NUL": (b"offline\0", FailureReason.NOT_JSON),
    "an operator's state": (b"maintenance", FailureReason.NOT_JSON),
    "UTF-16": ("offline".encode("utf-16"), FailureReason.NOT_JSON),
    "white space": (b" \n", FailureReason.NOT_JSON),
    "another word as JSON": (b'"dead"', FailureReason.NOT_A_READING),
    "a number": (b"0", FailureReason.NOT_A_READING),
    "true": (b"true", FailureReason.NOT_A_READING),
    "null": (b"null", FailureReason.NOT_A_READING),
    "a list": (b'["offline"]', FailureReason.NOT_A_READING),
    "a number in an object": (b'{"status": 0}', FailureReason.NO_VALUE),
    "another word in an object": (b'{"status": "dead"}', FailureReason.NO_VALUE),
    "no declared name": (b'{"state": "offline"}', FailureReason.NO_VALUE),
    "too large": (b"x" * ((1 << 20) + 1), FailureReason.TOO_LARGE),
}


@pytest.fixture
def station(db):
    return WeatherStationDevice.objects.create(device_id="STATION-001")


def said(payload, about="status", at=NOW, **options):
    return Message(f"things/weatherstation/STATION-001/{about}", payload, at, **options)


def presence():
    return WeatherStationDevice.objects.values(*PRESENCE).get()


@pytest.mark.sqlite_only
@pytest.mark.parametrize("word", ["offline", "OFFLINE", "Offline"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_will_takes_its_device_away(station, form, word):
    pipeline([said(b'{"temperature": 1}', "data")])

    assert pipeline([said(form(word), at=NOW + MINUTE)]) == [Outcome.STORED]

    now = presence()
    assert (now["connected"], now["status"], now["reported_status"]) == (False, "offline", "offline")
    assert (now["last_seen"], now["connected_changed_at"]) == (NOW, NOW + MINUTE)


@pytest.mark.sqlite_only
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_online_is_life_in_any_form(station, form):
    assert pipeline([said(form("Online"))]) == [Outcome.STORED]

    assert (presence()["connected"], presence()["last_seen"], presence()["status"]) == (True, NOW, "online")


@pytest.mark.sqlite_only
def test_content_types_that_contradict_do_not_hide_a_word(station):
    for number, content_type in enumerate(("text/plain", "application/json", "application/cbor")):
        pipeline([said(b'{"status": "online"}', at=NOW + 2 * number * MINUTE)])

        late = NOW + (2 * number + 1) * MINUTE
        assert pipeline([said(b"offline", at=late, content_type=content_type)]) == [Outcome.STORED]
        assert presence()["connected"] is False
    assert pipeline([said(cbor2.dumps("offline"), content_type="application/cbor")]) == [Outcome.STORED]


@pytest.mark.sqlite_only
@pytest.mark.parametrize(("payload", "reason"), UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("is_connected", [False, True])
def test_an_unreadable_status_is_no_evidence_and_is_kept(station, payload, reason, is_connected):
    if is_connected:
        pipeline([said(b'{"temperature": 1}', "data")])
    before = presence()

    assert pipeline([said(payload, at=NOW + MINUTE)]) == [Outcome.FAILED]

    assert presence() == before
    assert QuarantinedMessage.objects.get().reason == reason


def test_what_is_beside_a_status_that_cannot_be_read_is_kept(station):
    """A will may hold more than its status: this is reported, but does not show whether the device is connected."""
    before = presence()

    assert pipeline([said(b'{"status": "gone", "battery_level": 5}')]) == [Outcome.PARTIAL]

    assert presence() == before
    assert WeatherStationDevice.objects.get().battery_level == 5


def test_a_plain_will_and_what_cannot_be_read(station):
    outcomes = (
        pipeline([said(b"online")]),
        pipeline([said(b"OFFLINE", at=NOW + MINUTE), said(b"dead", at=NOW + 2 * MINUTE)]),
    )

    assert outcomes == ([Outcome.STORED], [Outcome.STORED, Outcome.FAILED])
    assert (presence()["connected"], presence()["last_seen"]) == (False, NOW)
    assert presence()["last_message_at"] == presence()["connected_changed_at"] == NOW + MINUTE


def test_a_status_that_cannot_be_read_hides_no_older_message(station):
    """Two workers may store them in either order."""
    messages = [said(b'{"status": "offline"}'), said(b"\xff", at=NOW + 2 * MINUTE)]
    late = said(b'{"temperature": 1}', "data", at=NOW + MINUTE)
    found = []
    for order in itertools.permutations([*messages, late]):
        WeatherStationDevice.objects.all().delete()
        WeatherStationDevice.objects.create(device_id="STATION-001")
        for message in order:
            pipeline([message])
        found.append((presence()["connected"], presence()["last_seen"]))

    assert set(found) == {(True, NOW + MINUTE)}


def test_a_word_on_other_topics_stays_unreadable(station):
    assert pipeline([said(b"offline", "data"), said(b"offline", "reply")]) == [Outcome.FAILED] * 2
    assert QuarantinedMessage.objects.count() == 2
