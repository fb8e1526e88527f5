"""The definitions of the objects and resources that a page names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from devicehub.lwm2m import catalogue
from devicehub.lwm2m.models import Endpoint, ObjectType, ResourceType
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.objects import by_nearness

OPERATIONS = {"R": "read", "W": "write", "E": "execute"}


def versions_of(endpoint: Endpoint) -> Mapping[str, str]:
    """Return the versions of objects that *endpoint* registered, by object id as text."""
    found = endpoint.object_versions
    return found if isinstance(found, dict) else {}


def of_objects(endpoint: Endpoint, object_ids: Collection[int]) -> dict[int, ObjectType]:
    """Return the definition of each of *object_ids* in the version of *endpoint*, or in the nearest version."""
    found: dict[int, dict[str, ObjectType]] = {}
    for one in ObjectType.objects.filter(object_id__in=object_ids).order_by():
        found.setdefault(one.object_id, {})[one.version] = one
    versions = versions_of(endpoint)
    return {
        object_id: by_version[by_nearness(by_version, versions.get(str(object_id)))[0]]
        for object_id, by_version in found.items()
    }


def of_paths(pairs: Iterable[tuple[Endpoint, str]]) -> dict[tuple[int, str], ResourceType]:
    """Return the definition of each resource in *pairs* of an endpoint and a path, by primary key and path."""
    current = catalogue.current()
    wanted = {}
    for endpoint, path in pairs:
        known = current.of_path(paths.parse(f"/{path}"), versions_of(endpoint))
        if known is not None:
            wanted[endpoint.pk, path] = known.key
    rows = ResourceType.objects.select_related("object").in_bulk(set(wanted.values()))
    return {place: rows[key] for place, key in wanted.items() if key in rows}
