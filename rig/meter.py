"""A meter with a reading of each type: payloads that it sends, the rows they become, and CBOR by hand."""

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
    topic = f"things/meter/METER-001/{about}"
    [outcome] = pipeline([Message(topic, payload, at, retain=retain, content_type=content_type)])
    return outcome


def stored(meter):
    """The rows of *meter*, oldest first, as dicts of what is not null; its time only where it is not NOW."""
    rows = []
    for found in meter.readings.order_by("timestamp", "id").values("timestamp", *registry.of(meter).readings):
        row = {n: bytes(v) if isinstance(v, memoryview) else v for n, v in found.items() if v is not None}
        if row["timestamp"] == NOW:
            del row["timestamp"]
        rows.append(row)
    return rows


# --- The table


def case(outcome, payload, *rows, notes=(), reason=None, content_type=""):
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
    return case(STORED, payload, *rows, content_type=content_type)


def part(payload, *rows, notes, content_type=""):
    return case(PARTIAL, payload, *rows, notes=notes, content_type=content_type)


def bad(reason, payload, content_type="", notes=()):
    return case(FAILED, payload, reason=reason, content_type=content_type, notes=notes)


def item(text, *parts):
    """CBOR as in RFC 8949: hexadecimal digits, with `%` where the encoding of a part stands."""
    pieces = [bytes.fromhex(piece) for piece in text.split("%")]
    return b"".join(piece + part for piece, part in zip(pieces, [*map(cbor2.dumps, parts), b""], strict=True))


TOO_LONG = b"9" * 5000


MAC = "urn:dev:mac:0024befffe804ff1/"
OLD = {"timestamp": EARLIER}


def is_as_sent(message, body):
    """The row has the bytes, or JSON that says the same to whoever reads it with the standard library.

    That of a failed message has neither: they are in the quarantine.
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
