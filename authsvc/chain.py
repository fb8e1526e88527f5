"""All configured directories as one."""

from __future__ import annotations

import functools

from django.utils.module_loading import import_string

from authsvc import caches
from authsvc.conf import settings
from authsvc.core.access import AmbiguousIdentity, Directory, Principal
from authsvc.sources import Source


class Chain:
    """All directories as one. A username in two of them is ambiguous, and is refused."""

    def __init__(self, directories: list[Directory]) -> None:
        self._directories = directories

    async def lookup(self, username: str) -> Principal | None:
        """Return the principal of *username*, or None. Raise AmbiguousIdentity for two."""
        found: Principal | None = None
        for directory in self._directories:
            principal = await directory.lookup(username)
            if principal is not None:
                if found is not None:
                    raise AmbiguousIdentity(username)
                found = principal
        return found

    async def claimants(self, client_id: str) -> set[str]:
        """Return the keys of all principals that claim *client_id*."""
        claimed: set[str] = set()
        for directory in self._directories:
            # A directory without client ids shared by two need not have it.
            if hasattr(directory, "claimants"):
                claimed |= await directory.claimants(client_id)
        return claimed

    async def groups(self, key: str) -> frozenset[str]:
        """Return the names of the groups of the principal *key*, in all directories that have groups."""
        found: frozenset[str] = frozenset()
        for directory in self._directories:
            if hasattr(directory, "groups"):
                found |= await directory.groups(key)
        return found

    async def identities(self, name: str) -> dict[str, str]:
        """Return the usernames, by key, of all principals whose key or client id is *name*.

        An identity without credentials has an empty username. This is for operators, not for questions.
        """
        found: dict[str, str] = {}
        for directory in self._directories:
            if hasattr(directory, "identities"):
                found |= await directory.identities(name)
        return found

    def sources(self) -> list[Source]:
        """Return the tables that the directories read."""
        return [source for directory in self._directories for source in getattr(directory, "sources", list)()]

    @property
    def is_watched(self) -> bool:
        """Whether changes in all directories are noticed, because each of them names its tables."""
        return all(hasattr(directory, "sources") for directory in self._directories)


@functools.cache
def configured() -> Chain:
    """Return the directories of AUTHSVC_DIRECTORIES, in its order. They read the database at each call."""
    return Chain([import_string(path)() for path in settings.directories])


caches.register(configured.cache_clear)
