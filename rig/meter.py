"""A meter with a reading of each type: payloads that it sends, the stored rows, and CBOR by hand."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import cbor2

from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message, Outcome

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EPOCH = int(NOW.timestamp())
EARLIER = NOW - timedelta(hours=1)
MIB = 1 << 20
STORED, PARTIAL, FAILED, DUPLICATE, RETAINED = Outcome

SENML, SENML_CBOR, CBOR = "application/senml+json", "application/senml+cbor", "application/cbor"
READ_LATE = "timestamp: cannot be read, the time of receipt was used"
OUT_OF_TIME = "timestamp: more than ten years ago, the time of receipt was used"
AHEAD = "timestamp: more than five minutes ahead of the clock here, the time of receipt was used"
NOT_FINITE = "temperature: is not a finite number"
NUL = "holds a NUL or half a surrogate pair"


def send(payload, about="data", content_type="", at=NOW, retain=False):
    """Ingest a message of the meter, and return its outcome."""
    topic = f"things/meter/METER-001/{about}"
    [outcome] = pipeline([Message(topic, payload, at, retain=retain, content_type=content_type)])
    return outcome


def stored(meter):
    """Return the readings of *meter*, oldest first, without null columns, and without a time that is NOW."""
    rows = []
    for found in meter.readings.order_by("timestamp", "id").values("timestamp", *registry.of(meter).readings):
        row = {n: bytes(v) if isinstance(v, memoryview) else v for n, v in found.items() if v is not None}
        if row["timestamp"] == NOW:
            del row["timestamp"]
        rows.append(row)
    return rows


# --- The table


def case(outcome, payload, *rows, notes=(), reason=None, content_type=""):
    """Return a payload with its expected outcome, rows, notes and reason."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return SimpleNamespace(
        outcome=outcome,
        body=body,
        rows=list(rows),
        notes=list(notes),
        reason=reason,
        content_type=content_type,
    )


def ok(payload, *rows, content_type=""):
    """Return a payload that must be stored whole."""
    return case(STORED, payload, *rows, content_type=content_type)


def part(payload, *rows, notes, content_type=""):
    """Return a payload that must be stored in part."""
    return case(PARTIAL, payload, *rows, notes=notes, content_type=content_type)


def bad(reason, payload, content_type="", notes=()):
    """Return a payload that must fail for *reason*."""
    return case(FAILED, payload, reason=reason, content_type=content_type, notes=notes)


def item(text, *parts):
    """Return CBOR (RFC 8949) from the hexadecimal digits of *text*, with the encoding of a part at each `%`."""
    pieces = [bytes.fromhex(piece) for piece in text.split("%")]
    return b"".join(piece + part for piece, part in zip(pieces, [*map(cbor2.dumps, parts), b""], strict=True))


TOO_LONG = b"9" * 5000


MAC = "urn:dev:mac:0024befffe804ff1/"
OLD = {"timestamp": EARLIER}


def is_as_sent(message, body):
    """Return whether the row has the bytes of *body*, or JSON that the standard library reads as the same document.

    The row of a failed message has neither: its bytes are in the quarantine.
    """
    if message.outcome == FAILED:
        kept = message.payload_raw, message.payload_json, bytes(message.quarantined.payload)
        return kept == (None, None, body[:MIB])
    if message.payload_raw is not None:
        return message.payload_json is None and bytes(message.payload_raw) == body[:MIB]

    def unique(pairs):
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return message.payload_json == json.loads(body, object_pairs_hook=unique)
