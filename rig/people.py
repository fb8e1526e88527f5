"""People who sign in: with a role, and limited to sites."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import Group, User

from devicehub import roles
from devicehub.models import SiteScope


def person(
    name: str, role: str | None = roles.VIEWER, sites: Sequence[str] | None = None, **fields: Any
) -> User:
    """Return a new user with *role*, limited to *sites* unless None. *fields* are those of create_user()."""
    user = User.objects.create_user(name, **fields)
    if role is not None:
        user.groups.add(Group.objects.get(name=role))
    if sites is not None:
        SiteScope.objects.create(user=user, sites=list(sites))
    return User.objects.get(pk=user.pk)
