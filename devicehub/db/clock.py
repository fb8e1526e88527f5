"""What a stored time is worth, since clocks jump."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.db import connection
from django.utils import timezone

from devicehub.db.statements import query_value

log = structlog.get_logger(__name__)

AHEAD = timedelta(minutes=5)  # by how much the clocks of two machines may differ


def plausible(moment: datetime | None, now: datetime) -> datetime | None:
    """*moment*; None when it lies more than AHEAD after *now*: a clock was wrong, and nothing is known of it."""
    return None if moment is None or moment > now + AHEAD else moment


def is_right() -> bool:
    """Whether the clock here is that of the database, about; logged where it is not. Raises DatabaseError."""
    if connection.vendor == "sqlite":
        return True
    ahead: timedelta = timezone.now() - query_value("SELECT clock_timestamp()")
    if abs(ahead) > AHEAD:
        log.error("clock.is_wrong", seconds=round(ahead.total_seconds()))
    return abs(ahead) <= AHEAD
