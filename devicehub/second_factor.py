"""The second factor of people, by django-otp: codes of an authenticator app (TOTP), and backup codes.

Each user chooses whether to have one. A sign-in of a user with one leaves a session in which a code is due, whatever
page the password was entered on; `devicehub.dashboard.sign_in` asks for it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

import structlog
from django.apps import apps
from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.http import HttpRequest

from authsvc import audit
from devicehub import sessions

BACKUP_CODES = 8
COST = {"n": 2**13, "r": 8, "p": 1}  # Of the digest of a backup code: about 20 ms.
APPS = ("django_otp", "django_otp.plugins.otp_totp", "django_otp.plugins.otp_static")
MIDDLEWARE = "devicehub.dashboard.sign_in.Sessions"
log = structlog.get_logger(__name__)


def watch() -> None:
    """Make a code due at each sign-in of a user with a second factor. Called after sessions.watch()."""
    user_logged_in.connect(_require, dispatch_uid="devicehub.second_factor")


def is_installed() -> bool:
    """Return whether the project has the apps of django-otp, and the middleware that asks for the codes."""
    return MIDDLEWARE in settings.MIDDLEWARE and all(apps.is_installed(name) for name in APPS)


def is_on(user: Any) -> bool:
    """Return whether *user* has a second factor."""
    return is_installed() and _totp(user).filter(confirmed=True).exists()


def backup_codes_left(user: Any) -> int:
    """Return the number of backup codes of *user* that were not used."""
    return int(_tokens().objects.filter(device__user=user, device__confirmed=True).count())


@transaction.atomic
def prepare(user: Any) -> Any:
    """Make a new key for *user*, which counts once a code was entered, and return its device. It replaces others."""
    _totp(user).filter(confirmed=False).delete()
    return _totp(user).create(user=user, name="Authenticator app", confirmed=False)


@transaction.atomic
def confirm(user: Any, code: str) -> list[str] | None:
    """Turn the prepared key of *user* on if *code* fits it, and return new backup codes; None if it does not fit."""
    device = _totp(user).select_for_update().filter(confirmed=False).first()
    if device is None or not _fits(device, code):
        return None
    _totp(user).exclude(pk=device.pk).delete()
    device.confirmed = True
    device.save()
    audit.record("second_factor_added", f"user/{user.get_username()}")
    return _new_backup_codes(user)


@transaction.atomic
def renew_backup_codes(user: Any) -> list[str]:
    """Replace the backup codes of *user*, and return the new ones."""
    audit.record("backup_codes_renewed", f"user/{user.get_username()}")
    return _new_backup_codes(user)


@transaction.atomic
def remove(user: Any) -> bool:
    """Remove the second factor of *user* with its backup codes; return whether there was one.

    Of several removals at once one finds it, and is recorded.
    """
    removed, _ = _totp(user).filter(confirmed=True).delete()
    _totp(user).delete()
    _static().objects.filter(user=user).delete()
    if removed:
        audit.record("second_factor_removed", f"user/{user.get_username()}")
    return bool(removed)


@transaction.atomic
def verify(user: Any, code: str) -> bool:
    """Return whether *code* fits the app of *user* or is an unused backup code, which it uses up.

    After a failure the next tries are refused for a second, then for two, four and so on.
    """
    devices = [*_totp(user).select_for_update().filter(confirmed=True)]
    backups = [*_static().objects.select_for_update().filter(user=user, confirmed=True)]
    if code.replace(" ", "").isdecimal():
        fits = any(_fits(device, code) for device in devices)
    else:
        fits = any(_fits(device, _stored(user, code)) for device in backups)
    if not fits:
        log.warning("second_factor.failed", username=user.get_username())
    return fits


def _require(sender: Any, request: HttpRequest, user: Any, **_: Any) -> None:
    if is_on(user):
        request.session[sessions.CODE_DUE] = True


def _fits(device: Any, code: str) -> bool:
    return bool(device.verify_token(code.replace(" ", "")))


def _stored(user: Any, code: str) -> str:
    """Return the text that the database holds of a backup code: a slow digest of 80 bits, salted by the user."""
    plain, salt = code.replace(" ", "").lower().encode(), f"devicehub.backup.{user.pk}".encode()
    return base64.b32encode(hashlib.scrypt(plain, salt=salt, dklen=10, **COST)).decode()


def _new_backup_codes(user: Any) -> list[str]:
    _static().objects.filter(user=user).delete()
    # The x keeps them apart from codes of the app.
    codes = [f"{secrets.token_hex(5)}x" for _ in range(BACKUP_CODES)]
    device = _static().objects.create(user=user, name="Backup codes", confirmed=True)
    _tokens().objects.bulk_create(_tokens()(device=device, token=_stored(user, code)) for code in codes)
    return codes


def _totp(user: Any) -> Any:
    return apps.get_model("otp_totp", "TOTPDevice").objects.filter(user=user)


def _static() -> Any:
    return apps.get_model("otp_static", "StaticDevice")


def _tokens() -> Any:
    return apps.get_model("otp_static", "StaticToken")
