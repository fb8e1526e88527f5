"""Durations on a command line, and times in words."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import datetime, timedelta

STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"))
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta:
    """Return the duration in *text*. Raise ArgumentTypeError, whose text argparse prints.

    >>> duration("90s"), duration("24h")
    (datetime.timedelta(seconds=90), datetime.timedelta(days=1))
    """
    match = re.fullmatch(r"([0-9]{1,7})([smhd])", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is not a duration; write 90s, 15m, 24h or 7d")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def ago(moment: datetime | None, now: datetime) -> str:
    """Return in words how long *moment* is before *now*. ago() in time.js uses the same words."""
    if moment is None:
        return "never"
    seconds = int((now - moment).total_seconds())
    if seconds < 2:
        return "just now"
    for size, name in STEPS:
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return f"{seconds} s ago"
