"""The one name space of devices and accounts: usernames, client ids and device ids."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from django.db import models

from authsvc.core.access import ACCOUNT
from authsvc.directory import claim_of
from authsvc.models import Account, ClientIdTaken
from devicehub.db.prefixes import begins_with
from devicehub.db.statements import query
from devicehub.errors import DevicehubError
from devicehub.kinds.registry import registry
from devicehub.models import NAMES, BaseDevice


class IdentityTaken(DevicehubError, ValueError):
    """A client id or username that the new identity would use already belongs to another one."""


def refuse_taken(names: list[str], *, but: BaseDevice | None = None) -> None:
    """Raise IdentityTaken if one of *names* of a device belongs to another identity, whose session it could take over.

    Usernames and client ids of all accounts and devices, except *but*, are one name space.
    """
    refuse_used(names, but)
    refuse_claimed(names)


def refuse_claimed(names: Collection[str]) -> None:
    """Raise IdentityTaken if one of *names* of a device is a client id of an account. It takes one query."""
    found = Account.objects.filter(~models.Q(client_ids=[]) | models.Q(username__in=names))
    for username, client_ids in found.values_list("username", "client_ids"):
        claim = claim_of(username, client_ids)
        for name in names:
            if name == username or claim.covers(name):
                raise IdentityTaken(f"{name} is a client id of the account {username}; choose another one")


def refuse_claims(entries: Collection[str]) -> None:
    """Raise ClientIdTaken if an entry of *entries*, client ids of an account that may end in `*`, covers a device."""
    for name, key in _claimed(entries, most=1):
        raise ClientIdTaken(f"{key} has the name {name}, which an account cannot have as a client id")


def _claimed(entries: Iterable[str], most: int) -> Iterator[tuple[str, str]]:
    """Yield up to *most* names of devices per entry that covers them, with the device's key; it reads indexes only."""
    for kind in registry:
        for column in NAMES:
            for entry in entries:
                rows = kind.device_model._base_manager.order_by().filter(_covered(column, entry))
                for name, device_id in rows.values_list(column, "device_id")[:most]:
                    yield name, kind.key(device_id)


def _covered(column: str, entry: str) -> models.Q:
    """Return the condition that *column* equals *entry*, or begins with the text before its `*`; case-sensitive."""
    prefix = entry.removesuffix("*")
    return models.Q((column, entry)) if prefix == entry else begins_with(column, prefix)


def refuse_used(names: list[str], but: BaseDevice | None = None) -> None:
    """Raise IdentityTaken if one of *names* is a name of a device other than *but*, or the username of an account.

    It takes one query, in SQL, because every new device waits for it.
    """
    if not names:
        return
    given = ", ".join(["%s"] * len(names))
    arms, values = [], []
    for kind in registry:
        meta = kind.device_model._meta
        for column in NAMES:
            arm = (
                f"SELECT '{kind.slug}', {column}, device_id FROM {meta.db_table} WHERE {column} IN ({given})"
            )
            values += names
            if but is not None and isinstance(but, kind.device_model):
                arm += f" AND {meta.pk.column} <> %s"
                values.append(but.pk)
            arms.append(arm)
    account = f"SELECT '{ACCOUNT}', username, '' FROM {Account._meta.db_table} WHERE username IN ({given})"
    found = query(" UNION ALL ".join([*arms, account]), [*values, *names])
    for slug, name, device_id in found:
        if slug == ACCOUNT:
            raise IdentityTaken(f"The account {name} has that name already; choose another one")
        raise IdentityTaken(f"{slug}/{device_id} has the name {name} already; choose another one")


def owners(names: Collection[str]) -> dict[str, set[str]]:
    """Return the keys of the devices and accounts that have one of *names*, by name. The caller bounds their number.

    It takes one query for each kind and column, so that a batch of new devices is checked together.
    """
    found: dict[str, set[str]] = {}
    for kind in registry:
        for column in NAMES:
            rows = kind.device_model._base_manager.order_by().filter(**{f"{column}__in": names})
            for name, device_id in rows.values_list(column, "device_id"):
                found.setdefault(name, set()).add(kind.key(device_id))
    accounts = Account.objects.filter(~models.Q(client_ids=[]) | models.Q(username__in=names))
    for username, client_ids in accounts.values_list("username", "client_ids"):
        claim = claim_of(username, client_ids)
        for name in names:
            if name == username or claim.covers(name):
                found.setdefault(name, set()).add(claim.key)
    return found


def shared_names(most: int = 100) -> list[tuple[str, list[str]]]:
    """Return the usernames and client ids that name more than one identity, with the keys of these identities.

    At most *most* names of devices and usernames are returned, and *most* per client id of an account.
    """
    arms = [
        f"SELECT {column} AS name, '{kind.slug}/' || device_id AS owner FROM {kind.device_model._meta.db_table}"
        for kind in registry
        for column in NAMES
    ]
    arms.append(f"SELECT username, '{ACCOUNT}/' || username FROM {Account._meta.db_table}")
    pairs = (
        f"SELECT DISTINCT name, owner FROM ({' UNION ALL '.join(arms)}) AS everybody WHERE name IS NOT NULL"
    )
    shared = (
        f"SELECT name FROM ({pairs}) AS named GROUP BY name HAVING COUNT(*) > 1 ORDER BY name LIMIT {most}"
    )
    found: dict[str, list[str]] = {}
    for name, owner in query(f"SELECT name, owner FROM ({pairs}) AS named WHERE name IN ({shared})"):
        found.setdefault(name, []).append(owner)
    for username, client_ids in Account.objects.exclude(client_ids=[]).values_list("username", "client_ids"):
        claim = claim_of(username, client_ids)
        entries = [*claim.exact, *(f"{prefix}*" for prefix in claim.prefixes)]
        for name, key in _claimed(entries, most):
            found.setdefault(name, []).extend((claim.key, key))
    return [(name, sorted(set(owners))) for name, owners in sorted(found.items())]
