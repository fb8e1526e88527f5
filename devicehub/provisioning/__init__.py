"""Actions on identities: create devices with their credentials, issue new ones, revoke them."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import Any

from django.db import connection, models, transaction
from django.utils import timezone

from authsvc.core import passwords
from authsvc.core.grants import ActionSet
from authsvc.directory import claim_of
from authsvc.models import Account, ClientIdTaken, Grant
from devicehub.kinds import topics
from devicehub.kinds.identifiers import mqtt_username
from devicehub.kinds.registry import Kind, registry
from devicehub.kinds.topics import MessageType
from devicehub.models import NAMES, BaseDevice, digest_api_key
from devicehub.signals import device_provisioned, tell

CLIENT_ID_COLUMNS = NAMES
MIN_CHOSEN = 12  # characters of a password that a person chose
CREDENTIAL_FIELDS = (
    "mqtt_username",
    "mqtt_password_hash",
    "api_key",
    "previous_password_hash",
    "previous_valid_until",
    "password_expires_at",
    "credentials_changed_at",
    "updated_at",
)


class UnknownKind(Exception):
    """There is no device type of that name."""


class UnknownDevice(Exception):
    """There is no device of that id."""


class IdentityTaken(ValueError):
    """A client id or username that the new identity would use already belongs to another one."""


def kind_of(slug: str) -> Kind:
    """The kind called *slug*. Raises UnknownKind, which names those that exist."""
    kind = registry.get(slug)
    if kind is None:
        known = ", ".join(sorted(k.slug for k in registry)) or "none"
        raise UnknownKind(f"There is no device type {slug!r}; known: {known}")
    return kind


@transaction.atomic
def create(kind: Kind, device_id: str, **fields: Any) -> tuple[BaseDevice, dict[str, str]]:
    """A new device and its credentials in clear text, shown this once. Raises InvalidDeviceId, IdentityTaken."""
    device = kind.device_model(device_id=device_id, **fields)
    credentials = device.generate_credentials()
    refuse_taken([n for n in (device.device_id, device.mqtt_username, device.mqtt_client_id) if n])
    device.save(force_insert=True)
    transaction.on_commit(lambda: announce(kind, device))
    return device, credentials


def announce(kind: Kind, device: BaseDevice) -> None:
    tell(device_provisioned, kind.device_type, device=device)


def reissue(device: BaseDevice) -> dict[str, str]:
    """New credentials for *device*, shown this once; the old ones end now."""
    credentials: dict[str, str] = device.generate_credentials()
    device.save(update_fields=CREDENTIAL_FIELDS)
    return credentials


def rotate_password(device: BaseDevice, *, valid_until: datetime | None) -> str:
    """Give *device* a new MQTT password, shown this once; the old one stays valid until *valid_until*.

    None ends it now; authsvc.directory.UNTIL_USED ends it when the new one is first used.
    """
    password = passwords.generate()
    if valid_until is not None and device.password_expires_at is not None:
        valid_until = min(valid_until, device.password_expires_at)  # an overlap revives no expired password
    keeps = valid_until is not None and valid_until > timezone.now() and device.mqtt_password_hash
    device.previous_password_hash = device.mqtt_password_hash if keeps else ""
    device.previous_valid_until = valid_until if keeps else None
    _set_password_hash(device, passwords.hash_generated(password))
    return password


def choose_password(device: BaseDevice, password: str) -> None:
    """Let *device* log in by a password that a person chose (argon2id); the old one ends now. ValueError."""
    stored = _hash_chosen(password)
    device.previous_password_hash, device.previous_valid_until = "", None
    _set_password_hash(device, stored)


def rotate_account(account: Account, *, valid_until: datetime | None) -> str:
    """A new password for *account*, shown this once; the old one as for rotate_password()."""
    if valid_until is not None and account.password_expires_at is not None:
        valid_until = min(valid_until, account.password_expires_at)
    old = account.password_hash if valid_until is not None and valid_until > timezone.now() else ""
    password = account.generate_password()
    account.previous_password_hash = old
    account.previous_valid_until = valid_until if old else None
    account.save()
    return password


def choose_account_password(account: Account, password: str) -> None:
    """The same for a service account."""
    account.set_hash(_hash_chosen(password))
    account.save()


def _hash_chosen(password: str) -> str:
    if len(password) < MIN_CHOSEN:
        raise ValueError(f"A password has at least {MIN_CHOSEN} characters")
    if passwords.too_long(password) or "\x00" in password:
        raise ValueError(f"A password has at most {passwords.MAX_BYTES} bytes and no NUL")
    return passwords.hash_chosen(password)


def rotate_api_key(device: BaseDevice) -> str:
    """Give *device* a new API key, shown this once; the old one ends now, and its tokens with it."""
    key = secrets.token_hex(32)
    device.api_key = digest_api_key(key)
    device.credentials_changed_at = timezone.now()
    device.save(update_fields=CREDENTIAL_FIELDS)
    return key


def revoke(device: BaseDevice) -> None:
    """End password, API key and tokens of *device*: nobody logs in as it until new ones are issued."""
    device.previous_password_hash, device.previous_valid_until = "", None
    device.api_key = None
    _set_password_hash(device, "")


def _set_password_hash(device: BaseDevice, stored: str) -> None:
    device.mqtt_password_hash = stored
    device.password_expires_at = None
    device.credentials_changed_at = timezone.now()
    if device.mqtt_username is None and stored:
        names = device._meta
        device.mqtt_username = mqtt_username(names.app_label, str(names.model_name), device.device_id)
    device.save(update_fields=CREDENTIAL_FIELDS)


def find(kind: Kind, device_id: str) -> BaseDevice:
    """The device. Raises UnknownDevice."""
    device: BaseDevice | None = kind.device_model.objects.filter(device_id=device_id).first()
    if device is None:
        raise UnknownDevice(f"There is no {kind.key(device_id)}")
    return device


def next_ids(kind: Kind, prefix: str, count: int) -> Iterator[str]:
    """*count* ids `{prefix}{number:03d}`, continuing after the highest that exists."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)")
    existing: Iterable[str] = kind.device_model.objects.filter(device_id__startswith=prefix).values_list(
        "device_id", flat=True
    )
    numbers = (int(match[1]) for known in existing if (match := pattern.fullmatch(known)))
    first = max(numbers, default=0) + 1
    return (f"{prefix}{number:03d}" for number in range(first, first + count))


