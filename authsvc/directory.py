"""The directory of service accounts, and the cached view of all directories for one question."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import QuerySet

from authsvc import audit, caches
from authsvc.caches import BoundedCache
from authsvc.chain import Chain, configured
from authsvc.conf import cache_size
from authsvc.core.access import Principal, Secret, account_key
from authsvc.credentials import UNTIL_USED, renew_hash, retire_previous
from authsvc.freshness import reader
from authsvc.freshness.read_cache import ReadCache, Stamp
from authsvc.models import Account
from authsvc.sources import Source

DECIDE = (*Account.password_columns(), "is_active", "is_superuser", "client_ids")
SELECT_ACCOUNT = f"SELECT {', '.join(DECIDE)} FROM {Account._meta.db_table} WHERE username = %s"


def secrets_of(current: str, expires_at: Any, previous: str, previous_until: Any) -> tuple[Secret, ...]:
    """Return the secrets in the four columns of a device or an account, the current one first."""
    expires, until = reader.moment(expires_at), reader.moment(previous_until)
    found = [Secret(current, expires)] if current else []
    if previous and until is not None:
        # An expiry that was set during the overlap ends both passwords.
        found.append(Secret(previous, until if expires is None else min(until, expires)))
    return tuple(found)


def version_of(changed_at: Any) -> int:
    """Return credentials_changed_at as the version in tokens: microseconds since 1970; 0 for never."""
    moment = reader.moment(changed_at)
    return 0 if moment is None else round(moment * 1_000_000)


def retires(previous: str, previous_until: Any) -> bool:
    """Return whether the previous hash is kept only until the current password is used."""
    return bool(previous) and reader.moment(previous_until) == UNTIL_USED.timestamp()


class DerivedPrincipals:
    """Cached principals by username. A principal is built again only if its row changed."""

    def __init__(self, derive: Callable[[str, reader.Row], Principal]) -> None:
        self._derive = derive
        self._cached: BoundedCache[str, tuple[reader.Row, Principal]] = BoundedCache(cache_size)

    def of(self, username: str, row: reader.Row) -> Principal:
        """Return the principal of *username*, whose row is *row*."""
        cached = self._cached.get(username)
        if cached is not None and cached[0] == row:
            return cached[1]
        principal = self._derive(username, row)
        self._cached.put(username, (row, principal))
        return principal

    def clear(self) -> None:
        """Clear the cache."""
        self._cached.clear()


# The account of that username, and all accounts with further client ids, which have their own index.
SELECT_CLAIMS = (
    f"SELECT username, NULL FROM {Account._meta.db_table} WHERE username = %s UNION ALL "
    f"SELECT username, client_ids FROM {Account._meta.db_table} WHERE NOT (client_ids = '[]')"
)


class Claim(NamedTuple):
    """The client ids that an account claims besides its username."""

    key: str
    exact: frozenset[str]
    prefixes: tuple[str, ...]

    def covers(self, client_id: str) -> bool:
        """Return whether this claim contains *client_id*."""
        return client_id in self.exact or client_id.startswith(self.prefixes)


def claim_of(username: str, column: Any) -> Claim:
    """Return the claim in the client ids of an account. A single `*`, which only SQL can store, claims nothing."""
    exact, prefixes = parse_client_ids(column)
    return Claim(account_key(username), frozenset(exact), tuple(filter(None, prefixes)))


class AccountDirectory:
    """Service accounts as principals. A look-up is one indexed query."""

    def __init__(self) -> None:
        self._principals = DerivedPrincipals(self._principal)
        self._claims: tuple[list[reader.Row], list[Claim]] = ([], [])

    def sources(self) -> list[Source]:
        """Return the table of accounts."""
        # Without names: client ids of accounts also decide on devices, so a change of an account clears all caches.
        return [Source(Account._meta.db_table, (), ("username", *DECIDE))]

    async def lookup(self, username: str) -> Principal | None:
        """Return the principal of the account *username*, or None."""
        rows = await reader.fetch(SELECT_ACCOUNT, [username])
        return self._principals.of(username, rows[0]) if rows else None

    def _principal(self, username: str, row: reader.Row) -> Principal:
        current, expires, previous, until, changed, active, superuser, client_ids = row
        exact, prefixes = parse_client_ids(client_ids)
        return Principal(
            key=account_key(username),
            username=username,
            secrets=secrets_of(current, expires, previous, until),
            active=bool(active),
            superuser=bool(superuser),
            client_ids=(username, *exact),
            client_id_prefixes=prefixes,
            version=version_of(changed),
            revoked=not current and changed is not None,
            retires_previous=retires(previous, until),
            keeps_client_ids=True,
            keeper=self,
        )

    async def claimants(self, client_id: str) -> set[str]:
        """Return the keys of accounts with *client_id* as their username or among their further client ids."""
        rows = await reader.fetch(SELECT_CLAIMS, [client_id])
        if rows != self._claims[0]:
            self._claims = rows, [claim_of(*row) for row in rows]
        found = {claim.key for claim in self._claims[1] if claim.covers(client_id)}
        return found | {account_key(username) for username, listed in rows if username == client_id}

    async def identities(self, name: str) -> dict[str, str]:
        """Return the usernames, by key, of accounts whose key, username or further client id is *name*."""
        prefix = account_key("")
        found = await self.claimants(name.removeprefix(prefix))
        keys = found & {name} if name.startswith(prefix) else found
        return {key: key.removeprefix(prefix) for key in keys}

    @transaction.atomic
    def retire_previous(self, key: str, used: str, previous: str) -> None:
        """Delete the hash *previous* of the account *key* if it was kept until the password of *used* is used."""
        if retire_previous(_row(key), used, previous):
            audit.record("overlap_ended", key)

    def renew_hash(self, key: str, stored: str, renewed: str) -> None:
        """Replace the hash *stored* of the account *key* by *renewed*."""
        renew_hash(_row(key), stored, renewed)


def _row(key: str) -> QuerySet[Account]:
    """Return the account whose key is *key*, as a query set."""
    return Account.objects.filter(username=key.removeprefix(account_key("")))


def parse_client_ids(column: Any) -> tuple[list[str], tuple[str, ...]]:
    """Return the exact client ids and the prefixes in a JSON column; none if it is not a list of texts."""
    try:
        found = json.loads(column) if isinstance(column, str) else column
    except (ValueError, RecursionError):  # For example an integer of 5,000 digits.
        found = []
    if isinstance(found, str):  # PostgreSQL returned a JSON text, not a list.
        found = []
    texts = [entry for entry in found if isinstance(entry, str)] if isinstance(found, list) else []
    return [t for t in texts if not t.endswith("*")], tuple(t[:-1] for t in texts if t.endswith("*"))


class CachedChain:
    """A chain with caches of its principals, claimants and groups."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.principals = ReadCache(chain.lookup)
        self.claimants = ReadCache(chain.claimants)
        self.groups = ReadCache(self._groups)
        self._same: BoundedCache[tuple[str, ...], frozenset[str]] = BoundedCache(cache_size)

    async def _groups(self, key: str) -> frozenset[str]:
        """Return the groups of *key*. Equal groups are the same object, so that answers that follow stay cached."""
        found = await self.chain.groups(key)
        names = tuple(sorted(found))
        same = self._same.get(names)
        if same is None:
            self._same.put(names, same := found)
        return same


