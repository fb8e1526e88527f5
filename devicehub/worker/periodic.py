"""The threads that run the tasks of an ingest worker at their intervals, each with its own database connection.

A task that waits, for a broker or a hook, does not delay the others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import structlog
from django.db import InterfaceError, OperationalError, connections

from devicehub.db.batches import Stopped
from devicehub.worker import tasks
from devicehub.worker.tasks import Context

log = structlog.get_logger(__name__)

IDLE = 10.0  # A task with a longer interval closes its database connection between two runs.


@dataclass
class _Repeated:
    """A task and its last failure."""

    name: str
    seconds: float
    run: Callable[[], object]
    trouble: str = ""  # The last failure, if the last run failed.


class PeriodicWork:
    """Periodic tasks that run until stop(). A task that fails runs again when it is due.

    A failure is logged once, and not again while it stays the same: some tasks run every second, and an outage may
    take hours.
    """

    def __init__(self, stopped: threading.Event | None = None) -> None:
        self.stopped = stopped or threading.Event()  # It is set by stop().
        self._threads: list[threading.Thread] = []

    @property
    def stopping(self) -> bool:
        """True once stop() was called: a long task checks this between two steps."""
        return self.stopped.is_set()

    @classmethod
    def of(cls, context: Context) -> Self:
        """Return the registered tasks for the worker of *context*; they are not started."""
        made = cls(context.stopped)
        for task in tasks.registered():
            run = task.bind(context)
            if run is not None:
                made.add(task.name, task.seconds, run)
        return made

    def add(self, name: str, seconds: float, run: Callable[[], object]) -> None:
        """Add a task: *run* is called at the start and then every *seconds*. Call this before start()."""
        task = _Repeated(name, seconds, run)
        self._threads.append(threading.Thread(target=self._repeat, args=(task,), name=name, daemon=True))

    def start(self) -> None:
        """Start the threads of all tasks."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Start no further run, and wait for the running tasks, for *timeout* seconds at most."""
        self.stopped.set()
        end = time.monotonic() + timeout
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _repeat(self, task: _Repeated) -> None:
        try:
            while not self.stopped.is_set():
                self._do(task)
                if task.seconds > IDLE:
                    connections.close_all()  # Those of this thread.
                self.stopped.wait(min(task.seconds, threading.TIMEOUT_MAX))
        finally:
            connections.close_all()

    def _do(self, task: _Repeated) -> None:
        try:
            task.run()
        except Stopped:
            return  # The task was running when stop() was called.
        except BaseException as error:  # A receiver that calls sys.exit() must not end the task for good.
            self._report(task, error)
            connections.close_all()  # The connection may be broken.
        else:
            task.trouble = ""

    def _report(self, task: _Repeated, error: BaseException) -> None:
        trouble = f"{type(error).__name__}: {error}"
        if trouble == task.trouble:
            return
        task.trouble = trouble
        # A traceback does not help if the database is away.
        is_away = isinstance(error, OperationalError | InterfaceError)
        log.error("worker.task_failed", task=task.name, error=trouble, exc_info=not is_away)
