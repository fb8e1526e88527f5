"""A directory in memory, for tests and small fixed fleets. It is also the shortest example of a directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from authsvc.core.access import AmbiguousIdentity, Principal


class MemoryDirectory:
    """A fixed set of principals, and their groups by key."""

    def __init__(
        self, principals: Iterable[Principal] = (), groups: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self._groups = {key: frozenset(names) for key, names in (groups or {}).items()}
        self._by_username: dict[str, list[Principal]] = {}
        for principal in principals:
            self._by_username.setdefault(principal.username, []).append(principal)

    async def lookup(self, username: str) -> Principal | None:
        """Return the principal of *username*, or None. Raise AmbiguousIdentity for two."""
        found = self._by_username.get(username, [])
        if len(found) > 1:
            raise AmbiguousIdentity(username)
        return found[0] if found else None

    async def groups(self, key: str) -> frozenset[str]:
        """Return the names of the groups of the principal *key*."""
        return self._groups.get(key, frozenset())

    async def claimants(self, client_id: str) -> set[str]:
        """Return the keys of the principals that list *client_id*; prefixes are not searched."""
        return {
            principal.key
            for principals in self._by_username.values()
            for principal in principals
            if client_id in (principal.client_ids or ())
        }
