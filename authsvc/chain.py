"""All configured directories as one."""

from __future__ import annotations

import functools

from django.utils.module_loading import import_string

from authsvc import caches
from authsvc.conf import settings
from authsvc.core.access import AmbiguousIdentity, Directory, Principal
from authsvc.sources import Source


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
            if hasattr(directory, "claimants"):  # a directory that names nobody twice need not say
                claimed |= await directory.claimants(client_id)
        return claimed

    async def identities(self, name: str) -> dict[str, str]:
        """Return the usernames, by key, of all principals that *name* stands for as a key or a client id.

        An identity without credentials has an empty username. This is for people who ask, not for questions.
        """
        found: dict[str, str] = {}
        for directory in self._directories:
            if hasattr(directory, "identities"):
                found |= await directory.identities(name)
        return found

    def sources(self) -> list[Source]:
        """The tables that its directories read."""
        return [source for directory in self._directories for source in getattr(directory, "sources", list)()]

    @property
    def is_watched(self) -> bool:
        """Whether a change in any of its directories is noticed: each of them names its tables."""
        return all(hasattr(directory, "sources") for directory in self._directories)


@functools.cache
def configured() -> Chain:
    """The directories that AUTHSVC_DIRECTORIES names, in its order. What they say is read."""
    return Chain([import_string(path)() for path in settings.directories])


caches.register(configured.cache_clear)
