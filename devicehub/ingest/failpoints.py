"""The stages of a batch, by name, at which a test may kill the worker.

`DEVICEHUB_FAILPOINT=committed:3` sends SIGKILL to the process when it reaches that stage for the third time; the
process can neither catch it nor flush anything. Without the setting reach() does nothing.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable

STAGES = ("received", "judged", "written", "committed", "acknowledged", "told")


def armed(text: str) -> Callable[[str], None]:
    """Return the function reach() for *text*: a stage, and the number of times it must be reached. Raise ValueError."""
    if not text:
        return lambda stage: None
    fatal, _, times = text.partition(":")
    if fatal not in STAGES or not (times or "1").isdecimal():
        raise ValueError(f"DEVICEHUB_FAILPOINT={text}: write one of {', '.join(STAGES)}, with or without :3")
    passed, last = itertools.count(1), int(times or 1)

    def reach(stage: str) -> None:
        if stage == fatal and next(passed) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return reach


reach = armed(os.environ.get("DEVICEHUB_FAILPOINT", ""))
