"""Retention of telemetry: how long it is kept, and the deletion of older rows.

The `class Meta` of a type has the options keep_readings and keep_messages for rows, keep_hours and keep_days for
rollups. Each is a timedelta or a text such as "30d"; without it, or with None, rows are kept for ever. Readings are
deleted by whole hours and hours by whole days of UTC, so they are kept for up to that much longer.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Min
from django.utils import timezone

from authsvc.audit import retention
from authsvc.durations import duration
from authsvc.models import AuditEntry
from devicehub.conf import settings
from devicehub.db import batches
from devicehub.db.batches import Pace, Where
from devicehub.db.statements import as_time, execute
from devicehub.errors import DevicehubError
from devicehub.history import rollup_sql, rollups
from devicehub.kinds.registry import Kind
from devicehub.models import CountedRefusal, QuarantinedMessage, QuarantineUse, Rollup
from devicehub.retention import partitions

OPTIONS = ("keep_readings", "keep_messages", "keep_hours", "keep_days")
SHORTEST = {"keep_hours": timedelta(days=1), "keep_days": timedelta(days=1)}
CLOCKS_DIFFER = timedelta(minutes=5)
PAIRS = 300  # pairs of a device and a reading, whose rollups one statement handles


class NotKept(DevicehubError, ValueError):
    """The value is not a time to keep rows, or it is too short."""


@dataclass
class Pruned:
    """The result for one table: rows deleted (or to be deleted), partitions dropped, and the time of the oldest row."""

    what: str
    deleted: int = 0
    partitions: int = 0
    oldest: datetime | None = None
    before: datetime | None = None


def keep(kind: Kind, option: str) -> timedelta | None:
    """Return how long *kind* keeps the rows of *option* (such as keep_readings); None is for ever. Raise NotKept."""
    return parse(kind.keep.get(option), SHORTEST.get(option, timedelta(hours=1)))


def keep_quarantine() -> timedelta | None:
    """Return how long quarantined messages are kept; None is for ever. Raise NotKept."""
    return parse(settings.keep_quarantine or None, timedelta(hours=1))


def parse(value: Any, shortest: timedelta) -> timedelta | None:
    """Return *value*, a timedelta or a text, as a timedelta, or None. Raise NotKept, with the reason as its text.

    >>> parse("30d", timedelta(hours=1))
    datetime.timedelta(days=30)
    """
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = duration(value)
        except ArgumentTypeError as error:
            raise NotKept(str(error)) from error
    if not isinstance(value, timedelta):
        raise NotKept(f"{value!r} is not a duration; write a timedelta or a text such as '30d'")
    if value < shortest:
        raise NotKept(f"{value} is too short; keep rows for at least {shortest}")
    return value


def prune(kind: Kind, pace: Pace, *, older_than: timedelta | None = None) -> list[Pruned]:
    """Delete the expired rows of *kind*. Raise batches.Stopped; rows deleted until then stay deleted.

    *older_than* replaces keep_readings and keep_messages. Readings are rolled up before they are deleted. All tables
    of a store keep their rows as long as readings.
    """
    partitions.extend(kind, pace)
    return [
        *_prune_values(kind, pace, older_than or keep(kind, "keep_readings")),
        _prune_messages(kind, pace, older_than or keep(kind, "keep_messages")),
        _prune_rollups(kind, pace, Rollup.Period.HOUR, keep(kind, "keep_hours")),
        _prune_rollups(kind, pace, Rollup.Period.DAY, keep(kind, "keep_days")),
    ]


def preview(kind: Kind, *, older_than: timedelta | None = None) -> list[Pruned]:
    """Count the rows that prune() would delete now; change nothing."""
    readings = older_than or keep(kind, "keep_readings")
    messages = older_than or keep(kind, "keep_messages")
    found = [
        *_together(
            _counted(model, kind.counted_as(model), "timestamp", readings, _hour)
            for model in kind.value_models
        ),
        _counted(kind.message_model, "messages", "received_at", messages, _same),
    ]
    for period, option in ((Rollup.Period.HOUR, "keep_hours"), (Rollup.Period.DAY, "keep_days")):
        rows = Rollup.objects.filter(device_key__startswith=f"{kind.slug}/", period=period)
        found.append(_counted_of(rows, f"{period}s", "start", keep(kind, option), _midnight))
    return found


def prune_quarantine(pace: Pace) -> Pruned:
    """Delete the expired rows of the quarantine. Raise batches.Stopped."""
    kept, table = keep_quarantine(), QuarantinedMessage._meta.db_table
    done = Pruned("quarantine", before=timezone.now() - kept if kept else None)
    if done.before:
        old = Where("received_at < %s", [as_time(done.before)])
        try:
            done.deleted = batches.delete_by_time(table, "received_at", old, pace)
        finally:  # Also after a stop.
            QuarantineUse.invalidate()
        before = Where("last_at < %s", old.parameters)
        batches.delete_by_time(CountedRefusal._meta.db_table, "last_at", before, pace)
    done.oldest = _oldest(QuarantinedMessage, "received_at")
    return done


def prune_audit(pace: Pace) -> Pruned:
    """Delete the entries of the audit that are older than AUTHSVC_KEEP_AUDIT. Raise batches.Stopped."""
    done = Pruned("audit", before=_audit_before())
    if done.before:
        old = Where("at < %s", [as_time(done.before)])
        done.deleted = batches.delete_by_time(AuditEntry._meta.db_table, "at", old, pace)
    done.oldest = _oldest(AuditEntry, "at")
    return done


def preview_audit() -> Pruned:
    """Count the entries that prune_audit() would delete now; change nothing."""
    before = _audit_before()
    rows = AuditEntry.objects.filter(at__lt=before) if before else AuditEntry.objects.none()
    kept = AuditEntry.objects.filter(at__gte=before) if before else AuditEntry.objects.all()
    return Pruned("audit", rows.count(), oldest=kept.aggregate(oldest=Min("at"))["oldest"], before=before)


def _audit_before() -> datetime | None:
    """Return the time before which entries expired, a little early: triggers compare with the database's clock."""
    before = retention.expired_before(retention.stored())
    return before - CLOCKS_DIFFER if before else None


