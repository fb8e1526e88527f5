"""The tree of an endpoint: its objects, their instances and resources, each with its latest value.

One page shows at most MOST_OBJECTS objects and MOST_ROWS values; a larger object is a link to a page of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

from django.db.models import Count, F, Q, QuerySet

from devicehub.lwm2m import labels
from devicehub.lwm2m.labels import LONGEST_UNIT, MEASURED, UNITS
from devicehub.lwm2m.models import Endpoint, ObjectType, Resource, ResourceType
from devicehub.lwm2m.models.endpoints import MOST_LIFETIME
from devicehub.lwm2m.pages.place import Place
from devicehub.lwm2m.pages.values import Shown, beginnings, shown_of
from devicehub.messages.lwm2m import paths

MOST_OBJECTS = 200
MOST_ROWS = 300
MOST_DEFINED = 1_000  # Definitions of resources on one page.
ALL_OPEN = 60  # With at most so many values every object is open at first.
DAY = timedelta(days=1)
ORDER = ("object_id", "object_instance", "resource_id", F("resource_instance").asc(nulls_first=True))


class Operation(NamedTuple):
    """An operation of a resource: its letter and word, and whether the definition allows it."""

    letter: str
    word: str
    allowed: bool


@dataclass(frozen=True)
class Row:
    """A resource or resource instance. One without a value is executable, or the head of *several* instances."""

    path: str
    name: str
    unit: str = ""
    value: Shown | None = None
    operations: Sequence[Operation] = ()
    measured_at: datetime | None = None
    is_old: bool = False
    is_known: bool = True
    is_part: bool = False
    is_current: bool = False
    several: int = 0
    url: str = ""
    link: str = ""  # The address of the object that the value links to.


class Instance(NamedTuple):
    """An object instance with its resources."""

    path: str
    number: int
    rows: list[Row]


class Missing(NamedTuple):
    """A resource of the definition of which no value came."""

    path: str
    name: str
    operations: Sequence[Operation]


@dataclass
class Branch:
    """An object. Without *instances* its values are shown on the page at *url*."""

    object_id: int
    name: str
    description: str
    version: str
    is_known: bool
    count: int
    instance_count: int
    url: str
    instances: list[Instance] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    is_open: bool = False
    is_whole: bool = True


@dataclass
class Tree:
    """The branches of one page, the number of all values, and the query of the next page."""

    branches: list[Branch]
    objects: int
    values: int
    next: str = ""
    is_cut: bool = False


def tree(endpoint: Endpoint, place: Place, now: datetime, current: str = "") -> Tree:
    """Return the part of the tree of *endpoint* that *place* names; *current* is the path whose history is shown."""
    stored = Resource.objects.filter(device=endpoint)
    counted = {
        object_id: (values, instances)
        for object_id, values, instances in stored.order_by()
        .values_list("object_id")
        .annotate(Count("pk"), Count("object_instance", distinct=True))
    }
    registered = _registered(endpoint)
    all_ids = sorted(counted.keys() | registered.keys())
    found = Tree([], len(all_ids), sum(values for values, _ in counted.values()))
    rows = beginnings(stored.select_related("resource_type", "resource_type__object")).order_by(*ORDER)
    if place.search:
        values = list(rows.filter(_matching(place.search))[: MOST_ROWS + 1])
        found.is_cut = len(values) > MOST_ROWS
        ids = sorted({row.object_id for row in values})
    elif place.object_id is not None:
        ids = [place.object_id] if place.object_id in all_ids else []
        values = list(_after(rows.filter(object_id__in=ids), place.after)[: MOST_ROWS + 1])
        if len(values) > MOST_ROWS:
            found.next = place.over(after=values[MOST_ROWS - 1].path)
    else:
        later = [number for number in all_ids if number >= place.first]
        ids = later[:MOST_OBJECTS]
        if len(later) > MOST_OBJECTS:
            found.next = place.over(first=later[MOST_OBJECTS])
        inline = list(_within(MOST_ROWS, ids, counted))
        values = list(rows.filter(object_id__in=inline)[:MOST_ROWS])
    drawn = _Drawing(endpoint, place, now, current)
    by_object = {key: list(some) for key, some in groupby(values[:MOST_ROWS], key=lambda row: row.object_id)}
    types = labels.of_objects(endpoint, ids)
    for number in ids:
        count, instances = counted.get(number, (0, 0))
        branch = drawn.branch(number, types.get(number), count, max(instances, registered.get(number, 0)))
        branch.instances = drawn.instances(by_object.get(number, []))
        branch.is_whole = not place.search and not found.next and not place.after
        branch.is_open = (
            bool(place.search)
            or place.object_id is not None
            or found.values <= ALL_OPEN
            or current.startswith(f"{number}/")
        )
        found.branches.append(branch)
    drawn.add_defined([branch for branch in found.branches if branch.is_whole], types)
    return found


def _registered(endpoint: Endpoint) -> dict[int, int]:
    """Return the objects that *endpoint* registered, each with the number of its instances."""
    links = endpoint.object_links if isinstance(endpoint.object_links, list) else []
    found: dict[int, int] = {}
    for link in links:
        try:
            ids = paths.parse(link)
        except (ValueError, TypeError):
            continue
        if ids:
            found[ids[0]] = found.get(ids[0], 0) + (len(ids) > 1)
    return found


def _within(most: int, ids: Iterable[int], counted: Mapping[int, tuple[int, int]]) -> Iterator[int]:
    """Yield those of *ids* whose values fit on the page together, in their order."""
    for number in ids:
        count = counted.get(number, (0, 0))[0]
        if 0 < count <= most:
            most -= count
            yield number


def _matching(text: str) -> Q:
    """Return the condition that *text* begins the path of a value, or is in the name of its resource or object."""
    named = Q(resource_type__name__icontains=text) | Q(resource_type__object__name__icontains=text)
    path = text.strip("/")
    return named | Q(path=path) | Q(path__startswith=f"{path}/") if path else named


def _after(rows: QuerySet[Any], path: str) -> QuerySet[Any]:
    """Return those of *rows* of one object that stand after *path*."""
    if not path:
        return rows
    _, instance, resource, *part = map(int, path.split("/"))
    same = Q(object_instance=instance, resource_id=resource)
    within = Q(resource_instance__gt=part[0]) if part else Q(resource_instance__isnull=False)
    return rows.filter(
        Q(object_instance__gt=instance)
        | Q(object_instance=instance, resource_id__gt=resource)
        | (same & within)
    )


def operations(letters: str) -> list[Operation]:
    """Return all operations, each with whether *letters* allow it."""
    return [
        Operation("X" if letter == "E" else letter, word, letter in letters)
        for letter, word in labels.OPERATIONS.items()
    ]


class _Drawing:
    """The branches of the tree of one endpoint."""

    def __init__(self, endpoint: Endpoint, place: Place, now: datetime, current: str) -> None:
        self._place, self._current = place, current
        self._versions = labels.versions_of(endpoint)
        self._old = now - lifetime(endpoint)

    def branch(self, number: int, known: ObjectType | None, count: int, instances: int) -> Branch:
        version = self._versions.get(str(number)) or (known.version if known else "")
        return Branch(
            object_id=number,
            name=known.name if known else "Unknown object",
            description=known.description if known else "",
            version=version,
            is_known=known is not None,
            count=count,
            instance_count=instances,
            url=self._place.over(object_id=number, after="", first=0, search=""),
        )

    def instances(self, values: Iterable[Any]) -> list[Instance]:
        found = []
        for number, some in groupby(values, key=lambda row: row.object_instance):
            rows: list[Row] = []
            parts_of = [list(parts) for _, parts in groupby(some, key=lambda row: row.resource_id)]
            unit = (
                next((parts[0].text_read for parts in parts_of if parts[0].resource_id == UNITS), None) or ""
            )
            for parts in parts_of:
                rows += self._rows(parts, unit[:LONGEST_UNIT] if parts[0].resource_id in MEASURED else "")
            path = "/".join(rows[0].path.split("/")[:2])
            found.append(Instance(path, number, rows))
        return found

    def _rows(self, parts: list[Any], unit: str) -> Iterator[Row]:
        """Yield the rows of one resource: with several instances there is a head above them."""
        first = parts[0]
        is_part = len(parts) > 1
        if is_part:
            yield self._row(first, path="/".join(first.path.split("/")[:3]), value=None, several=len(parts))
        for one in parts:
            value = shown_of(one)
            link = ""
            if value.object_id is not None:
                link = f"{self._place.over(object_id=value.object_id, after='', first=0, search='')}#o{value.object_id}"
            yield self._row(
                one,
                unit,
                path=one.path,
                value=value,
                is_part=is_part,
                measured_at=one.timestamp,
                is_old=one.timestamp < self._old,
                is_current=one.path == self._current,
                url=f"{self._place.over(resource=one.path)}#history",
                link=link,
            )

    def _row(self, one: Resource, unit: str = "", **more: Any) -> Row:
        known = one.resource_type
        return Row(
            name=known.name if known else f"Resource {one.resource_id}",
            unit=(known.unit if known else "") or unit,
            operations=operations(known.operations) if known else (),
            is_known=known is not None,
            **more,
        )

    def add_defined(self, branches: list[Branch], types: Mapping[int, ObjectType]) -> None:
        """Add to *branches* what their definitions have beside values: executables, and values that never came."""
        by_key = {types[branch.object_id].pk: branch for branch in branches if branch.object_id in types}
        rows = ResourceType.objects.filter(object__in=by_key).order_by("object__object_id", "resource_id")
        for known in rows.only("object_id", "resource_id", "name", "operations")[:MOST_DEFINED]:
            branch = by_key[known.object_id]
            if branch.count and not branch.instances:
                continue  # Its values are on a page of its own.
            allowed = operations(known.operations)
            if "E" in known.operations:
                for instance in branch.instances:
                    path = f"{instance.path}/{known.resource_id}"
                    instance.rows.append(Row(path=path, name=known.name, operations=allowed))
                if branch.instances:
                    continue
            part = f"/{known.resource_id}"
            has = any(f"/{row.path.split('/')[2]}" == part for each in branch.instances for row in each.rows)
            if not has:
                branch.missing.append(
                    Missing(f"{branch.object_id}/*/{known.resource_id}", known.name, allowed)
                )
        for branch in branches:
            for instance in branch.instances:
                instance.rows.sort(key=lambda row: int(row.path.split("/")[2]))


def lifetime(endpoint: Endpoint) -> timedelta:
    """Return the age from which a value of *endpoint* is old: the lifetime of its registration, or a day."""
    seconds = endpoint.lifetime or 0
    return timedelta(seconds=seconds) if 0 < seconds <= MOST_LIFETIME else DAY
