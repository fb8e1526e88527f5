"""The choice of many devices: by type, site and group."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models.functions import Substr

from devicehub.bulk.changes import Devices
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import Kind
from devicehub.models import DeviceGroup, GroupMember


class UnknownGroup(DevicehubError):
    """There is no group with that name."""


def narrow(
    selections: Collection[tuple[Kind, Devices]], *, sites: Collection[str] = (), group: str = ""
) -> list[tuple[Kind, Devices]]:
    """Return *selections* without devices of other sites and groups; an empty choice is all. Raise UnknownGroup."""
    if group and not DeviceGroup.objects.filter(slug=group).exists():
        raise UnknownGroup(f"There is no group {group}")
    found = []
    for kind, devices in selections:
        if sites:
            devices = devices.filter(site__in=sites)
        if group:
            members = GroupMember.objects.filter(group__slug=group, device_key__startswith=f"{kind.slug}/")
            ids = members.annotate(device_id=Substr("device_key", len(kind.slug) + 2)).order_by()
            devices = devices.filter(device_id__in=ids.values("device_id"))
        found.append((kind, devices))
    return found
