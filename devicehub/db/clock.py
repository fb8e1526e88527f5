"""Checks of stored times, since clocks jump."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.db import connection
from django.utils import timezone

from devicehub.db.statements import query_value

log = structlog.get_logger(__name__)

AHEAD = timedelta(minutes=5)  # The clocks of two machines may differ by this much.


def plausible(moment: datetime | None, now: datetime) -> datetime | None:
    """Return *moment*, or None if it lies more than AHEAD after *now*: a clock was wrong, so the time means nothing."""
    return None if moment is None or moment > now + AHEAD else moment


def is_right() -> bool:
    """Return whether the clock here agrees with the database's within AHEAD; log it if not. Raise DatabaseError."""
    if connection.vendor == "sqlite":
        return True
    ahead: timedelta = timezone.now() - query_value("SELECT clock_timestamp()")
    if abs(ahead) > AHEAD:
        log.error("clock.is_wrong", seconds=round(ahead.total_seconds()))
    return abs(ahead) <= AHEAD
