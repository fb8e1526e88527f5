"""Rotate, choose and revoke the credentials of devices."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from authsvc import audit
from authsvc.core import passwords
from authsvc.credentials import UNTIL_USED, Credentials, end_of_old
from devicehub.errors import DevicehubError
from devicehub.kinds.identifiers import mqtt_username
from devicehub.kinds.registry import registry
from devicehub.models import BaseDevice, digest_api_key
from devicehub.provisioning import rows

MIN_CHOSEN = 12  # characters; a password that a person chose has at least this many
CREDENTIAL_FIELDS = ("mqtt_username", "api_key", *BaseDevice.password_columns(), "updated_at")
LONGEST_OVERLAP = timedelta(days=366)
OVERLAP_FIELDS = ("previous_password_hash", "previous_valid_until", "updated_at")


class UnusablePassword(DevicehubError, ValueError):
    """A password that a person chose is too short, or of a form with which no client can log in."""


class InvalidOverlap(DevicehubError, ValueError):
    """The old password cannot stay valid until that time."""


def check_end(until: datetime, now: datetime) -> None:
    """Raise InvalidOverlap unless an old password may stay valid until *until*."""
    if until <= now:
        raise InvalidOverlap("This date is over: choose one in the future, or “at once”.")
    if until > now + LONGEST_OVERLAP:
        raise InvalidOverlap("An overlap lasts a year at most.")


def has_credentials(device: BaseDevice) -> bool:
    """Return whether *device* has a password or an API key, of which revoke() would end something."""
    return bool(device.mqtt_password_hash) or device.api_key is not None


@transaction.atomic
def rotate_password(device: BaseDevice, *, valid_until: datetime | None) -> str:
    """Give *device* a new MQTT password and return it, only once; the old one stays valid until *valid_until*.

    None ends the old one now; authsvc.credentials.UNTIL_USED ends it when the new one is first used. A password that
    waits for its first use ends now, and the one before it, which the device has, stays valid in its place.
    """
    password, changed = passwords.generate(), rows.locked(device)
    changed.set_hash(passwords.hash_generated(password), keep_previous_until=valid_until)
    _save(changed, device)
    audit.record("password_rotated", key_of(device), after=overlap(device))
    return password


@transaction.atomic
def choose_password(device: BaseDevice, password: str) -> None:
    """Let *device* log in with a password that a person chose; the old one ends now. Raise UnusablePassword."""
    stored = hash_chosen(password)  # It takes long, so that the row is locked after it.
    changed = rows.locked(device)
    changed.set_hash(stored)
    _save(changed, device)
    audit.record("password_chosen", key_of(device))


def hash_chosen(password: str) -> str:
    """Return the hash (argon2id) of a password that a person chose. Raise UnusablePassword."""
    check_chosen(password)
    return passwords.hash_chosen(password)


def check_chosen(password: str) -> None:
    """Raise UnusablePassword unless a person may choose *password*."""
    if len(password) < MIN_CHOSEN:
        raise UnusablePassword(f"A password must have at least {MIN_CHOSEN} characters")
    if passwords.too_long(password) or "\x00" in password:
        raise UnusablePassword(f"A password must have at most {passwords.MAX_BYTES} bytes and no NUL")


@transaction.atomic
def rotate_api_key(device: BaseDevice) -> str:
    """Give *device* a new API key and return it, only once; the old one and its tokens end now."""
    key, changed = secrets.token_hex(32), rows.locked(device)
    changed.api_key = digest_api_key(key)
    changed.end_tokens()
    rows.save(changed, device, CREDENTIAL_FIELDS)
    audit.record("api_key_rotated", key_of(device))
    return key


@transaction.atomic
def revoke(device: BaseDevice) -> None:
    """End password, API key and tokens of *device*: no login succeeds until new ones are issued."""
    changed = rows.locked(device)
    changed.set_hash("")
    changed.api_key = None
    _save(changed, device)
    audit.record("credentials_revoked", key_of(device))


def key_of(device: BaseDevice) -> str:
    """Return the key of *device*; for a model that is not registered, one of its table."""
    kind = registry.of(device)
    return kind.key(device.device_id) if kind else f"{device._meta.label_lower}/{device.device_id}"


def overlap(row: Credentials) -> dict[str, Any]:
    """Return, for the audit, until when the previous password of *row* stays valid; empty if it has ended."""
    until = row.previous_valid_until
    return (
        {"previous_valid_until": "until the new one is used" if until == UNTIL_USED else until}
        if until
        else {}
    )


@transaction.atomic
def end_overlap(device: BaseDevice) -> None:
    """End the previous password of *device* now. Without one nothing changes."""
    changed = rows.locked(device)
    had_one = bool(changed.previous_password_hash)
    changed.previous_password_hash, changed.previous_valid_until = "", None
    rows.save(changed, device, OVERLAP_FIELDS)
    if had_one:
        audit.record("overlap_ended", key_of(device))


def end_of_previous(device: BaseDevice, *, had: bool, was_unused: bool) -> str:
    """Return the sentence about the end of the password that a rotation replaced.

    *had* says whether there was one, and *was_unused* whether it waited for its first use.
    """
    if not had:
        return "There was no password before."
    return end_of_old(device.previous_valid_until, was_unused=was_unused)


def _save(changed: BaseDevice, device: BaseDevice) -> None:
    """Save the credentials of *changed* as rows.save() does. With a password but no username it gets that of its id."""
    if changed.mqtt_username is None and changed.mqtt_password_hash:
        names = changed._meta
        changed.mqtt_username = mqtt_username(names.app_label, str(names.model_name), changed.device_id)
    rows.save(changed, device, CREDENTIAL_FIELDS)
