"""What a stored time is worth, since clocks jump."""

from __future__ import annotations

from datetime import datetime, timedelta

AHEAD = timedelta(minutes=5)  # by how much the clocks of two machines may differ


def known(moment: datetime | None, now: datetime) -> datetime | None:
    """*moment*; None when it lies more than AHEAD after *now*: a clock was wrong, and nothing is known of it."""
    return None if moment is None or moment > now + AHEAD else moment
