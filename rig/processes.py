"""The processor time of processes that a test started: a test without the mark `servers` may start short ones only."""

from __future__ import annotations

import resource

# Seconds: git and a shell take less, a start of Django more, also on a busy machine.
SHORT = 0.5


def of_ended() -> float:
    """Return the processor time in seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def too_long(before: float) -> str:
    """Return why processes that ended since of_ended() was *before* need the mark `servers`, or ""."""
    seconds = of_ended() - before
    if seconds <= SHORT:
        return ""
    return f"its processes took {seconds:.1f} s of processor time: it needs the mark `servers`"
