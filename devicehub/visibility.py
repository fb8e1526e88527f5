"""The devices and rows that a person may see: by the permissions of Django, and by site.

Admin, pages and API all use these functions, so a limit holds everywhere. A device without a site belongs to no site,
so only people without a limit see it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Concat

from authsvc.models import AuditEntry, Denial
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.models import (
    BaseDevice,
    CountedRefusal,
    DeviceCommand,
    DeviceTag,
    QuarantinedMessage,
    RotationMember,
    SiteScope,
)

# Records that stay when a device is deleted, with the column of its key.
KEPT: tuple[tuple[type[models.Model], str], ...] = (
    (AuditEntry, "object_key"),
    (Denial, "principal"),
    (QuarantinedMessage, "device_key"),
    (CountedRefusal, "device_key"),
    (DeviceCommand, "device_key"),
    (RotationMember, "device_key"),
)

VIEW, ADD, CHANGE, DELETE = "view", "add", "change", "delete"


def sites_of(user: Any) -> frozenset[str] | None:
    """Return the sites to which *user* is limited; None without a limit. Superusers have none.

    The answer is kept on the user object, which lives as long as its request.
    """
    if user is None or isinstance(user, AnonymousUser) or not user.is_active:
        return frozenset()
    if not hasattr(user, "_devicehub_sites"):
        if user.is_superuser:
            return None
        row = SiteScope.objects.filter(user_id=user.pk).values_list("sites", flat=True).first()
        user._devicehub_sites = None if row is None else frozenset(site for site in row if site)
    found: frozenset[str] | None = user._devicehub_sites
    return found


def narrow(user: Any, site: str) -> None:
    """Limit *user* to *site* for as long as this object lives, also a superuser: their program's key has a site."""
    sites = sites_of(user)
    user._devicehub_sites = frozenset({site}) if sites is None else sites & {site}


def is_limited(user: Any) -> bool:
    """Return whether *user* is limited to sites. A limited user changes no grant, group, account or broker."""
    return sites_of(user) is not None


def may(user: Any, action: str, model: type[models.Model]) -> bool:
    """Return whether *user* has the permission of *action* (VIEW, ADD, CHANGE, DELETE) on *model*."""
    if user is None or not user.is_active:
        return False
    meta = model._meta
    if user.has_perm(f"{meta.app_label}.{action}_{meta.model_name}"):
        return True
    return action == VIEW and bool(user.has_perm(f"{meta.app_label}.{CHANGE}_{meta.model_name}"))


def may_tag(user: Any) -> bool:
    """Return whether *user* may set tags. They can bring a device into a group, so a limit to sites excludes it."""
    return may(user, ADD, DeviceTag) and not is_limited(user)


def kinds_of(user: Any, action: str = VIEW) -> list[Kind]:
    """Return the kinds whose devices *user* may see, or do *action* with."""
    return [kind for kind in registry if may(user, action, kind.device_model)]


def sees_something(user: Any) -> bool:
    """Return whether *user* may see devices of any kind."""
    return bool(kinds_of(user))


def of_sites(devices: QuerySet[Any], user: Any) -> QuerySet[Any]:
    """Return those of *devices* that are at a site of *user*, without a look at permissions."""
    sites = sites_of(user)
    return devices if sites is None else devices.filter(site__in=sites)


def devices(kind: Kind, user: Any, action: str = VIEW) -> QuerySet[Any]:
    """Return the devices of *kind* that *user* may see, or do *action* with."""
    found = kind.device_model.objects.all()
    return of_sites(found, user) if may(user, action, kind.device_model) else found.none()


def device(key: str, user: Any, action: str = VIEW) -> BaseDevice | None:
    """Return the device called *key* if *user* may see it, or do *action* with it; otherwise None."""
    try:
        kind, device_id = registry.resolve(key)
    except UnknownKey:
        return None
    found: BaseDevice | None = devices(kind, user, action).filter(device_id=device_id).first()
    return found


def seen(keys: Iterable[str], user: Any) -> set[str]:
    """Return those of *keys* that are devices which *user* may see, by one query for each kind."""
    by_kind: dict[Kind, list[str]] = {}
    for key in keys:
        with suppress(UnknownKey):
            kind, device_id = registry.resolve(key)
            by_kind.setdefault(kind, []).append(device_id)
    return {
        kind.key(device_id)
        for kind, ids in by_kind.items()
        for device_id in devices(kind, user).filter(device_id__in=ids).values_list("device_id", flat=True)
    }


def sees_everything(user: Any, action: str = VIEW) -> bool:
    """Return whether *user* may see (or do *action* with) the devices of every kind and site.

    Such a user also sees rows that belong to no device.
    """
    return not is_limited(user) and len(kinds_of(user, action)) == len(registry)


def rows(queryset: QuerySet[Any], user: Any, column: str = "device_key", action: str = VIEW) -> QuerySet[Any]:
    """Return those of *queryset* whose *column* is the key of a device that *user* may see, or do *action* with.

    A user who may see everything gets all rows, also those of accounts and of names that no device has.
    """
    if sees_everything(user, action):
        return queryset
    visible = Q(pk__in=[])
    for kind in kinds_of(user, action):
        keys = devices(kind, user, action).annotate(
            _key=Concat(Value(f"{kind.slug}/"), "device_id", output_field=models.CharField())
        )
        visible |= Q((f"{column}__in", keys.order_by().values("_key")))
    return queryset.filter(visible)


@dataclass(frozen=True)
class Reach:
    """The rows that a user may see, as plain values, for rows that are not in the database any more or not yet sent."""

    kinds: frozenset[str]
    sites: frozenset[str] | None
    everything: bool

    def sees(self, slug: str, site: str) -> bool:
        """Return whether the user sees a row of a device of the kind *slug* at *site*; "" if it is of no device."""
        if self.everything:
            return True
        return slug in self.kinds and (self.sites is None or site in self.sites)


def reach(user: Any) -> Reach:
    """Return the reach of *user*, by the same rules as rows()."""
    kinds = frozenset(kind.slug for kind in kinds_of(user))
    return Reach(kinds, sites_of(user), sees_everything(user))


def with_records(keys: Collection[str]) -> set[str]:
    """Return those of *keys* that have records, also of an earlier device with the same id.

    A person with a limit may not add a device under such an id: its records may be those of another site.
    """
    return {
        key
        for model, column in KEPT
        for key in model._base_manager.filter((f"{column}__in", keys))
        .values_list(column, flat=True)
        .distinct()
    }


def check_site(user: Any, site: str) -> None:
    """Raise PermissionDenied if *user* may not put a device at *site*."""
    sites = sites_of(user)
    if sites is not None and site not in sites:
        raise PermissionDenied(f"{site or 'No site'} is not one of your sites.")


def check_unlimited(user: Any) -> None:
    """Raise PermissionDenied if *user* is limited to sites, for changes that reach other sites too."""
    if is_limited(user):
        raise PermissionDenied("You are limited to sites, and this would reach others too.")
