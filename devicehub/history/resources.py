"""The readings of a typed device as resources of LwM2M, of those that name one: `Reading(lwm2m="3303/0/5700")`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from devicehub.history import latest
from devicehub.kinds.registry import Kind
from devicehub.kinds.store import Latest
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.formats import FORMATS
from devicehub.messages.lwm2m.values import Value
from devicehub.messages.resources import TYPES

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def of_device(kind: Kind, device: int) -> dict[str, Latest]:
    """Return the newest value of each resource of *device* (a primary key), by path such as `3303/0/5700`."""
    if kind.resources is None:
        return {}
    names = kind.resources.names
    found = latest.values(kind, [device], list(names.values()))
    return {path[1:]: found[device, name] for path, name in names.items() if (device, name) in found}


def encoded(kind: Kind, values: Mapping[str, Latest], form: str = "senml+json") -> bytes:
    """Return *values* of of_device() as SenML, each with its time; *form* is `senml+json` or `senml+cbor`."""
    types = {} if kind.resources is None else kind.resources.types
    rows = []
    for path, (held, measured_at) in values.items():
        ids = paths.parse(f"/{path}")
        kept = TYPES[types[ids[0], ids[2]]]
        rows.append(Value(ids, kept, _plain(held), _seconds(measured_at)))
    return FORMATS[form].encode(rows, ())


def _plain(held: Any) -> Any:
    return bytes(held) if isinstance(held, memoryview) else held


def _seconds(moment: datetime) -> int | Decimal:
    """Return *moment* in seconds since 1970, with all its digits."""
    since = moment - BEGINNING
    whole = since.days * 86_400 + since.seconds
    return whole + Decimal(since.microseconds) / 10**6 if since.microseconds else whole
