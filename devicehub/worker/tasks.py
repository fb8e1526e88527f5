"""The list of an ingest worker's periodic tasks. Other apps add to it in their `AppConfig.ready()`.

    tasks.register("webhooks", 1.0, deliver)

Each worker runs every task, in a thread and a database connection of its own (`worker/periodic.py`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from django.db import connection

from devicehub import commands, provisioning, removal
from devicehub.bulk import imports
from devicehub.db.batches import Pace
from devicehub.errors import DevicehubError
from devicehub.history import rollups
from devicehub.ingest.presence import Transition
from devicehub.removal import disabled
from devicehub.retention import partitions
from devicehub.worker import silence, wal_checkpoints
from devicehub.worker.peers import Peers
from devicehub.worker.silence import SilenceWatch
from devicehub.worker.wal_checkpoints import WalCheckpoints

# Seconds between two runs of a task.
SEND_EVERY = 1.0
ROLL_UP_EVERY = 60.0
REMOVE_EVERY = 15.0
EXTEND_EVERY = 3600.0
DELETE_EVERY = 3600.0
FOLLOW_EVERY = 60.0

Needed = TypeVar("Needed")


class DuplicateTask(DevicehubError):
    """Two tasks have one name."""


@dataclass(frozen=True)
class Context:
    """The parts of a worker that its tasks may use.

    *heard_since* and *heard_until* are those of `loop.Worker`; *stored* returns the number of processed messages.
    *notify* notifies hooks and receivers of transitions. *stopped* is set when the worker ends.
    """

    heard_since: Callable[[], float | None]
    heard_until: Callable[[], float]
    stored: Callable[[], int]
    peers: Peers
    notify: Callable[[Sequence[Transition]], None]
    stopped: threading.Event


@dataclass(frozen=True)
class Task:
    """A function *run* that is called at the start of a worker and then *seconds* after its last call ended.

    *bind* returns it for the worker of a context, or None if that worker does not need the task.
    """

    name: str
    seconds: float
    run: Callable[..., object]
    bind: Callable[[Context], Callable[[], object] | None]


_tasks: dict[str, Task] = {}


@overload
def register(name: str, seconds: float, run: Callable[[], object]) -> None: ...
@overload
def register(
    name: str,
    seconds: float,
    run: Callable[[Needed], object],
    needs: Callable[[Context], Needed | None],
) -> None: ...
def register(
    name: str,
    seconds: float,
    run: Callable[..., object],
    needs: Callable[[Context], Any] | None = None,
) -> None:
    """Have each worker that starts from now on call *run* every *seconds*.

    Raise DuplicateTask if another function has this name; the same one may come again, as when Django readies its
    apps anew.
    *needs* is called once for each worker, before the start, and *run* then gets its result; a worker for which it
    returns None leaves the task out. A long task takes `needs=pace`. If *run* raises an error, this is logged as
    `worker.task_failed`, and *run* is called again when it is due.
    """
    if name in _tasks and _tasks[name].run is not run:
        raise DuplicateTask(f"Two tasks of the worker are called {name!r}")

    def bind(context: Context) -> Callable[[], object] | None:
        if needs is None:
            return run
        needed = needs(context)
        return None if needed is None else lambda: run(needed)

    _tasks[name] = Task(name, seconds, run, bind)


def registered() -> Iterator[Task]:
    """Yield the tasks in the order of their registration."""
    yield from tuple(_tasks.values())


def pace(context: Context) -> Pace:
    """Return a pace that stops with the worker, for `needs`. A task that ends with Stopped has not failed."""
    return Pace(stop=context.stopped)


def _silence(context: Context) -> SilenceWatch:
    return SilenceWatch(
        context.heard_since,
        heard_until=context.heard_until,
        peers=context.peers,
        notify=context.notify,
        stopping=context.stopped.is_set,
    )


def _checkpoints(context: Context) -> WalCheckpoints | None:
    return WalCheckpoints(context.stored) if connection.vendor == "sqlite" else None


def _roll_up(pace: Pace) -> None:
    while rollups.roll_up(pace=pace):
        pass  # A fast fleet sends more rows in a minute than one call rolls up.


register("silence", silence.EVERY, SilenceWatch.run, needs=_silence)
register("commands", SEND_EVERY, commands.send_due)
register("rollups", ROLL_UP_EVERY, _roll_up, needs=pace)
register("retained", REMOVE_EVERY, disabled.clear)
register("removal", REMOVE_EVERY, removal.work_off, needs=pace)
register("partitions", EXTEND_EVERY, partitions.extend_all, needs=pace)
register("groups", FOLLOW_EVERY, provisioning.follow_all)
register("imports", DELETE_EVERY, imports.delete_old)
register("wal_checkpoints", wal_checkpoints.EVERY, WalCheckpoints.run, needs=_checkpoints)
