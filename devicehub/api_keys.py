"""The keys of programs: make one, find the row of one, delete it.

A key begins with `dh_` and ends with a checksum, so that scanners for leaked secrets can recognise it without a
request. The keys of devices are of another form, and have no row here.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import MAXYEAR, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from authsvc import audit
from devicehub import visibility
from devicehub.errors import DevicehubError
from devicehub.models import ApiKey

START = "dh_"
ALPHABET = string.ascii_letters + string.digits
RANDOM = 43  # characters of 62, which are 256 bits
CHECKSUM = 6
LENGTH = len(START) + RANDOM + CHECKSUM
SHOWN = 9  # characters of a key by which people recognise it
MOST = 100  # keys of one user
NOTED = timedelta(minutes=1)  # The last use is noted this often.

SCOPES: Mapping[str, str] = {
    "devices:read": "See types, devices, commands and LwM2M endpoints",
    "devices:write": "Add, change and remove devices, and replay the quarantine",
    "credentials:write": "Rotate and revoke the credentials of devices",
    "commands:write": "Send and cancel commands",
    "telemetry:read": "Read values, messages, the quarantine and events",
    "access:read": "See grants, accounts, brokers, denials and the audit, and explain decisions",
    "access:write": "Change grants, accounts, brokers and API keys",
}


class InvalidKey(DevicehubError, ValueError):
    """A key cannot be made as requested; *field* is the value at fault."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True, repr=False)
class MadeKey:
    """A new key: its row, and the key in clear text, which is shown once."""

    row: ApiKey
    secret: str


def checksum(text: str) -> str:
    """Return the last characters of a key that begins with *text*."""
    number, found = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM):
        number, digit = divmod(number, len(ALPHABET))
        found = ALPHABET[digit] + found
    return found


def is_key(text: str) -> bool:
    """Return whether *text* has the form of a key, without a look at the database."""
    if len(text) != LENGTH or not text.startswith(START) or not text.isascii():
        return False
    return checksum(text[:-CHECKSUM]) == text[-CHECKSUM:]


def digest(secret: str) -> str:
    """Return the digest under which a key is stored and looked up."""
    return hashlib.sha256(secret.encode()).hexdigest()


@transaction.atomic
def create(
    owner: Any, name: str, scopes: Collection[str], *, site: str = "", expires_at: datetime | None = None
) -> MadeKey:
    """Make a key with which a program acts as *owner*. Raise InvalidKey, PermissionDenied for a site of others."""
    if not name.strip() or len(name) > 100:
        raise InvalidKey("name", "Give the key a name of 1-100 characters.")
    chosen = [scope for scope in SCOPES if scope in scopes]
    if not chosen or len(chosen) != len(set(scopes)):
        raise InvalidKey("scopes", f"Choose one or more of {', '.join(SCOPES)}.")
    if expires_at is not None and expires_at <= timezone.now():
        raise InvalidKey("expires_at", "Choose a time in the future.")
    if expires_at is not None and expires_at.year >= MAXYEAR:  # Not every time zone has all of it.
        raise InvalidKey("expires_at", f"Choose a time before the year {MAXYEAR}.")
    if site:
        visibility.check_site(owner, site)
    if ApiKey.objects.filter(owner=owner).count() >= MOST:
        raise InvalidKey("name", f"A user has at most {MOST} keys; delete one first.")
    start = START + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    secret = start + checksum(start)
    row = ApiKey.objects.create(
        name=name.strip(),
        owner=owner,
        scopes=chosen,
        site=site,
        start=secret[:SHOWN],
        digest=digest(secret),
        expires_at=expires_at,
    )
    audit.record("program_key_created", row.key, after=_described(row))
    return MadeKey(row, secret)


@transaction.atomic
def delete(row: ApiKey) -> None:
    """Delete *row*, whose key is refused from now on; do nothing if it is gone already."""
    stored = ApiKey.objects.select_for_update().filter(pk=row.pk).first()
    if stored is None:
        return
    audit.record("program_key_deleted", stored.key, before=_described(stored))
    stored.delete()


def find(secret: str) -> ApiKey | None:
    """Return the row of a key that may be used now, with its owner; None for any other text."""
    if not is_key(secret):
        return None
    row = ApiKey.objects.select_related("owner").filter(digest=digest(secret)).first()
    if row is None or row.has_expired() or not row.owner.is_active:
        return None
    return row


def note_use(row: ApiKey) -> None:
    """Note that *row* is used now, at most once in NOTED."""
    now = timezone.now()
    if row.last_used_at is None or row.last_used_at <= now - NOTED:
        old = Q(last_used_at=None) | Q(last_used_at__lte=now - NOTED)
        ApiKey.objects.filter(old, pk=row.pk).update(last_used_at=now)


def _described(row: ApiKey) -> dict[str, Any]:
    return {
        "name": row.name,
        "owner": row.owner.get_username(),
        "scopes": row.scopes,
        "site": row.site,
        "expires_at": row.expires_at,
    }
