"""The names and units of resources, for people: from their definitions, and from sensors that name their own unit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from django.db.models.functions import Left

from devicehub.lwm2m import catalogue
from devicehub.lwm2m.models import Endpoint, ObjectType, Resource, ResourceType
from devicehub.messages.lwm2m import paths
from devicehub.messages.lwm2m.objects import by_nearness
from devicehub.messages.lwm2m.values import DataType

OPERATIONS = {"R": "read", "W": "write", "E": "execute"}
# Objects of IPSO have the unit of their measured values in a resource of their own.
UNITS = 5701
MEASURED = frozenset({5601, 5602, 5603, 5604, 5700})
LONGEST_UNIT = 20


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


def own_units(pairs: Iterable[tuple[int, str]]) -> dict[tuple[int, str], str]:
    """Return the units that the object instances of measured values name, by primary key of the endpoint and path.

    *pairs* are such keys. A value whose sensor names no unit is left out.
    """
    named = {}
    for pk, path in pairs:
        object_id, instance, resource = path.split("/")[:3]
        if int(resource) in MEASURED:
            named[pk, path] = f"{object_id}/{instance}/{UNITS}"
    if not named:
        return {}
    rows = Resource.objects.filter(
        device__in={pk for pk, _ in named}, path__in=set(named.values()), type=DataType.STRING
    )
    found = rows.values_list("device_id", "path", Left("text", LONGEST_UNIT))
    units = {(pk, path): text for pk, path, text in found.order_by()}
    return {place: unit for place, of in named.items() if (unit := units.get((place[0], of)))}


def units_of(
    pairs: Collection[tuple[int, str]], known: Mapping[tuple[int, str], ResourceType]
) -> dict[tuple[int, str], str]:
    """Return the units of *pairs*, as own_units() takes them: of their definitions *known*, or else their own."""
    units = {place: found.unit for place, found in known.items() if found.unit}
    return units | own_units(pair for pair in pairs if pair not in units)
