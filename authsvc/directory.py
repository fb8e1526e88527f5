"""The chain of configured directories, and the directory of service accounts."""

from __future__ import annotations

import functools
import json
from typing import Any

from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from authsvc import reader
from authsvc.conf import settings
from authsvc.core.access import AmbiguousIdentity, Directory, Principal, Secret
from authsvc.models import Account

SELECT_ACCOUNT = (
    "SELECT password_hash, is_active, is_superuser, client_ids "  # noqa: S608 - names of our own table
    f"FROM {Account._meta.db_table} WHERE username = %s"
)


SELECT_NAME = f"SELECT username FROM {Account._meta.db_table} WHERE username = %s"  # noqa: S608


class AccountDirectory:
    """Service accounts as principals. One indexed read."""

    async def lookup(self, username: str) -> Principal | None:
        rows = await reader.fetch(SELECT_ACCOUNT, [username])
        if not rows:
            return None
        password_hash, active, superuser, client_ids = rows[0]
        exact, prefixes = _client_ids(client_ids)
        return Principal(
            key=f"account/{username}",
            username=username,
            secrets=(Secret(password_hash),) if password_hash else (),
            active=bool(active),
            superuser=bool(superuser),
            client_ids=(username, *exact),
            client_id_prefixes=prefixes,
        )

    async def claimants(self, client_id: str) -> set[str]:
        """By username; the further client ids of an account are what an operator let it share."""
        rows = await reader.fetch(SELECT_NAME, [client_id])
        return {f"account/{username}" for (username,) in rows}


def _client_ids(column: Any) -> tuple[list[str], tuple[str, ...]]:
    """The exact client ids and the prefixes in a JSON column; what is no list of texts names none."""
    found = json.loads(column) if isinstance(column, str) else column
    if isinstance(found, str):  # PostgreSQL gave a JSON text, not a list
        found = []
    texts = [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
    return [t for t in texts if not t.endswith("*")], tuple(t[:-1] for t in texts if t.endswith("*"))


class Chain:
    """All directories as one. A username that two of them know is nobody's."""

    def __init__(self, directories: list[Directory]) -> None:
        self._directories = directories

    async def lookup(self, username: str) -> Principal | None:
        found: Principal | None = None
        for directory in self._directories:
            principal = await directory.lookup(username)
            if principal is not None:
                if found is not None:
                    raise AmbiguousIdentity(username)
                found = principal
        return found

    async def claimants(self, client_id: str) -> set[str]:
        claimed: set[str] = set()
        for directory in self._directories:
            claimed |= await directory.claimants(client_id)
        return claimed


@functools.cache
def configured() -> Chain:
    """The directories that AUTHSVC_DIRECTORIES names, in its order."""
    return Chain([import_string(path)() for path in settings.directories])


def _forget(**_: object) -> None:
    configured.cache_clear()


setting_changed.connect(_forget, dispatch_uid="authsvc.directory.configured")
