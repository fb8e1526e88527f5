"""Groups of devices: create, change and delete them, and keep the members of their filters.

A group without a filter holds the members that were chosen. The members of a filter are rows too, so a decision reads
them as it reads chosen ones; they follow the devices, see follow() and follow_all().
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, connection, models, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Concat, Substr

from authsvc import audit, granting
from devicehub.db.portions import batched
from devicehub.db.statements import execute, quoted
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.models import BaseDevice, DeviceGroup, DeviceTag, GroupMember

SHOWN = 50  # Keys of members in one entry of the audit.
PORTION = 500  # Members that one statement writes.
FIELDS = ("name", "note", "types", "sites", "tags")
FILTERS = frozenset({"types", "sites", "tags"})


class UnknownMembers(DevicehubError, ValidationError):
    """Keys of members that name no device."""


@transaction.atomic
def create_group(slug: str, name: str, *, members: Iterable[str] = (), **fields: Any) -> DeviceGroup:
    """Create a group and return it: with the devices of the keys *members*, or by its filter (types, sites, tags).

    Grants that an earlier group of this slug left are deleted. Raise ValidationError.
    """
    group = DeviceGroup(slug=slug, name=name, **fields)
    if group.has_filter:
        _wait_for_moves()
    _check(group)
    granting.delete_grants_of([subject(group)])
    group.save(force_insert=True)
    audit.record("group_created", key(group), after=audit.values(group, FIELDS))
    _fill(group, members)
    return group


@transaction.atomic
def change_group(group: DeviceGroup, *, members: Iterable[str] | None = None, **changes: Any) -> DeviceGroup:
    """Change *changes*, some of FIELDS, and the chosen members of *group*; return it. Raise ValidationError."""
    if not FILTERS.isdisjoint(changes):
        _wait_for_moves()
    stored = DeviceGroup.objects.select_for_update(no_key=True).get(pk=group.pk)
    before = audit.values(stored, FIELDS)
    for name, value in changes.items():
        if name not in FIELDS:
            raise ValueError(f"{name!r} is not a field of a group that can be changed")
        setattr(stored, name, value)
    _check(stored)
    after = audit.values(stored, FIELDS)
    changed = [name for name in FIELDS if before[name] != after[name]]
    if changed:
        stored.save(update_fields=changed)
        audit.record(
            "group_changed",
            key(stored),
            before={name: before[name] for name in changed},
            after={name: after[name] for name in changed},
        )
    if members is not None or changed:
        _fill(stored, members)
    return stored


@transaction.atomic
def delete_group(group: DeviceGroup) -> None:
    """Delete *group*, its members and its grants."""
    audit.record("group_deleted", key(group), before=audit.values(group, FIELDS))
    group.delete()  # before_delete() deletes the grants.


def before_delete(sender: type[DeviceGroup], instance: DeviceGroup, using: str, **_: Any) -> None:
    """Delete the grants of a group, in the transaction that deletes it."""
    if using == DEFAULT_DB_ALIAS:
        granting.delete_grants_of([subject(instance)])


def subject(group: DeviceGroup) -> str:
    """Return the subject of grants for *group*."""
    return f"group:{group.slug}"


def key(group: DeviceGroup) -> str:
    """Return the name of *group* in the audit."""
    return f"group/{group.slug}"


def count_members(group: DeviceGroup) -> int:
    """Return the number of members of *group*."""
    return GroupMember.objects.filter(group=group).count()


def count_fitting(types: list[str], sites: list[str], tags: list[str]) -> int:
    """Return how many devices a filter would select, for a form."""
    group = DeviceGroup(types=types, sites=sites, tags=tags)
    return sum(rows.count() for _, rows in _fitting(group)) if group.has_filter else 0


def follow(model: type[BaseDevice], device_ids: Collection[str], using: str = DEFAULT_DB_ALIAS) -> None:
    """Give devices that were created or changed their memberships by filter, in the transaction of the change.

    Without a group with a filter it is one query.
    """
    kind = registry.of(model)
    if kind is None or using != DEFAULT_DB_ALIAS or not device_ids:
        return
    with transaction.atomic(savepoint=False):
        # The lock of the table, also without a row, makes a new filter wait for the end of this change.
        for group in _locked():
            for some in batched(sorted(device_ids), PORTION):
                _refill(group, kind, some)


def follow_all() -> int:
    """Correct the members of all filters, for changes past our code; return how many rows changed."""
    changed = 0
    for pk in _with_filter().values_list("pk", flat=True):
        with transaction.atomic():
            for group in _locked(pk):
                changed += _refill(group)
    return changed


def _wait_for_moves() -> None:
    """Wait for changes of devices that began before this filter, and let later ones wait for it.

    It comes before every lock of a row, so that two filters at once cannot wait for each other. SQLite has one writer.
    """
    if connection.vendor == "postgresql":
        execute(f"LOCK TABLE {quoted(DeviceGroup._meta.db_table)} IN EXCLUSIVE MODE")


def _with_filter() -> QuerySet[DeviceGroup]:
    return DeviceGroup.objects.exclude(types=[], sites=[], tags=[]).order_by("pk")


def _locked(*pks: int) -> list[DeviceGroup]:
    """Return groups with a filter, locked in their order: a refill then sees all changes that were made before it."""
    rows = _with_filter().select_for_update(no_key=True)
    return list(rows.filter(pk__in=pks) if pks else rows)


def _check(group: DeviceGroup) -> None:
    """Raise ValidationError, by field, if *group* cannot be saved or its filter names an unknown type."""
    group.full_clean()
    unknown = [slug for slug in group.types if registry.get(slug) is None]
    if unknown:
        raise ValidationError({"types": f"There is no device type {unknown[0]}."})


def _fill(group: DeviceGroup, members: Iterable[str] | None) -> None:
    """Set the members of *group*: those of its filter, or else the chosen ones, if any were given."""
    if group.has_filter:
        _refill(group)
    elif members is not None:
        _choose(group, set(members))


def _choose(group: DeviceGroup, keys: set[str]) -> None:
    """Set the chosen members. Raise UnknownMembers, which names keys without a device."""
    before = set(GroupMember.objects.filter(group=group).values_list("device_key", flat=True))
    if unknown := sorted(keys - before - existing(keys - before)):
        shown = ", ".join(unknown[:10])
        raise UnknownMembers({"members": f"These name no device: {shown}{' ...' if unknown[10:] else ''}"})
    added, removed = sorted(keys - before), sorted(before - keys)
    for some in batched(removed, PORTION):
        GroupMember.objects.filter(group=group, device_key__in=some).delete()
    _add(group, added)
    if added or removed:
        counts = {"members": len(before)}, {"members": len(keys)}
        listed = {"added": added[:SHOWN], "removed": removed[:SHOWN]}
        audit.record("group_changed", key(group), before=counts[0], after={**counts[1], **listed})


def existing(keys: Collection[str]) -> set[str]:
    """Return those of *keys* that name a device."""
    by_kind: dict[Kind, list[str]] = {}
    for one in keys:
        try:
            kind, device_id = registry.resolve(one)
        except UnknownKey:
            continue
        by_kind.setdefault(kind, []).append(device_id)
    return {
        kind.key(device_id)
        for kind, ids in by_kind.items()
        for some in batched(ids, PORTION)
        for device_id in kind.device_model.objects.filter(device_id__in=some).values_list(
            "device_id", flat=True
        )
    }


def keys_of(device_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the keys of the devices with one of *device_ids*, by device id; devices of two types may share one."""
    found: dict[str, list[str]] = {}
    for kind in registry:
        for some in batched(device_ids, PORTION):
            rows = kind.device_model.objects.filter(device_id__in=some).values_list("device_id", flat=True)
            for device_id in rows:
                found.setdefault(device_id, []).append(kind.key(device_id))
    return found


