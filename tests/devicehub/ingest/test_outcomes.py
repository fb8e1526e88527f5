"""Payloads on a data topic, each with its outcome, its rows and its notes."""

import pytest

from devicehub.ingest.pipeline import pipeline
from devicehub.models import QuarantinedMessage
from rig.messages import FAILED, PARTIAL, STORED, message, message_row, readings, row, send
from rig.payloads import FORMS

pytestmark = pytest.mark.sqlite_first


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_each_payload_has_its_outcome(station, form):
    outcome = send(station, form.payload)

    row = message_row(station)
    assert (outcome, row.outcome) == (form.outcome, form.outcome), row.processing_error
    assert readings(station) == list(form.rows)
    for note in form.notes:
        assert any(note in written for written in row.notes), row.notes
    assert bool(row.notes) or outcome is not PARTIAL
    quarantined = QuarantinedMessage.objects.first()
    if outcome is FAILED:
        assert quarantined.reason == form.reason
        assert row.processing_status == "failed"
        assert row.processing_error.startswith(f"{form.reason}: ")
    else:
        assert quarantined is None
        assert row.processing_status == "completed"
        assert row.processing_error == ""


@pytest.mark.parametrize("depth", [10, 100, 400, 500, 900, 950, 990, 1000, 1010, 1021])
@pytest.mark.parametrize("about", ["data", "status", "reply"])
def test_no_depth_of_nesting_stops_the_batch(probe, station, depth, about):
    """The parser accepts 1,024 levels; the code after it must handle or refuse them."""
    deep = b"[" * depth + b"]" * depth
    body = {
        "data": b'{"other": 1, "extra": %b, "x": %b}',
        "status": b'{"battery_level": 5, "layout": %b, "x": %b}',
        "reply": b'{"id": "1", "ok": true, "result": %b, "x": %b}',
    }[about] % (deep, deep)

    outcomes = pipeline([message(probe, body, about), message(station, {"temperature": 1})])

    assert outcomes[0] in (STORED, PARTIAL, FAILED)
    assert outcomes[1] is STORED
    assert len(readings(station)) == 1
    assert probe.messages.count() == 1


def test_of_a_name_twice_in_one_object_the_last_counts(station):
    body = b'{"temperature": 1, "temperature": 2}'

    assert send(station, body) is PARTIAL
    assert readings(station) == [row(temperature=2.0)]
    assert message_row(station).notes == ["temperature: given twice, the last counts"]
    assert bytes(message_row(station).payload_raw) == body


def test_a_message_with_ten_thousand_unknown_fields_keeps_its_value_and_few_notes(station):
    assert send(station, {"temperature": 1} | {f"x{n}": n for n in range(10_000)}) is PARTIAL

    assert readings(station) == [row(temperature=1.0)]
    assert len(message_row(station).notes) <= 100
