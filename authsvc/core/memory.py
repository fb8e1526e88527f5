"""A directory in memory: for tests, for small fixed fleets, and as the shortest example of a directory."""

from __future__ import annotations

from collections.abc import Iterable

from authsvc.core.access import AmbiguousIdentity, Principal


class MemoryDirectory:
    """Principals by username, as they were given."""

    def __init__(self, principals: Iterable[Principal] = ()) -> None:
        self._by_username: dict[str, list[Principal]] = {}
        for principal in principals:
            self._by_username.setdefault(principal.username, []).append(principal)

    async def lookup(self, username: str) -> Principal | None:
        found = self._by_username.get(username, [])
        if len(found) > 1:
            raise AmbiguousIdentity(username)
        return found[0] if found else None

    async def claimants(self, client_id: str) -> set[str]:
        return {
            principal.key
            for principals in self._by_username.values()
            for principal in principals
            if client_id in (principal.client_ids or ())
        }
