"""Numbers in forms that make a secret: each works once, so that a reload or a second click makes no second secret."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta
from typing import Any

from django.core import signing
from django.db import IntegrityError, transaction
from django.utils import timezone

from devicehub.errors import DevicehubError
from devicehub.models import UsedForm

VALID = timedelta(hours=12)  # A page may stay open for a working day.
_SALT = "devicehub.nonces"


class FormUsed(DevicehubError):
    """The form was submitted already."""


class FormExpired(DevicehubError):
    """The form is older than VALID, or of another user or page."""


def issue(purpose: str, user: Any) -> str:
    """Return a number for one form of *user* with this *purpose*, such as `rotate:weatherstation/STATION-001`."""
    return signing.dumps([purpose, user.pk, secrets.token_hex(8)], salt=_SALT)


def use(nonce: str, purpose: str, user: Any) -> None:
    """Use up *nonce* in the caller's transaction. Raise FormUsed the second time, FormExpired if it does not fit.

    A transaction that is rolled back gives the number back.
    """
    try:
        found = signing.loads(nonce, salt=_SALT, max_age=VALID)
    except signing.BadSignature as error:  # Also an expired one.
        raise FormExpired("This form has expired. Open the page again.") from error
    if found[:2] != [purpose, user.pk]:
        raise FormExpired("This form belongs to another page. Open the page again.")
    now = timezone.now()
    UsedForm.objects.filter(used_at__lt=now - VALID - timedelta(hours=1)).delete()
    try:
        with transaction.atomic():
            UsedForm.objects.create(digest=hashlib.sha256(nonce.encode()).hexdigest(), used_at=now)
    except IntegrityError:
        raise FormUsed("This form was submitted already. Open the page again to repeat it.") from None
