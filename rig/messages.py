"""Messages of devices, sent through the pipeline, and the stored rows. `NOW` is the time of receipt."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

from devicehub.ingest.pipeline import pipeline
from devicehub.kinds.registry import registry
from devicehub.messages.message import Message, Outcome

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EARLIER = NOW - HOUR
STORED, PARTIAL, FAILED, DUPLICATE, RETAINED = Outcome


def message(device, payload, about="data", *, at=NOW, **options):
    """Return a message of *device*; a *payload* that is not bytes is encoded as JSON."""
    slug = registry.of(device).slug
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Message(f"things/{slug}/{device.device_id}/{about}", body, at, **options)


def send(device, payload, about="data", **options):
    """Ingest a message of *device*, and return its outcome."""
    [outcome] = pipeline([message(device, payload, about, **options)])
    return outcome


def readings(device, columns=None):
    """Return the readings of *device*, oldest first, as dicts without the null columns."""
    names = columns or list(registry.of(device).readings)
    rows = device.readings.order_by("id").values("timestamp", *names)
    return [{n: _plain(v) for n, v in row.items() if v is not None} for row in rows]


def _plain(value):
    return bytes(value) if isinstance(value, memoryview) else value


def message_row(device):
    """Return the only message row of *device*."""
    return device.messages.get()


def fresh(device):
    """Return *device*, read again from the database."""
    return type(device).objects.get(pk=device.pk)


def iso(moment):
    """Return *moment* in ISO 8601."""
    return moment.isoformat()


# --- Forms of a payload


def case(outcome, payload, *rows, reason=None, notes=()):
    """Return a payload with its expected outcome, rows, reason and notes."""
    return SimpleNamespace(payload=payload, outcome=outcome, rows=rows, reason=reason, notes=notes)


def row(timestamp=NOW, **values):
    """Return an expected reading."""
    return {"timestamp": timestamp, **values}


def failed(payload, reason):
    """Return a payload that must fail for *reason*."""
    return case(FAILED, payload, reason=reason)
