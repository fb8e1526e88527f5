"""The LwM2M resources that readings of a device type are: `Reading(lwm2m="3303/0/5700")`. Free of Django models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

FORM = re.compile(r"(?:0|[1-9][0-9]{0,4})(?:/(?:0|[1-9][0-9]{0,4})){2,3}")
MAX_ID = 65534  # 65535 is reserved.
WITHOUT_RESOURCE = "json"  # No type of LwM2M holds any JSON.


class Resources(NamedTuple):
    """The names of readings by path, such as `/3303/0/5700`, and their types by object id and resource id."""

    names: Mapping[str, str]
    types: Mapping[tuple[int, int], str]


def check(path: str, kind: str) -> str:
    """Return *path*, of a reading of type *kind*. Raise ValueError if it is not one of a resource."""
    if not isinstance(path, str) or not FORM.fullmatch(path) or max(ids(path)) > MAX_ID:
        raise ValueError(
            f"lwm2m={path!r} is not the path of a resource such as 3303/0/5700:"
            f" object, object instance, resource, and perhaps resource instance, each at most {MAX_ID}"
        )
    if kind == WITHOUT_RESOURCE:
        raise ValueError(f"A reading of type {kind} cannot be the LwM2M resource {path}")
    return path


def ids(path: str) -> tuple[int, ...]:
    """Return the ids of a path.

    >>> ids("3303/0/5700")
    (3303, 0, 5700)
    """
    return tuple(map(int, path.split("/")))


def of(readings: Mapping[str, Any]) -> Resources | None:
    """Return the resources that *readings* are, or None. Raise ValueError for a path that two have, or two types.

    TLV names no types, and a resource has one type in all instances of its object.
    """
    names: dict[str, str] = {}
    types: dict[tuple[int, int], str] = {}
    for name, reading in readings.items():
        if reading.lwm2m is None:
            continue
        path = f"/{reading.lwm2m}"
        other = names.setdefault(path, name)
        if other != name:
            raise ValueError(f"Two readings have lwm2m={reading.lwm2m!r}: {other} and {name}")
        object_id, _, resource_id, *_ = ids(reading.lwm2m)
        kind = types.setdefault((object_id, resource_id), reading.type)
        if kind != reading.type:
            raise ValueError(
                f"The LwM2M resource {resource_id} of object {object_id} has two types: {kind}, and"
                f" {reading.type} in {name}"
            )
    return Resources(names, types) if names else None
