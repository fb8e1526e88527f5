"""A small fleet at two sites, and people with roles and sites."""

from __future__ import annotations

from django.contrib.auth.models import Group, User

from devicehub.models import BaseDevice, SiteScope
from fleet.models import WeatherStationDevice


def two_sites(count: int = 12) -> list[BaseDevice]:
    """Return *count* stations F-00, F-01, ..., of which every third is at the southern site."""
    return [
        WeatherStationDevice.objects.create(device_id=f"F-{n:02d}", site="south" if n % 3 == 0 else "north")
        for n in range(count)
    ]


def person(name: str, role: str | None = None, sites: list[str] | None = None) -> User:
    """Return a member of the staff with *role*, perhaps limited to *sites*."""
    user = User.objects.create_user(name, is_staff=True)
    if role is not None:
        user.groups.add(Group.objects.get(name=role))
    if sites is not None:
        SiteScope.objects.create(user=user, sites=sites)
    return User.objects.get(pk=user.pk)
