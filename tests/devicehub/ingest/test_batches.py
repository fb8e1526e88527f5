"""One bad message never harms its batch, whether a payload or the database refuses it."""

import random
from collections import Counter
from datetime import timedelta

import pytest
from django.db import IntegrityError, OperationalError, transaction

from devicehub.ingest import store
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import Message
from devicehub.models import QuarantinedMessage
from rig.messages import (
    EARLIER,
    FAILED,
    NOW,
    PARTIAL,
    RETAINED,
    STORED,
    fresh,
    iso,
    message,
    message_row,
    readings,
    row,
    send,
)
from rig.payloads import FORMS, UNKNOWN_TOPICS

# --- One message and its batch

POISON = {
    **{name: form.payload for name, form in FORMS.items() if form.outcome in (FAILED, PARTIAL)},
    **{f"{depth} levels": b'{"x":' * depth + b"1" + b"}" * depth for depth in (500, 960, 1000, 1023)},
    "2 MiB": b'{"temperature": 1, "x": "' + b"x" * (2 << 20) + b'"}',
}


@pytest.mark.parametrize("payload", POISON.values(), ids=POISON)
def test_one_bad_message_never_harms_its_batch(station, neighbour, payload):
    batch = [
        message(neighbour, {"temperature": 1}),
        message(station, payload),
        message(station, payload, "status"),
        message(station, payload, "reply"),
        message(neighbour, {"temperature": 2}),
    ]

    outcomes = pipeline(batch)

    assert (outcomes[0], outcomes[-1]) == (STORED, STORED)
    assert readings(neighbour) == [row(temperature=1.0), row(temperature=2.0)]
    assert station.messages.count() == 3
    assert QuarantinedMessage.objects.count() == outcomes.count(FAILED)


def test_a_megabyte_of_strays_leaves_few_notes(station):
    """The notes of all messages of a batch are in memory."""
    assert send(station, b'[{"temperature": 1}' + b",1" * 500_000 + b"]") is PARTIAL

    assert len(message_row(station).notes) == 51
    assert message_row(station).notes[-1] == "and 499950 more"


@pytest.mark.parametrize("payload", [b"junk", b"", {"nothing": 1}])
def test_a_retained_copy_that_cannot_be_used_is_not_kept_again_and_again(station, payload):
    """The broker sends it with every new subscription."""
    assert send(station, payload, retain=True) is RETAINED
    assert pipeline([Message("things/weatherstation/STRANGER/data", b"{}", NOW, retain=True)]) == [RETAINED]
    assert not QuarantinedMessage.objects.exists()
    assert not station.messages.exists()


def test_all_bad_messages_at_once_leave_the_good_ones(station, neighbour):
    """They are in one shuffled batch, with messages on unknown topics and of unknown devices."""
    bad = [message(station, form.payload) for form in FORMS.values() if form.outcome is FAILED]
    bad += [Message(topic, b"{}", NOW) for topic in UNKNOWN_TOPICS]
    bad += [Message("things/weatherstation/STRANGER/data", b"{}", NOW)] * 3
    good = [message(neighbour, {"temperature": number}) for number in range(40)]
    batch = bad + good
    random.Random(7).shuffle(batch)

    outcomes = pipeline(batch)

    assert Counter(outcomes) == {FAILED: len(bad), STORED: 40}
    assert sorted(reading["temperature"] for reading in readings(neighbour)) == list(range(40))
    assert QuarantinedMessage.objects.count() == len(bad)


def test_an_empty_batch_is_nothing(db):
    assert pipeline([]) == []


def test_a_batch_costs_the_same_number_of_queries_whatever_its_size(
    station, neighbour, django_assert_max_num_queries
):
    """Not counted is the saving of devices, one query for each device with a message."""
    batch = [
        message(device, {"temperature": number, "timestamp": iso(EARLIER + timedelta(seconds=number))})
        for number in range(40)
        for device in (station, neighbour)
    ]

    with django_assert_max_num_queries(14):
        outcomes = pipeline(batch)

    assert Counter(outcomes) == {STORED: 80}


@pytest.fixture
def refusing_database(monkeypatch):
    """Have the database refuse rows with the word poison, unless their message has failed already."""
    write = store.write

    @transaction.atomic
    def picky(batch, *begin):
        stored = write(batch)
        if any(b"poison" in item.message.payload and item.outcome is not FAILED for item in batch):
            raise IntegrityError("poison")
        return stored

    monkeypatch.setattr(store, "write", picky)


def test_what_the_database_refuses_is_one_failed_message(station, neighbour, refusing_database, heard):
    batch = [
        message(neighbour, {"temperature": 1}),
        message(station, {"temperature": 5, "x": "poison"}),
        message(neighbour, b"not JSON"),
        Message("nowhere", b"{}", NOW),
        message(neighbour, {"temperature": 2}),
    ]

    assert pipeline(batch) == [STORED, FAILED, FAILED, FAILED, STORED]

    assert readings(station) == []
    assert readings(neighbour) == [row(temperature=1.0), row(temperature=2.0)]
    refused = QuarantinedMessage.objects.get(reason="unstorable")
    assert refused.device_key == "weatherstation/STATION-001"
    assert b"poison" in bytes(refused.payload)
    assert QuarantinedMessage.objects.count() == 3
    assert not [notified for notified in heard if notified[2] == "STATION-001"]


def test_what_the_database_refuses_is_still_a_message_of_its_device(station, refusing_database):
    """A message of a known device always has a row in its messages."""
    send(station, {"temperature": 5, "x": "poison"})

    assert message_row(station).outcome == "failed"
    assert message_row(station).processing_error.startswith("unstorable: ")


def test_what_the_database_refuses_changes_nothing_on_its_device(station, refusing_database):
    """This holds also if other messages of the same device in the same batch are stored."""
    batch = [
        message(station, {"status": "online", "battery_level": 90}, "status"),
        message(station, {"status": "error", "battery_level": 5, "x": "poison"}, "status"),
    ]

    assert pipeline(batch) == [STORED, FAILED]

    device = fresh(station)
    assert (device.status, device.battery_level) == ("online", 90)


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("disk is full"),
        OperationalError("locked"),
        OSError(24, "no more files"),
        MemoryError(),
    ],
)
def test_a_database_that_cannot_store_raises_and_notifies_no_listener(station, heard, monkeypatch, error):
    def broken(_items):
        raise error

    monkeypatch.setattr(store, "_write_rows", broken)

    with pytest.raises(type(error)):
        pipeline([message(station, {"temperature": 1}), Message("nowhere", b"{}", NOW)])

    assert not QuarantinedMessage.objects.exists()
    assert not station.messages.exists()
    assert fresh(station).last_seen is None
    assert heard == []
