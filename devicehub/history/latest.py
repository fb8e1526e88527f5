"""The newest value of each reading of a device, the devices heard last, and the newest measurement of a kind.

Pages and REST read them here. *Newest* goes by the time of measurement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery, Value
from django.db.models.functions import Coalesce

from devicehub.errors import DevicehubError
from devicehub.history import rows
from devicehub.kinds.registry import Kind
from devicehub.kinds.store import Latest

# A value is searched for in this many of a device's newest rows: a reading that a device never sends must not
# cost a scan of all its rows.
NEWEST = 20
HEARD = 5_000  # The devices heard last are searched for in this many of the newest rows.
HEAVIEST = 8 << 20  # Bytes of the newest values of a device that are read at once.
LONG_AGO = datetime(1, 1, 2, tzinfo=UTC)


class TooHeavy(DevicehubError):
    """The newest values have too many bytes to read them at once."""


def values(kind: Kind, devices: Collection[int], names: Sequence[str]) -> dict[tuple[int, str], Latest]:
    """Return the newest value of each reading in *names* of *devices* (primary keys), by device and reading.

    It takes two queries for any number of devices. A reading without a value in the newest NEWEST rows is missing.
    """
    if not devices or not names:
        return {}
    if kind.store is not None:
        return dict(kind.store.latest(devices, names))
    if kind.reading_model is None:
        return {}
    found_devices = kind.device_model.objects.filter(pk__in=list(devices)).order_by()
    readings = kind.reading_model.objects.filter(device=OuterRef("pk")).order_by("-timestamp", "-pk")
    oldest = readings.values("timestamp")[NEWEST - 1 : NEWEST]
    found_devices = found_devices.annotate(newest_since=Coalesce(Subquery(oldest), Value(LONG_AGO)))
    recent = readings.filter(timestamp__gte=OuterRef("newest_since"))
    # Numbered names, since a reading may have the name of a column.
    columns = {
        f"newest_row_{number}": Subquery(recent.filter(**{f"{name}__isnull": False}).values("pk")[:1])
        for number, name in enumerate(names)
    }
    wanted: dict[tuple[int, str], int] = {}
    for pk, *found in found_devices.annotate(**columns).values_list("pk", *columns):
        wanted |= {(pk, name): row for name, row in zip(names, found, strict=True) if row is not None}
    by_pk = kind.reading_model.objects.in_bulk(list(set(wanted.values())))
    return {
        (device, name): Latest(getattr(by_pk[row], name), by_pk[row].timestamp)
        for (device, name), row in wanted.items()
        if row in by_pk  # A row may have been pruned meanwhile.
    }


def of_device(kind: Kind, device: int, names: Sequence[str] = ()) -> dict[str, Latest]:
    """Return the newest value of each reading of *device* (a primary key) by name, in a handful of queries.

    Without *names* they are the declared readings, or the first MOST_NAMES names in its narrow table. Raise TooHeavy.
    """
    wanted = list(names)
    if not wanted:
        wanted = list(kind.columns) if kind.history_model is None else rows.names(kind, device)
    if kind.weight(device, wanted) > HEAVIEST:
        raise TooHeavy(f"These values have more than {HEAVIEST:,} bytes.")
    found = values(kind, [device], wanted)
    return {name: found[device, name] for name in wanted if (device, name) in found}


def heard_last(
    kind: Kind, name: str, since: datetime, until: datetime, most: int, of: QuerySet[Any] | None = None
) -> list[int]:
    """Return the primary keys of at most *most* devices *of* this set that measured reading *name* last in this time.

    Only the newest HEARD rows are searched. If there are at most *most* devices, all of them are returned. Without
    *of* all devices of *kind* count.
    """
    devices = kind.device_model.objects.all() if of is None else of
    few = list(devices.order_by("device_id").values_list("pk", flat=True)[: most + 1])
    if len(few) <= most:
        return few
    recent = _readings(kind, of).filter(timestamp__gte=since, timestamp__lte=until).order_by("-timestamp")
    if kind.narrow is None:
        newest = list(recent.values_list("device_id", name)[:HEARD])
    else:  # Compared here: a search for a rare name would not end after HEARD rows.
        columns = ("device_id", kind.narrow.value_column, kind.narrow.name_column)
        newest = [row[:2] for row in recent.values_list(*columns)[:HEARD] if row[2] == name]
    return list(dict.fromkeys(device for device, value in newest if value is not None))[:most]


def measured_at(kind: Kind, of: QuerySet[Any] | None = None) -> datetime | None:
    """Return the time of the newest reading of *kind*, or of its devices *of*; None without one."""
    moment: datetime | None = (
        _readings(kind, of).order_by("-timestamp").values_list("timestamp", flat=True).first()
    )
    return moment


def _readings(kind: Kind, of: QuerySet[Any] | None) -> QuerySet[Any]:
    """Return the readings of the devices *of*; a set without a condition is not compared, which would cost a join."""
    readings: QuerySet[Any] = kind.history_model.objects.all()
    if of is None or not of.query.where:
        return readings
    return readings.filter(device__in=of.order_by().values("pk"))
