"""Which core runs what. Linux only, and with two cores at least; elsewhere the scheduler decides.

To wake a process on another core costs more than a whole answer (70 us between the virtual cores of one machine
we measured on, against 35 us for the bare application), and the scheduler changes its mind from run to run.
So with one connection, where server and client take turns, everything shares a core and nothing is woken across;
with more the worker has a core of its own, and client and database the other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def is_fixed() -> bool:
    """Whether we say which core runs what."""
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


def describe() -> str:
    """The same in the words of a report."""
    if not is_fixed():
        return "the scheduler placed all processes"
    return "1 connection: all on one core; more: the worker on a core of its own"


def cores(*, together: bool) -> tuple[set[int], set[int]]:
    """The cores of the workers, and of everything else."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return {first}, {first} if together else {second}


def place(workers: set[int], *, together: bool) -> None:
    """Put the processes *workers*, and all others that this one started, on their cores."""
    if not is_fixed():
        return
    theirs, others = cores(together=together)
    for pid in children(os.getpid(), recursive=True):
        for thread in _listed(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(thread, theirs if pid in workers else others)


def beside(*, together: bool) -> list[str]:
    """What to put before a command, for it to start on the cores of everything else."""
    if not is_fixed():
        return []
    _, others = cores(together=together)
    return ["taskset", "--cpu-list", ",".join(map(str, others))]


def children(pid: int, *, recursive: bool = False) -> Iterator[int]:
    """The processes that *pid* started; none where there is no /proc."""
    for thread in _listed(f"/proc/{pid}/task"):
        try:
            found = [int(child) for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
        except OSError:
            continue
        for child in found:
            yield child
            if recursive:
                yield from children(child, recursive=True)


def _listed(folder: str) -> list[int]:
    try:
        return [int(name) for name in os.listdir(folder)]
    except OSError:
        return []
