"""Clearing of retained messages of deleted and disabled devices. A topic is queued until the broker has cleared it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog
from django.utils import timezone

from devicehub import mqtt
from devicehub.backoff import Backoff
from devicehub.commands import wire
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind
from devicehub.kinds.topics import MessageType
from devicehub.models import RetainedTopic

log = structlog.get_logger(__name__)

AT_ONCE = 500  # topics per connection
REFUSED = "the broker refused it: "
MAX_REFUSALS = 5  # After this many refusals in a row a topic is dropped.
# Ingest recognises these messages by their correlation data, so that it does not take them for messages of a device
# re-created under the same id.
CORRELATION = "devicehub: forget"
RETRY = Backoff.doubling(60, 24 * 3600)  # seconds


def enqueue(kind: Kind, device_ids: Iterable[str]) -> int:
    """Queue the topics of these devices for clearing; return how many."""
    now = timezone.now()
    rows = [
        RetainedTopic(topic=topics.build(kind, device_id, about), requested_at=now, next_at=now)
        for device_id in device_ids
        for about in MessageType
    ]
    RetainedTopic.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["topic"],
        update_fields=["requested_at", "next_at", "attempts", "error"],
    )
    return len(rows)


def clear(limit: int = AT_ONCE) -> int:
    """Clear queued topics at the broker by empty retained messages; return how many.

    MQTT 5.0, 3.3.1.3: a retained message without a payload removes the one of its topic. A topic that the broker
    refuses or does not acknowledge stays queued with the error. It is retried after one minute, then two, four, up to
    a day. After five refusals in a row it is dropped. An MQTT 3.1.1 broker cannot report a refusal.
    """
    now = timezone.now()
    due = list(RetainedTopic.objects.filter(next_at__lte=now).order_by("next_at")[:limit])
    revived = _enabled_again(due)
    for row in revived:
        _done(row)
    due = [row for row in due if row not in revived]
    if not due:
        return 0
    try:
        connection = wire.connect("-retained")
    except (mqtt.MqttError, mqtt.InvalidAddress) as error:
        for row in due:
            _postpone(row, str(error), now)
        return 0
    try:
        return _clear(connection, due, now)
    finally:
        connection.close()


def _clear(connection: mqtt.Connection, due: list[RetainedTopic], now: datetime) -> int:
    cleared = 0
    for row in due:
        try:
            ack = connection.publish(
                mqtt.Outgoing(row.topic, b"", qos=1, retain=True, correlation_data=CORRELATION.encode())
            )
        except mqtt.Unacknowledged as error:
            _postpone(row, str(error), now)
            break  # Each further topic would wait as long; they stay due.
        except mqtt.MqttError as error:
            _postpone(row, str(error), now)
        else:
            if ack.is_failure:
                _refused(row, str(ack.reason), now)
                continue
            _done(row)
            cleared += 1
    return cleared


def _enabled_again(rows: list[RetainedTopic]) -> list[RetainedTopic]:
    """Return the rows whose device is active again: its retained messages must stay.

    Another device created later with the same id does not count.
    """
    found = []
    for row in rows:
        address = topics.parse(row.topic)
        if address is None:
            continue
        devices = address.kind.device_model.objects.filter(device_id=address.device_id, is_active=True)
        if devices.filter(created_at__lt=row.requested_at).exists():
            found.append(row)
    return found


def _done(row: RetainedTopic) -> None:
    """Delete *row* from the queue unless it was queued again meanwhile."""
    RetainedTopic.objects.filter(pk=row.pk, requested_at=row.requested_at).delete()


def _refused(row: RetainedTopic, reason: str, now: datetime) -> None:
    """Postpone *row*, or drop it after MAX_REFUSALS: a broker whose rules do not allow it refuses each time."""
    # Only refusals count; before, the broker may have been away.
    before = row.attempts if row.error.startswith(REFUSED) else 0
    if before + 1 < MAX_REFUSALS:
        row.attempts = before
        _postpone(row, f"{REFUSED}{reason}", now)
        return
    log.warning("retained.given_up", topic=row.topic, reason=reason, refused=MAX_REFUSALS)
    _done(row)


def _postpone(row: RetainedTopic, error: str, now: datetime) -> None:
    attempts = row.attempts + 1
    unchanged = RetainedTopic.objects.filter(pk=row.pk, requested_at=row.requested_at)
    unchanged.update(
        attempts=attempts, error=error[:300], next_at=now + timedelta(seconds=RETRY.after(attempts))
    )
