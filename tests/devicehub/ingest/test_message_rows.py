"""The rows that ingest writes besides readings: messages, and the quarantine."""

import json

import pytest

from devicehub.ingest import pipeline as door
from devicehub.ingest.pipeline import pipeline
from devicehub.messages.message import MAX_KEPT, Message
from devicehub.models import QuarantinedMessage
from rig.messages import EARLIER, FAILED, NOW, PARTIAL, STORED, iso, message, message_row, send

# --- The message row and the quarantine row


def test_the_message_row_of_a_stored_message(station):
    outcome = send(
        station,
        {"temperature": 1, "timestamp": iso(EARLIER)},
        content_type="application/json; charset=utf-8",
        correlation_id="c-1",
        user_properties=(("trace", "t-1"), ("trace", "t-2"), ("x", "ä")),
    )

    row = message_row(station)
    assert outcome is STORED
    assert row.topic == "things/weatherstation/STATION-001/data"
    assert row.payload_json == {"temperature": 1, "timestamp": iso(EARLIER)}
    assert row.payload_raw is None
    assert (row.content_type, row.correlation_id) == ("application/json; charset=utf-8", "c-1")
    assert row.user_properties["x"] == "ä"
    assert (row.processing_status, row.processing_error, row.outcome) == ("completed", "", "stored")
    assert row.notes == []
    assert row.processed_at is not None
    assert len(row.digest) == 64


@pytest.mark.parametrize(
    "content_type", ["text/plain", "APPLICATION/JSON", "x" * 65_535, "\0;\0", "; ;", "/"]
)
def test_an_odd_content_type_is_taken_for_json(station, content_type):
    assert send(station, {"temperature": 1}, content_type=content_type) is STORED
    assert len(message_row(station).content_type) <= 100


def test_odd_properties_are_bounded_and_cost_no_reading(station):
    outcome = send(
        station,
        {"temperature": 1},
        content_type="\0\ud800" * 100,
        correlation_id="\0\ufffd" * 1000,
        user_properties=tuple(("\0\udc00" + "k" * 5000 + str(n), "\0" + "v" * 65_535) for n in range(3000)),
    )

    assert outcome is STORED
    row = message_row(station)
    assert len(row.user_properties) <= 32
    assert "\0" not in json.dumps(row.user_properties, ensure_ascii=False) + row.content_type
    assert len(row.correlation_id) <= 256


def test_the_rows_of_a_message_that_is_no_json(station):
    body = b'\xff\x00{"temperature": 1}'
    send(station, body, content_type="text/x", correlation_id="c-1")

    row = message_row(station)
    assert (row.payload_json, row.payload_raw) == (None, None)
    assert row.quarantined == QuarantinedMessage.objects.get()
    assert (row.processing_status, row.outcome) == ("failed", "failed")
    assert row.processing_error.startswith("not_json: ")
    assert row.digest is None
    held = QuarantinedMessage.objects.get()
    assert (held.reason, bytes(held.payload), held.content_type) == ("not_json", body, "text/x")
    assert (held.topic, held.device_key) == (row.topic, "weatherstation/STATION-001")
    assert (held.received_at, held.replayed_at) == (NOW, None)
    assert held.detail


@pytest.mark.parametrize("body", [b'{"temperature": 1, "x": "\\u0000"}', b'{"temperature": 1, "\\u0000": 1}'])
def test_a_document_with_a_nul_is_kept_byte_for_byte(station, body):
    assert send(station, body) is PARTIAL

    row = message_row(station)
    assert bytes(row.payload_raw) == body
    assert row.payload_json is None


def test_the_quarantine_keeps_one_mebibyte(station):
    body = b"x" * (MAX_KEPT + 10)
    pipeline([message(station, body), Message("nowhere", body, NOW)])

    assert [len(bytes(row.payload)) for row in QuarantinedMessage.objects.all()] == [1 << 20, 1 << 20]


def test_a_long_reason_fits_its_row(station):
    assert send(station, {"x" * 64 + str(n): n for n in range(500)}) is FAILED

    assert len(QuarantinedMessage.objects.get().detail) <= 500


def test_a_bug_in_a_reader_costs_one_message(station, neighbour, monkeypatch):
    """If reading a message raises an error in spite of all checks, only this message fails."""
    monkeypatch.setattr(door.decode, "samples", lambda *_: 1 / 0)

    outcomes = pipeline(
        [message(station, {"temperature": 1}), message(neighbour, {"battery_level": 1}, "status")]
    )

    assert outcomes == [FAILED, STORED]
    assert QuarantinedMessage.objects.get().reason == "unstorable"
    assert message_row(station).outcome == "failed"


# --- The quarantine in the admin


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b'{"temperature": <b>', "{&quot;temperature&quot;: &lt;b&gt;"),
        (b"\xff\x00", "ff 00"),
        (b"line\nline", "6c 69 6e 65 0a"),
        (b"", "(empty)"),
        (b"x" * 5000, "... (5,000 bytes)"),
    ],
)
def test_the_admin_shows_what_was_sent(admin_client, payload, shown):
    pipeline([Message("nowhere", payload, NOW)])
    row = QuarantinedMessage.objects.get()

    page = admin_client.get(f"/admin/devicehub/quarantinedmessage/{row.pk}/change/").content.decode()

    assert shown in page
    assert "<b>" not in page.replace("<b>Hint", "")
