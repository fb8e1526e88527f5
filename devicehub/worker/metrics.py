"""Counters of an ingest worker for Prometheus (`listen_mqtt --metrics PORT`), added to once for each batch."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from devicehub.ingest.items import Item
from devicehub.messages.message import Outcome

REGISTRY = CollectorRegistry(auto_describe=False)
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_messages = Counter(
    "devicehub_ingest_messages",
    "Messages by outcome, and by reason if they failed.",
    ["outcome", "reason"],
    registry=REGISTRY,
)
_only_counted = Counter(
    "devicehub_ingest_only_counted_messages",
    "Refused messages that the quarantine did not keep, beyond DEVICEHUB_QUARANTINE_PER_DEVICE.",
    ["reason"],
    registry=REGISTRY,
)
_batch = Histogram(
    "devicehub_ingest_batch_messages",
    "Messages in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
    registry=REGISTRY,
)
_lag = Histogram(
    "devicehub_ingest_lag_seconds",
    "Seconds from the receipt of a batch's oldest message to its commit.",
    buckets=SECONDS,
    registry=REGISTRY,
)
_stored = Histogram(
    "devicehub_ingest_store_seconds",
    "Seconds to judge and commit a batch.",
    buckets=SECONDS,
    registry=REGISTRY,
)
_failures = Counter(
    "devicehub_ingest_storage_failures",
    "Batches that the database could not store; the broker sends them again.",
    registry=REGISTRY,
)
_unwanted = Counter(
    "devicehub_ingest_unwanted_messages",
    "Messages that a subscription of earlier settings brought; they are acknowledged and not stored.",
    registry=REGISTRY,
)


def stored(batch: Sequence[Item], began: float, ended: float) -> None:
    """Count *batch*, which was committed; the times are Unix seconds."""
    ends = Counts((item.outcome, item.reason or "", item.kept_as is None) for item in batch)
    for (outcome, reason, is_not_kept), count in ends.items():
        _messages.labels(outcome, reason).inc(count)
        if outcome is Outcome.FAILED and is_not_kept:
            _only_counted.labels(reason).inc(count)
    _batch.observe(len(batch))
    _stored.observe(max(0.0, ended - began))
    oldest = min(item.message.received_at for item in batch)
    _lag.observe(max(0.0, ended - oldest.timestamp()))


def unwanted(count: int) -> None:
    """Count *count* messages on topics that the present settings do not subscribe to."""
    _unwanted.inc(count)


def not_stored() -> None:
    """Count a batch that the database could not store."""
    _failures.inc()
