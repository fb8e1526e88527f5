"""Values that were read with definitions which changed before they are written: they get the types of the new ones.

An import gives stored values their types; it waits for transactions that hold the definitions, and sees their rows.
So a value is either written with the new definitions, or found by the import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from devicehub.ingest.items import Judged
from devicehub.lwm2m import catalogue
from devicehub.lwm2m.catalogue import Catalogue, Finder
from devicehub.lwm2m.conversion import retyped
from devicehub.lwm2m.inbox.writing import Placed


def renew(
    items: Sequence[Judged], read_with: Catalogue | None, versions_of: Callable[[Any], Mapping[str, str]]
) -> Sequence[Judged]:
    """Return *items* with the types of the present definitions, and hold these until the transaction ends.

    *read_with* are the definitions with which they were read; *versions_of* returns the object versions of a device.
    """
    if not items:
        return items
    present = catalogue.held()
    if read_with is not None and read_with.revision == present.revision:
        return items
    return [_renewed(item, present.finder(versions_of(item.device))) for item in items]


def _renewed(item: Judged, finder: Finder) -> Judged:
    values = [_placed_anew(placed, finder) for placed in item.own.values]
    return item._replace(own=item.own._replace(values=values))


def _placed_anew(placed: Placed, finder: Finder) -> Placed:
    object_id, _, resource_id, *_ = placed.path
    declared = finder.type_of(object_id, resource_id)
    found = None
    if declared is not None and declared != placed.type:
        found = retyped(placed.type, placed.value, declared)
    kind, value = found or (placed.type, placed.value)
    return placed._replace(resource_type=finder.key_of(object_id, resource_id), type=kind, value=value)