def _add(group: DeviceGroup, keys: Iterable[str]) -> int:
    added = 0
    for some in batched(keys, PORTION):
        rows = [GroupMember(group=group, device_key=one) for one in some]
        # Two transactions may find the same device missing.
        added += len(GroupMember.objects.bulk_create(rows, ignore_conflicts=True))
    return added


def _fitting(group: DeviceGroup) -> Iterator[tuple[Kind, QuerySet[Any]]]:
    """Yield each kind of the filter of *group* with the devices that fit it, and their `key`."""
    for kind in registry:
        if group.types and kind.slug not in group.types:
            continue
        rows = kind.device_model._base_manager.order_by().annotate(
            key=Concat(Value(f"{kind.slug}/"), "device_id", output_field=models.CharField())
        )
        if group.sites:
            rows = rows.filter(site__in=group.sites)
        if group.tags:
            rows = rows.filter(
                Exists(DeviceTag.objects.filter(device_key=OuterRef("key"), tag__in=group.tags))
            )
        yield kind, rows


def _refill(group: DeviceGroup, only: Kind | None = None, device_ids: Collection[str] = ()) -> int:
    """Add and delete the members that differ from the filter; return how many. *only* and *device_ids* narrow it."""
    changed, fits = 0, dict(_fitting(group))
    members = GroupMember.objects.filter(group=group)
    for kind, rows in fits.items():
        if only not in (None, kind):
            continue
        wanted = rows.filter(device_id__in=device_ids) if only else rows
        missing = wanted.exclude(Exists(members.filter(device_key=OuterRef("key")).order_by()))
        changed += _add(group, list(missing.values_list("key", flat=True)))
    for kind in [only] if only else registry:
        own = members.filter(device_key__startswith=f"{kind.slug}/").order_by()
        if only:
            own = own.filter(device_key__in=[kind.key(device_id) for device_id in device_ids])
        if kind in fits:
            own = own.annotate(own_id=Substr("device_key", len(kind.slug) + 2))
            own = own.exclude(Exists(fits[kind].filter(device_id=OuterRef("own_id"))))
        changed += _delete(own)
    if only is None:
        known = Q(pk__in=[])
        for kind in registry:
            known |= Q(device_key__startswith=f"{kind.slug}/")
        changed += _delete(members.exclude(known).order_by())
    return changed


def _delete(members: QuerySet[GroupMember]) -> int:
    """Delete *members*, found first: most of the time there are none, and a deletion would notify every process."""
    pks = list(members.values_list("pk", flat=True))
    for some in batched(pks, PORTION):
        GroupMember.objects.filter(pk__in=some).delete()
    return len(pks)
