"""The types of resources by object version, read from the definitions once and again after each change of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

from django.db import connection

from devicehub.db.statements import execute, query, quoted
from devicehub.lwm2m.models import Definitions, ObjectType, ResourceType
from devicehub.messages.lwm2m.objects import by_nearness
from devicehub.messages.lwm2m.paths import Path
from devicehub.messages.lwm2m.values import DataType, TypeOf


class Known(NamedTuple):
    """The definition of a resource: the key of its ResourceType and its type; an executable has none."""

    key: int
    type: DataType | None


class Finder(NamedTuple):
    """The key of the ResourceType of a resource, and its type, each by object id and resource id."""

    key_of: Callable[[int, int], int | None]
    type_of: TypeOf


class Catalogue:
    """All definitions of one revision."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._objects: dict[int, dict[str, dict[int, Known]]] = {}
        versions = {}
        for key, object_id, version in ObjectType.objects.order_by().values_list(
            "pk", "object_id", "version"
        ):
            versions[key] = self._objects.setdefault(object_id, {}).setdefault(version, {})
        rows = ResourceType.objects.order_by().values_list("pk", "object", "resource_id", "type")
        for key, object_key, resource_id, kind in rows:
            if object_key in versions:
                versions[object_key][resource_id] = Known(key, DataType(kind) if kind else None)
        self.find = lru_cache(maxsize=65_536)(self._find)
        self._finder = lru_cache(maxsize=128)(self._make_finder)

    def of_path(self, path: Path, versions: Mapping[str, str]) -> Known | None:
        """Return the definition of the resource at *path* for an endpoint with these versions of its objects."""
        return self.find(path[0], path[2], versions.get(str(path[0])))

    def finder(self, versions: Mapping[str, str]) -> Finder:
        """Return the functions that do the same for many resources of an endpoint, and remember what they found."""
        return self._finder(tuple(versions.items()))

    def _make_finder(self, items: tuple[tuple[str, str], ...]) -> Finder:
        find, versions = self.find, dict(items)

        def key_of(object_id: int, resource_id: int) -> int | None:
            found = find(object_id, resource_id, versions.get(str(object_id)))
            return None if found is None else found.key

        def type_of(object_id: int, resource_id: int) -> DataType | None:
            found = find(object_id, resource_id, versions.get(str(object_id)))
            return None if found is None else found.type

        return Finder(lru_cache(maxsize=1_024)(key_of), lru_cache(maxsize=1_024)(type_of))

    def _find(self, object_id: int, resource_id: int, version: str | None) -> Known | None:
        """Return the definition of a resource in a version of its object, or in the nearest that has it; or None."""
        by_version = self._objects.get(object_id)
        if not by_version:
            return None
        for found in by_nearness(by_version, version):
            known = by_version[found].get(resource_id)
            if known is not None:
                return known
        return None


_lock = threading.Lock()
_catalogue: Catalogue | None = None


def current() -> Catalogue:
    """Return the catalogue of the present revision; one small query tells whether it changed."""
    return _of(Definitions.objects.values_list("revision", flat=True).first() or 0)


def known() -> Catalogue:
    """Return the catalogue that this process used last, which may have changed since; the present one if none."""
    return _catalogue or current()


def held() -> Catalogue:
    """Return the catalogue of the present revision, which no import changes before this transaction ends.

    On SQLite a transaction that writes has the lock of all writers.
    """
    if connection.vendor == "sqlite":
        return current()
    rows = query(
        f"SELECT revision FROM {quoted(Definitions._meta.db_table)} ORDER BY id LIMIT 1 FOR KEY SHARE"
    )
    return _of(rows[0][0] if rows else 0)


def lock() -> None:
    """Wait for the transactions that hold the catalogue, and keep others waiting until this one ends.

    A lock of the table is fair: busy workers cannot keep an import waiting for ever, as they can with one of its row.
    Queries without a lock, such as those of pages and backups, go on.
    """
    if connection.vendor != "sqlite":
        execute(f"LOCK TABLE {quoted(Definitions._meta.db_table)} IN EXCLUSIVE MODE")


def _of(revision: int) -> Catalogue:
    global _catalogue
    found = _catalogue
    if found is None or found.revision != revision:
        with _lock:
            found = _catalogue
            if found is None or found.revision != revision:
                found = _catalogue = Catalogue(revision)
    return found


def clear() -> None:
    """Read the definitions anew at the next use."""
    global _catalogue
    _catalogue = None
