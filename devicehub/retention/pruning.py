"""How long telemetry is kept, and what takes the rest away.

A type says it in its `class Meta`: keep_readings and keep_messages for rows, keep_hours and keep_days for rollups,
each a timedelta or a text such as "30d"; without it, or with None, for ever. Readings are taken away by whole
hours and hours by whole days of UTC, so up to that much longer is kept.
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

from authsvc.durations import duration
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
PAIRS = 300  # of a device and a reading, whose rollups are looked at together


class NotKept(DevicehubError, ValueError):
    """A text or value that says no time to keep something."""


@dataclass
class Pruned:
    """What became of one table: rows gone (or that would go), partitions dropped, and the oldest that is kept."""

    what: str
    deleted: int = 0
    partitions: int = 0
    oldest: datetime | None = None
    before: datetime | None = None


def keep(kind: Kind, option: str) -> timedelta | None:
    """How long *kind* keeps what *option* (keep_readings and so on) speaks of; None is for ever. NotKept."""
    return parse(kind.keep.get(option), SHORTEST.get(option, timedelta(hours=1)))


def keep_quarantine() -> timedelta | None:
    """How long quarantined messages are kept; None is for ever. NotKept."""
    return parse(settings.keep_quarantine or None, timedelta(hours=1))


def parse(value: Any, shortest: timedelta) -> timedelta | None:
    """The time that *value*, a timedelta or a text, says. Raises NotKept, with a sentence.

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
        raise NotKept(f"{value!r} is no duration; write a timedelta or a text such as '30d'")
    if value < shortest:
        raise NotKept(f"{value} is shorter than the {shortest} that are kept at least")
    return value


def prune(kind: Kind, pace: Pace, *, older_than: timedelta | None = None) -> list[Pruned]:
    """Take away what *kind* does not keep any more. Raises batches.Stopped; what is done then stays done.

    *older_than* stands for keep_readings and keep_messages. Readings are rolled up before they go.
    """
    partitions.extend(kind, pace)
    return [
        _prune_readings(kind, pace, older_than or keep(kind, "keep_readings")),
        _prune_messages(kind, pace, older_than or keep(kind, "keep_messages")),
        _prune_rollups(kind, pace, Rollup.Period.HOUR, keep(kind, "keep_hours")),
        _prune_rollups(kind, pace, Rollup.Period.DAY, keep(kind, "keep_days")),
    ]


def preview(kind: Kind, *, older_than: timedelta | None = None) -> list[Pruned]:
    """What prune() would take away now; it counts, and changes nothing."""
    readings = older_than or keep(kind, "keep_readings")
    messages = older_than or keep(kind, "keep_messages")
    found = [
        _together([_counted(model, "readings", "timestamp", readings, _hour) for model in kind.value_models]),
        _counted(kind.message_model, "messages", "received_at", messages, _same),
    ]
    for period, option in ((Rollup.Period.HOUR, "keep_hours"), (Rollup.Period.DAY, "keep_days")):
        rows = Rollup.objects.filter(device_key__startswith=f"{kind.slug}/", period=period)
        found.append(_counted_of(rows, f"{period}s", "start", keep(kind, option), _midnight))
    return found


def prune_quarantine(pace: Pace) -> Pruned:
    """Take away what the quarantine does not keep any more. Raises batches.Stopped."""
    kept, table = keep_quarantine(), QuarantinedMessage._meta.db_table
    done = Pruned("quarantine", before=timezone.now() - kept if kept else None)
    if done.before:
        old = Where("received_at < %s", [as_time(done.before)])
        try:
            done.deleted = batches.delete_by_time(table, "received_at", old, pace)
        finally:  # also when it was stopped
            QuarantineUse.invalidate()
        before = Where("last_at < %s", old.parameters)
        batches.delete_by_time(CountedRefusal._meta.db_table, "last_at", before, pace)
    done.oldest = _oldest(QuarantinedMessage, "received_at")
    return done


def preview_quarantine() -> Pruned:
    return _counted(QuarantinedMessage, "quarantine", "received_at", keep_quarantine(), _same)


def _prune_readings(kind: Kind, pace: Pace, kept: timedelta | None) -> Pruned:
    done = Pruned("readings", before=_hour(timezone.now() - kept) if kept else None)
    if done.before is not None:
        rolled_up_to, known = None, None
        if rollups.numeric(kind):
            while rollups.roll_up(kinds=[kind], pace=pace):
                pass
            rolled_up_to = rollups.last_rolled_up(kind)
            # The plus keeps both databases from walking along the ids instead of the times.
            known = Where("+id <= %s", [rolled_up_to])
        done.partitions = partitions.drop_before(kind, done.before, rolled_up_to, pace)
        old = Where("timestamp < %s", [as_time(done.before)])
        for model in kind.value_models:
            done.deleted += batches.delete_by_time(
                model._meta.db_table, "timestamp", old, pace, but_only=known
            )
    done.oldest = min(
        filter(None, (_oldest(model, "timestamp") for model in kind.value_models)), default=None
    )
    return done


def _prune_messages(kind: Kind, pace: Pace, kept: timedelta | None) -> Pruned:
    done = Pruned("messages", before=timezone.now() - kept if kept else None)
    if done.before is not None:
        table = kind.message_model._meta.db_table
        done.deleted = batches.trim(table, "received_at", as_time(done.before), pace)
    # Rows are written in that order, and there is no index on the time.
    done.oldest = kind.message_model.objects.order_by("pk").values_list("received_at", flat=True).first()
    return done


def _prune_rollups(kind: Kind, pace: Pace, period: Rollup.Period, kept: timedelta | None) -> Pruned:
    """By devices and names, as the one index of the table is ordered."""
    done = Pruned(f"{period}s", before=_midnight(timezone.now() - kept) if kept else None)
    if done.before is None:
        return done
    if period == Rollup.Period.HOUR:
        rollups.set_hours_from(kind, done.before)
    last = ("", "")
    # What the rollups name and not what is declared: a reading or a device may be gone by now.
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
    """After much was deleted on SQLite: copy the write-ahead log into the database, waiting for nobody."""
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        execute("PRAGMA wal_checkpoint(PASSIVE)")


def _together(found: list[Pruned]) -> Pruned:
    """Return what was counted of the tables of readings of a kind as one."""
    return Pruned(
        "readings",
        sum(one.deleted for one in found),
        oldest=min((one.oldest for one in found if one.oldest), default=None),
        before=found[0].before if found else None,
    )


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
