"""Durations on a command line."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import timedelta

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
