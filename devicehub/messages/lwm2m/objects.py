"""Definitions of LwM2M objects, and those that are shipped with the package (objects.json.gz). Pure.

The notices of the shipped files stand in NOTICE and in the data; `python -m rig.lwm2m_objects.build` writes both.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from devicehub.messages.lwm2m.values import DataType

SHIPPED = Path(__file__).with_name("objects.json.gz")
FIRST_VERSION = "1.0"  # A link or URN that names no version means this one.
VERSION = re.compile(r"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})")

Key = tuple[int, str]  # Object id and version.


class ResourceDefinition(NamedTuple):
    """A resource as an object definition describes it.

    *type* is None for an executable resource. *operations* is R, W, RW or E, or empty for a resource that only a
    bootstrap server reaches. *range* and *unit* are the texts of the definition.
    """

    resource_id: int
    name: str
    type: DataType | None
    operations: str
    multiple: bool
    mandatory: bool
    range: str
    unit: str
    description: str


class ObjectDefinition(NamedTuple):
    """An object in one version. *origin* says where the definition comes from; *notice* is its licence."""

    object_id: int
    version: str
    name: str
    description: str
    urn: str
    lwm2m_version: str
    multiple: bool
    mandatory: bool
    resources: tuple[ResourceDefinition, ...]
    origin: str = ""
    notice: str = ""

    @property
    def key(self) -> Key:
        """Return object id and version."""
        return self.object_id, self.version


def order(version: str) -> tuple[int, int]:
    """Return the numbers of a version, by which versions are sorted. Raise ValueError.

    >>> max(["1.9", "1.10", "1.2"], key=order)
    '1.10'
    """
    found = VERSION.fullmatch(version)
    if not found:
        raise ValueError(f"{version[:40]!r} is not a version such as 1.1")
    return int(found[1]), int(found[2])


def by_nearness(versions: Iterable[str], wanted: str | None = None) -> list[str]:
    """Return the versions of an object in the order in which they help to read a payload of version *wanted*.

    Without a version, 1.0 is wanted, as in LwM2M. The wanted version is the first, then come those with the same
    major number, since minor versions only add, then all others; the newest is the first of each.

    >>> by_nearness(["1.0", "1.1", "1.10", "2.0"], "1.1")
    ['1.1', '1.10', '1.0', '2.0']
    """
    wanted = wanted or FIRST_VERSION
    major = wanted.partition(".")[0]
    return sorted(
        versions,
        key=lambda version: (version == wanted, version.partition(".")[0] == major, order(version)),
        reverse=True,
    )


@cache
def shipped() -> Mapping[Key, ObjectDefinition]:
    """Return the definitions that the package holds, by object id and version."""
    content = orjson.loads(gzip.decompress(SHIPPED.read_bytes()))
    found = (_unpacked(row, content["notices"]) for row in content["objects"])
    return MappingProxyType({definition.key: definition for definition in found})


@cache
def _versions() -> Mapping[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for object_id, version in shipped():
        found[object_id] = (*found.get(object_id, ()), version)
    return found


def find(object_id: int, version: str | None = None) -> ObjectDefinition | None:
    """Return the shipped definition of an object in *version*, or else in the nearest version that is shipped."""
    nearest = by_nearness(_versions().get(object_id, ()), version)
    return shipped()[object_id, nearest[0]] if nearest else None


@lru_cache(maxsize=1024)
def types(object_id: int, version: str | None = None) -> Mapping[int, DataType]:
    """Return the types of an object's resources by resource id, each from the nearest version that has it."""
    found: dict[int, DataType | None] = {}
    for nearest in by_nearness(_versions().get(object_id, ()), version):
        for resource in shipped()[object_id, nearest].resources:
            found.setdefault(resource.resource_id, resource.type)
    return MappingProxyType({resource_id: kind for resource_id, kind in found.items() if kind})


def type_of(object_id: int, resource_id: int) -> DataType | None:
    """Return the type of a resource whose version is not known, or None."""
    return types(object_id).get(resource_id)


def pack(definitions: Iterable[ObjectDefinition]) -> bytes:
    """Return *definitions* as shipped() reads them, each notice once; the same definitions make the same bytes."""
    ordered = sorted(definitions, key=lambda definition: (definition.object_id, order(definition.version)))
    notices = sorted({definition.notice for definition in ordered})
    numbers = {notice: number for number, notice in enumerate(notices)}
    rows = [
        [
            *definition[:-1],
            numbers[definition.notice],
        ]  # With the resources as they are: tuples become arrays.
        for definition in ordered
    ]
    text = json.dumps({"notices": notices, "objects": rows}, ensure_ascii=False, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def _unpacked(row: list[Any], notices: list[str]) -> ObjectDefinition:
    *fields, resources, origin, notice = row
    return ObjectDefinition._make((*fields, tuple(map(_resource, resources)), origin, notices[notice]))


def _resource(row: list[Any]) -> ResourceDefinition:
    row[2] = DataType(row[2]) if row[2] else None
    return ResourceDefinition._make(row)