class View:
    """All directories for one question: a principal comes from the cache while the cache is valid.

    For a login the cache is used only if *recognised* says that this password was right before. A refusal is always
    based on a database read, so an existing username takes as long as an unknown one.
    """

    __slots__ = ("_cache", "_recognised", "_stamp")

    def __init__(self, stamp: Stamp | None, recognised: Callable[[Principal], bool] | None = None) -> None:
        self._cache = cached_chain()
        self._stamp = stamp
        self._recognised = recognised

    async def lookup(self, username: str) -> Principal | None:
        """Return the principal of *username*, or None. Raise AmbiguousIdentity for two."""
        cache = self._cache
        if cache is None:
            return await configured().lookup(username)
        principal = cache.principals.peek(username, self._stamp)
        if principal is not None and (self._recognised is None or self._recognised(principal)):
            return principal
        return await cache.principals.read(username, self._stamp)

    async def claimants(self, client_id: str) -> set[str]:
        """Return the keys of all principals that claim *client_id*."""
        if self._cache is None:
            return await configured().claimants(client_id)
        return await self._cache.claimants.get(client_id, self._stamp) or set()

    async def groups(self, key: str) -> frozenset[str]:
        """Return the names of the groups of the principal *key*."""
        if self._cache is None:
            return await configured().groups(key)
        found = await self._cache.groups.get(key, self._stamp)
        return frozenset() if found is None else found


@functools.cache
def cached_chain() -> CachedChain | None:
    """Return the configured directories with caches; None if changes of one of them are not noticed."""
    return CachedChain(configured()) if configured().is_watched else None


caches.register(cached_chain.cache_clear)
