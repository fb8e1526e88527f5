"""Programs that call the REST API: with a key of a person, a key of a device, a session, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import Group, User
from django.test import Client

from devicehub import api_keys, roles
from devicehub.models import SiteScope

PROBLEM = "application/problem+json"


class Program:
    """A caller of the API. Each method returns the response; `.json()` has its content."""

    def __init__(self, key: str = "", user: Any = None) -> None:
        self._headers = {"Authorization": f"Api-Key {key}"} if key else {}
        self.client = Client()
        if user is not None and not key:
            self.client.force_login(user)

    def get(self, path: str, /, **params: Any) -> Any:
        """Return the response to a GET with *params* as the query."""
        return self.client.get(path, params, headers=self._headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        """Return the response to a POST of *body* as JSON; `Idempotency_Key=` is a header."""
        return self._send("post", path, body, headers)

    def patch(self, path: str, body: Any, **headers: str) -> Any:
        """Return the response to a PATCH."""
        return self._send("patch", path, body, headers)

    def delete(self, path: str, **headers: str) -> Any:
        """Return the response to a DELETE."""
        return self._send("delete", path, None, headers)

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return getattr(self.client, method)(
            path, body, content_type="application/json", headers={**self._headers, **named}
        )


def person(name: str, role: str = roles.ADMINISTRATOR, sites: Sequence[str] | None = None) -> User:
    """Return a new user with *role*, limited to *sites* unless they are None."""
    user = User.objects.create(username=name)
    if role:
        user.groups.add(Group.objects.get(name=role))
    if sites is not None:
        SiteScope.objects.create(user=user, sites=list(sites))
    return user


def program(
    user: User, scopes: Sequence[str] = tuple(api_keys.SCOPES), *, site: str = "", name: str = "program"
) -> Program:
    """Return a program with a new key of *user*."""
    return Program(api_keys.create(user, name, scopes, site=site).secret)