def described(kind: Kind, device: BaseDevice, credentials: dict[str, str]) -> dict[str, Any]:
    """What goes to the person or program that will configure the device."""
    return {
        "device_id": device.device_id,
        **credentials,
        "topics": {t.value: topics.build(kind, device.device_id, t) for t in MessageType},
    }


@transaction.atomic
def create_account(
    name: str,
    *,
    superuser: bool = False,
    ingest: bool = False,
    clear_retained: bool = False,
    client_ids: Iterable[str] = (),
) -> tuple[Account, str]:
    """A service account and its password, shown this once. Raises IdentityTaken, InvalidUsername.

    *ingest* grants what `listen_mqtt` and the sender of commands need and nothing else: receive and
    subscribe to all data, status and reply, publish to all cmd; with *clear_retained* to the others too.
    """
    if Account.objects.filter(username=name).exists():
        raise IdentityTaken(f"There is an account {name} already")
    account = Account(username=name, is_superuser=superuser, client_ids=list(client_ids))
    _refuse_used([name, *(text for text in account.client_ids if not text.endswith("*"))])
    password = account.generate_password()
    account.save(force_insert=True)
    if ingest:
        grant_ingest(account, clear_retained=clear_retained)
    return account, password


def grant_ingest(account: Account, *, clear_retained: bool = False) -> int:
    """Give *account* the grants of ingest for the kinds that exist now; how many were missing.

    *clear_retained* lets it publish to what devices publish to: a broker forgets a retained message by an empty
    one on its topic, and no broker asks about payloads.
    """
    wanted = [
        (actions, text)
        for text in topics.subscriptions()
        for actions in (ActionSet.SUBSCRIBE, ActionSet.RECEIVE)
    ] + [(ActionSet.PUBLISH, text) for text in topics.command_filters()]
    if clear_retained:
        wanted += [(ActionSet.PUBLISH, text) for text in topics.subscriptions()]
    added = 0
    for actions, text in wanted:
        _, made = Grant.objects.get_or_create(
            subject=f"key:{account.key}",
            effect=Grant.Effect.ALLOW,
            actions=actions.value,
            filter=text,
            defaults={"note": "create_account --ingest"},
        )
        added += made
    return added