def preview_quarantine() -> Pruned:
    """Count the rows that prune_quarantine() would delete now; change nothing."""
    return _counted(QuarantinedMessage, "quarantine", "received_at", keep_quarantine(), _same)


def _prune_values(kind: Kind, pace: Pace, kept: timedelta | None) -> list[Pruned]:
    before = _hour(timezone.now() - kept) if kept else None
    if before is not None and rollups.source(kind) is not None:
        while rollups.roll_up(kinds=[kind], pace=pace):
            pass
    return _together(_prune_table(kind, model, before, pace) for model in kind.value_models)


def _prune_table(kind: Kind, model: type[Any], before: datetime | None, pace: Pace) -> Pruned:
    done = Pruned(kind.counted_as(model), before=before)
    if before is not None:
        rolled_up_to, rolled_up = None, None
        if model is kind.history_model:
            if rollups.source(kind) is not None:
                rolled_up_to = rollups.last_rolled_up(kind)
                # With the plus, both databases use the index of the times instead of the ids.
                rolled_up = Where("+id <= %s", [rolled_up_to])
            done.partitions = partitions.drop_before(kind, before, rolled_up_to, pace)
        done.deleted = batches.delete_by_time(
            model._meta.db_table,
            "timestamp",
            Where("timestamp < %s", [as_time(before)]),
            pace,
            but_only=rolled_up,
        )
    done.oldest = _oldest(model, "timestamp")
    return done


def _prune_messages(kind: Kind, pace: Pace, kept: timedelta | None) -> Pruned:
    done = Pruned("messages", before=timezone.now() - kept if kept else None)
    if done.before is not None:
        table = kind.message_model._meta.db_table
        done.deleted = batches.trim(table, "received_at", as_time(done.before), pace)
    # Rows are written in the order of the time, which has no index.
    done.oldest = kind.message_model.objects.order_by("pk").values_list("received_at", flat=True).first()
    return done


def _prune_rollups(kind: Kind, pace: Pace, period: Rollup.Period, kept: timedelta | None) -> Pruned:
    """Delete expired rollups by devices and names, the order of the table's only index."""
    done = Pruned(f"{period}s", before=_midnight(timezone.now() - kept) if kept else None)
    if done.before is None:
        return done
    if period == Rollup.Period.HOUR:
        rollups.set_hours_from(kind, done.before)
    last = ("", "")
    # Pairs come from the rollups and not from the declarations: a reading or a device may be gone by now.
    while pairs := rollup_sql.pairs(last, PAIRS):
        last = pairs[-1]
        ours = [(key, name) for key, name in pairs if key.startswith(f"{kind.slug}/")]
        if not ours:
            continue
        keys, names = (sorted(set(values)) for values in zip(*ours, strict=True))
        condition = (
            f"device_key IN ({_places(keys)}) AND name IN ({_places(names)}) AND period = %s AND start < %s"
        )
        parameters = [*keys, *names, period.value, as_time(done.before)]
        done.deleted += batches.drain(Rollup._meta.db_table, condition, parameters, pace)
    return done


def settle_file() -> None:
    """Copy the write-ahead log of SQLite into the database after large deletions, without waiting for locks."""
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        execute("PRAGMA wal_checkpoint(PASSIVE)")


def _together(found: Iterable[Pruned]) -> list[Pruned]:
    """Return the results for a kind's tables of values, added up by the name of their rows; readings come first."""
    total = {"readings": Pruned("readings")}
    for one in found:
        sums = total.setdefault(one.what, Pruned(one.what))
        sums.deleted += one.deleted
        sums.partitions += one.partitions
        sums.oldest = min(filter(None, (sums.oldest, one.oldest)), default=None)
        sums.before = one.before
    return list(total.values())


def _counted(model: Any, what: str, column: str, kept: timedelta | None, floor: Any) -> Pruned:
    return _counted_of(model.objects.all(), what, column, kept, floor)


def _counted_of(rows: Any, what: str, column: str, kept: timedelta | None, floor: Any) -> Pruned:
    if kept is None:
        return Pruned(what, oldest=rows.aggregate(oldest=Min(column))["oldest"])
    before = floor(timezone.now() - kept)
    oldest = rows.filter(**{f"{column}__gte": before}).aggregate(oldest=Min(column))["oldest"]
    return Pruned(what, rows.filter(**{f"{column}__lt": before}).count(), oldest=oldest, before=before)


def _oldest(model: Any, column: str) -> datetime | None:
    oldest: datetime | None = model.objects.order_by(column).values_list(column, flat=True).first()
    return oldest


def _places(values: Iterable[Any]) -> str:
    return ", ".join("%s" for _ in values)


def _same(moment: datetime) -> datetime:
    return moment


def _hour(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _midnight(moment: datetime) -> datetime:
    return _hour(moment).replace(hour=0)
