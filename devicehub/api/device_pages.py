"""Pages of devices of all kinds in one list, in the order of type and device id.

One query finds the keys of a page: the devices of each kind in the order of an index, at most a page of each. Then one
query for each kind on the page reads its rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import F, OuterRef, Q, QuerySet, Subquery, Value
from django.db.models.functions import Concat, Substr

from devicehub import states, visibility
from devicehub.api import paging
from devicehub.api.paging import Cursor, Page
from devicehub.api.problems import Problem
from devicehub.db.prefixes import begins_with
from devicehub.db.statements import query
from devicehub.kinds.identifiers import is_text
from devicehub.kinds.registry import Kind
from devicehub.models import BaseDevice, DeviceGroup, DeviceOptions, DeviceTag, GroupMember, RemovalRequest

Key = tuple[str, int, str]  # The type, the primary key and the id of a device.
SAME = (
    "site",
    "status",
    "connected",
    "is_active",
)  # Parameters that are compared with the column of their name.


def page(user: Any, wanted: Mapping[str, Any], cursor: str, limit: int) -> Page:
    """Return the page at *cursor* of the keys of the devices that *user* may see and that fit *wanted*.

    *wanted* has the filters that were given: type, site, status, connected, is_active, username, prefix, tag, group.
    """
    at = _parsed(cursor)
    kinds = sorted(visibility.kinds_of(user), key=lambda kind: kind.slug)
    arms: list[str] = []
    values: list[Any] = []
    for position, kind in enumerate(kinds):
        if wanted.get("type", kind.slug) != kind.slug or not _is_ahead(kind, at):
            continue
        try:
            sql, parameters = _arm(kind, user, wanted, at, limit).query.sql_with_params()
        except EmptyResultSet:
            continue
        arms.append(f"SELECT {position} AS kind, arm_pk, arm_id FROM ({sql}) AS arm_{position}")
        values += parameters
    if not arms:
        return paging.cut([], at, limit, _values)
    down = " DESC" if at is not None and at.backward else ""
    found = query(
        f"{' UNION ALL '.join(arms)} ORDER BY kind{down}, arm_id{down} LIMIT %s", [*values, limit + 1]
    )
    keys: list[Key] = [(kinds[position].slug, pk, device_id) for position, pk, device_id in found]
    return paging.cut(keys, at, limit, _values)


def _values(key: Key) -> tuple[Any, ...]:
    return key[0], key[2]


def _parsed(cursor: str) -> Cursor | None:
    at = paging.parse(cursor, 2)
    if at is not None and not all(is_text(value) for value in at.values):
        raise Problem("invalid-cursor")
    return at


def _is_ahead(kind: Kind, at: Cursor | None) -> bool:
    """Return whether devices of *kind* are among those from *at* on."""
    return at is None or (kind.slug <= at.values[0] if at.backward else kind.slug >= at.values[0])


def _arm(kind: Kind, user: Any, wanted: Mapping[str, Any], at: Cursor | None, limit: int) -> QuerySet[Any]:
    """Return the devices of one kind for a page."""
    rows = _filtered(kind, visibility.devices(kind, user), wanted)
    is_backward = at is not None and at.backward
    if at is not None and at.values[0] == kind.slug:
        rows = rows.filter(**{f"device_id__{'lt' if is_backward else 'gt'}": at.values[1]})
    found: QuerySet[Any] = rows.order_by("-device_id" if is_backward else "device_id")
    named = found.annotate(arm_pk=F("pk"), arm_id=F("device_id")).values_list("arm_pk", "arm_id")
    return named[: limit + 1]


def _filtered(kind: Kind, rows: QuerySet[Any], wanted: Mapping[str, Any]) -> QuerySet[Any]:
    same = {name: wanted[name] for name in SAME if name in wanted}
    condition = Q(**same)
    if "username" in wanted:
        condition &= Q(mqtt_username=wanted["username"])
    if "prefix" in wanted:
        condition &= begins_with("device_id", wanted["prefix"])
    start = f"{kind.slug}/"
    for model, named in (
        (DeviceTag, {"tag": wanted["tag"]} if "tag" in wanted else {}),
        (GroupMember, {"group__slug": wanted["group"]} if "group" in wanted else {}),
    ):
        if named:
            members = model._base_manager.filter(begins_with("device_key", start), **named)
            ids = members.annotate(own_id=Substr("device_key", len(start) + 1)).order_by()
            condition &= Q(device_id__in=ids.values("own_id"))
    return rows.filter(condition)


def read(kind: Kind, rows: QuerySet[Any], pks: Iterable[int]) -> dict[int, BaseDevice]:
    """Return those of *rows*, devices of *kind*, with the primary keys *pks*, by primary key; without any secret.

    Each has its options and the time of its request for removal as attributes: `own_heartbeat`, `own_rate_limit` and
    `removal_requested_at`.
    """
    key = Concat(Value(f"{kind.slug}/"), OuterRef("device_id"))
    options = DeviceOptions.objects.filter(device_key=key)
    requests = RemovalRequest.objects.filter(device_key=key).order_by("pk")
    rows = states.for_a_list(kind, rows).annotate(
        own_rate_limit=Subquery(options.values("rate_limit")),
        removal_requested_at=Subquery(requests.values("requested_at")[:1]),
    )
    return {device.pk: device for device in rows.order_by().filter(pk__in=list(pks))}


def belonging(
    user: Any, keys: Iterable[str]
) -> tuple[dict[str, list[str]] | None, dict[str, list[str]] | None]:
    """Return the tags and the names of the groups of devices, by their *keys*, by one query.

    Each is None for a *user* who may not see them. A group reaches over sites, so a limit to sites excludes it.
    """
    given = list(keys)
    sees_tags = visibility.may(user, visibility.VIEW, DeviceTag)
    sees_groups = sees_groups_of(user)
    tags = DeviceTag.objects.filter(device_key__in=given).order_by()
    members = GroupMember.objects.filter(device_key__in=given).order_by()
    parts = [
        *([tags.annotate(part=Value(0)).values_list("part", "device_key", "tag")] if sees_tags else []),
        *(
            [members.annotate(part=Value(1)).values_list("part", "device_key", "group__slug")]
            if sees_groups
            else []
        ),
    ]
    found: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for part, key, text in parts[0].union(*parts[1:], all=True) if parts and given else ():
        found[part].setdefault(key, []).append(text)
    return found[0] if sees_tags else None, found[1] if sees_groups else None


def sees_groups_of(user: Any) -> bool:
    """Return whether *user* may see groups of devices."""
    return visibility.may(user, visibility.VIEW, DeviceGroup) and not visibility.is_limited(user)