def refuse_taken(names: list[str], *, but: BaseDevice | None = None) -> None:
    """Raise IdentityTaken when one of *names* of a device is another identity's, or it could take over its session.

    Usernames and client ids of devices (*but* apart) and accounts are one name space.
    """
    _refuse_used(names, but)
    refuse_claimed(names)


def refuse_claimed(names: Collection[str]) -> None:
    """Raise IdentityTaken when one of *names* of a device is a client id of an account. One query."""
    found = Account.objects.filter(~models.Q(client_ids=[]) | models.Q(username__in=names))
    for username, client_ids in found.values_list("username", "client_ids"):
        claim = claim_of(username, client_ids)
        for name in names:
            if name == username or claim.covers(name):
                raise IdentityTaken(f"{name} is a client id of the account {username}; choose another one")


def refuse_claims(entries: Collection[str]) -> None:
    """Raise ClientIdTaken when a client id in *entries*, of an account, names a device; one may end in `*`."""
    for name, key in _claimed(entries, most=1):
        raise ClientIdTaken(f"{key} has the name {name}, which an account cannot have as a client id")


def _claimed(entries: Iterable[str], most: int) -> Iterator[tuple[str, str]]:
    """Yield up to *most* names of devices that each of *entries* covers, with the device's key; by index alone."""
    for kind in registry:
        for column in NAMES:
            for entry in entries:
                rows = kind.device_model._base_manager.order_by().filter(_covered(column, entry))
                for name, device_id in rows.values_list(column, "device_id")[:most]:
                    yield name, kind.key(device_id)


def _covered(column: str, entry: str) -> models.Q:
    """Return the condition that *column* is *entry*, or begins as it does before its `*`; exact in case."""
    prefix = entry.removesuffix("*")
    if prefix == entry:
        return models.Q((column, entry))
    if connection.vendor == "sqlite":  # LIKE would ignore case there, and the index
        return models.Q((f"{column}__gte", prefix), (f"{column}__lt", f"{prefix}{chr(0x10FFFF)}"))
    return models.Q((f"{column}__startswith", prefix))


def _refuse_used(names: list[str], but: BaseDevice | None = None) -> None:
    """Raise IdentityTaken when one of *names* is that of a device, *but* apart, or the username of an account."""
    for kind in registry:
        rows = kind.device_model.objects.all()
        if but is not None and isinstance(but, kind.device_model):
            rows = rows.exclude(pk=but.pk)
        for column in CLIENT_ID_COLUMNS:
            found = rows.filter(**{f"{column}__in": names}).values_list(column, "device_id").first()
            if found is not None:
                raise IdentityTaken(
                    f"{kind.key(found[1])} has the name {found[0]} already; choose another one"
                )
    account = Account.objects.filter(username__in=names).first()
    if account is not None:
        raise IdentityTaken(f"The account {account.username} has that name already; choose another one")


def shared_names(most: int = 100) -> list[tuple[str, list[str]]]:
    """Return usernames and client ids that name more than one identity, with the keys of those.

    At most *most* names of devices and usernames, and *most* that each client id of an account covers.
    """
    arms = [
        f"SELECT {column} AS name, '{kind.slug}/' || device_id AS owner FROM {kind.device_model._meta.db_table}"  # noqa: S608
        for kind in registry
        for column in CLIENT_ID_COLUMNS
    ]
    arms.append(f"SELECT username, 'account/' || username FROM {Account._meta.db_table}")  # noqa: S608
    pairs = (
        f"SELECT DISTINCT name, owner FROM ({' UNION ALL '.join(arms)}) AS everybody WHERE name IS NOT NULL"  # noqa: S608
    )
    shared = (
        f"SELECT name FROM ({pairs}) AS named GROUP BY name HAVING COUNT(*) > 1 ORDER BY name LIMIT {most}"  # noqa: S608
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT name, owner FROM ({pairs}) AS named WHERE name IN ({shared})")  # noqa: S608
        found: dict[str, list[str]] = {}
        for name, owner in cursor.fetchall():
            found.setdefault(name, []).append(owner)
    for username, client_ids in Account.objects.exclude(client_ids=[]).values_list("username", "client_ids"):
        claim = claim_of(username, client_ids)
        entries = [*claim.exact, *(f"{prefix}*" for prefix in claim.prefixes)]
        for name, key in _claimed(entries, most):
            found.setdefault(name, []).extend((claim.key, key))
    return [(name, sorted(set(owners))) for name, owners in sorted(found.items())]
