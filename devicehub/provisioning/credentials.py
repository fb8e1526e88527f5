"""Rotate, choose and revoke the credentials of devices."""

from __future__ import annotations

import secrets
from datetime import datetime

from django.utils import timezone

from authsvc.core import passwords
from devicehub.kinds.identifiers import mqtt_username
from devicehub.models import BaseDevice, digest_api_key

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
    stored = hash_chosen(password)
    device.previous_password_hash, device.previous_valid_until = "", None
    _set_password_hash(device, stored)


def hash_chosen(password: str) -> str:
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
