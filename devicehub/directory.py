"""Devices as principals for authsvc, read by one statement for all kinds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from authsvc import audit
from authsvc.core.access import AmbiguousIdentity, Principal
from authsvc.credentials import UNTIL_USED, mark_of, renew_hash, retire_previous
from authsvc.directory import DerivedPrincipals, retires, secrets_of, version_of
from authsvc.freshness import reader
from authsvc.sources import Source
from devicehub.conf import settings
from devicehub.kinds import topics
from devicehub.kinds.registry import Kind, UnknownKey, registry
from devicehub.models import NAMES, BaseDevice, DeviceGroup, GroupMember, RotationMember

PASSWORD = BaseDevice.password_columns()
COLUMNS = f"device_id, {', '.join(PASSWORD)}, mqtt_client_id, is_active, api_key IS NULL"
SELECT_GROUPS = (
    f"SELECT slug FROM {DeviceGroup._meta.db_table} AS named JOIN {GroupMember._meta.db_table} AS member "
    "ON member.group_id = named.id WHERE member.device_key = %s"
)
LATE = timedelta(seconds=10)  # The use of a password is noted about a second after it.
DECIDE = (*PASSWORD, "is_active", "api_key")


class DeviceDirectory:
    """The devices of all registered kinds, by mqtt_username. A login needs only the documented columns."""

    def __init__(self) -> None:
        self._version = -1
        self._statement = self._claims = ""
        self._kinds: list[Kind] = []
        self._principals = DerivedPrincipals(self._principal)

    async def lookup(self, username: str) -> Principal | None:
        """Return the device for *username*, or None. Raise AmbiguousIdentity if two devices have the name."""
        statement = self._prepared()
        if not statement:
            return None
        rows = await reader.fetch(statement, [username] * len(self._kinds))
        if not rows:
            return None
        if len(rows) > 1:
            raise AmbiguousIdentity(username)
        return self._principals.of(username, rows[0])

    async def claimants(self, client_id: str) -> set[str]:
        """Return the keys of the devices that *client_id* names in any of the columns NAMES."""
        self._prepared()
        if not self._kinds:
            return set()
        rows = await reader.fetch(self._claims, [client_id] * len(self._kinds) * len(NAMES))
        return {self._kinds[number].key(device_id) for number, device_id in rows}

    async def groups(self, key: str) -> frozenset[str]:
        """Return the names of the groups of the device called *key*."""
        return frozenset(slug for (slug,) in await reader.fetch(SELECT_GROUPS, [key]))

    async def identities(self, name: str) -> dict[str, str]:
        """Return the usernames, by key, of the devices that *name* names: a key, a device id or another client id."""
        try:
            kind, device_id = registry.resolve(name)
            places = [(kind, "device_id", device_id)]
        except UnknownKey:
            places = [(kind, column, name) for kind in registry for column in NAMES]
        found: dict[str, str] = {}
        for kind, column, value in places:
            table = kind.device_model._meta.db_table
            statement = f"SELECT device_id, mqtt_username FROM {table} WHERE {column} = %s"
            for own_id, username in await reader.fetch(statement, [value]):
                found[kind.key(own_id)] = username or ""
        return found

    def sources(self) -> list[Source]:
        """Return the tables of devices and groups, with the columns on which a decision depends."""
        devices = [Source(kind.device_model._meta.db_table, NAMES, DECIDE) for kind in registry]
        members = Source(GroupMember._meta.db_table, ("device_key",), ("group_id",))
        # Another name of a group concerns all its members. It seldom changes, so all caches are cleared.
        return [*devices, members, Source(DeviceGroup._meta.db_table, (), ("slug",))]

    def _prepared(self) -> str:
        """Return the statement for a look-up; make both statements anew when a kind was registered."""
        if self._version != registry.version:
            self._kinds = list(registry)
            self._principals.clear()
            arms = [
                f"SELECT {number}, {COLUMNS} FROM {kind.device_model._meta.db_table} WHERE mqtt_username = %s"
                for number, kind in enumerate(self._kinds)
            ]
            self._statement = " UNION ALL ".join(arms)
            self._claims = " UNION ALL ".join(
                f"SELECT {number}, device_id FROM {kind.device_model._meta.db_table} WHERE {column} = %s"
                for number, kind in enumerate(self._kinds)
                for column in NAMES
            )
            self._version = registry.version
        return self._statement

    def _principal(self, username: str, row: reader.Row) -> Principal:
        number, device_id, current, expires, previous, until, changed, client_id, active, keyless = row
        kind = self._kinds[number]
        names = (username, device_id, client_id) if client_id else (username, device_id)
        return Principal(
            key=kind.key(device_id),
            username=username,
            secrets=secrets_of(current, expires, previous, until),
            active=bool(active),
            client_ids=None if kind.client_id == "any" else names,
            grants=topics.owned(kind, device_id),
            attributes={"type": kind.slug, "device_id": device_id, "prefix": settings.topic_prefix},
            version=version_of(changed),
            revoked=not current and bool(keyless) and changed is not None,
            retires_previous=retires(previous, until),
            keeper=self,
        )

    @transaction.atomic
    def retire_previous(self, key: str, used: str, previous: str) -> None:
        """Note in its rotation that the device *key* used the password of *used*; end *previous* as in Keeper.

        If *used* was replaced since the login, or the rotation was rolled back, the device has no other password:
        *used* is then valid beside the current one. The lock of the device orders this and the acts of rotations.
        A rotation until the first use ends *previous* also if it was valid until its expiry.
        """
        for rows in _rows(key):
            device = rows.select_for_update().first()
            if device is None:
                continue
            members = RotationMember.objects.filter(device_key=key, end="")
            if device.mqtt_password_hash == used:
                own = members.filter(password_mark=mark_of(used))
                own.update(is_used=True)
                if retire_previous(rows, used, previous) or (
                    own.filter(rotation__until=UNTIL_USED).exists() and _end(rows, previous)
                ):
                    audit.record("overlap_ended", key)
            else:
                member = members.filter(password_mark=device.password_mark).first()
                kept = (
                    (member is not None and _put_back(rows, device, member, used, previous))
                    or _keep_replaced(rows, device, members, used, previous)
                    or _keep_rolled_back(rows, device, key, used, previous)
                )
                if kept:
                    expiry = device.password_expires_at
                    audit.record("previous_replaced", key, after={"password_expires_at": expiry})

    def renew_hash(self, key: str, stored: str, renewed: str) -> None:
        """Replace the hash *stored* of the device called *key* by *renewed*."""
        for rows in _rows(key):
            renew_hash(rows, stored, renewed)


def _put_back(
    rows: QuerySet[Any], device: BaseDevice, member: RotationMember, used: str, previous: str
) -> bool:
    """Let *used* take the place of *previous* if *member* issued and replaced it; return whether it did.

    In that place may also stand a password that *member* issued earlier, put back in the same way. The expiry of the
    current password ends both.
    """
    replaced, mark = member.replaced_marks.split(), mark_of(used)
    if mark not in replaced:
        return False
    earlier = replaced[replaced.index(mark) + 1 :]
    if device.previous_password_hash != previous and mark_of(device.previous_password_hash) not in earlier:
        return False
    rows.update(previous_password_hash=used, previous_valid_until=UNTIL_USED)
    RotationMember.objects.filter(pk=member.pk).update(replaced_expiry=None)
    return True


def _end(rows: QuerySet[Any], previous: str) -> int:
    ended = rows.filter(previous_password_hash=previous).exclude(previous_password_hash="")
    return int(ended.update(previous_password_hash="", previous_valid_until=None))


def _keep_replaced(
    rows: QuerySet[Any], device: BaseDevice, members: QuerySet[RotationMember], used: str, previous: str
) -> bool:
    """Let *used* take the place of *previous* if one of *members* issued it, and another change took it for unused.

    Return whether it did. As after a roll-back, a use that is noted later than LATE does not count.
    """
    if not previous or device.previous_password_hash != previous or not _is_recent(device):
        return False
    if not members.filter(password_mark=mark_of(used)).exists():
        return False
    rows.update(previous_password_hash=used)
    return True


def _is_recent(device: BaseDevice) -> bool:
    changed = device.credentials_changed_at
    return changed is not None and timezone.now() - changed <= LATE


def _keep_rolled_back(rows: QuerySet[Any], device: BaseDevice, key: str, used: str, previous: str) -> bool:
    """Let *used* stay valid if a roll-back to *previous* ended it before its use was noted; return whether it did.

    A use that is noted later than LATE does not count: a process without the database may accept a password that
    ended long before.
    """
    if device.mqtt_password_hash != previous or device.previous_password_hash or not _is_recent(device):
        return False
    rolled_back = RotationMember.objects.filter(device_key=key, end=RotationMember.End.ROLLED_BACK)
    member = rolled_back.order_by("-changed_at").first()
    if member is None or mark_of(used) not in (member.password_mark, *member.replaced_marks.split()):
        return False
    rows.update(previous_password_hash=used, previous_valid_until=UNTIL_USED)
    return True


def _rows(key: str) -> list[QuerySet[Any]]:
    """Return the row of the device called *key*, as a query set in a list; an empty list without its kind."""
    try:
        kind, device_id = registry.resolve(key)
    except UnknownKey:
        return []
    return [kind.device_model.objects.filter(device_id=device_id)]
