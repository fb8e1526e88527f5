"""A small fleet at two sites, and people."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User

from devicehub.kinds.registry import Kind, registry
from devicehub.models import SiteScope
from fleet.models import WeatherStationDevice


@pytest.fixture
def kind() -> Kind:
    """Return the kind of weather stations."""
    found = registry.get("weatherstation")
    assert found is not None
    return found


@pytest.fixture
def fleet(db: None) -> list[WeatherStationDevice]:
    """Return twelve stations, of which every third is at the southern site."""
    return [
        WeatherStationDevice.objects.create(device_id=f"F-{n:02d}", site="south" if n % 3 == 0 else "north")
        for n in range(12)
    ]


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Return a function that makes a user with a role, perhaps limited to sites."""

    def make(name: str, role: str | None = None, sites: list[str] | None = None) -> User:
        user = User.objects.create_user(name, is_staff=True)
        if role is not None:
            user.groups.add(Group.objects.get(name=role))
        if sites is not None:
            SiteScope.objects.create(user=user, sites=sites)
        return User.objects.get(pk=user.pk)

    return make
