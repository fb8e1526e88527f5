"""The cores on which processes run. Linux only, and with two cores at least; elsewhere the scheduler decides.

Waking a process on another core costs more than a whole answer (70 us between the virtual cores of one machine,
and 35 us for the bare application), and the scheduler places processes differently from run to run.
So with one connection, where server and client take turns, all processes share a core; with more connections the
worker has a core of its own, and client and database share the other.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def is_fixed() -> bool:
    """Return whether processes are placed on cores here."""
    return sys.platform == "linux" and len(os.sched_getaffinity(0)) > 1


def describe() -> str:
    """Return a sentence of a report about the placement."""
    if not is_fixed():
        return "the scheduler placed all processes"
    return "1 connection: all on one core; more: the worker on a core of its own"


def cores(*, together: bool) -> tuple[set[int], set[int]]:
    """Return the cores of the workers, and those of all other processes."""
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return {first}, {first} if together else {second}


def place(workers: set[int], *, together: bool) -> None:
    """Place *workers* and all other processes that this one started on their cores."""
    if not is_fixed():
        return
    theirs, others = cores(together=together)
    for pid in children(os.getpid(), recursive=True):
        for thread in _listed(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError):  # it ended meanwhile
                os.sched_setaffinity(thread, theirs if pid in workers else others)


def beside(*, together: bool) -> list[str]:
    """Return the beginning of a command that runs on the cores of the other processes."""
    if not is_fixed():
        return []
    _, others = cores(together=together)
    return ["taskset", "--cpu-list", ",".join(map(str, others))]


def children(pid: int, *, recursive: bool = False) -> Iterator[int]:
    """Yield the processes that *pid* started; none without /proc."""
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
