"""The time for which entries of the audit are kept. It stands in a row of the database, which the triggers read."""

from __future__ import annotations

from argparse import ArgumentTypeError
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from authsvc.audit.entries import record
from authsvc.conf import settings
from authsvc.durations import duration
from authsvc.errors import AuthsvcError
from authsvc.models import AuditRetention

ROW = 1
SHORTEST = timedelta(days=1)  # As the constraint of the table says.


class InvalidRetention(AuthsvcError, ValueError):
    """AUTHSVC_KEEP_AUDIT is not a time, or it is too short."""


def configured() -> timedelta | None:
    """Return AUTHSVC_KEEP_AUDIT; None keeps entries for ever. Raise InvalidRetention."""
    value = settings.keep_audit
    if value in (None, ""):
        return None
    if isinstance(value, str):
        try:
            value = duration(value)
        except ArgumentTypeError as error:
            raise InvalidRetention(str(error)) from error
    if not isinstance(value, timedelta) or value < SHORTEST:
        raise InvalidRetention(f"{value!r} is not a duration of at least a day, such as 730d")
    return value


def apply(using: str = "default") -> None:
    """Write AUTHSVC_KEEP_AUDIT into the row. A change of it is recorded; the first time is noted with it."""
    seconds = _seconds()
    rows = AuditRetention.objects.using(using)
    with transaction.atomic(using):
        row, made = rows.get_or_create(id=ROW, defaults={"keep_seconds": seconds, "since": timezone.now()})
        if made or row.keep_seconds == seconds:
            return
        rows.filter(pk=ROW).update(keep_seconds=seconds)
        record(
            "audit_retention_changed",
            "audit/retention",
            before={"keep_seconds": row.keep_seconds},
            after={"keep_seconds": seconds},
            using=using,
        )


def is_applied() -> bool:
    """Return whether the row holds AUTHSVC_KEEP_AUDIT. Raise InvalidRetention."""
    row = stored()
    return row is not None and row.keep_seconds == _seconds()


def _seconds() -> int | None:
    wanted = configured()
    return None if wanted is None else int(wanted.total_seconds())


def stored() -> AuditRetention | None:
    """Return the row, or None before the first migrate."""
    return AuditRetention.objects.filter(pk=ROW).first()


def expired_before(row: AuditRetention | None) -> datetime | None:
    """Return the time before which entries may be deleted; None if they are kept for ever."""
    if row is None or row.keep_seconds is None:
        return None
    return timezone.now() - timedelta(seconds=row.keep_seconds)
